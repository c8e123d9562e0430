"""Objects sent to Orthanc: found by query, and not a second time after a second export."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pydicom
import pytest

from cac_core.dicom.results.send import NotSentError, receiver_of
from cac_core.errors import UsageError
from cac_core.results_settings import ResultsSettings
from tests.builders.ct_series import write_ct_series
from tests.builders.orthanc_site import Orthanc, free_port, orthanc
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


def test_a_pacs_that_recovers_gets_the_objects(objects: list[Path]) -> None:
    answers = [503, 503, 200]

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Answer as busy twice, then take what comes."""
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"{}"
            self.send_response(answers.pop(0))
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        receiver_of(ResultsSettings(stow_url=url, retry_delay_s=0.01)).send(objects[:1])
    finally:
        server.shutdown()
        server.server_close()
    assert answers == []


def test_without_a_receiver_the_settings_are_named() -> None:
    with pytest.raises(UsageError, match="receiver"):
        receiver_of(ResultsSettings())
    with pytest.raises(UsageError, match="Two receivers"):
        receiver_of(ResultsSettings(stow_url="http://127.0.0.1:1", dimse_host="127.0.0.1"))


def test_libraries_log_nothing_of_what_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("dicomweb_client.web", "retrying", "urllib3.connectionpool", "pynetdicom.acse"):
        logging.getLogger(name).critical("Doe^Jane")
    assert "Jane" not in caplog.text
