"""Quality of a scored volume: noise and extent of the heart.

`quality_measures` describes each measure (formula, source, unit, direction); docs/scoring.md is
generated from it. The limits are conventions of this program, not published cut-offs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cac_core.components import bounding_box
from schemas.codes import QualityFlag

#: Distance of the subtracted pixels: beyond the correlation length of noise under soft kernels (2
#: to 3 mm), and short enough to stay within one tissue.
_LAG_MM = 6.0
#: Side of the square neighbourhood whose mean must be soft tissue.
_TISSUE_MM = 11.0
_SOFT_TISSUE_HU = (0.0, 100.0)
#: More slices add time and no precision; those used are evenly spaced.
_MAX_SLICES = 20
#: Fewer differences give no estimate.
_MIN_PAIRS = 200
#: Ratio of standard deviation to median absolute deviation of a normal distribution.
_MAD_TO_SD = 1.4826

Direction = Literal["higher is better", "higher is worse", "outside the range is worse"]


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """Limits beyond which a flag is raised.

    Parameters
    ----------
    max_noise_hu : at 40 HU about 2 % of the pixels of blood (45 HU) reach 130 HU by chance.
    heart_volume_ml : usual range of an adult heart with its blood and epicardial fat.
    """

    max_noise_hu: float = 40.0
    heart_volume_ml: tuple[float, float] = (250.0, 1500.0)


@dataclass(frozen=True, slots=True)
class QualityMeasure:
    """One measure of a scored volume, described for users.

    Parameters
    ----------
    name : column of the table `scores`, or a name where no column holds it.
    meaning, formula, source : what it measures, how, and where the method comes from.
    unit : unit of the value; 1 for a count.
    direction : which values are worse.
    flag : flag that it raises.
    limit : when the flag is raised.
    """

    name: str
    meaning: str
    formula: str
    source: str
    unit: str
    direction: Direction
    flag: QualityFlag
    limit: str


_NOISE_FORMULA = (
    f"{_MAD_TO_SD} x median(abs(d - median(d))) / sqrt(2), over the differences d of pixels "
    f"{_LAG_MM:g} mm apart along rows and columns; both lie in the heart mask and in a "
    f"neighbourhood ({_TISSUE_MM:g} mm square) with a mean of {_SOFT_TISSUE_HU[0]:g} to "
    f"{_SOFT_TISSUE_HU[1]:g} HU"
)
_NOISE_SOURCE = (
    "median absolute deviation: Rousseeuw and Croux, J Am Stat Assoc 1993;88:1273; soft tissue "
    "from a smoothed image: Christianson et al., AJR 2015;205:W93"
)


def quality_measures(limits: QualityLimits = QualityLimits()) -> tuple[QualityMeasure, ...]:
    """Describe the measures behind `quality_flags`, with the given limits."""
    low, high = limits.heart_volume_ml
    return (
        QualityMeasure(
            name="noise_hu",
            meaning="image noise in soft tissue of the heart",
            formula=_NOISE_FORMULA,
            source=_NOISE_SOURCE,
            unit="HU",
            direction="higher is worse",
            flag=QualityFlag.HIGH_NOISE,
            limit=f"above {limits.max_noise_hu:g}, or not measurable",
        ),
        QualityMeasure(
            name="heart_volume_ml",
            meaning="volume of the heart mask",
            formula="number of voxels x voxel volume",
            source="definition",
            unit="ml",
            direction="outside the range is worse",
            flag=QualityFlag.HEART_VOLUME_UNUSUAL,
            limit=f"below {low:g} or above {high:g}",
        ),
        QualityMeasure(
            name="heart voxels at the border",
            meaning="whether the scan cuts the heart off",
            formula="voxels of the heart mask in the first and last slice, row and column",
            source="definition",
            unit="1",
            direction="higher is worse",
            flag=QualityFlag.HEART_TRUNCATED,
            limit="above 0",
        ),
    )


def quality_markdown() -> str:
    """Describe the measures and their flags as a Markdown table, for docs/scoring.md."""
    lines = [
        "| measure | meaning and formula | unit | direction | flag | raised | source |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for measure in quality_measures():
        name = f"`{measure.name}`" if measure.name.isidentifier() else measure.name
        cells = (
            name,
            f"{measure.meaning}: {measure.formula}",
            measure.unit,
            measure.direction,
            f"`{measure.flag.value}`",
            measure.limit,
            measure.source,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def noise_hu(
    hu: NDArray[np.int16], heart_mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> float:
    """Image noise in soft tissue of the heart, in HU; higher is worse.

    Formula and source are those of `quality_measures`. Differences cancel slow changes of the
    anatomy, the median absolute deviation is insensitive to edges and calcium. Where the mask holds
    too little soft tissue, all its pixels are used.

    Parameters
    ----------
    hu : (slice, row, column), HU.
    heart_mask : same shape.
    spacing_mm : slice, row, column spacing.

    Returns
    -------
    NaN where the mask holds fewer than 200 pairs of pixels.
    """
    box = bounding_box(heart_mask)
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
    """Volume of the heart mask in ml: number of voxels times voxel volume."""
    return float(np.count_nonzero(heart_mask)) * math.prod(spacing_mm) / 1000.0


def quality_flags(
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    noise: float,
    limits: QualityLimits = QualityLimits(),
) -> tuple[QualityFlag, ...]:
    """Return the sorted flags of a heart mask and its noise, see `quality_measures`.

    Parameters
    ----------
    heart_mask : (slice, row, column).
    spacing_mm : slice, row, column spacing.
    noise : from `noise_hu`; NaN where it was not measurable.
    limits : limits of the flags.
    """
    flags = []
    if not noise <= limits.max_noise_hu:
        flags.append(QualityFlag.HIGH_NOISE)
    if _touches_border(heart_mask):
        flags.append(QualityFlag.HEART_TRUNCATED)
    low, high = limits.heart_volume_ml
    if not low <= heart_volume_ml(heart_mask, spacing_mm) <= high:
        flags.append(QualityFlag.HEART_VOLUME_UNUSUAL)
    return tuple(sorted(flags))


def _touches_border(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask has voxels on one of the six faces of its volume."""
    return mask.size > 0 and any(
        bool(np.take(mask, end, axis).any()) for axis in range(3) for end in (0, -1)
    )


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
