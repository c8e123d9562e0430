"""Reads headers in supervised worker processes, so that a crash or hang loses one file only.

The pools of the standard library lose the batch with the worker (concurrent.futures) or wait
forever (multiprocessing.Pool), and their start methods import the main module again, which on the
command line means Prefect. So the readers are child processes that run a light module.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from time import monotonic

from cac_core.dicom.child import end_child, start_child
from cac_core.dicom.descriptions import TextPolicy
from cac_core.dicom.header import HeaderRow
from cac_core.dicom.limits import HeaderLimits
from cac_core.errors import CacError
from cac_core.keys import Keyring
from cac_core.storage import RemoteFile
from schemas.codes import FileReason

_CHUNK = 256
#: Time limit for the start of a reader, generous for a loaded machine.
_START_SECONDS = 60.0
_WORKER_MODULE = "cac_core.dicom.header_worker"


class _Reader:
    """One reader process and the chunk of files that it reads."""

    def __init__(
        self, keyring: Keyring, limits: HeaderLimits, texts: TextPolicy, module: str
    ) -> None:
        self.process, self.connection = start_child(module)
        self.chunk: list[int] = []
        self.ready = False
        self.deadline = monotonic() + _START_SECONDS
        # The secret goes through the pipe: other users can read arguments and environment.
        self.connection.send((keyring, limits, texts))

    def stop(self) -> None:
        """Kill the process."""
        end_child(self.process, self.connection)


def read_headers(
    paths: Sequence[str | RemoteFile],
    keyring: Keyring,
    *,
    workers: int,
    limits: HeaderLimits,
    texts: TextPolicy = TextPolicy(),  # noqa: B008 - immutable
    progress: Callable[[int, int], None] | None = None,
    worker_module: str = _WORKER_MODULE,
) -> list[HeaderRow]:
    """Read the headers of `paths` in at most `workers` processes.

    Parameters
    ----------
    paths : files to read.
    keyring : derives the keys and pseudonyms.
    workers : largest number of reader processes.
    limits : limits on the cost of one header.
    texts : which words of descriptions are kept.
    progress : called with the number of headers read and the total.
    worker_module : module that the reader processes run.

    Returns
    -------
    One row per path, in order (`cac_core.dicom.header.HEADER_COLUMNS`). A file on which a reader
    crashes or exceeds `limits.seconds` has the reason `header_limits`.

    Raises
    ------
    CacError
        If the reader processes cannot be started.
    """
    if not paths:
        return []
    pool = _Pool(paths, (keyring, limits, texts, worker_module))
    try:
        pool.run(max(1, workers), progress)
    finally:
        pool.stop()
    return [row for row in pool.rows if row is not None]


class _Pool:
    def __init__(
        self,
        paths: Sequence[str | RemoteFile],
        reader: tuple[Keyring, HeaderLimits, TextPolicy, str],
    ) -> None:
        self.paths = paths
        self.reader = reader
        self.limits, self.module = reader[1], reader[3]
        self.rows: list[HeaderRow | None] = [None] * len(paths)
        self.done = 0
        self.readers: list[_Reader] = []
        self.chunks: deque[list[int]] = deque()

    def run(self, workers: int, progress: Callable[[int, int], None] | None) -> None:
        total = len(self.paths)
        size = max(1, min(_CHUNK, -(-total // (4 * workers))))
        self.chunks.extend(
            list(range(start, min(start + size, total))) for start in range(0, total, size)
        )
        while self.done < total:
            busy = sum(1 for reader in self.readers if reader.chunk or not reader.ready)
            while len(self.readers) < workers and len(self.chunks) > busy:
                self.readers.append(_Reader(*self.reader))
                busy += 1
            before = self.done
            self._turn()
            if progress is not None and self.done != before:
                progress(self.done, total)

    def _turn(self) -> None:
        """Assign chunks, then wait for results or a deadline, and handle them."""
        for reader in self.readers:
            if reader.ready and not reader.chunk and self.chunks:
                self._assign(reader)
        active = [r for r in self.readers if r.chunk or not r.ready]
        timeout = max(0.0, min((r.deadline for r in active), default=0.0) - monotonic())
        arrived = wait([r.connection for r in active], timeout)
        now = monotonic()
        for reader in active:
            if reader.connection in arrived:
                self._receive(reader)
            elif now >= reader.deadline:
                self._replace(reader)

    def _assign(self, reader: _Reader) -> None:
        reader.chunk = self.chunks.popleft()
        reader.deadline = monotonic() + self.limits.seconds
        # A dead reader is detected at the next receive.
        with suppress(OSError):
            reader.connection.send([self.paths[index] for index in reader.chunk])

    def _receive(self, reader: _Reader) -> None:
        try:
            message = reader.connection.recv()
        except (EOFError, OSError):
            self._replace(reader)
            return
        reader.deadline = monotonic() + self.limits.seconds
        if not reader.ready:
            reader.ready = True
            return
        for index, row in zip(reader.chunk, message, strict=False):
            self.rows[index] = row
        self.done += len(message)
        reader.chunk = reader.chunk[len(message) :]

    def _replace(self, reader: _Reader) -> None:
        """Kill a crashed or hanging reader; the rest of its chunk is read file by file."""
        self.readers.remove(reader)
        reader.stop()
        if not reader.ready:
            code = reader.process.returncode
            raise CacError(
                f"A header reader process did not start (exit status {code}).",
                f"Run this to see why: {sys.executable} -m {self.module} 0",
            )
        if len(reader.chunk) == 1:
            self.rows[reader.chunk[0]] = (FileReason.HEADER_LIMITS.value,)
            self.done += 1
        else:
            self.chunks.extendleft([index] for index in reversed(reader.chunk))

    def stop(self) -> None:
        """Kill all readers."""
        for reader in self.readers:
            reader.stop()
