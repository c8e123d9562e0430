"""Events of a run as JSON lines: what happened, when, and the counts; never a name or a path.

Every part of the program reports events; they are written where a run has opened a file for them.
Only known fields are accepted, so that no message with an identifier can get into the file.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

from cac_core.errors import CacError

#: Fields of a line, in this order, beside `time`, `level`, `run_id` and `event`.
FIELDS = (
    *("step", "study_key", "status", "reason", "outcome", "seconds"),
    *("studies", "scored", "rejected", "failed", "skipped", "needs_review", "left", "files"),
    *("drifted", "removed"),
)
Level = Literal["info", "warning", "error"]

_LOGGER = logging.getLogger("cac-cohort.events")
_LOGGER.propagate = False
_LOGGER.setLevel(logging.INFO)
_LOGGER.addHandler(logging.NullHandler())


def event(name: str, level: Level = "info", **fields: object) -> None:
    """Report an event; without an open file it is dropped.

    Parameters
    ----------
    name : what happened, in snake case.
    **fields : of `FIELDS`; those that are None are left out.

    Raises
    ------
    ValueError
        For any other field.
    """
    unknown = fields.keys() - set(FIELDS)
    if unknown:
        raise ValueError(f"not a field of an event: {', '.join(sorted(unknown))}")
    number = getattr(logging, level.upper())
    _LOGGER.log(number, "%s", name, extra={"fields": fields})


@contextlib.contextmanager
def event_log(file: Path | None, max_bytes: int, keep: int, run_id: str) -> Iterator[None]:
    """Write the events of the block to a file, which is rotated by size.

    Parameters
    ----------
    file : None writes none.
    max_bytes : size at which a new file begins.
    keep : number of older files, `<file>.1` being the newest.
    run_id : run that the lines belong to.

    Raises
    ------
    CacError
        If the file cannot be opened.
    """
    if file is None:
        yield
        return
    handler = _opened(file, max_bytes, keep)
    handler.setFormatter(_JsonLines(run_id))
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        handler.close()


def log_files(file: Path | None) -> list[Path]:
    """The file of a log and its older files, those that exist."""
    if file is None:
        return []
    older = sorted(file.parent.glob(f"{file.name}.*"))
    return [path for path in (file, *older) if path.is_file()]


class _JsonLines(logging.Formatter):
    """One JSON object per line, with the id of the run."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        given = getattr(record, "fields", {})
        time = dt.datetime.fromtimestamp(record.created, dt.UTC)
        values = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "run_id": self._run_id,
            "event": record.getMessage(),
        }
        values |= {name: given[name] for name in FIELDS if given.get(name) is not None}
        return json.dumps(values)


class _Rotating(RotatingFileHandler):
    """A full disk stops the log and not the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of logging
        """Drop the line."""


def _opened(file: Path, max_bytes: int, keep: int) -> RotatingFileHandler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _Rotating(file, maxBytes=max_bytes, backupCount=keep, encoding="utf-8")
    except OSError as error:
        raise CacError(
            f"The log {file} cannot be written ({error.strerror}).",
            "Correct `file` under [logging], or its permissions.",
        ) from None
    return handler
