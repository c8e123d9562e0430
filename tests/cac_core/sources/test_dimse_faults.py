"""A PACS by DIMSE that answers badly: repeated where that can help, then a row with a reason."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.presentation import build_context

from cac_core.source_settings import SourceSettings
from cac_core.sources.dimse_association import FIND
from cac_core.sources.source import Fault, SourceError, StudyQuery
from cac_core.sources.storage_scp import StorageScp
from tests.builders.dicom_files import CT_CLASS
from tests.builders.dimse_pacs import DimsePacs, dimse_pacs
from tests.builders.pacs import free_port
from tests.builders.pacs_night import Night, small_studies
from tests.builders.web_pacs import certificate

# pynetdicom leaves sockets of failed connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_studies(tmp_path_factory.mktemp("archive"), 1)


@pytest.fixture
def pacs(folder: Path) -> Iterator[DimsePacs]:
    with dimse_pacs(sorted(folder.iterdir())) as server:
        yield server


def night(pacs: DimsePacs, tmp_path: Path, **settings: object) -> Night:
    return Night(pacs.place, tmp_path, **{"timeout_s": 5.0, "attempts": 3} | settings)


def test_queries_are_filtered_again_and_repeated(pacs: DimsePacs, tmp_path: Path) -> None:
    pacs.failures = [0xA700]
    assert night(pacs, tmp_path).read().rows.num_rows == 25
    pacs.ignores_queries = True
    none = StudyQuery(modalities=("MR",))
    assert night(pacs, tmp_path / "2").read(none).rows.num_rows == 0
    pacs.failures = [0xA700] * 3
    with pytest.raises(SourceError, match="status A700"):
        night(pacs, tmp_path / "3").read()
    pacs.failures = [0x0124]
    with pytest.raises(SourceError) as caught:
        night(pacs, tmp_path / "4").read()
    assert (caught.value.fault, pacs.failures) == (Fault.REFUSED, [])


def test_a_lost_connection_is_made_again(pacs: DimsePacs, tmp_path: Path) -> None:
    content = night(pacs, tmp_path).read()
    pacs.aborts = [10, 3]
    again = night(pacs, tmp_path)
    assert (len(again.pull(content)), again.faults) == (1, {})
    pacs.aborts = [10, 3, 5]
    lost = night(pacs, tmp_path / "2")
    assert lost.pull(content) == []
    assert len(lost.details()) == 1


def test_a_partial_study_and_other_uids_are_named(pacs: DimsePacs, tmp_path: Path) -> None:
    content = night(pacs, tmp_path).read()
    pacs.change = lambda found: found[:-2]
    partial = night(pacs, tmp_path)
    assert (partial.pull(content), partial.details()) == ([], {"22 of 24 instances"})

    def alien(found: list[Dataset]) -> list[Dataset]:
        found[3].StudyInstanceUID = "1.2.999"
        return found

    pacs.change = alien
    other = night(pacs, tmp_path / "2")
    details = {"an instance of another study or series"}
    assert (other.pull(content), other.details()) == ([], details)
    pacs.change = lambda found: found + found
    twice = night(pacs, tmp_path / "3")
    assert [len(work.files) for work in twice.pull(content)] == [24]


def test_a_retrieval_is_cut_off_at_the_limits(pacs: DimsePacs, tmp_path: Path) -> None:
    content = night(pacs, tmp_path).read()
    few = night(pacs, tmp_path, series_instances=20)
    assert (few.pull(content), few.details()) == ([], {"more than 20 instances"})


def test_a_pacs_without_free_associations_is_asked_again(pacs: DimsePacs, tmp_path: Path) -> None:
    pacs.entity.maximum_associations = 1
    busy = AE("BUSY").associate("127.0.0.1", pacs.port, [build_context(FIND)], "PACS")
    assert busy.is_established
    once = night(pacs, tmp_path, attempts=1)
    with pytest.raises(SourceError, match="no association left") as caught:
        once.read()
    assert caught.value.fault is Fault.AWAY
    threading.Timer(0.5, busy.release).start()
    patient = night(pacs, tmp_path, attempts=8, retry_delay_s=0.1, connections=1)
    assert patient.read().rows.num_rows == 25


@pytest.mark.parametrize("said", [b"\2\0\0\1\0\0" + b"\0" * 200, b"\2\0\0"])
def test_a_peer_that_sends_byte_by_byte_or_half_a_pdu_is_given_up(
    said: bytes, tmp_path: Path
) -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                for byte in said:
                    connection.sendall(bytes((byte,)))
                    time.sleep(0.2)
                time.sleep(60)

        threading.Thread(target=answer, daemon=True).start()
        place = f"dicom://PACS@127.0.0.1:{server.getsockname()[1]}"
        silent = Night(place, tmp_path, timeout_s=1.0, attempts=1)
        with pytest.raises(SourceError) as caught:
            silent.read()
    assert caught.value.fault is Fault.AWAY
    assert time.monotonic() - began < 15.0


def test_the_storage_scp_gives_up_a_peer_that_sends_byte_by_byte() -> None:
    port = free_port()
    settings = SourceSettings(
        peers=("PACS@127.0.0.1",), listen=f"127.0.0.1:{port}", timeout_s=1.0, connections=1
    )
    scp = StorageScp(settings)
    scp.start()
    try:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            began = time.monotonic()
            with pytest.raises(OSError):
                for byte in b"\1\0\0\1\0\0" + b"\0" * 200:
                    peer.sendall(bytes((byte,)))
                    time.sleep(0.2)
            assert time.monotonic() - began < 15.0
    finally:
        scp.stop()


def test_tls_is_checked_on_both_sides(folder: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path / "server")
    ours, secret = certificate(tmp_path / "client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ours)
    own = {"tls_cert": ours, "tls_key": secret}
    with dimse_pacs(sorted(folder.iterdir()), context) as pacs:
        with pytest.raises(SourceError, match="TLS: ") as caught:
            night(pacs, tmp_path, **own).read()
        assert caught.value.fault is Fault.REFUSED
        assert night(pacs, tmp_path, tls_ca_file=cert, **own).read().rows.num_rows == 25
        with pytest.raises(SourceError):
            night(pacs, tmp_path / "2", tls_ca_file=cert, attempts=1).read()


def test_the_storage_scp_wants_a_certificate_of_its_authority(folder: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path / "ours")
    known, secret = certificate(tmp_path / "known")
    port = free_port()
    settings = SourceSettings(
        peers=("PACS@127.0.0.1",), listen=f"127.0.0.1:{port}", timeout_s=5.0,
        tls_ca_file=known, tls_cert=cert, tls_key=key,
    )  # fmt: skip
    scp, taken = StorageScp(settings, tls=True), list[bytes]()
    scp.start()
    try:
        scp.wait_for(("1.2.0", "1.2.0.1"), taken.append)
        image = dcmread(folder / "1.2.0.1-000")
        for trusted in (False, True):
            client = ssl.create_default_context(cafile=str(cert))
            client.check_hostname = False
            if trusted:
                client.load_cert_chain(known, secret)
            link = AE("PACS").associate(
                "127.0.0.1", port, [build_context(CT_CLASS)], "CAC", tls_args=(client, "127.0.0.1")
            )
            assert link.is_established == trusted
            if trusted:
                assert link.send_c_store(image).Status == 0
                link.release()
        plain = AE("PACS").associate("127.0.0.1", port, [build_context(CT_CLASS)], "CAC")
        assert not plain.is_established
    finally:
        scp.stop()
    assert len(taken) == 1
