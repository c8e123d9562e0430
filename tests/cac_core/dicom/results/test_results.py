"""Objects of a score: valid, read back by other software into the same masks and numbers."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from highdicom.sr import Comprehensive3DSR

from cac_core.dicom.results.build import ScoredVolume, write_objects
from cac_core.dicom.results.source import NotExportableError
from cac_core.dicom.results.stamp import RESEARCH_MARK, ResultStamp
from cac_core.dicom.results.validate import faults, validators
from cac_core.dicom.volume import read_volume
from cac_core.keys import Keyring
from schemas.score import SCORES
from tests.builders.ct_series import write_ct_series, write_enhanced_ct
from tests.builders.rows import score_row

KINDS = ("seg", "sr", "page")
STUDY = {
    "StudyDate": "20240517",
    "StudyTime": "101500",
    "StudyID": "1",
    "PatientBirthDate": "19500312",
    "PatientSex": "F",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "",
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "M\xfcller^\xc4nne",
}


@dataclass
class Made:
    """Objects in a folder, and what they were made from."""

    folder: Path
    scored: ScoredVolume
    row: dict[str, Any]
    stamp: ResultStamp

    def read(self, kind: str) -> pydicom.Dataset:
        """One of the objects."""
        return pydicom.dcmread(self.folder / f"{kind}.dcm")


def make(folder: Path, paths: list[Path], *, calcium: bool = True, research: bool = True) -> Made:
    """Objects of a heart with a lesion in it, or without."""
    volume = read_volume(paths)
    _, rows, columns = volume.hu.shape
    heart = np.zeros(volume.hu.shape, np.bool_)
    heart[4:15, rows // 4 : rows // 2, columns // 3 : columns // 2] = True
    calcium_class = np.zeros(volume.hu.shape, np.uint8)
    if calcium:
        calcium_class[6:9, rows // 4 + 3 : rows // 4 + 6, columns // 3 + 1 : columns // 3 + 4] = 1
        calcium_class[10, rows // 4 + 1, columns // 3 + 1] = 2
    score = {"agatston": 120.5, "agatston_noncoronary": 12.25} if calcium else {"agatston": 0.0}
    fields = {
        "agatston_noncoronary": 0.0,
        "agatston_low": 0.0,
        "agatston_high": 180.5,
        "cac_category": "101-400" if calcium else "0",
        "calcium_volume_mm3": 310.0 if calcium else 0.0,
        "heart_volume_ml": 512.5,
        "quality_flags": "high_noise;missing_kvp",
        "review_reasons": "",
        "threshold_hu": 130.0,
        "pixel_digest": volume.pixel_digest,
    }
    (row,) = SCORES.from_rows([score_row(1, **(fields | score))]).to_pylist()

    def stamp_of(series: str) -> ResultStamp:
        return ResultStamp(
            Keyring(b"a secret of the tests"), series, row, "convlstm-test", research=research
        )

    scored = ScoredVolume(paths, volume, heart, calcium_class)
    folder.mkdir(parents=True)
    write_objects(scored, stamp_of, b"%PDF-1.7 a page", KINDS, folder)
    series = str(pydicom.dcmread(paths[0]).SeriesInstanceUID)
    return Made(folder, scored, row, stamp_of(series))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("results")
    return make(folder / "objects", write_ct_series(folder / "series", header=STUDY))


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.dcm")}


def numbers(made: Made) -> dict[str, float]:
    """Every NUM of the report, by the meaning of its name and its finding."""
    report = Comprehensive3DSR.from_dataset(made.read("sr"))
    found: dict[str, float] = {}

    def walk(items: Any) -> None:
        for item in items:
            if item.ValueType == "NUM":
                name = item.ConceptNameCodeSequence[0].CodeMeaning
                found[name] = float(item.MeasuredValueSequence[0].NumericValue)
            walk(item.get("ContentSequence", ()))

    walk([report])
    return found


def test_no_validator_finds_an_error(made: Made, tmp_path: Path) -> None:
    if not validators()["dciodvfy"]:
        pytest.skip("dciodvfy is not installed")
    zero = make(tmp_path / "zero", write_ct_series(tmp_path / "s", header=STUDY), calcium=False)
    for objects in (made, zero):
        for kind in KINDS:
            assert faults(objects.folder / f"{kind}.dcm", is_report=kind == "sr") == []


def test_a_validator_finds_a_fault_and_quotes_no_value(made: Made, tmp_path: Path) -> None:
    if not validators()["dciodvfy"]:
        pytest.skip("dciodvfy is not installed")
    broken = made.read("seg")
    broken.PatientSex = "QUIXZOTL"
    del broken.Modality
    broken.save_as(tmp_path / "broken.dcm")
    found = faults(tmp_path / "broken.dcm", is_report=False)
    assert found and "QUIXZOTL" not in "".join(found)


@pytest.mark.parametrize("stored", ["plain", "feet last", "turned", "enhanced"])
def test_masks_are_read_back_on_every_grid(stored: str, tmp_path: Path) -> None:
    # `write_objects` reads the SEG back and compares every voxel.
    if stored == "enhanced":
        paths = [write_enhanced_ct(tmp_path / "enhanced.dcm", header=STUDY)]
    else:
        turn: dict[str, Any] = {
            "plain": {},
            "feet last": {"shuffle": 3},
            "turned": {"row_direction": (0.0, -1.0, 0.0), "column_direction": (1.0, 0.0, 0.0)},
        }[stored]
        paths = write_ct_series(tmp_path / "series", header=STUDY, **turn)
    made = make(tmp_path / "objects", paths)
    segments = made.read("seg").SegmentSequence
    assert [item.SegmentLabel for item in segments] == [
        "Heart", "Coronary calcification", "Non-coronary calcification",
    ]  # fmt: skip


def test_dcmqi_reads_the_same_masks(made: Made, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "segimage2itkimage"
    if not program.exists():
        pytest.skip("dcmqi is not installed")
    command = [program, "--inputDICOM", made.folder / "seg.dcm", "--outputType", "nii"]
    subprocess.run(
        [*command, "--outputDirectory", tmp_path], check=True, capture_output=True, timeout=60
    )
    read = [nibabel.load(path) for path in sorted(tmp_path.glob("*.nii*"))]
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    volume = made.scored.volume
    for image, name in zip(read, ("heart", "coronary", "noncoronary"), strict=True):
        where = np.argwhere(np.asarray(image.dataobj) > 0)
        points = np.c_[where, np.ones(len(where))] @ (to_lps @ image.affine).T
        places = np.rint(points @ np.linalg.inv(volume.affine).T)[:, :3].astype(int)
        expected = np.argwhere(made.scored.masks[name])
        assert sorted(map(tuple, places)) == sorted(map(tuple, expected))


def test_the_report_holds_the_numbers_of_the_row(made: Made) -> None:
    found = numbers(made)
    assert found["Coronary artery calcium score"] == 120.5
    assert found["Calcium score"] == 12.25
    assert found["Agatston score, upper limit of the 90 % interval"] == 180.5
    assert found["Calcium Volume"] == 310.0
    assert found["Volume"] == 512.5
    text = made.read("sr").to_json()
    for part in ("Agatston score 101-400", "High noise", "Missing kvp", "112055", "convlstm-test"):
        assert part in text
    assert made.row["model_digest"] in text


def test_dsrdump_prints_the_report(made: Made) -> None:
    if not validators()["dsrdump"]:
        pytest.skip("dsrdump (dcmtk) is not installed")
    (program,) = validators()["dsrdump"]
    done = subprocess.run([program, made.folder / "sr.dcm"], capture_output=True, check=True)
    text = done.stdout.decode("latin-1")
    assert 'Coronary artery calcium score")="120.5"' in text
    assert "Referenced Segment" in text


def test_a_score_of_0_has_no_empty_segment(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "series", header=STUDY)
    made = make(tmp_path / "objects", paths, calcium=False)
    assert [item.SegmentLabel for item in made.read("seg").SegmentSequence] == ["Heart"]
    assert numbers(made)["Coronary artery calcium score"] == 0.0


def test_the_same_score_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    again = make(tmp_path / "objects", write_ct_series(tmp_path / "series", header=STUDY))
    assert digests(again.folder) == digests(made.folder)
    uids = {made.read(kind).SOPInstanceUID for kind in KINDS}
    series = {made.read(kind).SeriesInstanceUID for kind in KINDS}
    assert len(uids) == len(series) == 3
    assert all(uid.startswith("2.25.") for uid in uids | series)


def test_patient_and_study_are_those_of_the_images(made: Made) -> None:
    for kind in KINDS:
        read = made.read(kind)
        assert str(read.PatientName) == STUDY["PatientName"]
        assert read.StudyInstanceUID == pydicom.dcmread(made.scored.files[0]).StudyInstanceUID


def test_everything_is_marked_as_research_unless_told_otherwise(made: Made, tmp_path: Path) -> None:
    for kind in KINDS:
        assert RESEARCH_MARK in made.read(kind).SeriesDescription
    assert made.read("sr").PreliminaryFlag == "PRELIMINARY"
    paths = write_ct_series(tmp_path / "series", header=STUDY)
    other = make(tmp_path / "objects", paths, research=False)
    for kind in KINDS:
        assert "RESEARCH" not in str(other.read(kind)).upper()
        assert other.read(kind).SOPInstanceUID != made.read(kind).SOPInstanceUID


def test_tracking_identifiers_and_equipment_as_in_air(made: Made) -> None:
    segments = {item.SegmentLabel: item for item in made.read("seg").SegmentSequence}
    text = made.read("sr").to_json()
    for item in segments.values():
        assert item.TrackingUID in text and item.TrackingID in text
    for kind in KINDS:
        models = [
            item.get("ManufacturerModelName")
            for item in made.read(kind).ContributingEquipmentSequence
        ]
        assert "convlstm-test" in models


def test_images_without_uids_of_their_own_are_refused(tmp_path: Path) -> None:
    header = STUDY | {"SOPInstanceUID": "2.25.1"}
    paths = write_ct_series(tmp_path / "series", header=header)
    with pytest.raises(NotExportableError, match="SOPInstanceUID"):
        make(tmp_path / "objects", paths)


def test_odd_values_of_a_header_do_not_stop_an_export(tmp_path: Path) -> None:
    header = STUDY | {"PatientSex": "X", "FrameOfReferenceUID": None, "StudyID": None}
    made = make(tmp_path / "objects", write_ct_series(tmp_path / "series", header=header))
    assert made.read("seg").PatientSex == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "series", ["chest_plain_8mm", "chest_motion_artefact/kernel_l", "chest_plain_3mm"]
)
def test_objects_of_real_series_are_valid(series: str, shared_data: Path, tmp_path: Path) -> None:
    # `write_objects` holds back what a validator finds an error in.
    paths = sorted((shared_data / series).rglob("*.dcm"))
    make(tmp_path / "objects", paths)
