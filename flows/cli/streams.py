"""Standard streams of the command line: what a closed, full or odd one does to a run.

A result that cannot be written is a fault that is told; a word for people that cannot be written
is none. No file of a run may take the number of a closed stream: native code writes to that.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
import warnings
from typing import TextIO

from cac_core.errors import CacError


class _Results(io.TextIOWrapper):
    """Standard output, which tells that it cannot be written to."""

    def write(self, text: str, /) -> int:
        """Write, or raise CacError."""
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritable(error) from None

    def flush(self) -> None:
        """Flush, or raise CacError."""
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritable(error) from None


class _Words(io.TextIOWrapper):
    """Standard error: what cannot be said there stops nothing."""

    def write(self, text: str, /) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError):
            super().flush()


def settle_streams() -> None:
    """Put streams in place that cannot end a run with a traceback, whatever they are."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # To read only: what is written to a closed standard output is an error, as in C. The
            # lowest free number is taken, which is this one.
            os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _wrapped(_Results, sys.stdout, 1)
    sys.stderr = _wrapped(_Words, sys.stderr, 2)


def drain() -> None:
    """Write what is left of the results.

    Raises
    ------
    CacError
        If they cannot be written.
    """
    sys.stdout.flush()


def discard_results() -> None:
    """Let nothing more be written to standard output, not at the end of Python either."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def silence_libraries() -> None:
    """Keep warnings and log lines of libraries, which are for programmers, from the terminal."""
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # for worker processes
    logging.getLogger().addHandler(logging.NullHandler())


def _wrapped(kind: type[io.TextIOWrapper], stream: TextIO | None, number: int) -> io.TextIOWrapper:
    if stream is None:
        raw = _Closed() if kind is _Results else io.FileIO(number, "w", closefd=False)
        return kind(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")
    assert isinstance(stream, io.TextIOWrapper)  # as the interpreter made it
    encoding, line_buffering = stream.encoding, stream.line_buffering
    # Not every locale has the letters of every name: they are escaped then, not the run's end.
    return kind(
        stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering
    )


class _Closed(io.RawIOBase):
    """A standard output that was closed before this program began."""

    def writable(self) -> bool:
        """A buffer asks before it takes it."""
        return True

    def write(self, data: object, /) -> int:
        """Fail as the closed stream does."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def fileno(self) -> int:
        """Its number, which nothing else may have."""
        return 1


def _unwritable(error: OSError) -> CacError:
    return CacError(
        f"The result cannot be written to standard output ({error.strerror}).",
        "What was finished is kept in its folder; direct the output elsewhere to see the result.",
    )
