"""Noise against noise of known size; volume, truncation and flags by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cac_core.scoring.quality import (
    QualityLimits,
    heart_volume_ml,
    noise_hu,
    quality_flags,
    quality_markdown,
    quality_measures,
)
from schemas.codes import QualityFlag
from schemas.score import SCORES

SPACING = (3.0, 1.0, 1.0)


def heart_in_lung(noise: NDArray[np.float64]) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Make a ball of blood in a shell of fat, in lung; the mask includes the fat."""
    slices, rows, columns = (np.arange(size) for size in noise.shape)
    radius = np.sqrt(
        ((slices[:, None, None] - slices.mean()) * 3) ** 2
        + (rows[:, None] - rows.mean()) ** 2
        + (columns - columns.mean()) ** 2
    )
    hu = np.where(radius < 42, 45.0, np.where(radius < 48, -90.0, -850.0)) + noise
    return np.rint(hu).astype(np.int16), radius < 48


def noise_of(sd: float, blur: float = 0.0) -> NDArray[np.float64]:
    white = np.random.default_rng(7).standard_normal((36, 112, 112))
    grain = gaussian_filter(white, (0, blur, blur), mode="wrap") if blur else white
    return grain * (sd / grain.std())


@pytest.mark.parametrize("sd", [8.0, 20.0, 45.0])
@pytest.mark.parametrize("blur", [0.0, 0.9, 1.5])
def test_noise_of_known_size_white_and_correlated(sd: float, blur: float) -> None:
    noise = noise_of(sd, blur)
    hu, heart = heart_in_lung(noise)
    # Whole HU make the median absolute deviation a whole number: half a HU either way. Coarse and
    # strong grain moves neighbourhoods out of the soft tissue range, which costs some per cent.
    assert noise_hu(hu, heart, SPACING) == pytest.approx(noise[heart].std(), rel=0.08, abs=0.8)


def test_calcium_edges_and_gradients_are_not_noise() -> None:
    hu, heart = heart_in_lung(noise_of(15.0))
    clean = noise_hu(hu, heart, SPACING)
    hu[:, ::12, ::12] = 900
    ramp = np.linspace(-20, 20, hu.shape[2]).astype(np.int16)
    assert noise_hu(hu + ramp, heart, SPACING) == pytest.approx(clean, rel=0.1)


def test_no_noise_and_too_small_masks() -> None:
    hu, heart = heart_in_lung(np.zeros((36, 112, 112)))
    assert noise_hu(hu, heart, SPACING) == 0.0
    assert math.isnan(noise_hu(hu, np.zeros_like(heart), SPACING))
    tiny = np.zeros_like(heart)
    tiny[3, 50, 50] = True
    assert math.isnan(noise_hu(hu, tiny, SPACING))


def test_noise_of_a_heart_without_soft_tissue() -> None:
    hu, heart = heart_in_lung(noise_of(20.0))
    assert noise_hu(hu - np.int16(600), heart, SPACING) == pytest.approx(20, rel=0.25)


def test_the_spacing_sets_the_distance_of_the_pixels() -> None:
    # The same grain in pixels of half the size: 6 mm are twelve pixels then.
    noise = noise_of(20.0, 3.5)
    hu, heart = heart_in_lung(noise)
    fine = noise_hu(hu, heart, (3.0, 0.5, 0.5))
    assert fine == pytest.approx(noise[heart].std(), rel=0.1)
    # In pixels of 3 mm it is two, where this grain still hangs together.
    assert noise_hu(hu, heart, (3.0, 3.0, 3.0)) < 0.6 * fine


def test_heart_volume() -> None:
    mask = np.zeros((4, 10, 10), bool)
    mask[1:3, 2:7, 0:10] = True
    assert heart_volume_ml(mask, (5.0, 2.0, 0.5)) == pytest.approx(100 * 5.0 / 1000)


def test_the_page_describes_the_measures() -> None:
    page = Path(__file__).parents[3] / "docs" / "scoring.md"
    hint = "run: python docs/quality/make.py"
    assert quality_markdown() in page.read_text(encoding="utf-8"), hint


def test_every_measure_is_described() -> None:
    measures = quality_measures(QualityLimits(max_noise_hu=33.0))
    assert measures[0].limit.startswith("above 33")
    columns = {column.name: column.unit for column in SCORES.columns}
    for measure in measures:
        assert measure.unit == columns.get(measure.name, "1")
        assert measure.meaning and measure.formula and measure.source
    mask = np.ones((3, 5, 5), bool)
    assert {measure.flag for measure in measures} == set(quality_flags(mask, SPACING, math.nan))


def test_flags() -> None:
    mask = np.zeros((20, 40, 40), bool)
    mask[1:19, 4:36, 4:36] = True  # 18 x 32 x 32 voxels of 27 mm3: 498 ml
    spacing = (3.0, 3.0, 3.0)
    assert quality_flags(mask, spacing, 20.0) == ()
    assert quality_flags(mask, spacing, 40.0) == ()
    assert quality_flags(mask, spacing, 40.1) == (QualityFlag.HIGH_NOISE,)
    assert quality_flags(mask, spacing, math.nan) == (QualityFlag.HIGH_NOISE,)
    unusual = (QualityFlag.HEART_VOLUME_UNUSUAL,)
    assert quality_flags(mask, (1.0, 1.0, 1.0), 20.0) == unusual
    assert quality_flags(mask, (9.0, 3.0, 3.5), 20.0) == unusual
    limits = QualityLimits(max_noise_hu=10.0, heart_volume_ml=(490.0, 500.0))
    assert quality_flags(mask, spacing, 11.0, limits) == (QualityFlag.HIGH_NOISE,)


@pytest.mark.parametrize("end", [0, -1])
def test_a_heart_that_reaches_the_end_of_the_scan(end: int) -> None:
    mask = np.zeros((20, 40, 40), bool)
    mask[1:19, 4:36, 4:36] = True
    mask[end, 20, 20] = True
    assert quality_flags(mask, (3.0, 3.0, 3.0), 20.0) == (QualityFlag.HEART_TRUNCATED,)


def test_an_empty_mask() -> None:
    mask = np.zeros((3, 5, 5), bool)
    assert quality_flags(mask, SPACING, math.nan) == (
        QualityFlag.HEART_VOLUME_UNUSUAL,
        QualityFlag.HIGH_NOISE,
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_a_heart_at_any_border_is_truncated(axis: int, end: int) -> None:
    mask = np.zeros((60, 60, 60), bool)
    mask[10:50, 10:50, 10:50] = True
    spacing = (2.5, 2.5, 2.5)
    assert QualityFlag.HEART_TRUNCATED not in quality_flags(mask, spacing, 20.0)
    np.moveaxis(mask, axis, 0)[end, 30, 30] = True
    assert QualityFlag.HEART_TRUNCATED in quality_flags(mask, spacing, 20.0)
