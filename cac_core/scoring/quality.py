"""Quality of a scored volume: noise and extent of the heart.

Each measure states its meaning, formula, source and whether higher is better. The limits are
conventions of this program, not published cut-offs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from schemas.codes import QualityFlag

#: Distance of the pixels that are subtracted: beyond the grain of soft kernels, whose noise is
#: correlated over two to three millimetres, and within one tissue.
_LAG_MM = 6.0
#: Neighbourhood whose mean must be soft tissue.
_TISSUE_MM = 11.0
_SOFT_TISSUE_HU = (0.0, 100.0)
#: More slices than this add time and no precision; they are taken evenly spaced.
_MAX_SLICES = 20
#: Fewer differences than this give no estimate.
_MIN_PAIRS = 200
#: Median absolute deviation to standard deviation of a normal distribution.
_MAD_TO_SD = 1.4826


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """Limits at which a flag is raised.

    Parameters
    ----------
    max_noise_hu : at 40 HU some 2 % of the pixels of blood (45 HU) reach 130 HU by chance.
    heart_volume_ml : usual range of an adult's heart with its blood and epicardial fat.
    """

    max_noise_hu: float = 40.0
    heart_volume_ml: tuple[float, float] = (250.0, 1500.0)


def noise_hu(
    hu: NDArray[np.int16], heart_mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> float:
    """Image noise in soft tissue of the heart, HU. Higher is worse.

    1.4826 x median(|d - median(d)|) / sqrt(2) over the differences d of pixels 6 mm apart along
    rows and columns, both inside the mask and in a neighbourhood (7 mm square) with a mean of 0
    to 100 HU. Differences cancel slow changes of the anatomy; the median absolute deviation
    (Rousseeuw and Croux, J Am Stat Assoc 1993;88:1273) leaves edges and calcium out; picking soft
    tissue by a smoothed image follows Christianson et al., AJR 2015;205:W93.

    Where the mask holds too little soft tissue, all its pixels are used.

    Returns
    -------
    NaN where the mask is too small to hold 200 pairs of pixels.
    """
    box = _bounding_box(heart_mask)
    if box is None:
        return math.nan
    step = math.ceil((box[0].stop - box[0].start) / _MAX_SLICES)
    box = (slice(box[0].start, box[0].stop, step), box[1], box[2])
    values = hu[box].astype(np.float32)
    heart = np.asarray(heart_mask[box], bool)
    lags = [max(1, round(_LAG_MM / spacing)) for spacing in spacing_mm[1:]]
    size = [1, *(max(1, round(_TISSUE_MM / spacing)) for spacing in spacing_mm[1:])]
    smooth = ndimage.uniform_filter(values, size)
    tissue = heart & (smooth >= _SOFT_TISSUE_HU[0]) & (smooth <= _SOFT_TISSUE_HU[1])
    for region in (tissue, heart):
        differences = np.concatenate(
            [_differences(values, region, axis, lag) for axis, lag in enumerate(lags, start=1)]
        )
        if differences.size >= _MIN_PAIRS:
            spread = np.median(np.abs(differences - np.median(differences)))
            return float(_MAD_TO_SD * spread / math.sqrt(2.0))
    return math.nan


def heart_volume_ml(heart_mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    """Volume of the heart mask: number of voxels times voxel volume, ml."""
    return float(np.count_nonzero(heart_mask)) * math.prod(spacing_mm) / 1000.0


def quality_flags(
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    noise: float,
    limits: QualityLimits = QualityLimits(),
) -> tuple[QualityFlag, ...]:
    """Raise the flags of a heart mask and its noise, sorted.

    `high_noise` above the limit, or where the noise could not be measured; `heart_truncated` where
    the mask reaches the first or last slice; `heart_volume_unusual` outside the usual range.
    """
    flags = []
    if not noise <= limits.max_noise_hu:
        flags.append(QualityFlag.HIGH_NOISE)
    if len(heart_mask) and (heart_mask[0].any() or heart_mask[-1].any()):
        flags.append(QualityFlag.HEART_TRUNCATED)
    low, high = limits.heart_volume_ml
    if not low <= heart_volume_ml(heart_mask, spacing_mm) <= high:
        flags.append(QualityFlag.HEART_VOLUME_UNUSUAL)
    return tuple(sorted(flags))


def _differences(
    values: NDArray[np.float32], region: NDArray[np.bool_], axis: int, lag: int
) -> NDArray[np.float32]:
    """Differences of pixels `lag` apart along an axis, both in the region."""
    if values.shape[axis] <= lag:
        return np.zeros(0, np.float32)
    near = [slice(None)] * 3
    far = [slice(None)] * 3
    near[axis], far[axis] = slice(None, -lag), slice(lag, None)
    both = region[tuple(near)] & region[tuple(far)]
    return np.asarray(values[tuple(near)][both] - values[tuple(far)][both], np.float32)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    found = ndimage.find_objects(np.asarray(mask, bool).view(np.uint8), max_label=1)[0]
    return None if found is None else (found[0], found[1], found[2])
