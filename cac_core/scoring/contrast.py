"""Detects contrast enhancement from the pixels, because headers often omit the contrast agent.

Unenhanced blood has 30 to 60 HU, depending on haematocrit and little on tube voltage. Contrast
medium raises it to about 110 HU late after the injection and to several hundred HU in the first
pass. At a threshold of 130 HU calcium cannot be separated from enhanced blood, so such scans are
not scored. All estimates use means of blocks of about 8 mm, which reduces the noise of a CTAC scan
(20 to 30 HU per voxel) below 10 HU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cac_core.components import bounding_box
from cac_core.scoring.blocks import block_sums

#: Blood at or above this is enhanced: halfway between dense unenhanced blood on a miscalibrated
#: scanner (60 + 10 HU) and the late phase (110 HU).
CONTRAST_THRESHOLD_HU = 90.0

_BLOCK_MM = 8.0
#: Soft tissue and blood of any enhancement, without fat, lung and metal.
_SOFT_TISSUE_HU = (-20.0, 800.0)
#: Blood is about the upper half of the soft tissue of a heart, so its median is this percentile.
_BLOOD_PERCENTILE = 75.0
#: Less soft tissue gives no estimate.
_MIN_TISSUE_ML = 40.0
_LUNG_HU = (-930.0, -500.0)
_MIN_LUNG_ML = 200.0
#: Share of the depth of the lungs that holds the heart; the spine lies behind it.
_ANTERIOR_PART = 0.6


def blood_pool_hu(
    hu: NDArray[np.int16], heart_mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> float:
    """Estimate the HU of blood inside a heart mask.

    Parameters
    ----------
    hu : (slice, row, column), HU.
    heart_mask : same shape; it may miss parts of the heart or extend beyond it.
    spacing_mm : slice, row, column spacing.

    Returns
    -------
    The 75th percentile of 8 mm block means of soft tissue in the mask; NaN below 40 ml of it.
    """
    box = bounding_box(heart_mask)
    if box is None:
        return math.nan
    factors = _block_factors(spacing_mm)
    inside = _block_means(heart_mask[box], factors) > 0.99
    return _upper_tissue_hu(_block_means(hu[box], factors), inside, factors, spacing_mm)


def contrast_score_without_mask(
    hu: NDArray[np.int16], spacing_mm: tuple[float, float, float]
) -> float:
    """Estimate the HU of blood in heart and great vessels without a heart mask.

    Uses the soft tissue between the lungs in the anterior 60 % of their depth, without the spine.

    Parameters
    ----------
    hu : (slice, row, column), HU, in the canonical orientation (rows to posterior).
    spacing_mm : slice, row, column spacing.

    Returns
    -------
    As `blood_pool_hu`; NaN where no lungs are found.
    """
    factors = _block_factors(spacing_mm)
    blocks = _block_means(hu, factors)
    region = _between_lungs(blocks, factors, spacing_mm)
    return _upper_tissue_hu(blocks, region, factors, spacing_mm)


@dataclass(frozen=True, slots=True)
class BloodEstimates:
    """HU of the blood pool by both estimates; NaN where one finds no tissue.

    The estimate between the lungs is needed because a network trained on unenhanced scans may
    segment nothing in an enhanced scan.
    """

    in_heart_hu: float
    between_lungs_hu: float

    @property
    def enhanced(self) -> bool:
        """Whether blood has at least 90 HU in the heart mask, or between the lungs without a mask.

        Between the lungs also lie bowel with oral contrast medium, calcified nodes and pacemaker
        leads, so a value there does not overrule unenhanced blood in the heart mask.
        """
        in_heart = self.in_heart_hu
        decisive = self.between_lungs_hu if math.isnan(in_heart) else in_heart
        return decisive >= CONTRAST_THRESHOLD_HU

    @property
    def contradictory(self) -> bool:
        """Whether only the estimate between the lungs reaches 90 HU."""
        return self.in_heart_hu < CONTRAST_THRESHOLD_HU <= self.between_lungs_hu

    def __str__(self) -> str:
        """Both values, and the limit."""
        return (
            f"blood about {_shown(self.in_heart_hu)} in the heart mask and "
            f"{_shown(self.between_lungs_hu)} between the lungs; "
            f"the limit is {CONTRAST_THRESHOLD_HU:.0f} HU"
        )


def blood_estimates(
    hu: NDArray[np.int16], heart_mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> BloodEstimates:
    """Estimate the HU of blood in the heart mask and between the lungs, see `blood_pool_hu`."""
    return BloodEstimates(
        blood_pool_hu(hu, heart_mask, spacing_mm), contrast_score_without_mask(hu, spacing_mm)
    )


def _shown(hu: float) -> str:
    return "unknown" if math.isnan(hu) else f"{hu:.0f} HU"


def _block_factors(spacing_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    slices, rows, columns = (max(1, round(_BLOCK_MM / spacing)) for spacing in spacing_mm)
    return slices, rows, columns


def _block_means(
    volume: NDArray[np.int16] | NDArray[np.bool_], factors: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Average blocks of voxels; incomplete blocks at the far ends are dropped."""
    by_slice, rows, columns = factors
    sums = block_sums(volume[: len(volume) // by_slice * by_slice], rows, columns)
    sums = sums.reshape(-1, by_slice, *sums.shape[1:]).sum(axis=1)
    means: NDArray[np.float32] = sums.astype(np.float32)
    return means / np.float32(by_slice * rows * columns)


def _block_ml(factors: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> float:
    return math.prod(factors) * math.prod(spacing_mm) / 1000.0


def _upper_tissue_hu(
    blocks: NDArray[np.float32],
    region: NDArray[np.bool_],
    factors: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> float:
    low, high = _SOFT_TISSUE_HU
    values = blocks[region & (blocks > low) & (blocks < high)]
    if values.size * _block_ml(factors, spacing_mm) < _MIN_TISSUE_ML:
        return math.nan
    return float(np.percentile(values, _BLOOD_PERCENTILE))


def _between_lungs(
    blocks: NDArray[np.float32],
    factors: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.bool_]:
    """Mask of blocks between the lungs, row by row, in the anterior part of their depth."""
    lung_like = (blocks > _LUNG_HU[0]) & (blocks < _LUNG_HU[1])
    # Partial volume at the skin looks like lung too, but is one block thick.
    lungs: NDArray[np.bool_] = ndimage.binary_opening(lung_like, np.ones((1, 3, 3), bool))
    labels, count = ndimage.label(lungs)
    if count == 0:
        return np.zeros_like(lungs)
    sizes = np.bincount(labels.ravel()) * _block_ml(factors, spacing_mm)
    sizes[0] = 0.0
    lungs = (sizes >= _MIN_LUNG_ML)[labels]
    to_the_right = np.maximum.accumulate(lungs, axis=2)
    to_the_left = np.maximum.accumulate(lungs[:, :, ::-1], axis=2)[:, :, ::-1]
    between = to_the_right & to_the_left & ~lungs
    rows_with_lung: NDArray[np.bool_] = np.any(lungs, axis=2)
    for index in np.flatnonzero(rows_with_lung.any(axis=1)):
        rows = np.flatnonzero(rows_with_lung[index])
        end = rows[0] + math.ceil((rows[-1] + 1 - rows[0]) * _ANTERIOR_PART)
        between[index, end:] = False
    eroded: NDArray[np.bool_] = ndimage.binary_erosion(between, np.ones((1, 3, 3), bool))
    return eroded
