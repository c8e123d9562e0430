"""Detection of contrast: synthetic chests with known blood, and real enhanced scans."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cac_core.dicom.volume import read_volume
from cac_core.scoring.contrast import (
    CONTRAST_THRESHOLD_HU,
    BloodEstimates,
    blood_estimates,
    blood_pool_hu,
    contrast_score_without_mask,
)

SPACING = (5.0, 4.0, 4.0)


def chest(
    blood_hu: float, noise_hu: float, seed: int = 0, muscle_hu: float = 50.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a chest of 200 mm with a heart of 600 ml, and the heart's mask.

    Blood fills the inner half of the heart, muscle the shell, with fat around it, a spine of
    200 HU behind, a calcified plaque of 900 HU inside. Noise is correlated over two pixels, as
    in a smooth kernel.
    """
    z, y, x = np.meshgrid(
        *(
            np.arange(-extent / 2, extent / 2, step)
            for extent, step in zip((200, 280, 400), SPACING, strict=True)
        ),
        indexing="ij",
    )
    hu = np.full(z.shape, -1000.0)
    hu[(x / 180) ** 2 + (y / 120) ** 2 < 1] = muscle_hu
    for side in (-85, 85):
        hu[((x - side) / 70) ** 2 + (y / 95) ** 2 < 1] = -820
    radius = np.sqrt((z / 52) ** 2 + ((y + 25) / 52) ** 2 + ((x - 20) / 58) ** 2)
    hu[radius < 1.1] = -90
    mask = radius < 1
    hu[mask] = muscle_hu
    hu[radius < 0.8] = blood_hu
    hu[(radius < 0.9) & (np.abs(z) < 6) & (y > -30) & (y < -20) & (x > 55)] = 900
    hu[(x / 22) ** 2 + ((y - 75) / 20) ** 2 < 1] = 200
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=z.shape), (0, 0.8, 0.8))
    hu += noise * (noise_hu / noise.std())
    return np.rint(hu).astype(np.int16), mask


@pytest.mark.parametrize("blood", [30.0, 45.0, 60.0])
@pytest.mark.parametrize("noise", [0.0, 20.0, 30.0])
def test_unenhanced_blood_is_accepted(blood: float, noise: float) -> None:
    hu, mask = chest(blood, noise)
    assert blood_pool_hu(hu, mask, SPACING) == pytest.approx(blood, abs=22)
    assert not blood_estimates(hu, mask, SPACING).enhanced
    assert not blood_estimates(hu, np.zeros_like(mask), SPACING).enhanced


@pytest.mark.parametrize("blood", [110.0, 180.0, 350.0, 500.0])
@pytest.mark.parametrize("noise", [0.0, 30.0])
def test_enhanced_blood_is_rejected(blood: float, noise: float) -> None:
    hu, mask = chest(blood, noise, muscle_hu=90.0)
    assert blood_pool_hu(hu, mask, SPACING) == pytest.approx(blood, abs=22)
    assert contrast_score_without_mask(hu, SPACING) >= CONTRAST_THRESHOLD_HU
    for bad_mask in (
        mask,
        np.zeros_like(mask),
        ndimage.binary_dilation(mask, iterations=4),
        np.roll(mask, 6, axis=2),
    ):
        assert blood_estimates(hu, bad_mask, SPACING).enhanced


def test_spine_and_plaques_do_not_count() -> None:
    hu, mask = chest(40.0, 0.0)
    assert contrast_score_without_mask(hu, SPACING) < 60
    bony = hu.copy()
    bony[:, 45:60, 43:58] = 250  # all that lies between the lungs in the back, 20 mm and more
    assert contrast_score_without_mask(bony, SPACING) < 60
    hu[mask & (np.random.default_rng(1).random(mask.shape) < 0.02)] = 700
    assert blood_pool_hu(hu, mask, SPACING) < 75


def test_no_estimate_without_tissue() -> None:
    air = np.full((20, 60, 60), -1000, np.int16)
    nothing = np.zeros(air.shape, bool)
    assert math.isnan(blood_pool_hu(air, nothing, SPACING))
    assert math.isnan(blood_pool_hu(air, ~nothing, SPACING))
    assert math.isnan(contrast_score_without_mask(air, SPACING))
    assert not blood_estimates(air, nothing, SPACING).enhanced


def test_late_phase_of_a_real_scanner(shared_data: Path) -> None:
    folder = shared_data / "chest_contrast_siemens" / "ct"
    volume = read_volume(sorted(folder.iterdir()))
    score = contrast_score_without_mask(volume.hu, volume.spacing_mm)
    assert 100 < score < 140
    assert blood_estimates(volume.hu, np.zeros(volume.hu.shape, bool), volume.spacing_mm).enhanced


def test_phantom_without_contrast_medium(shared_data: Path) -> None:
    volume = read_volume(sorted((shared_data / "qrm_calcium_phantom" / "dicom").iterdir()))
    nothing = np.zeros(volume.hu.shape, bool)
    assert not blood_estimates(volume.hu, nothing, volume.spacing_mm).enhanced


def test_arterial_phase_with_labelled_heart(shared_data: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    folder = shared_data / "chest_contrast_labelled"

    def canonical(name: str) -> np.ndarray:
        image = nibabel.as_closest_canonical(nibabel.load(folder / name))
        # NIfTI axes run right, anterior, superior; ours superior, posterior, left.
        return np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]

    hu = np.clip(canonical("cxr.nii.gz"), -1024, 3000).astype(np.int16)
    heart = canonical("mask.nii.gz") == 51
    spacing = (2.5, 0.703125, 0.703125)
    # Median of the left-sided chambers and aorta measured apart from this code: 371 HU.
    assert 300 < blood_pool_hu(hu, heart, spacing) < 450
    assert blood_estimates(hu, heart, spacing).enhanced
    assert contrast_score_without_mask(hu, spacing) > 200
    # The same chest with its blood diluted to unenhanced values.
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), (0.7, 2, 2))
    plain = np.where(smooth > 50, 50 + (hu - smooth), hu).astype(np.int16)
    assert not blood_estimates(plain, heart, spacing).enhanced


@pytest.mark.parametrize(
    ("in_heart", "between_lungs", "enhanced", "contradictory"),
    [
        (48.0, 152.0, False, True),  # seen in an unenhanced PET/CT scan
        (48.0, 60.0, False, False),
        (120.0, 110.0, True, False),
        (120.0, 60.0, True, False),
        (math.nan, 152.0, True, False),
        (90.0, math.nan, True, False),
        (math.nan, math.nan, False, False),
    ],
)
def test_two_estimates(
    in_heart: float, between_lungs: float, enhanced: bool, contradictory: bool
) -> None:
    found = BloodEstimates(in_heart, between_lungs)
    assert (found.enhanced, found.contradictory) == (enhanced, contradictory)


def test_bright_tissue_beside_an_unenhanced_heart() -> None:
    hu, mask = chest(40.0, 0.0, muscle_hu=45.0)
    bright = hu.copy()
    bright[:, 20:36, 43:60][~mask[:, 20:36, 43:60] & (hu[:, 20:36, 43:60] > -50)] = 220
    bright[:, :, 40:62][(~mask[:, :, 40:62]) & (hu[:, :, 40:62] > -120)] = 220
    found = blood_estimates(bright, mask, SPACING)
    assert found.between_lungs_hu >= CONTRAST_THRESHOLD_HU
    assert found.contradictory and not found.enhanced
    assert str(found).startswith("blood about 4") and "the limit is 90 HU" in str(found)
