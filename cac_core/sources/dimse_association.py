"""Associations with a PACS: presentation contexts, TLS, and what a rejection means."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from cac_core.quiet import silence
from cac_core.source_settings import SourceSettings
from cac_core.sources.dimse_watch import Watch
from cac_core.sources.pace import Pace
from cac_core.sources.place import DimsePlace
from cac_core.sources.source import Fault, SourceError

# Its messages hold identifiers of patients.
silence("pynetdicom")
_config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False

ECHO = Verification
FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove
#: Classes of the objects that are taken; a PACS cannot send others.
STORED = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
)
#: Every transfer syntax that scoring reads, so that a PACS need not convert.
SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
)
#: The largest PDU: at the default of 16 KB a series takes three times as long.
_MAX_PDU = 131072


def storage_contexts() -> list[PresentationContext]:
    """One context per class and syntax: a PACS then sends each object as it is stored."""
    return [build_context(one, [syntax]) for one in STORED for syntax in SYNTAXES]


def without_delay(event: evt.Event) -> None:
    """Send small packets at once (Nagle's algorithm costs 40 ms per message)."""
    with contextlib.suppress(OSError, AttributeError):
        connection: Any = event.assoc.dul.socket
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def cut_off(association: Association) -> None:
    """Abort an association in the middle of a transfer."""
    association.dimse_timeout = 0.1  # nothing more comes, for which the caller would wait
    association.abort()


class Peer:
    """Makes associations with one application entity.

    Parameters
    ----------
    place : title, address and port.
    settings : our title, certificates and patience.
    pace : throttle, shared by all threads.
    """

    def __init__(self, place: DimsePlace, settings: SourceSettings, pace: Pace) -> None:
        self._place, self._settings, self._pace = place, settings, pace
        self._greeted = False

    @contextlib.contextmanager
    def association(
        self,
        model: str,
        *,
        receiving: bool = False,
        handlers: Any = (),
        watch: Watch | None = None,
    ) -> Iterator[Association]:
        """An association for one service, released at the end.

        Parameters
        ----------
        model : SOP class of the service.
        receiving : also take objects on it (C-GET).
        handlers : event handlers.
        watch : told of what comes elsewhere for this association.

        Raises
        ------
        SourceError
            If there is none.
        """
        watch = watch or Watch(self._settings)
        try:
            with self._made(model, receiving, [*watch.handlers, *handlers]) as association:
                yield association
        finally:
            watch.end()

    @contextlib.contextmanager
    def _made(self, model: str, receiving: bool, handlers: list[Any]) -> Iterator[Association]:
        self._pace.request()
        self._greet()
        entity = AE(self._settings.ae_title)
        entity.maximum_pdu_size = _MAX_PDU
        wait = self._settings.timeout_s
        entity.connection_timeout = entity.acse_timeout = entity.network_timeout = wait
        entity.dimse_timeout = wait
        contexts, roles = [build_context(model)], list[Any]()
        if receiving:
            contexts += storage_contexts()
            roles = [build_role(one, scp_role=True) for one in STORED]
        association = entity.associate(
            self._place.host,
            self._place.port,
            contexts=contexts,
            ae_title=self._place.title,
            max_pdu=_MAX_PDU,
            ext_neg=roles,
            evt_handlers=[(evt.EVT_CONN_OPEN, without_delay), *handlers],
            tls_args=(self._client_tls(), self._place.host) if self._place.tls else None,
        )
        if not association.is_established:
            raise _rejection(association)
        try:
            if not any(cx.abstract_syntax == model for cx in association.accepted_contexts):
                raise SourceError(Fault.REFUSED, "the PACS does not offer this service")
            yield association
        except (RuntimeError, ValueError, OSError):  # pynetdicom, on a connection that is gone
            association.abort()
            raise SourceError(Fault.AWAY, "the connection was lost") from None
        except BaseException:
            association.abort()
            raise
        association.release()

    def _greet(self) -> None:
        """Look at the certificate once: a failed handshake looks like any lost connection later."""
        if not self._place.tls or self._greeted:
            return
        address = (self._place.host, self._place.port)
        try:
            with (
                socket.create_connection(address, self._settings.timeout_s) as plain,
                self._client_tls().wrap_socket(plain, server_hostname=self._place.host),
            ):
                self._greeted = True
        except ssl.SSLError as error:
            detail = f"TLS: {getattr(error, 'verify_message', '') or 'no agreement'}"
            hint = "Name the authority of the PACS as `tls_ca_file` under [source]."
            raise SourceError(Fault.REFUSED, detail, hint) from None
        except OSError as error:
            raise SourceError(Fault.AWAY, f"no connection ({type(error).__name__})") from None

    def _client_tls(self) -> ssl.SSLContext:
        return with_own_certificate(
            ssl.create_default_context(cafile=_text(self._settings.tls_ca_file)), self._settings
        )


def with_own_certificate(context: ssl.SSLContext, settings: SourceSettings) -> ssl.SSLContext:
    """A TLS context with our certificate, where there is one."""
    if settings.tls_cert is not None:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _rejection(association: Association) -> SourceError:
    """What it means that there is no association (PS3.8 9.3.4)."""
    if not association.is_rejected:
        return SourceError(Fault.AWAY, "no association")
    answer: Any = association.acceptor.primitive
    result, diagnostic = answer.result, answer.diagnostic
    source = answer.result_source
    if result == 1:
        known = {(1, 3): "it does not know our AE title", (1, 7): "it has another AE title"}
        detail = known.get((source, diagnostic), f"association rejected ({source}/{diagnostic})")
        hint = "Agree `ae_title` under [source] and the title in `archive` with the PACS."
        return SourceError(Fault.REFUSED, detail, hint)
    busy = (source, diagnostic) in ((3, 1), (3, 2))
    return SourceError(
        Fault.AWAY, "it has no association left" if busy else "association rejected for now"
    )


def require_success(status: Any) -> None:
    """Check the status of a response (PS3.4 C.4).

    Raises
    ------
    SourceError
        If it is a failure, or there is none, because the connection was lost.
    """
    code = getattr(status, "Status", None)
    if code is None:
        raise SourceError(Fault.AWAY, "no answer in time")
    if code in (0x0000, 0xFF00, 0xFF01):
        return
    if code in (0x0122, 0x0124, 0xA801):
        raise SourceError(Fault.REFUSED, f"status {code:04X}")
    fault = Fault.AWAY if code >> 8 == 0xA7 else Fault.STUDY
    raise SourceError(fault, f"status {code:04X}")
