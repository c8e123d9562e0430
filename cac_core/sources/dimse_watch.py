"""Ends associations with a peer that sends too slowly, byte by byte for instance.

pynetdicom waits without limit for the rest of a PDU that has begun, and its other timeouts begin
anew with every message.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from time import monotonic
from typing import Any

from pynetdicom import evt

from cac_core.least_rate import SLOWEST
from cac_core.source_settings import SourceSettings

#: Time that each message may take beside its bytes: a PACS looks up what it answers.
_MESSAGE_S = 1.0
#: No query or retrieval takes longer.
LONGEST_S = 3600.0


class Watch:
    """Closes the connection of an association once it takes longer than what has come allows.

    Parameters
    ----------
    settings : the longest silence, and a throttle of ours, which may be slower than a slow line.
    longest_s : time of the whole association.
    """

    def __init__(self, settings: SourceSettings, longest_s: float = LONGEST_S) -> None:
        throttle = settings.megabytes_per_s or math.inf
        self._rate = min(SLOWEST, throttle * 10**6 / (4 * settings.connections))
        self._allowed_s, self._longest_s = settings.timeout_s, longest_s
        self._ended = threading.Event()
        self._lock = threading.Lock()

    @property
    def handlers(self) -> list[Any]:
        """Handlers for the association that is watched."""
        return [(evt.EVT_CONN_OPEN, self.begin), (evt.EVT_DATA_RECV, self.count)]

    def begin(self, event: evt.Event) -> None:
        """The connection is there."""
        connection: Any = event.assoc.dul.socket
        thread = threading.Thread(target=self._run, args=(connection.socket,), daemon=True)
        thread.start()

    def count(self, event: evt.Event) -> None:
        """A PDU has come."""
        self.more(len(event.data))

    def more(self, size: int) -> None:
        """Bytes have come for this association, here or to the storage SCP."""
        with self._lock:
            self._allowed_s += _MESSAGE_S + size / self._rate

    def end(self) -> None:
        """Watch no more."""
        self._ended.set()

    def _run(self, connection: socket.socket) -> None:
        began = monotonic()
        while True:
            with self._lock:
                allowed = min(self._allowed_s, self._longest_s)
            left = allowed - (monotonic() - began)
            if self._ended.wait(max(0.0, left)):
                return
            if left <= 0:
                with contextlib.suppress(OSError, ValueError):
                    connection.shutdown(socket.SHUT_RDWR)
                return
