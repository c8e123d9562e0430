"""Annotations: DICOM SEG and NIfTI placed on their series, and refused where they do not match."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from cac_core.dicom.annotation import read_annotation, read_mapping
from cac_core.dicom.volume import CtVolume, read_volume
from cac_core.errors import TrainingDataError
from tests.builders.ct_series import thorax, write_ct_series
from tests.builders.segmentations import nifti_labels, write_seg

MAPPING = """
heart = ["Heart", 51]
ignore = ["Lung"]
[coronary]
LAD = ["lad", 1]
[noncoronary]
mitral_valve = ["Mitral  Annulus", 2]
"""


@pytest.fixture
def mapping(tmp_path: Path):
    path = tmp_path / "labels.toml"
    path.write_text(MAPPING, encoding="utf-8")
    return read_mapping(path)


@pytest.fixture
def series(tmp_path: Path) -> tuple[list[Path], CtVolume]:
    """Twelve slices on disk and as a volume."""
    paths = write_ct_series(tmp_path / "ct", hu=thorax(12))
    return paths, read_volume(paths)


def masks(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A heart, an artery in it and a valve, in canonical orientation; nothing symmetric."""
    heart, lad, valve = (np.zeros(shape, bool) for _ in range(3))
    heart[2:10, 8:24, 6:26] = True
    lad[3:5, 10:12, 9:10] = True
    valve[7, 20, 12:16] = True
    return {"Heart": heart, "LAD": lad, "mitral annulus": valve}


def test_a_seg_keeps_its_position(tmp_path: Path, mapping, series) -> None:
    paths, volume = series
    drawn = masks(volume.hu.shape)
    write_seg(tmp_path / "seg.dcm", paths, volume, drawn)
    found = read_annotation(tmp_path / "seg.dcm", mapping, volume.affine, volume.hu.shape)
    np.testing.assert_array_equal(found.heart, drawn["Heart"])
    np.testing.assert_array_equal(found.calcium == 1, drawn["LAD"])
    np.testing.assert_array_equal(found.calcium == 2, drawn["mitral annulus"])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAI"])
def test_a_nifti_keeps_its_position_with_any_axes(
    tmp_path: Path, mapping, series, axes: str
) -> None:
    _, volume = series
    drawn = masks(volume.hu.shape)
    values = np.select([drawn["LAD"], drawn["mitral annulus"], drawn["Heart"]], [1, 2, 51], 0)
    nibabel.save(nifti_labels(values, volume.affine, axes), tmp_path / "a.nii.gz")
    found = read_annotation(tmp_path / "a.nii.gz", mapping, volume.affine, volume.hu.shape)
    np.testing.assert_array_equal(found.calcium == 1, drawn["LAD"])
    np.testing.assert_array_equal(found.calcium == 2, drawn["mitral annulus"])
    # One label per voxel: the artery's voxels are given back to the heart, the valve's are not.
    np.testing.assert_array_equal(found.heart, drawn["Heart"] & ~drawn["mitral annulus"])


@pytest.mark.parametrize("change", ["shift", "spacing", "shape"])
def test_another_geometry_is_refused(tmp_path: Path, mapping, series, change: str) -> None:
    _, volume = series
    values = np.where(masks(volume.hu.shape)["Heart"], 51, 0)
    affine = volume.affine.copy()
    if change == "shift":
        affine[:3, 3] += 0.4 * volume.affine[:3, 1]
    elif change == "spacing":
        affine[:3, 2] *= 1.02
    else:
        values = np.pad(values, ((0, 1), (0, 0), (0, 0)))
    nibabel.save(nifti_labels(values, affine, "RAS"), tmp_path / "a.nii.gz")
    with pytest.raises(TrainingDataError, match=r"geometry of the annotation .*a\.nii\.gz"):
        read_annotation(tmp_path / "a.nii.gz", mapping, volume.affine, volume.hu.shape)


def test_an_unknown_label_is_named(tmp_path: Path, mapping, series) -> None:
    _, volume = series
    values = np.where(masks(volume.hu.shape)["Heart"], 7, 0)
    nibabel.save(nifti_labels(values, volume.affine, "RAS"), tmp_path / "a.nii.gz")
    with pytest.raises(TrainingDataError, match=r"holds the label 7, which .*labels\.toml"):
        read_annotation(tmp_path / "a.nii.gz", mapping, volume.affine, volume.hu.shape)


def test_files_that_are_not_annotations(tmp_path: Path, mapping, series) -> None:
    paths, volume = series
    for name, content in (("a.nii.gz", b"nonsense"), ("a.dcm", b"nonsense"), ("b.dcm", None)):
        if content is None:
            (tmp_path / name).write_bytes(paths[0].read_bytes())  # CT, not SEG
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(TrainingDataError, match=f"{name} cannot be read"):
            read_annotation(tmp_path / name, mapping, volume.affine, volume.hu.shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("heart = [", "cannot be read"),
        ("hearts = [1]", "unknown keys: hearts"),
        ("heart = ['A']\n[coronary]\nLAD = ['a']", "maps 'a' both to heart and to coronary"),
    ],
)
def test_invalid_mappings_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.toml").write_text(text, encoding="utf-8")
    with pytest.raises(TrainingDataError, match=message):
        read_mapping(tmp_path / "labels.toml")
