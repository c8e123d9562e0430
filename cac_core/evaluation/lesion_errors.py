"""Errors of a segmentation against the truth of a scan, lesion by lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, label

from cac_core.components import remove_small_components
from cac_core.protocol import ScoringProtocol

#: Causes of false negatives and false positives, as in the paper's review.
CAUSES = ("noise", "valve", "aorta", "device", "pericardium", "node")
_CORONARY = 1
_NEIGHBOURHOOD = np.ones((3, 3, 3), np.bool_)
#: A missed lesion within this distance (mm) of other calcium counts as confused with it.
_NEAR_MM = 4.0


@dataclass(frozen=True, slots=True)
class TrueLesion:
    """A true coronary lesion: a component connected in three dimensions."""

    volume_mm3: float
    peak_hu: float
    found: bool
    cause: str  # of the miss; empty if found


@dataclass(frozen=True, slots=True)
class FalseLesion:
    """A predicted coronary lesion without any true coronary voxel."""

    volume_mm3: float
    peak_hu: float
    cause: str


@dataclass(frozen=True)
class Comparison:
    """Errors of one scan. Higher `sensitivity` and `heart_dice` (0 to 1) are better.

    `coronary_mm3` is the volume of true coronary calcium, `coronary_in_heart_mm3` the part of it
    inside the found heart, `slices_in_pieces` the number of slices of that heart in several pieces.
    """

    true_lesions: tuple[TrueLesion, ...]
    false_lesions: tuple[FalseLesion, ...]
    false_positive_mm3: float
    sensitivity: float | None  # share of the true volume found; None without calcium
    heart_dice: float
    coronary_mm3: float
    coronary_in_heart_mm3: float
    slices_in_pieces: int


def compare(
    hu: NDArray[np.int16],
    *,
    true_heart: NDArray[np.bool_],
    true_class: NDArray[np.uint8],
    cause_of_voxel: NDArray[np.uint8],
    found_heart: NDArray[np.bool_],
    found_class: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    protocol: ScoringProtocol,
) -> Comparison:
    """Compare a segmentation with the truth; all arrays (slice, row, column).

    Parameters
    ----------
    true_class, found_class : 0 background, 1 coronary, 2 non-coronary.
    cause_of_voxel : index into `CAUSES` of the structure in a voxel, 0 (noise) if none.
    """
    voxel_mm3 = float(np.prod(spacing_mm))
    bright = hu >= protocol.threshold_hu
    truth = _scored(bright & (true_class == _CORONARY) & true_heart, spacing_mm, protocol)
    called = _scored(bright & (found_class == _CORONARY) & found_heart, spacing_mm, protocol)
    false = called & ~(true_class == _CORONARY)
    both = int((truth & called).sum())
    return Comparison(
        tuple(_true_lesions(hu, truth, called, cause_of_voxel, spacing_mm)),
        tuple(_false_lesions(hu, called, true_class, cause_of_voxel, voxel_mm3)),
        float(false.sum()) * voxel_mm3,
        both / int(truth.sum()) if truth.any() else None,
        dice(true_heart, found_heart),
        float(truth.sum()) * voxel_mm3,
        float((truth & found_heart).sum()) * voxel_mm3,
        sum(label(plane)[1] > 1 for plane in found_heart),
    )


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks: 0 disjoint, 1 equal; 1 for two empty masks."""
    together = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / together if together else 1.0


def _scored(
    mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float], protocol: ScoringProtocol
) -> NDArray[np.bool_]:
    """Without the slice-wise components below the protocol's minimum area."""
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    return remove_small_components(mask, pixel_mm2, protocol.min_area_mm2, protocol.connectivity)


def _true_lesions(
    hu: NDArray[np.int16],
    truth: NDArray[np.bool_],
    called: NDArray[np.bool_],
    causes: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
) -> list[TrueLesion]:
    parts, _ = label(truth, structure=_NEIGHBOURHOOD)
    reach = [max(1, round(_NEAR_MM / step)) for step in spacing_mm]
    lesions = []
    for number, box in enumerate(find_objects(parts), start=1):
        lesion = parts[box] == number
        found = bool((lesion & called[box]).any())
        cause = ""
        if not found:
            room = tuple(
                slice(max(0, part.start - r), part.stop + r)
                for part, r in zip(box, reach, strict=True)
            )
            cause = _main_cause(causes[room])
        lesions.append(
            TrueLesion(
                float(lesion.sum() * np.prod(spacing_mm)),
                float(hu[box][lesion].max()),
                found,
                cause,
            )
        )
    return lesions


def _false_lesions(
    hu: NDArray[np.int16],
    called: NDArray[np.bool_],
    true_class: NDArray[np.uint8],
    causes: NDArray[np.uint8],
    voxel_mm3: float,
) -> list[FalseLesion]:
    parts, _ = label(called, structure=_NEIGHBOURHOOD)
    lesions = []
    for number, box in enumerate(find_objects(parts), start=1):
        lesion = parts[box] == number
        if (true_class[box][lesion] == _CORONARY).any():
            continue
        touched = binary_dilation(lesion, _NEIGHBOURHOOD)
        lesions.append(
            FalseLesion(
                float(lesion.sum()) * voxel_mm3,
                float(hu[box][lesion].max()),
                _main_cause(causes[box][touched]),
            )
        )
    return lesions


def _main_cause(indices: NDArray[np.uint8]) -> str:
    counts = np.bincount(indices.ravel(), minlength=len(CAUSES))
    # Noise is the cause if no structure is near.
    counts[0] = 0
    return CAUSES[int(counts.argmax())] if counts.any() else CAUSES[0]
