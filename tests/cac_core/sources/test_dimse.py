"""A PACS by DIMSE: Orthanc and dcmqrscp on this machine, by C-GET and by C-MOVE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.presentation import build_context

from cac_core.errors import UsageError
from cac_core.source_settings import SourceSettings
from cac_core.sources.source import Fault, SourceError
from cac_core.sources.storage_scp import StorageScp
from tests.builders.dicom_files import CT_CLASS
from tests.builders.pacs import Pacs, dcmqrscp, free_port, orthanc
from tests.builders.pacs_night import Night, small_studies

# pynetdicom leaves sockets of failed connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

PORT = free_port()
MOVE = {"retrieve": "move", "listen": f"127.0.0.1:{PORT}", "timeout_s": 5.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_studies(tmp_path_factory.mktemp("archive"), 2)


@pytest.fixture(scope="module", params=["orthanc", "dcmqrscp"])
def pacs(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pacs]:
    start = orthanc if request.param == "orthanc" else dcmqrscp
    with start(tmp_path_factory.mktemp(request.param), peer_port=PORT) as server:
        server.store(sorted(folder.iterdir()))
        yield server


def peers(pacs: Pacs) -> dict[str, Any]:
    return MOVE | {"peers": [f"{pacs.title}@127.0.0.1"]}


def test_the_chosen_series_is_retrieved(pacs: Pacs, folder: Path, tmp_path: Path) -> None:
    files = {(d := dcmread(path)).SOPInstanceUID: d for path in folder.iterdir()}
    seen: list[set[str]] = []
    for number, settings in enumerate(({"timeout_s": 5.0}, peers(pacs))):
        night = Night(pacs.dimse, tmp_path / str(number), **settings)
        content = night.read()
        assert content.rows.num_rows == 50
        works = night.pull(content)
        assert (len(works), night.faults) == (2, {})
        for work in works:
            assert len(work.files) == 24
            for stamp in work.files:
                pulled = dcmread(stamp.path)
                assert pulled.SeriesInstanceUID.endswith(".1")
                assert pulled.PixelData == files[pulled.SOPInstanceUID].PixelData
        again = Night(pacs.dimse, tmp_path / str(number), **settings)
        second = again.read(previous=content.rows)
        assert second.rows.sort_by("path_key").equals(content.rows.sort_by("path_key"))
        digests = {row["instances_digest"] for row in _series(night, content)}
        assert number == 0 or digests == seen[0], "the ledger sees the same study"
        seen.append(digests)


def _series(night: Night, content: Any) -> list[dict[str, Any]]:
    from cac_core.dicom.series import series_table

    rows: list[dict[str, Any]] = series_table(night.index(content).instances).to_pylist()
    return rows


def test_a_peer_that_is_not_there_or_refuses(pacs: Pacs, tmp_path: Path) -> None:
    nobody = Night(f"dicom://X@127.0.0.1:{free_port()}", tmp_path, attempts=2)
    with pytest.raises(SourceError, match="no association") as caught:
        nobody.read()
    assert caught.value.fault is Fault.AWAY
    if pacs.title == "DCMTK":
        stranger = Night(f"dicom://OTHER@127.0.0.1:{pacs.dicom_port}", tmp_path)
        with pytest.raises(SourceError) as caught:
            stranger.read()
        assert caught.value.fault is Fault.REFUSED
    assert "C-ECHO answers" in Night(pacs.dimse, tmp_path, timeout_s=5.0).source.check()


def _scp(**settings: Any) -> StorageScp:
    port = free_port()
    values = MOVE | {"listen": f"127.0.0.1:{port}", "peers": ["PACS@127.0.0.1"]} | settings
    return StorageScp(SourceSettings.model_validate(values))


def _sent(scp: StorageScp, path: Path, title: str = "PACS", called: str = "CAC") -> int | None:
    """Status of a C-STORE to the SCP; None without association."""
    host, _, port = scp._settings.listen.rpartition(":")
    link = AE(title).associate(host, int(port), [build_context(CT_CLASS)], called)
    if not link.is_established:
        return None
    status = link.send_c_store(dcmread(path))
    link.release()
    return int(status.Status) if status else None


def test_the_storage_scp_takes_only_what_was_asked_of_named_peers(folder: Path) -> None:
    with pytest.raises(UsageError, match="Nobody may send"):
        _scp(peers=[])
    path, other = folder / "1.2.0.1-000", folder / "1.2.1.1-000"
    scp, taken = _scp(), list[bytes]()
    scp.start()
    try:
        assert _sent(scp, path) == 0x0124, "nobody waits for it"
        scp.wait_for(("1.2.0", "1.2.0.1"), taken.append)
        assert _sent(scp, path) == 0
        assert _sent(scp, other) == 0x0124
        assert _sent(scp, path, title="EVIL") is None
        assert _sent(scp, path, called="WRONG") is None
        assert scp.end(("1.2.0", "1.2.0.1")) is None
        assert _sent(scp, path) == 0x0124
        assert len(taken) == 1
    finally:
        scp.stop()
    assert _sent(scp, path) is None, "it listens no more"
    elsewhere = _scp(peers=["PACS@192.0.2.7"])
    elsewhere.start()
    try:
        elsewhere.wait_for(("1.2.0", "1.2.0.1"), taken.append)
        assert _sent(elsewhere, path) is None
    finally:
        elsewhere.stop()


def test_the_storage_scp_cuts_off_what_is_too_large(folder: Path, tmp_path: Path) -> None:
    scp = _scp(series_gb=0.000_001)
    image = dcmread(folder / "1.2.0.1-000")
    image.Rows = image.Columns = 512
    image.PixelData = bytes(2 * 512 * 512)
    image.save_as(tmp_path / "large")
    scp.start()
    try:
        scp.wait_for(("1.2.0", "1.2.0.1"), pytest.fail)
        assert _sent(scp, tmp_path / "large") is None
    finally:
        scp.stop()
