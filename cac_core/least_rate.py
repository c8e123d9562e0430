"""HTTP sessions that give up a server whose answer comes too slowly, byte by byte for instance.

The timeouts of requests limit the silence between two packets only: an answer of a byte every few
seconds would hold a connection for days. Here the time that is spent waiting for bytes of an
answer, its header included, is limited by how many have come.
"""

from __future__ import annotations

import http.client
import io
import socket
from time import monotonic
from typing import Any, ClassVar

from requests import Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

#: Slowest line that an answer may come over, bytes per second: 31 MB take half an hour.
SLOWEST = 16 * 1024


class _Slowness(io.RawIOBase):
    """Bytes of a connection; raises `TimeoutError` once they are too few for the time waited."""

    def __init__(self, raw: Any, patience_s: float) -> None:
        super().__init__()
        self._raw, self._left = raw, patience_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._left += (count or 0) / SLOWEST - (monotonic() - began)
        if self._left < 0:
            raise TimeoutError("the answer comes too slowly")
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        patience = sock.gettimeout()
        if patience is not None:
            self.fp = io.BufferedReader(_Slowness(self.fp.detach(), patience))


class _Connection(HTTPConnection):
    response_class: ClassVar[type[http.client.HTTPResponse]] = _Answer  # type: ignore[misc]


class _TlsConnection(HTTPSConnection):
    response_class: ClassVar[type[http.client.HTTPResponse]] = _Answer  # type: ignore[misc]


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def require_least_rate(session: Session) -> None:
    """Let a session give up answers that come too slowly.

    An answer may take as long as the timeout of its request, and a second more for each `SLOWEST`
    bytes; time between two reads does not count. Then the session raises as after any timeout.
    """
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
