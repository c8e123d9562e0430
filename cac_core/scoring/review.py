"""Which scores a person should look at, and why.

`review_rules` describes each reason with its limit; docs/scoring.md is generated from it. Like
those of the quality flags, the limits are conventions of this program, not published cut-offs.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cac_core.categories import cac_category
from cac_core.components import bounding_box, label_in_plane
from cac_core.scoring.confidence import Confidence
from schemas.codes import CAC_CATEGORIES, QualityFlag, ReviewReason

#: Slices this far apart are compared: thin slices differ less than thick ones.
_STEP_MM = 5.0
#: Every other row and column: pieces of a few pixels are not reported.
_COARSE = 2
_OF_FLAG = {
    QualityFlag.HEART_TRUNCATED: ReviewReason.HEART_MASK_ODD,
    QualityFlag.HEART_VOLUME_UNUSUAL: ReviewReason.HEART_MASK_ODD,
    QualityFlag.HEART_ON_THE_RIGHT: ReviewReason.HEART_ON_THE_RIGHT,
    QualityFlag.MIRRORED_OR_SITUS_INVERSUS: ReviewReason.HEART_ON_THE_RIGHT,
    QualityFlag.ORIENTATION_CONTRADICTS_HEADER: ReviewReason.ORIENTATION_CONTRADICTS_HEADER,
}


@dataclass(frozen=True, slots=True)
class ReviewLimits:
    """Limits beyond which a score needs review.

    Parameters
    ----------
    min_category_chance : smallest chance of the most likely category.
    doubtful_chance : range of the chance to be coronary in which a component is doubtful.
    max_end_share : largest area of the first or last slice of the heart mask, as a share of the
        largest area: a heart tapers towards base and apex.
    max_step_share : largest difference of areas 5 mm apart, as a share of the largest area.
    min_piece_mm2 : area from which a second piece of the mask in a slice counts: smaller ones lie
        between slices of the heart network, where its mask is interpolated.
    metal_hu, metal_mm3, metal_near_mm : HU of metal, the volume that counts, and its distance from
        the heart. Calcium of people is rarely as bright.
    faint_hu, faint_mm2 : an area in the heart mask that reaches the threshold, is at least this
        large and nowhere as bright as this is rarely calcium: plaques of that size are dense.
    max_other_agatston : Agatston score of the other calcium in the heart mask above which its class
        matters: it is the lower limit of the highest category, so one plaque called otherwise would
        change any lower one.
    min_hearts_overlap : smallest Dice coefficient of two heart networks.
    """

    min_category_chance: float = 0.8
    doubtful_chance: tuple[float, float] = (0.2, 0.8)
    max_end_share: float = 0.6
    max_step_share: float = 0.7
    min_piece_mm2: float = 500.0
    metal_hu: float = 1500.0
    metal_mm3: float = 20.0
    metal_near_mm: float = 10.0
    faint_hu: float = 250.0
    faint_mm2: float = 40.0
    max_other_agatston: float = 400.0
    min_hearts_overlap: float = 0.85


@dataclass(frozen=True, slots=True)
class HeartShape:
    """Shape of a heart mask along the body; see `ReviewLimits`.

    Parameters
    ----------
    end_share : larger area of the first and last slice / largest area.
    step_share : largest difference of areas 5 mm apart / largest area.
    pieces : slices in which the mask has a second piece.
    """

    end_share: float
    step_share: float
    pieces: int


def review_rules(limits: ReviewLimits = ReviewLimits()) -> dict[ReviewReason, str]:
    """The condition that raises each reason."""
    low, high = limits.doubtful_chance
    return {
        ReviewReason.BORDERLINE_CATEGORY: "the most likely category has a chance below "
        f"{limits.min_category_chance:g}, or is not that of the score",
        ReviewReason.DOUBTFUL_COMPONENT: f"a component whose chance to be coronary is {low:g} to "
        f"{high:g} would change the category with its other class alone",
        ReviewReason.HEART_MASK_ODD: f"flag `{QualityFlag.HEART_TRUNCATED}` or "
        f"`{QualityFlag.HEART_VOLUME_UNUSUAL}`; the first or last slice of the mask has more than "
        f"{limits.max_end_share:g} of the largest area; areas {_STEP_MM:g} mm apart differ by more "
        f"than {limits.max_step_share:g} of it; or a second piece of at least "
        f"{limits.min_piece_mm2:g} mm2 lies in a slice",
        ReviewReason.HEARTS_DISAGREE: "the Dice coefficient of two heart networks, on their grid "
        f"of 4 mm, is below {limits.min_hearts_overlap:g}",
        ReviewReason.DEVICE: f"at least {limits.metal_mm3:g} mm3 of {limits.metal_hu:g} HU or more "
        f"lie in the heart mask or within {limits.metal_near_mm:g} mm of it in the slice",
        ReviewReason.MOTION: f"an area of the heart mask of at least {limits.faint_mm2:g} mm2 in a "
        f"slice reaches the threshold, but nowhere {limits.faint_hu:g} HU",
        ReviewReason.MUCH_OTHER_CALCIUM: f"the score is at most {limits.max_other_agatston:g}, and "
        "that of the other calcium in the heart mask is above",
        ReviewReason.HEART_ON_THE_RIGHT: f"flag `{QualityFlag.HEART_ON_THE_RIGHT}` or "
        f"`{QualityFlag.MIRRORED_OR_SITUS_INVERSUS}`",
        ReviewReason.ORIENTATION_CONTRADICTS_HEADER: "flag "
        f"`{QualityFlag.ORIENTATION_CONTRADICTS_HEADER}`",
    }


def review_markdown() -> str:
    """The reasons as a Markdown table, for docs/scoring.md."""
    lines = ["| reason | meaning | raised |", "| --- | --- | --- |"]
    lines += [
        f"| `{reason}` | {reason.description} | {rule} |" for reason, rule in review_rules().items()
    ]
    return "\n".join(lines) + "\n"


def certainty_reasons(
    confidence: Confidence,
    score: float,
    other: float,
    deciding: NDArray[np.bool_],
    limits: ReviewLimits = ReviewLimits(),
) -> set[ReviewReason]:
    """Reasons that lie in the certainty of the score.

    Parameters
    ----------
    score, other : Agatston score of the study, and of its non-coronary calcium.
    deciding : from `cac_core.scoring.confidence.deciding_components`.
    """
    reasons = set()
    chances = confidence.p_category
    category = CAC_CATEGORIES.index(str(cac_category(score)))
    if max(chances) < limits.min_category_chance or chances[category] < max(chances):
        reasons.add(ReviewReason.BORDERLINE_CATEGORY)
    if deciding.any():
        reasons.add(ReviewReason.DOUBTFUL_COMPONENT)
    if other > limits.max_other_agatston >= score:
        reasons.add(ReviewReason.MUCH_OTHER_CALCIUM)
    return reasons


def image_reasons(
    hu: NDArray[np.int16],
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    hearts_overlap: float,
    flags: Collection[QualityFlag],
    threshold_hu: float,
    limits: ReviewLimits = ReviewLimits(),
) -> set[ReviewReason]:
    """Reasons that lie in the heart mask and in the image.

    Parameters
    ----------
    hu, heart_mask : (slice, row, column).
    spacing_mm : slice, row, column spacing.
    hearts_overlap : smallest Dice coefficient of two heart networks.
    flags : quality flags of the study.
    threshold_hu : from which a voxel can be calcium.
    """
    reasons = {_OF_FLAG[flag] for flag in flags if flag in _OF_FLAG}
    part = _around(heart_mask, limits.metal_near_mm, spacing_mm)
    hu, heart_mask = hu[part], heart_mask[part]
    shape = heart_shape(heart_mask, spacing_mm, limits.min_piece_mm2)
    if (
        shape.end_share > limits.max_end_share
        or shape.step_share > limits.max_step_share
        or shape.pieces
    ):
        reasons.add(ReviewReason.HEART_MASK_ODD)
    if hearts_overlap < limits.min_hearts_overlap:
        reasons.add(ReviewReason.HEARTS_DISAGREE)
    if metal_mm3(hu, heart_mask, spacing_mm, limits) >= limits.metal_mm3:
        reasons.add(ReviewReason.DEVICE)
    if faint_mm2(hu, heart_mask, spacing_mm, threshold_hu, limits) >= limits.faint_mm2:
        reasons.add(ReviewReason.MOTION)
    return reasons


def heart_shape(
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    min_piece_mm2: float,
) -> HeartShape:
    """Measure the shape of a heart mask along the body; an empty mask has none.

    Parameters
    ----------
    heart_mask : (slice, row, column).
    spacing_mm : slice, row, column spacing.
    min_piece_mm2 : area from which a second piece in a slice counts.
    """
    box = bounding_box(heart_mask)
    if box is None:
        return HeartShape(0.0, 0.0, 0)
    part = heart_mask[box][:, ::_COARSE, ::_COARSE]
    areas = part.sum(axis=(1, 2), dtype=np.int64)
    largest = float(areas.max())
    step = max(1, round(_STEP_MM / spacing_mm[0]))
    steps = np.abs(areas[step:] - areas[:-step])
    labels, n_pixels = label_in_plane(part)
    pixel_mm2 = _COARSE**2 * spacing_mm[1] * spacing_mm[2]
    large = np.flatnonzero(n_pixels * pixel_mm2 >= min_piece_mm2)
    slice_of = np.zeros(len(n_pixels), np.intp)
    slice_of[labels] = np.arange(len(part))[:, None, None]
    pieces = sum(first == second for first, second in pairwise(sorted(slice_of[large])))
    return HeartShape(
        end_share=float(max(areas[0], areas[-1])) / largest,
        step_share=float(steps.max(initial=0)) / largest,
        pieces=pieces,
    )


def metal_mm3(
    hu: NDArray[np.int16],
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    limits: ReviewLimits = ReviewLimits(),
) -> float:
    """Volume of metal in the heart mask and near it in the same slice, in mm3.

    Parameters
    ----------
    hu, heart_mask : (slice, row, column).
    spacing_mm : slice, row, column spacing.
    """
    part = _around(heart_mask, limits.metal_near_mm, spacing_mm)
    bright = hu[part] >= limits.metal_hu
    voxels = 0
    for k in np.flatnonzero(bright.any(axis=(1, 2))):
        away = ndimage.distance_transform_edt(~heart_mask[part][k], sampling=spacing_mm[1:])
        voxels += int(np.count_nonzero(bright[k] & (away <= limits.metal_near_mm)))
    return voxels * math.prod(spacing_mm)


def faint_mm2(
    hu: NDArray[np.int16],
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    threshold_hu: float,
    limits: ReviewLimits = ReviewLimits(),
) -> float:
    """Largest area in a slice of the heart mask that reaches the threshold but is faint, in mm2.

    What moves during the rotation leaves bright crescents beside the lung and the diaphragm.

    Parameters
    ----------
    hu, heart_mask : (slice, row, column).
    spacing_mm : slice, row, column spacing.
    threshold_hu : from which a voxel can be calcium.
    """
    labels, n_pixels = label_in_plane(heart_mask & (hu >= threshold_hu))
    if len(n_pixels) == 1:
        return 0.0
    inside = np.flatnonzero(labels)
    peak = np.full(len(n_pixels), np.iinfo(np.int16).min, np.int16)
    np.maximum.at(peak, labels.ravel()[inside], hu.ravel()[inside])
    faint = n_pixels[1:][peak[1:] < limits.faint_hu]
    return float(faint.max(initial=0) * spacing_mm[1] * spacing_mm[2])


def _around(
    heart_mask: NDArray[np.bool_], margin_mm: float, spacing_mm: tuple[float, float, float]
) -> tuple[slice, slice, slice]:
    """Box around a mask with a margin within the slices; an empty box around an empty mask."""
    box = bounding_box(heart_mask)
    if box is None:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    rows, columns = (math.ceil(margin_mm / spacing) for spacing in spacing_mm[1:])
    return (
        box[0],
        slice(max(0, box[1].start - rows), box[1].stop + rows),
        slice(max(0, box[2].start - columns), box[2].stop + columns),
    )
