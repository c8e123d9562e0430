"""Volumes that contradict their headers are flagged, and no others: phantoms and real chests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cac_core.dicom.volume import read_volume
from cac_core.phantom.analytic.scan import synthesise_scan
from cac_core.phantom.annotated import AnnotatedScan
from cac_core.phantom.heldout.second_generator import synthesise_second
from cac_core.scoring.orientation import measure_landmarks, orientation_flags
from schemas.codes import QualityFlag

CONTRADICTS = (QualityFlag.ORIENTATION_CONTRADICTS_HEADER,)
MIRRORED = (QualityFlag.MIRRORED_OR_SITUS_INVERSUS,)
HEART_RIGHT = (QualityFlag.HEART_ON_THE_RIGHT,)
#: Flips along slices, rows and columns that leave head and feet or front and back exchanged.
EXCHANGED = {
    "head and feet": np.s_[::-1],
    "front and back": np.s_[:, ::-1],
    "head first taken for feet first": np.s_[::-1, :, ::-1],
    "supine taken for prone": np.s_[:, ::-1, ::-1],
    "head, feet, front and back": np.s_[::-1, ::-1],
}
REAL = (
    "chest_contrast_siemens/ct",
    "chest_plain_8mm",
    "chest_plain_3mm",
    "chest_motion_artefact/kernel_b",
    "chest_petct_partial_heart",
)
Volume = tuple[Any, Any, tuple[float, float, float]]


@lru_cache(maxsize=1)
def phantom(seed: int, second: bool) -> AnnotatedScan:
    return synthesise_second(seed) if second else synthesise_scan(seed)


@lru_cache(maxsize=1)
def chest(folder: Path) -> Volume:
    """A real chest, and what lies between its lungs for a heart."""
    volume = read_volume(sorted(folder.glob("*.dcm")))
    return volume.hu, np.zeros(volume.hu.shape, bool), volume.spacing_mm


def flags(volume: Volume, part: Any = np.s_[:]) -> tuple[QualityFlag, ...]:
    hu, heart, spacing = volume
    return orientation_flags(hu[part], heart[part], spacing)


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("seed", [2000, 2001])
def test_phantoms(seed: int, second: bool) -> None:
    scan = phantom(seed, second)
    volume = (scan.hu, scan.heart_mask, scan.spacing_mm)
    assert flags(volume) == ()
    for name, part in EXCHANGED.items():
        assert flags(volume, part) == CONTRADICTS, name
    assert flags(volume, np.s_[:, :, ::-1]) in (MIRRORED, HEART_RIGHT)


@pytest.mark.parametrize("name", REAL)
def test_real_chests(shared_data: Path, name: str) -> None:
    volume = chest(shared_data / name)
    assert flags(volume) == ()
    for kind, part in EXCHANGED.items():
        assert flags(volume, part) == CONTRADICTS, kind
    liver_in_view = not np.isnan(measure_landmarks(*volume).liver_right)
    assert liver_in_view == (name != "chest_petct_partial_heart")
    assert flags(volume, np.s_[:, :, ::-1]) == (MIRRORED if liver_in_view else ())


def test_a_chest_from_its_labels(shared_data: Path) -> None:
    """Another file format, arterial contrast, and a heart outlined by hand."""
    nibabel = pytest.importorskip("nibabel")
    folder = shared_data / "chest_contrast_labelled"
    image = nibabel.as_closest_canonical(nibabel.load(folder / "cxr.nii.gz"))
    labels = nibabel.as_closest_canonical(nibabel.load(folder / "mask.nii.gz"))
    spacing = tuple(float(size) for size in image.header.get_zooms()[::-1])
    # From right-anterior-superior to (slice, row to posterior, column to the left).
    turn = lambda values: np.asarray(values).T[:, ::-1, ::-1]  # noqa: E731
    hu = turn(image.dataobj).astype(np.int16)
    volume = (hu, turn(labels.dataobj) == 51, spacing)
    assert flags(volume) == ()  # type: ignore[arg-type]
    assert flags(volume, np.s_[::-1]) == CONTRADICTS  # type: ignore[arg-type]


def test_dextrocardia_is_not_a_mirrored_image(shared_data: Path) -> None:
    """The heart on the right above a liver on the right."""
    hu, _, spacing = chest(shared_data / "chest_motion_artefact" / "kernel_b")
    heart = np.zeros(hu.shape, bool)
    heart[20:40, 150:280, 150:230] = True  # right of the spine
    assert orientation_flags(hu, heart, spacing) == HEART_RIGHT
    assert orientation_flags(hu, heart[:, :, ::-1], spacing) == ()


def test_a_field_that_reaches_down_to_the_bowels(shared_data: Path) -> None:
    hu, heart, spacing = chest(shared_data / "chest_contrast_siemens" / "ct")
    for part in (np.s_[:54], np.s_[5:58], np.s_[10:54]):
        assert flags((hu, heart, spacing), part) == ()


@pytest.mark.parametrize("shape", [(3, 8, 8), (24, 16, 16), (6, 400, 400), (40, 1, 1)])
def test_other_volumes_than_chests_give_no_flag(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(1).normal(0, 300, shape)
    pictures = [np.full(shape, -1024), np.full(shape, 40), np.full(shape, 3000), noise]
    pictures.append(ndimage.gaussian_filter(noise, 2) * 10)
    for picture in pictures:
        found = orientation_flags(picture.astype(np.int16), np.ones(shape, bool), (5.0, 1.0, 1.0))
        assert set(found) <= {CONTRADICTS[0], HEART_RIGHT[0]}
