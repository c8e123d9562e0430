"""Standard streams that may be closed, full, or in an odd encoding.

A result that cannot be written is a fault; a message that cannot be written is not. No file of a
run may get the descriptor of a closed stream, since native code writes to these descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
import warnings
from typing import TextIO

from cac_core.errors import CacError

#: Seconds after which an interruption is repeated.
_AGAIN_S = 0.05


class _ResultStream(io.TextIOWrapper):
    """Standard output: raises CacError if it cannot be written."""

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


class _MessageStream(io.TextIOWrapper):
    """Standard error: ignores text that cannot be written."""

    def write(self, text: str, /) -> int:
        """Write, ignoring errors."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, ignoring errors."""
        with contextlib.suppress(OSError):
            super().flush()


def prepare_streams() -> None:
    """Replace the standard streams by ones that cannot end a run with a traceback."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Read-only, so that writing to a closed standard output is an error, as in C. The
            # system assigns the lowest free descriptor, which is this one.
            os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _wrapped(_ResultStream, sys.stdout, 1)
    sys.stderr = _wrapped(_MessageStream, sys.stderr, 2)


def flush_results() -> None:
    """Write the buffered results.

    Raises
    ------
    CacError
        If they cannot be written.
    """
    sys.stdout.flush()


def discard_results() -> None:
    """Discard further results, also those that Python flushes at exit."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def silence_libraries() -> None:
    """Keep warnings and log messages of libraries, which are for developers, off the terminal."""
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # for worker processes
    logging.getLogger().addHandler(logging.NullHandler())
    logging.raiseExceptions = False  # a log that cannot be sent is not a fault of the run
    # A thread of a library that ends with an error, or an error in a finalizer, prints a traceback.
    threading.excepthook = lambda fault: None
    sys.unraisablehook = repeat_interruption


def repeat_interruption(fault: object) -> None:
    """Repeat an interruption that arrived in a finalizer, where it would be lost.

    Parameters
    ----------
    fault : what `sys.unraisablehook` receives; its other faults are dropped.
    """
    if isinstance(getattr(fault, "exc_value", None), KeyboardInterrupt):
        main = threading.main_thread().ident
        again = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
        again.daemon = True
        again.start()


def _wrapped(kind: type[io.TextIOWrapper], stream: TextIO | None, number: int) -> io.TextIOWrapper:
    if stream is None:
        raw = _Closed() if kind is _ResultStream else io.FileIO(number, "w", closefd=False)
        return kind(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")
    assert isinstance(stream, io.TextIOWrapper)  # as created by the interpreter
    encoding, line_buffering = stream.encoding, stream.line_buffering
    # Escape characters that the locale cannot encode, instead of ending the run.
    return kind(
        stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering
    )


class _Closed(io.RawIOBase):
    """A standard output that was closed before this program started."""

    def writable(self) -> bool:
        """Required by BufferedWriter."""
        return True

    def write(self, data: object, /) -> int:
        """Raise the error of a closed stream."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def fileno(self) -> int:
        """Descriptor of standard output."""
        return 1


def _unwritable(error: OSError) -> CacError:
    return CacError(
        f"The result cannot be written to standard output ({error.strerror}).",
        "Finished work is kept in its folder; redirect the output to see the result.",
    )
