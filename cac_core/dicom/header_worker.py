"""Entry of a header reader process: `python -m cac_core.dicom.header_worker FILE_DESCRIPTOR`.

Receives keyring, limits and text policy, then chunks of paths; sends rows in the same order.
Started by `cac_core.dicom.header_pool` only.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from time import monotonic

from cac_core.dicom.byte_window import FIRST_READ
from cac_core.dicom.child import limit_child
from cac_core.dicom.descriptions import TextPolicy
from cac_core.dicom.header import HeaderRow, read_header
from cac_core.dicom.limits import HeaderLimits
from cac_core.keys import Keyring
from cac_core.storage import RemoteFile, beginnings

#: Rows are sent at least this often, so that a hang is detected and loses little.
_SEND_EVERY_S = 0.25
#: Files of a store whose beginnings are read at the same time.
_AT_ONCE = 32


def serve(connection: Connection) -> None:
    """Receive chunks of paths and send their header rows until the connection closes."""
    keyring: Keyring
    limits: HeaderLimits
    texts: TextPolicy
    keyring, limits, texts = connection.recv()
    limit_child(limits.memory_bytes)
    connection.send("ready")
    while True:
        try:
            paths: list[str | RemoteFile] = connection.recv()
        except EOFError:
            return
        rows: list[HeaderRow] = []
        last = monotonic()
        for path, beginning in _with_beginnings(paths):
            rows.append(read_header(path, keyring, limits, texts, beginning))
            now = monotonic()
            if now - last > _SEND_EVERY_S:
                connection.send(rows)
                rows, last = [], now
        if rows:
            connection.send(rows)


def _with_beginnings(
    paths: Sequence[str | RemoteFile],
) -> Iterator[tuple[str | RemoteFile, bytes | OSError | None]]:
    """Each file, with its first bytes if it lies in a store: one request at a time is slow."""
    for start in range(0, len(paths), _AT_ONCE):
        part = paths[start : start + _AT_ONCE]
        remote = [path for path in part if isinstance(path, RemoteFile)]
        read = iter(beginnings(remote, FIRST_READ)) if remote else iter(())
        for path in part:
            yield path, next(read) if isinstance(path, RemoteFile) else None


if __name__ == "__main__":
    # Ctrl-C reaches the whole process group, but only the parent ends a reader.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])))
