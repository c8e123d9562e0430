"""Chests that are not as they should be: a score to review with its reason, or a stated rejection.

A person with the heart on the right, a scan that cuts the heart, a replaced valve, an operated
chest: none may pass as an ordinary score, and least of all as an ordinary 0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cac_core.dicom.volume import read_volume
from cac_core.model.cascade import Cascade
from cac_core.phantom.annotated import AnnotatedScan
from cac_core.phantom.heldout.implanted import variant_of
from cac_core.protocol import ScoringProtocol
from cac_core.study import FileStamp, StudyWork, score_study
from schemas.codes import ReviewReason
from tests.builders.ct_series import write_ct_series

pytestmark = pytest.mark.slow

Hu = NDArray[np.int16]
#: A chest in which the networks find the right score, 0, and see nothing to review.
HOST, SEED = "crop", 777001


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return Cascade.load()


@pytest.fixture(scope="module")
def scan(shared_data: Path) -> AnnotatedScan:
    return variant_of(HOST, SEED, shared_data)


def scored(
    folder: Path, hu: Hu, spacing_mm: tuple[float, float, float], cascade: Cascade
) -> dict[str, Any]:
    """The score row of a volume, read from files as every study is."""
    paths = write_ct_series(
        folder,
        hu=np.ascontiguousarray(hu),
        spacing_mm=spacing_mm[0],
        pixel_spacing_mm=spacing_mm[1:],
    )
    stamps = tuple(FileStamp(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths)
    work = StudyWork("0" * 32, "1" * 32, None, stamps, "2" * 64)
    return score_study(work, cascade, ScoringProtocol(), previews=False).score


def middle(scan: AnnotatedScan) -> int:
    """The slice halfway along the heart."""
    slices = np.flatnonzero(scan.heart_mask.any(axis=(1, 2)))
    return int(slices[0] + slices[-1]) // 2


def with_ring(scan: AnnotatedScan, hu_of_ring: float) -> Hu:
    """A ring of 24 mm across, as of a valve prosthesis, near the base of the heart."""
    spacing = np.array(scan.spacing_mm)
    centre = np.array(ndimage.center_of_mass(scan.heart_mask)) * spacing + (15, 0, 0)
    axes = [
        np.arange(n) * step - at for n, step, at in zip(scan.hu.shape, spacing, centre, strict=True)
    ]
    away = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    normal = np.array([0.6, 0.2, 0.77]) / np.linalg.norm([0.6, 0.2, 0.77])
    along = away @ normal
    across = np.sqrt(np.maximum((away**2).sum(axis=-1) - along**2, 0))
    ring = ((np.abs(along) < 2) & (np.abs(across - 12) < 1.5)).astype(np.float32)
    blurred = ndimage.gaussian_filter(ring, 1.5 / spacing)
    return np.clip(scan.hu + hu_of_ring * blurred, -1024, 3071).astype(np.int16)


def without_left_lung(scan: AnnotatedScan) -> Hu:
    """Fluid in place of the left lung, as after its removal."""
    centre = ndimage.center_of_mass(scan.heart_mask)[2]
    body = ndimage.binary_erosion(
        ndimage.binary_fill_holes((scan.hu > -300).any(axis=0)), iterations=8
    )
    left = np.arange(scan.hu.shape[2]) > centre
    lung = (scan.hu < -500) & body & left
    return np.where(lung, 15, scan.hu).astype(np.int16)


def cut_by_the_field(scan: AnnotatedScan) -> Hu:
    """The field of view ends within the heart."""
    columns = np.flatnonzero(scan.heart_mask.any(axis=(0, 1)))
    return scan.hu[:, :, : columns[0] + round(0.6 * len(columns))]


ODD: dict[str, tuple[Callable[[AnnotatedScan], Hu], set[ReviewReason]]] = {
    "heart on the right": (
        lambda scan: scan.hu[:, :, ::-1],
        {ReviewReason.HEART_ON_THE_RIGHT},
    ),
    "head and feet exchanged": (
        lambda scan: scan.hu[::-1],
        {ReviewReason.ORIENTATION_CONTRADICTS_HEADER},
    ),
    "front and back exchanged": (
        lambda scan: scan.hu[:, ::-1, ::-1],
        {ReviewReason.ORIENTATION_CONTRADICTS_HEADER},
    ),
    "upper half of a heart": (
        lambda scan: scan.hu[middle(scan) :],
        {ReviewReason.HEART_MASK_ODD},
    ),
    "lower half of a heart": (
        lambda scan: scan.hu[: middle(scan)],
        {ReviewReason.HEART_MASK_ODD},
    ),
    "heart cut by the field": (cut_by_the_field, {ReviewReason.HEART_MASK_ODD}),
    "mechanical valve": (lambda scan: with_ring(scan, 3000), {ReviewReason.DEVICE}),
    "left lung removed": (without_left_lung, {ReviewReason.HEART_MASK_ODD}),
}


def test_the_chest_itself_needs_no_review(
    scan: AnnotatedScan, cascade: Cascade, tmp_path: Path
) -> None:
    row = scored(tmp_path, scan.hu, scan.spacing_mm, cascade)
    assert (row["agatston"], row["needs_review"]) == (0.0, False)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_chest_is_reviewed(
    name: str, scan: AnnotatedScan, cascade: Cascade, tmp_path: Path
) -> None:
    change, reasons = ODD[name]
    row = scored(tmp_path, change(scan), scan.spacing_mm, cascade)
    assert row["status"] == "scored"
    assert row["needs_review"]
    assert reasons <= {ReviewReason(reason) for reason in row["review_reasons"].split(";")}


def test_a_biological_valve_is_reviewed(
    scan: AnnotatedScan, cascade: Cascade, tmp_path: Path
) -> None:
    """Its frame is no brighter than calcium."""
    row = scored(tmp_path, with_ring(scan, 900), scan.spacing_mm, cascade)
    assert "much_other_calcium" in row["review_reasons"].split(";")


@pytest.mark.parametrize("part", [np.s_[52:], np.s_[:12]], ids=["neck", "abdomen"])
def test_a_scan_without_a_heart_is_rejected_or_reviewed(
    part: slice, shared_data: Path, cascade: Cascade, tmp_path: Path
) -> None:
    files = sorted((shared_data / "chest_motion_artefact" / "kernel_b").glob("*.dcm"))
    volume = read_volume(files)
    row = scored(tmp_path, volume.hu[part], volume.spacing_mm, cascade)
    if row["status"] == "scored":
        assert row["needs_review"]
    else:
        assert (row["status"], row["reason"]) == ("rejected", "no_heart")
        assert "ml" in row["detail"]
