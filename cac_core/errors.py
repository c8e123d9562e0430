"""Exceptions of the core. All pickle, because they cross Dask worker processes.

Three families: `CacError` is a fault for the person at the keyboard (what was found, where,
the limit it broke, what to do next); `StudyError` becomes a row of the scores table;
`NotEstimableError` the reason in a row of the estimates.
Neither text may hold a name, an identifier, a birth date or a path inside an archive.
"""

from __future__ import annotations

from schemas.codes import StudyReason


class CacError(Exception):
    """A fault told to the user in one line, without a traceback.

    Parameters
    ----------
    what : what was found and where.
    hint : what to do next, one sentence.
    exit_code : process exit code, 1 for a fault, 2 for wrong usage.
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


class WeightsError(CacError):
    """Model weights are missing, altered or do not fit the architecture."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint, 1)

    def __reduce__(self) -> tuple[type[WeightsError], tuple[str, str]]:
        return (type(self), (self.what, self.hint))


class TrainingError(CacError):
    """Training broke off; what was reached before is kept."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint, 1)

    def __reduce__(self) -> tuple[type[TrainingError], tuple[str, str]]:
        return (type(self), (self.what, self.hint))


class TrainingDataError(CacError):
    """A training table, annotation, label mapping or split is not usable; names study and file."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint, 1)

    def __reduce__(self) -> tuple[type[TrainingDataError], tuple[str, str]]:
        return (type(self), (self.what, self.hint))


class NotEstimableError(Exception):
    """A quantity that these data cannot give; the text says why and becomes the row's reason."""


class StudyError(Exception):
    """A study cannot be scored; becomes a score row with this reason.

    Parameters
    ----------
    reason : the code written to the row.
    detail : numbers that explain it (never identifiers), at most one line.
    rejected : True where the data are at fault (status `rejected`), False where scoring
        broke off and a later try may succeed (status `failed`).
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
