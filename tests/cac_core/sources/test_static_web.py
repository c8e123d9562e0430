"""Static DICOMweb: the pixels and rows of the files that it was made from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import RLELossless

from cac_core.dicom.index import index_archive
from cac_core.errors import UsageError
from cac_core.sources.source import SourceError
from tests.builders.pacs_night import KEYS, QUERY, TEXTS, Night, rows, small_studies


def write_static(files: list[Path], folder: Path, *, compressed: bool = False) -> None:
    """The layout that static-dicomweb describes, from Part 10 files."""
    series: dict[Path, list[dict[str, object]]] = {}
    for path in files:
        image = dcmread(path)
        if compressed and image.Modality == "CT":
            image.compress(RLELossless, generate_instance_uid=False)
            (pixels,) = generate_frames(image.PixelData, number_of_frames=1)
        else:
            pixels = image.PixelData
        study = folder / "studies" / image.StudyInstanceUID
        home = study / "series" / image.SeriesInstanceUID
        frames = home / "instances" / image.SOPInstanceUID / "frames"
        frames.mkdir(parents=True)
        syntax = image.file_meta.TransferSyntaxUID
        head = f"--B0\r\nContent-Type: application/octet-stream; transfer-syntax={syntax}\r\n\r\n"
        (frames / "1.gz").write_bytes(gzip.compress(head.encode() + pixels + b"\r\n--B0--"))
        del image.PixelData
        item = image.to_json_dict()
        item["7FE00010"] = {"vr": "OW", "BulkDataURI": "instances/frames"}
        series.setdefault(home, []).append(item)
        entry = {n: item[n] for n in ("0020000D", "00080020", "00081030")}
        (study / "index.json.gz").write_bytes(gzip.compress(json.dumps([entry]).encode()))
    for home, items in series.items():
        (home / "metadata.gz").write_bytes(gzip.compress(json.dumps(items).encode()))


@pytest.mark.parametrize("compressed", [False, True])
def test_static_dicomweb_gives_the_rows_and_pixels_of_files(
    tmp_path: Path, compressed: bool
) -> None:
    folder = small_studies(tmp_path / "archive", 2)
    files = {dcmread(path).SOPInstanceUID: dcmread(path) for path in folder.iterdir()}
    write_static(sorted(folder.iterdir()), tmp_path / "static", compressed=compressed)
    place = f"dicomweb+file://{tmp_path}/static"
    content = Night(place, tmp_path).read()
    local = index_archive([folder], KEYS, texts=TEXTS).instances
    chosen = [row for row in rows(local) if row["Modality"] != "OT"]
    assert rows(content.rows) == chosen
    night = Night(place, tmp_path)
    works = night.pull(content)
    assert (len(works), night.faults) == (2, {})
    for work in works:
        for stamp in work.files:
            pulled = dcmread(stamp.path)
            expected = files[pulled.SOPInstanceUID].pixel_array
            assert (pulled.pixel_array == expected).all()
    assert Night(place, tmp_path).read(previous=content.rows).n_read == 0


def test_faults_of_static_dicomweb(tmp_path: Path) -> None:
    folder = small_studies(tmp_path / "archive", 1)
    write_static(sorted(folder.iterdir()), tmp_path / "static")
    place = f"dicomweb+file://{tmp_path}/static"
    series = tmp_path / "static" / "studies" / "1.2.0" / "series" / "1.2.0.1"
    content = Night(place, tmp_path).read()
    (series / "instances" / "1.2.0.1.3" / "frames" / "1.gz").unlink()
    night = Night(place, tmp_path, attempts=1)
    assert (night.pull(content), night.details()) == ([], {"a frame is missing"})
    whole = json.loads(gzip.decompress((series / "metadata.gz").read_bytes()))
    (series / "metadata.gz").write_bytes(gzip.compress(json.dumps(whole + whole).encode()))
    assert Night(place, tmp_path / "twice").read().rows.num_rows == content.rows.num_rows
    for item in whole:
        item["00280010"]["Value"] = [-(10**18)]
    (series / "metadata.gz").write_bytes(gzip.compress(json.dumps(whole).encode()))
    night = Night(place, tmp_path, attempts=1)
    assert (night.pull(content), night.details()) == ([], {"headers that make no instance"})
    (series / "metadata.gz").write_bytes(gzip.compress(b"[" * 100_000))
    assert len(Night(place, tmp_path / "deep", attempts=1).read(QUERY).unread) == 1
    (series / "metadata.gz").write_bytes(b"no gzip")
    assert len(Night(place, tmp_path, attempts=1).read(QUERY).unread) == 1
    with pytest.raises(UsageError, match="no folder `studies`"):
        Night(f"dicomweb+file://{tmp_path}/nowhere", tmp_path)
    with pytest.raises(UsageError, match="not absolute"):
        Night("dicomweb+file://relative", tmp_path)
    with pytest.raises(SourceError, match="names no studies"):
        (series.parents[1]).rename(tmp_path / "gone")
        Night(place, tmp_path).read()
