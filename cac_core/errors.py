"""Exceptions of the core. All of them pickle, because they cross process borders.

Three families: `CacError` is shown to the user (what was found, where, which limit it exceeds, what
to do); `StudyError` becomes a row of the scores table; `NotEstimableError` becomes the reason in a
row of the estimates. No message may hold a name, an identifier, a birth date or a path inside an
archive.
"""

from __future__ import annotations

from schemas.codes import StudyReason


class CacError(Exception):
    """A fault that is shown to the user in one line, without a traceback.

    Parameters
    ----------
    what : what was found, and where.
    hint : what to do, one sentence.
    exit_code : exit code of the process: 1 for a fault, 2 for wrong usage.
    """

    def __init__(self, what: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(what, hint, exit_code)
        self.what = what
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


class UsageError(CacError):
    """Wrong arguments or settings: exit code 2."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint, 2)

    def __reduce__(self) -> tuple[type[UsageError], tuple[str, str]]:
        return (type(self), (self.what, self.hint))


class LockedError(CacError):
    """Another run is writing to the warehouse.

    Parameters
    ----------
    file : the file whose lock it holds.
    """

    def __init__(self, what: str, hint: str = "", file: str = "") -> None:
        super().__init__(what, hint, 1)
        self.file = file

    def __reduce__(self) -> tuple[type[LockedError], tuple[str, str, str]]:
        return (type(self), (self.what, self.hint, self.file))


class WeightsError(CacError):
    """Model weights are missing, modified or do not fit the architecture."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint, 1)

    def __reduce__(self) -> tuple[type[WeightsError], tuple[str, str]]:
        return (type(self), (self.what, self.hint))


class TrainingError(CacError):
    """Training stopped early; earlier checkpoints are kept."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint, 1)

    def __reduce__(self) -> tuple[type[TrainingError], tuple[str, str]]:
        return (type(self), (self.what, self.hint))


class TrainingDataError(CacError):
    """A training table, annotation, label mapping or split is invalid; names study and file."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint, 1)

    def __reduce__(self) -> tuple[type[TrainingDataError], tuple[str, str]]:
        return (type(self), (self.what, self.hint))


class NotEstimableError(Exception):
    """A quantity cannot be estimated from the data; the message becomes the reason of its row."""


class StudyError(Exception):
    """A study cannot be scored; becomes a score row with this reason.

    Parameters
    ----------
    reason : code that is written to the row.
    detail : numbers that explain it (never identifiers), at most one line.
    rejected : True where the data are the cause (status `rejected`), False where scoring failed
        and a later attempt may succeed (status `failed`).
    """

    def __init__(self, reason: StudyReason, detail: str = "", *, rejected: bool = True) -> None:
        super().__init__(reason, detail, rejected)
        self.reason = reason
        self.detail = detail
        self.rejected = rejected

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_study_error, (type(self), self.reason, self.detail, self.rejected))


def _rebuild_study_error(
    cls: type[StudyError], reason: StudyReason, detail: str, rejected: bool
) -> StudyError:
    return cls(reason, detail, rejected=rejected)
