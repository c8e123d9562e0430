"""Copies of an instance: equal ones count once, re-encoded ones agree, others are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from cac_core.dicom.duplicates import resolve_duplicates
from cac_core.dicom.volume import read_volume
from cac_core.errors import StudyError
from cac_core.keys import Keyring
from cac_core.protocol import ScoringProtocol
from cac_core.study import score_study
from tests.builders.ct_series import write_ct_series
from tests.cac_core.dicom.test_studies import study

HEADER = {"StudyInstanceUID": "1.2.3", "PatientID": "A", "SeriesDescription": "CTAC"}
SYNTAXES = (
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
)


def write(folder: Path, **knobs: object) -> list[Path]:
    geometry = {"rows": 96, "columns": 96, "pixel_spacing_mm": (4.4, 4.4), "spacing_mm": 5.0}
    return write_ct_series(folder, header=HEADER, **(geometry | knobs))


def volume_digest(folder: Path, secret: bytes = b"secret") -> str:
    """What `score_study` reads of the one study of a folder."""
    _, order = study(folder, Keyring(secret))
    files = resolve_duplicates([(Path(stamp.path), stamp.copy_of) for stamp in order.files])
    assert len(files) == 24
    return read_volume(files).pixel_digest


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_other_encodings_of_the_same_slices_are_one_study(
    tmp_path: Path, syntax: pydicom.uid.UID
) -> None:
    write(tmp_path / "a")
    expected = volume_digest(tmp_path)
    if syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        for path in (tmp_path / "a").iterdir():
            dataset = pydicom.dcmread(path)
            dataset.compress(syntax, generate_instance_uid=False)
            dataset.save_as(tmp_path / f"re-{path.name}")
    else:
        write(tmp_path / "b", syntax=syntax)
    for secret in (b"1", b"2", b"3"):
        assert volume_digest(tmp_path, secret) == expected


def test_a_copy_with_another_name_in_the_header_agrees(tmp_path: Path) -> None:
    paths = write(tmp_path / "a")
    expected = volume_digest(tmp_path)
    dataset = pydicom.dcmread(paths[3])
    dataset.add_new(0x00091001, "LO", "private")
    dataset.save_as(tmp_path / "again")
    assert volume_digest(tmp_path) == expected


@pytest.mark.parametrize("secret", [b"1", b"2", b"3"])
def test_a_truncated_compressed_copy_is_skipped(tmp_path: Path, secret: bytes) -> None:
    paths = write(tmp_path / "a")
    expected = volume_digest(tmp_path, secret)
    dataset = pydicom.dcmread(paths[3])
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "cut")
    content = (tmp_path / "cut").read_bytes()
    (tmp_path / "cut").write_bytes(content[:-300])
    assert volume_digest(tmp_path, secret) == expected
    paths[3].unlink()
    _, order = study(tmp_path, Keyring(secret))
    row = score_study(order, None, ScoringProtocol()).score  # type: ignore[arg-type]
    assert row["reason"] == "truncated_pixel_data"


@pytest.mark.parametrize("secret", [b"1", b"2"])
def test_a_windowed_copy_is_refused(tmp_path: Path, secret: bytes) -> None:
    for path in write(tmp_path / "a"):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.clip(dataset.pixel_array, 800, 1200).astype(np.uint16).tobytes()
        dataset.save_as(tmp_path / f"windowed-{path.name}")
    _, order = study(tmp_path, Keyring(secret))
    with pytest.raises(StudyError, match="pixels") as caught:
        resolve_duplicates([(Path(stamp.path), stamp.copy_of) for stamp in order.files])
    assert caught.value.reason.value == "conflicting_copies"
    row = score_study(order, None, ScoringProtocol()).score  # type: ignore[arg-type]
    assert (row["status"], row["reason"]) == ("rejected", "conflicting_copies")


@pytest.mark.parametrize(
    ("keyword", "value", "named"),
    [
        ("PixelSpacing", ["3", "3"], "geometry"),
        ("ImagePositionPatient", ["0", "0", "7.5"], "geometry"),
        ("RescaleIntercept", "-1000", "pixels"),
        ("KVP", "80", "tube voltage"),
    ],
)
def test_a_copy_with_other_geometry_is_refused(
    tmp_path: Path, keyword: str, value: object, named: str
) -> None:
    paths = write(tmp_path / "a")
    dataset = pydicom.dcmread(paths[3])
    setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "other")
    _, order = study(tmp_path)
    with pytest.raises(StudyError, match=named):
        resolve_duplicates([(Path(stamp.path), stamp.copy_of) for stamp in order.files])


def test_a_new_conflicting_copy_changes_the_digest(tmp_path: Path) -> None:
    paths = write(tmp_path / "a")
    before, _ = study(tmp_path)
    shutil.copy(paths[3], tmp_path / "equal")
    assert study(tmp_path)[0]["instances_digest"] == before["instances_digest"]
    content = bytearray(paths[3].read_bytes())
    content[-1] ^= 1
    (tmp_path / "equal").write_bytes(content)
    assert study(tmp_path)[0]["instances_digest"] != before["instances_digest"]


def test_slices_with_one_uid_are_not_copies(tmp_path: Path) -> None:
    for path in write(tmp_path / "a"):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = "1.2.3.9"
        dataset.save_as(path)
    assert len(study(tmp_path)[1].files) == 24
    shutil.copy(next((tmp_path / "a").iterdir()), tmp_path / "copy")
    assert len(study(tmp_path)[1].files) == 24


def test_a_truncated_slice_with_a_shared_uid_is_not_skipped(tmp_path: Path) -> None:
    """Only a complete copy of the same slice replaces a truncated file."""
    for path in write(tmp_path / "a"):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = "1.2.3.9"
        dataset.save_as(path)
    last = tmp_path / "a" / "0023.dcm"
    content = last.read_bytes()
    last.write_bytes(content[:-500])
    _, order = study(tmp_path)
    assert len(order.files) == 24
    result = score_study(order, None, ScoringProtocol()).score  # type: ignore[arg-type]
    assert result["reason"] == "truncated_pixel_data"
    (tmp_path / "whole").write_bytes(content)
    assert {Path(stamp.path).name for stamp in study(tmp_path)[1].files} >= {"whole"}
    assert len(study(tmp_path)[1].files) == 24
