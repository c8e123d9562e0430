"""Sends objects to a PACS: STOW-RS by dicomweb-client, C-STORE by pynetdicom.

An object that the receiver holds already counts as stored. Messages hold no value of an object.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import Any, Literal, Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset

from cac_core.errors import CacError, UsageError
from cac_core.quiet import silence
from cac_core.results_settings import ResultsSettings

PASSWORD_VARIABLE, TOKEN_VARIABLE = "CAC_STOW_PASSWORD", "CAC_STOW_TOKEN"
#: C-STORE status values of success with remarks (PS3.4 B.2.3): coercion, elements discarded.
_STORED = (0x0000, 0xB000, 0xB006, 0xB007)
_LONGEST_PAUSE_S = 60.0
# Their messages can quote addresses and data sets, which hold UIDs and names.
silence("dicomweb_client", "retrying", "urllib3", "pynetdicom")


class NotSentError(CacError):
    """The receiver did not take the objects of a study; `again` tells whether to try again."""

    def __init__(self, what: str, hint: str = "", again: bool = True) -> None:
        super().__init__(what, hint)
        self.again = again


class Receiver(Protocol):
    """Where objects go."""

    kind: Literal["stow", "dimse"]

    def send(self, paths: Sequence[Path]) -> None:
        """Send the objects of a study.

        Raises
        ------
        NotSentError
            If the receiver has not confirmed all of them after the last attempt.
        """
        ...


def receiver_of(settings: ResultsSettings) -> Receiver:
    """The receiver that the settings name.

    Raises
    ------
    UsageError
        If they name none, or the packages to reach it are missing.
    """
    if settings.stow_url and settings.dimse_host:
        raise UsageError(
            "Two receivers are set.", "Keep `stow_url` or `dimse_host` under [results]."
        )
    if settings.stow_url:
        return _StowReceiver(settings, settings.stow_url)
    if settings.dimse_host:
        return _DimseReceiver(settings, settings.dimse_host)
    raise UsageError(
        "No receiver is set.", "Set `stow_url` or `dimse_host` under [results] in cac.toml."
    )


def _attempted(send: Callable[[], None], settings: ResultsSettings) -> None:
    """Try, and try again after growing pauses where that can help."""
    pause = settings.retry_delay_s
    for left in range(settings.retries, -1, -1):
        try:
            return send()
        except NotSentError as error:
            if not left or not error.again:
                raise
        sleep(min(pause, _LONGEST_PAUSE_S))
        pause *= 2


class _StowReceiver:
    kind: Literal["stow", "dimse"] = "stow"

    def __init__(self, settings: ResultsSettings, url: str) -> None:
        import requests
        from dicomweb_client.api import DICOMwebClient

        from cac_core.least_rate import require_least_rate

        self._settings = settings
        session = requests.Session()
        require_least_rate(session)
        # Neither proxies nor passwords and authorities of other programs.
        session.trust_env = False
        session.headers["Accept-Encoding"] = "identity"
        if settings.stow_user:
            session.auth = (settings.stow_user, os.environ.get(PASSWORD_VARIABLE, ""))
        elif os.environ.get(TOKEN_VARIABLE):
            session.headers["Authorization"] = f"Bearer {os.environ[TOKEN_VARIABLE]}"
        if settings.tls_ca_file:
            session.verify = str(settings.tls_ca_file)
        if settings.tls_cert and settings.tls_key:
            session.cert = (str(settings.tls_cert), str(settings.tls_key))
        session.request = _with_timeout(session.request, settings.timeout_s)  # type: ignore[method-assign]
        self._client = DICOMwebClient(url, session=session)
        self._client.set_http_retry_params(retry=False)

    def send(self, paths: Sequence[Path]) -> None:
        """See `Receiver`."""
        datasets = [dcmread(path) for path in paths]
        _attempted(lambda: self._send(datasets), self._settings)

    def _send(self, datasets: Sequence[Dataset]) -> None:
        import requests

        try:
            answer = self._client.store_instances(datasets)
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            again = status >= 500 or status in (0, 408, 429)
            raise NotSentError(
                f"The PACS answered with HTTP status {status}.", _HINTS.get(status, ""), again
            ) from None
        except requests.exceptions.SSLError:
            hint = "Name the authority of the PACS as `tls_ca_file` under [results]."
            raise NotSentError("TLS: no agreement with the PACS.", hint, again=False) from None
        except (requests.RequestException, ValueError, OSError, RecursionError) as error:
            raise NotSentError(f"The PACS did not answer ({type(error).__name__}).") from None
        failed = answer.get("FailedSOPSequence", ())
        if failed:
            reasons = sorted({f"{int(item.get('FailureReason', 0)):04X}" for item in failed})
            raise NotSentError(
                f"The PACS refused {len(failed)} of {len(datasets)} objects "
                f"({', '.join(reasons)}).",
                again=False,
            )


_HINTS = {
    401: f"Set `stow_user` and {PASSWORD_VARIABLE}, or {TOKEN_VARIABLE}.",
    403: "The user may not store objects there.",
    404: "Correct `stow_url`: it ends before /studies.",
}


def _with_timeout(request: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def with_timeout(*arguments: Any, **options: Any) -> Any:
        options["timeout"] = seconds
        return request(*arguments, **options)

    return with_timeout


class _DimseReceiver:
    kind: Literal["stow", "dimse"] = "dimse"

    def __init__(self, settings: ResultsSettings, host: str) -> None:
        self._settings, self._host = settings, host

    def send(self, paths: Sequence[Path]) -> None:
        """See `Receiver`."""
        datasets = [dcmread(path) for path in paths]
        _attempted(lambda: self._send(datasets), self._settings)

    def _send(self, datasets: Sequence[Dataset]) -> None:
        from pynetdicom import AE

        settings = self._settings
        entity = AE(ae_title=settings.dimse_aet)
        entity.acse_timeout = entity.dimse_timeout = settings.timeout_s
        entity.network_timeout = entity.connection_timeout = settings.timeout_s
        for dataset in datasets:
            entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = entity.associate(
            self._host,
            settings.dimse_port,
            ae_title=settings.dimse_called_aet,
            tls_args=self._tls(),
        )
        if not association.is_established:
            refused = association.is_rejected
            raise NotSentError(
                "The PACS rejected the association."
                if refused
                else "No association with the PACS could be made.",
                "Check host, port, AE titles and TLS under [results].",
            )
        try:
            for dataset in datasets:
                _store(association, dataset)
        finally:
            association.release()

    def _tls(self) -> tuple[ssl.SSLContext, str] | None:
        settings = self._settings
        if settings.tls_ca_file is None:
            return None
        context = ssl.create_default_context(cafile=str(settings.tls_ca_file))
        if settings.tls_cert and settings.tls_key:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        return context, self._host


def _store(association: Any, dataset: Dataset) -> None:
    try:
        answer = association.send_c_store(dataset)
    except (ValueError, RuntimeError) as error:
        raise NotSentError(
            f"The PACS does not take this kind of object ({type(error).__name__}).", again=False
        ) from None
    status = answer.get("Status") if answer else None
    if status is None:
        raise NotSentError("The PACS broke off the association.")
    if status not in _STORED:
        again = 0xA700 <= status <= 0xA7FF  # out of resources
        raise NotSentError(f"The PACS refused an object (status {status:04X}).", again=again)
