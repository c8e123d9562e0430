"""Objects sent to Orthanc: found by query, and not a second time after a second export."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, evt

from cac_core.dicom.results.send import NotSentError, receiver_of
from cac_core.errors import UsageError
from cac_core.results_settings import ResultsSettings
from tests.builders.ct_series import write_ct_series
from tests.builders.orthanc_site import Orthanc, free_port, orthanc
from tests.builders.web_pacs import certificate
from tests.cac_core.dicom.results.test_results import KINDS, STUDY, make

#: pynetdicom leaves a socket to the collector where a connection is refused.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("send")
    made = make(folder / "objects", write_ct_series(folder / "series", header=STUDY))
    return [made.folder / f"{kind}.dcm" for kind in KINDS]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as site:
        yield site


@pytest.mark.parametrize("way", ["stow", "dimse"])
def test_sent_twice_and_stored_once(way: str, pacs: Orthanc, objects: list[Path]) -> None:
    settings = (
        ResultsSettings(stow_url=pacs.dicomweb)
        if way == "stow"
        else ResultsSettings(
            dimse_host="127.0.0.1", dimse_port=pacs.dimse_port, dimse_called_aet="ORTHANC"
        )
    )
    receiver = receiver_of(settings)
    for _ in range(2):
        receiver.send(objects)
        assert pacs.instances() == len(objects)
    study = pydicom.dcmread(objects[0])
    query = {"StudyInstanceUID": str(study.StudyInstanceUID)}
    found = pacs.find("Series", query)
    modalities = {series["MainDicomTags"]["Modality"] for series in found}  # type: ignore[index]
    assert modalities == {"SEG", "SR", "DOC"}


@pytest.mark.parametrize("way", ["stow", "dimse"])
def test_a_receiver_that_is_not_there_is_tried_again(way: str, objects: list[Path]) -> None:
    port = free_port()
    place = {"stow_url": f"http://127.0.0.1:{port}/dicom-web"}
    if way == "dimse":
        place = {"dimse_host": "127.0.0.1"}
    settings = ResultsSettings(
        **place, dimse_port=port, retries=2, retry_delay_s=0.01, timeout_s=2.0
    )
    with pytest.raises(NotSentError):
        receiver_of(settings).send(objects)


def test_a_wrong_called_title_is_refused(pacs: Orthanc, objects: list[Path]) -> None:
    settings = ResultsSettings(
        dimse_host="127.0.0.1", dimse_port=pacs.dimse_port, dimse_called_aet="OTHER", retries=0
    )
    with pytest.raises(NotSentError, match="rejected"):
        receiver_of(settings).send(objects)


@contextlib.contextmanager
def stow(answers: list[int], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that answers with these statuses; its port."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take what comes and give the next answer."""
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"{}"
            self.send_response(answers.pop(0))
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_a_pacs_that_recovers_gets_the_objects(objects: list[Path]) -> None:
    answers = [503, 503, 200]
    with stow(answers) as port:
        url = f"http://127.0.0.1:{port}"
        receiver_of(ResultsSettings(stow_url=url, retry_delay_s=0.01)).send(objects[:1])
    assert answers == []


def server_tls(folder: Path) -> tuple[ssl.SSLContext, Path, dict[str, object]]:
    """TLS of a server that wants our certificate; its own, and settings with ours."""
    cert, key = certificate(folder / "server")
    ours, secret = certificate(folder / "client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ours)
    quick = {"retries": 0, "timeout_s": 5.0}
    return context, cert, {"tls_cert": ours, "tls_key": secret, **quick}


def test_stow_checks_certificates_and_shows_ours(objects: list[Path], tmp_path: Path) -> None:
    context, cert, own = server_tls(tmp_path)
    other, _ = certificate(tmp_path / "other")
    answers = [200]
    with stow(answers, context) as port:
        url = f"https://127.0.0.1:{port}"
        without = {"retries": 0, "timeout_s": 5.0, "tls_ca_file": cert}
        for wrong in (own, own | {"tls_ca_file": other}, without):
            with pytest.raises(NotSentError) as caught:
                receiver_of(ResultsSettings(stow_url=url, **wrong)).send(objects[:1])
            assert "TLS" in str(caught.value) or wrong is without
        assert answers == [200], "nothing was sent"
        receiver_of(ResultsSettings(stow_url=url, tls_ca_file=cert, **own)).send(objects[:1])
    assert answers == []


def test_c_store_checks_certificates_and_shows_ours(objects: list[Path], tmp_path: Path) -> None:
    context, cert, own = server_tls(tmp_path)
    other, _ = certificate(tmp_path / "other")
    entity, taken = AE("PACS"), list[str]()
    for path in objects:
        entity.add_supported_context(pydicom.dcmread(path).SOPClassUID)

    def store(event: evt.Event) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    handlers: list[Any] = [(evt.EVT_C_STORE, store)]
    port = free_port()
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=context
    )
    place = {"dimse_host": "127.0.0.1", "dimse_port": port, "dimse_called_aet": "PACS"}
    try:
        for wrong in (own | {"tls_ca_file": other}, {"retries": 0, "timeout_s": 5.0}):
            with pytest.raises(NotSentError):
                receiver_of(ResultsSettings(**place, **wrong)).send(objects)
        assert not taken
        receiver_of(ResultsSettings(**place, tls_ca_file=cert, **own)).send(objects)
    finally:
        server.shutdown()
    assert sorted(taken) == sorted(pydicom.dcmread(path).SOPInstanceUID for path in objects)


def test_without_a_receiver_the_settings_are_named() -> None:
    with pytest.raises(UsageError, match="receiver"):
        receiver_of(ResultsSettings())
    with pytest.raises(UsageError, match="Two receivers"):
        receiver_of(ResultsSettings(stow_url="http://127.0.0.1:1", dimse_host="127.0.0.1"))


def test_libraries_log_nothing_of_what_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("dicomweb_client.web", "retrying", "urllib3.connectionpool", "pynetdicom.acse"):
        logging.getLogger(name).critical("Doe^Jane")
    assert "Jane" not in caplog.text
