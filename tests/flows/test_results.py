"""`cac export --dicom`, `--deidentify` and `--fhir` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from highdicom.seg import segread
from scipy.ndimage import label

from cac_core.cohort.warehouse import Warehouse
from cac_core.dicom.volume import read_volume
from schemas.delivery import DELIVERIES
from schemas.score import SCORES
from tests.builders.orthanc_site import free_port, orthanc
from tests.flows.conftest import Cac, Scored


def rows(scored: Scored) -> list[dict[str, object]]:
    """Scored studies, the highest score first."""
    table = Warehouse(scored.warehouse).read(SCORES, scored.summary["model"]).to_pylist()
    found = [row for row in table if row["status"] == "scored"]
    return sorted(found, key=lambda row: -row["agatston"])


def agatston(seg: Path, images: list[Path]) -> float:
    """Agatston score of the coronary segment, from its voxels and the HU of the images."""
    volume = read_volume(images)
    segments = segread(seg)
    (number,) = (
        n for n in segments.segment_numbers
        if segments.get_segment_description(n).segment_label == "Coronary calcification"
    )  # fmt: skip
    found = segments.get_volume(segment_numbers=[number], combine_segments=True)
    found = found.to_patient_orientation("HPL")
    begin = np.rint((np.linalg.inv(volume.affine) @ found.affine)[:3, 3]).astype(int)
    box = tuple(slice(b, b + n) for b, n in zip(begin, found.array.shape, strict=True))
    total, pixel = 0.0, volume.spacing_mm[1] * volume.spacing_mm[2]
    for mask, hu in zip(found.array > 0, volume.hu[box], strict=True):
        labels, n = label(mask, np.ones((3, 3)))
        for k in range(1, n + 1):
            weight = 1 + np.searchsorted([200, 300, 400], hu[labels == k].max(), side="right")
            total += (labels == k).sum() * pixel * weight
    return float(total * volume.spacing_mm[0] / 3.0)


@pytest.mark.slow
def test_objects_of_a_study_hold_its_score(scored: Scored, cac: Cac, tmp_path: Path) -> None:
    row, out = rows(scored)[0], tmp_path / "objects"
    key = row["study_key"]
    place = ("--archive", scored.archive, "-w", scored.warehouse)
    done = cac("export", "--dicom", *place, "--study", key, "--out", out, "--json", "-q")
    assert done.code == 0, done.err
    assert done.json["counts"] == {"made": 1}
    folder = out / str(key)
    assert {path.name for path in folder.iterdir()} == {"seg.dcm", "sr.dcm", "page.dcm"}
    assert folder.stat().st_mode & 0o077 == 0
    report = pydicom.dcmread(folder / "sr.dcm")
    images = []
    for path in scored.archive.rglob("*"):
        if path.is_file():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            if header.get("StudyInstanceUID") == report.StudyInstanceUID:
                images.append((header.SeriesInstanceUID, path))
    series = pydicom.dcmread(folder / "seg.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID
    mine = [path for uid, path in images if uid == series]
    assert agatston(folder / "seg.dcm", mine) == pytest.approx(row["agatston"], rel=1e-6)
    assert str(report.PatientID) not in done.out + done.err


def test_fhir_bundles_of_all_scores(scored: Scored, cac: Cac, tmp_path: Path) -> None:
    done = cac("export", "--fhir", "-w", scored.warehouse, "--out", tmp_path / "fhir", "--json")
    assert done.code == 0, done.err
    expected = {row["study_key"]: row["agatston"] for row in rows(scored)}
    for key, score in expected.items():
        bundle = json.loads((tmp_path / "fhir" / f"{key}.json").read_text())
        assert bundle["entry"][1]["resource"]["valueQuantity"]["value"] == score


@pytest.mark.slow
def test_a_copy_of_the_archive_names_nobody(scored: Scored, cac: Cac, tmp_path: Path) -> None:
    key, out = rows(scored)[0]["study_key"], tmp_path / "copy"
    place = ("--archive", scored.archive, "-w", scored.warehouse)
    done = cac("export", "--deidentify", *place, "--study", key, "--out", out, "--json", "-q")
    assert done.code == 0, done.err
    identifiers = {
        str(pydicom.dcmread(path, stop_before_pixels=True, force=True).get(name, ""))
        for path in list(scored.archive.rglob("*.dcm"))[::40]
        for name in ("PatientID", "PatientName", "StudyInstanceUID")
    } - {""}
    copies = [path for path in out.rglob("*.dcm")]
    assert len(copies) == done.json["copied"] > 20
    for path in copies:
        data = path.read_bytes()
        assert not [one for one in identifiers if one.encode() in data or one in str(path)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dicom", "--shape", "omop"),
        ("--dicom",),
        ("--fhir",),
        ("--dicom", "--send"),
        ("--dicom", "--study", "ffff", "--out", "objects"),
    ],
)
def test_wrong_usage_is_said_in_a_line(
    arguments: tuple[str, ...], scored: Scored, cac: Cac, tmp_path: Path
) -> None:
    archive = () if "--fhir" in arguments else ("--archive", scored.archive)
    done = cac("export", *arguments, *archive, "-w", scored.warehouse)
    assert done.code == 2 and done.err.strip()


@pytest.mark.slow
def test_nights_send_each_score_once(scored: Scored, cac: Cac, tmp_path: Path) -> None:
    port, config = free_port(), tmp_path / "cac.toml"
    address = f"http://127.0.0.1:{port}/dicom-web"
    config.write_text(
        f'[results]\nnightly = true\nretries = 0\nkinds = ["seg", "sr"]\nstow_url = "{address}"\n'
    )
    place = ("-w", tmp_path / "wh", "-c", config)
    night = ("score", scored.archive, *place, "--limit", 1, "--json")
    away = cac(*night, PREFECT_API_URL=None)
    assert away.code == 0 and away.json["scored"] == 1, away.err
    assert "not_sent" in away.err
    with orthanc(tmp_path / "orthanc", port) as pacs:
        second = cac(*night, PREFECT_API_URL=None)
        assert second.code == 0, second.err
        assert pacs.instances() == 2 * (1 + second.json["scored"]), "that of the first night too"
        found = Warehouse(tmp_path / "wh").read(DELIVERIES).sort_by("tried_at")
        assert found["outcome"].to_pylist()[0] == "not_sent"
        assert set(found["outcome"].to_pylist()[1:]) == {"sent"}
        assert address not in pq.read_table(tmp_path / "wh" / "runs")["settings"][0].as_py()
        send = ("export", "--dicom", "--send", "--archive", scored.archive, *place, "--json", "-q")
        assert cac(*send).json["counts"] == {}, "nothing is left to send"
        named = cac(*send, "--study", found["study_key"][0].as_py())
        assert named.json["counts"] == {"sent": 1}
        assert pacs.instances() == 2 * (1 + second.json["scored"])
