"""Our storage SCP, to which a PACS sends by C-MOVE: for named peers only, and only what was asked.

It listens for as long as a series is pulled. A connection from another address is closed before a
byte of it is read; an association from another AE title is rejected; an object that nobody waits
for is refused.
"""

from __future__ import annotations

import math
import ssl
import threading
from collections.abc import Callable
from socketserver import BaseServer
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from cac_core.errors import UsageError
from cac_core.source_settings import SourceSettings
from cac_core.sources.dimse_association import (
    STORED,
    SYNTAXES,
    with_own_certificate,
    without_delay,
)
from cac_core.sources.dimse_watch import Watch
from cac_core.sources.incoming import identity_of
from cac_core.sources.source import SourceError

_NOT_AUTHORISED, _CANNOT_UNDERSTAND, _OUT_OF_RESOURCES = 0x0124, 0xC000, 0xA700
_MAX_PDU = 131072
Add = Callable[[bytes], None]


class StorageScp:
    """Takes the objects of series that are waited for.

    Parameters
    ----------
    settings : address, AE title, peers, certificates and the largest series.
    tls : only take TLS connections, of peers whose certificate the authority of the settings made.
    """

    def __init__(self, settings: SourceSettings, *, tls: bool = False) -> None:
        if not settings.peers:
            raise UsageError(
                "Nobody may send to the storage SCP of this program.",
                'Name the PACS in `peers` under [source], as "AE_TITLE@ADDRESS".',
            )
        self._settings, self._tls = settings, tls
        self._peers = {_pair(peer) for peer in settings.peers}
        self._waiting: dict[tuple[str, str], Add] = {}
        self._faults: dict[tuple[str, str], SourceError] = {}
        self._received: dict[int, int] = {}
        self._watches: dict[int, Watch] = {}
        self._lock = threading.Lock()
        self._server: Any = None

    def start(self) -> None:
        """Listen, unless it does already.

        Raises
        ------
        UsageError
            If the address cannot be used.
        """
        with self._lock:
            if self._server is None:
                self._server = self._started()

    def _started(self) -> Any:
        host, _, port = self._settings.listen.rpartition(":")
        entity = AE(self._settings.ae_title)
        entity.maximum_pdu_size = _MAX_PDU
        entity.require_called_aet = True
        entity.require_calling_aet = sorted({title for title, _ in self._peers})
        entity.maximum_associations = 2 * self._settings.connections + 2
        wait = self._settings.timeout_s
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = wait
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, without_delay),
            (evt.EVT_CONN_OPEN, self._watch),
            (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_DATA_RECV, self._count),
            (evt.EVT_C_STORE, self._store),
        ]
        addresses = {address for _, address in self._peers}

        class Server(ThreadedAssociationServer):
            def verify_request(self, request: Any, client_address: Any) -> bool:
                return client_address[0] in addresses

        try:
            server = entity.make_server(
                (host or "127.0.0.1", int(port)),
                contexts=[build_context(one, list(SYNTAXES)) for one in STORED],
                ssl_context=self._server_tls() if self._tls else None,
                evt_handlers=handlers,
                server_class=Server,
            )
        except (OSError, ValueError) as error:
            raise UsageError(
                f"The storage SCP cannot listen at {self._settings.listen} "
                f"({getattr(error, 'strerror', None) or 'no address and port'}).",
                "Give a free port of this machine as `listen` under [source].",
            ) from None
        thread = threading.Thread(target=server.serve_forever, name="cac-scp", daemon=True)
        thread.start()
        return server

    def _server_tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self._settings.tls_ca_file is not None:
            context.load_verify_locations(self._settings.tls_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return with_own_certificate(context, self._settings)

    def stop(self) -> None:
        """Listen no more."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            # Not its own: that expects a server which the application entity has started.
            BaseServer.shutdown(server)
            server.server_close()

    def wait_for(self, series: tuple[str, str], add: Add) -> None:
        """Take the objects of a series from now on."""
        with self._lock:
            self._waiting[series] = add
            self._faults.pop(series, None)

    def end(self, series: tuple[str, str]) -> SourceError | None:
        """Take no more of a series; returns the fault of an object that was refused, if any."""
        with self._lock:
            self._waiting.pop(series, None)
            return self._faults.pop(series, None)

    def _watch(self, event: evt.Event) -> None:
        watch = Watch(self._settings, math.inf)
        with self._lock:
            self._watches[id(event.assoc)] = watch
        watch.begin(event)

    def _closed(self, event: evt.Event) -> None:
        with self._lock:
            watch = self._watches.pop(id(event.assoc), None)
            self._received.pop(id(event.assoc), None)
        if watch is not None:
            watch.end()

    def _count(self, event: evt.Event) -> None:
        """End an association that sends more between two objects than a series may have."""
        key = id(event.assoc)
        watch = self._watches.get(key)
        if watch is not None:
            watch.count(event)
        with self._lock:
            size = self._received[key] = self._received.get(key, 0) + len(event.data)
        if size > self._settings.series_gb * 10**9:
            event.assoc.abort()

    def _store(self, event: evt.Event) -> int:
        with self._lock:
            self._received.pop(id(event.assoc), None)
        requestor = event.assoc.requestor
        if (requestor.ae_title.strip(), requestor.address) not in self._peers:
            return _NOT_AUTHORISED
        content = event.encoded_dataset()
        try:
            series = identity_of(content)[:2]
        except SourceError:
            return _CANNOT_UNDERSTAND
        with self._lock:
            add = self._waiting.get(series)
        if add is None:
            return _NOT_AUTHORISED
        try:
            add(content)
        except SourceError as error:
            with self._lock:
                self._faults.setdefault(series, error)
            return _OUT_OF_RESOURCES
        return 0x0000


def _pair(peer: str) -> tuple[str, str]:
    title, _, address = peer.partition("@")
    return title, address
