"""Checks the orientation of the anatomy against the header, by spine, lungs, liver and heart.

Software that rewrites images sometimes flips the pixels and not the header. The score of such a
volume is unreliable, because the networks are trained on chests in the canonical orientation. Each
measure compares two sides of the body; a flag needs a clear difference. Nothing is corrected: it is
unknown which of header and pixels is wrong, and volumes flipped along different axes differ by a
reflection that no measure detects.

The table is not a landmark: patients are also scanned prone, with the table in front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cac_core.scoring.blocks import block_sums
from schemas.codes import QualityFlag

#: Approximate distance of the slices used, and size of the blocks of pixels.
_SLICE_MM = 10.0
_BLOCK_MM = 6.0
_BODY_HU, _LUNG_HU, _BONE_HU, _BONE_TOP_HU = -350.0, -500.0, 120.0, 320.0
_TISSUE_HU, _LIVER_HU = (-40.0, 250.0), (20.0, 110.0)
#: Largest distance of the spine from the middle of the body.
_SPINE_MM = 30.0
#: Fewer slices, or less body, give no flag.
_MIN_SLICES = 6
_MIN_BODY_ML = 2000.0
#: (posterior - anterior) / sum of the bone near the middle: 0.37 to 0.78 in 6 real and 70 synthetic
#: series. Exchanging front and back changes the sign.
_BACK_TO_FRONT = -0.2
#: Ratio of the largest circle of soft tissue in the lowest third of the slices to that in the
#: highest third: 1.7 to 4.7 in those series. Liver and heart fill the lower end; lungs and
#: shoulders leave less soft tissue in the upper end.
_UPSIDE_DOWN = 1 / 1.3
#: Share of lung in the body of the lowest third. A field that extends to the bowels tapers
#: downwards too, but only an upside-down volume has lungs there.
_LUNG_BELOW = 0.06
#: (right - left) / sum of liver-like tissue below the lungs: 0.39 to 0.98 in real series.
_LIVER_LEFT = -0.2
#: Limit where the heart mask does not lie on the right: the heart network may find only part of a
#: mirrored heart.
_LIVER_LEFT_ALONE = -0.3
_LIVER_REACH_MM, _LIVER_CORE_MM, _MIN_LIVER_ML = 70.0, 18.0, 150.0
#: The centre of the heart lies 5 to 40 mm to the left of that of the spine.
_HEART_RIGHT_MM = 5.0


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Position of the landmarks; NaN where a landmark is not in view.

    Parameters
    ----------
    back : (posterior - anterior) / sum of the bone near the middle, -1 to 1.
    taper : radius of the largest circle of soft tissue in the lowest third of the slices, divided
        by that in the highest third.
    lung_below : share of lung in the body in the lowest third of the slices, 0 to 1.
    liver_right : (right - left) / sum of liver-like tissue below the lungs, -1 to 1.
    heart_left_mm : distance of the centre of the heart to the left of the spine.
    """

    back: float
    taper: float
    lung_below: float
    liver_right: float
    heart_left_mm: float


def orientation_flags(
    hu: NDArray[np.int16], heart_mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> tuple[QualityFlag, ...]:
    """Return the flags of a volume whose anatomy contradicts its header.

    `orientation_contradicts_header` where front and back, or head and feet, are exchanged.
    Otherwise `mirrored_or_situs_inversus` where the liver lies on the left, or `heart_on_the_right`
    where the heart lies on the right and the liver on the right (dextrocardia) or not in view.
    Parameters as `measure_landmarks`.
    """
    found = measure_landmarks(hu, heart_mask, spacing_mm)
    upside_down = found.taper < _UPSIDE_DOWN and found.lung_below > _LUNG_BELOW
    if found.back < _BACK_TO_FRONT or upside_down:
        return (QualityFlag.ORIENTATION_CONTRADICTS_HEADER,)
    heart_right = found.heart_left_mm < -_HEART_RIGHT_MM
    if found.liver_right < (_LIVER_LEFT if heart_right else _LIVER_LEFT_ALONE):
        return (QualityFlag.MIRRORED_OR_SITUS_INVERSUS,)
    return (QualityFlag.HEART_ON_THE_RIGHT,) if heart_right else ()


def measure_landmarks(
    hu: NDArray[np.int16], heart_mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> Landmarks:
    """Measure the position of spine, soft tissue, liver and heart.

    Parameters
    ----------
    hu : (slice, row, column), HU, in the canonical orientation according to the header.
    heart_mask : same shape, from the heart network.
    spacing_mm : slice, row, column spacing.
    """
    blocks, size_mm = _coarse(hu, spacing_mm)
    nothing = Landmarks(math.nan, math.nan, math.nan, math.nan, math.nan)
    if len(blocks) < _MIN_SLICES:
        return nothing
    body = _body(blocks)
    block_ml = math.prod(size_mm) / 1000.0
    if np.count_nonzero(body) * block_ml < _MIN_BODY_ML:
        return nothing
    x_mm = np.arange(blocks.shape[2]) * size_mm[2]
    from_back = np.cumsum(body[:, ::-1], axis=1)[:, ::-1]
    from_front = np.cumsum(body, axis=1)
    weight = body.sum(axis=1)
    middle = (weight @ x_mm) / np.maximum(weight.sum(axis=1), 1)
    bone = np.clip(blocks - _BONE_HU, 0.0, _BONE_TOP_HU - _BONE_HU)
    bone *= body & (np.abs(x_mm - middle[:, None]) < _SPINE_MM)[:, None, :]
    behind = bone * (from_back < from_front)
    total, posterior = float(bone.sum()), float(behind.sum())
    if total <= 0.0:
        return nothing
    spine_mm = float((behind.sum(axis=(0, 1)) @ x_mm) / posterior) if posterior else math.nan
    left_mm = np.asarray(x_mm - spine_mm, np.float64)
    return Landmarks(
        back=(2.0 * posterior - total) / total,
        taper=_taper(body & _within(blocks, _TISSUE_HU), size_mm),
        lung_below=_lung_share(blocks, body),
        liver_right=_liver_right(blocks, body, from_front < 3 * from_back, left_mm, size_mm),
        heart_left_mm=_heart_centre_mm(heart_mask, spacing_mm[2]) - spine_mm,
    )


def _coarse(
    hu: NDArray[np.int16], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """Means of blocks within slices, and the size of a block; uses every other pixel."""
    step = max(1, min(round(_SLICE_MM / spacing_mm[0]), len(hu) // 12))
    factors = [max(1, round(_BLOCK_MM / spacing)) for spacing in spacing_mm[1:]]
    thin = [2 if factor >= 4 else 1 for factor in factors]
    rows, columns = (factor // every for factor, every in zip(factors, thin, strict=True))
    sums = block_sums(hu[::step, :: thin[0], :: thin[1]], rows, columns)
    means = (sums / np.float32(rows * columns)).astype(np.float32)
    in_plane = (rows * thin[0] * spacing_mm[1], columns * thin[1] * spacing_mm[2])
    return means, (step * spacing_mm[0], *in_plane)


def _body(blocks: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the body with its lungs, without table and clothes."""
    solid = ndimage.binary_opening(blocks > _BODY_HU, np.ones((1, 3, 3), bool))
    labels, count = ndimage.label(solid)
    if count == 0:
        return np.zeros(blocks.shape, bool)
    largest = int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    return np.stack([ndimage.binary_fill_holes(plane) for plane in labels == largest])


def _within(blocks: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (blocks > limits[0]) & (blocks < limits[1])


def _depth_mm(plane: NDArray[np.bool_], size_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Distance of each block from the edge of the tissue or of the slice."""
    padded = ndimage.distance_transform_edt(np.pad(plane, 1), sampling=size_mm[1:])
    return np.asarray(padded[1:-1, 1:-1])


def _taper(tissue: NDArray[np.bool_], size_mm: tuple[float, float, float]) -> float:
    third = max(1, len(tissue) // 3)
    low, high = (
        float(np.mean([_depth_mm(plane, size_mm).max() for plane in part]))
        for part in (tissue[:third], tissue[-third:])
    )
    return low / high if high > 0.0 and low > 0.0 else math.nan


def _lung_share(blocks: NDArray[np.float32], body: NDArray[np.bool_]) -> float:
    third = slice(0, max(1, len(blocks) // 3))
    lung = int(np.count_nonzero(body[third] & (blocks[third] < _LUNG_HU)))
    return lung / (int(np.count_nonzero(body[third])) or 1)


def _liver_right(
    blocks: NDArray[np.float32],
    body: NDArray[np.bool_],
    before_spine: NDArray[np.bool_],
    left_of_spine_mm: NDArray[np.float64],
    size_mm: tuple[float, float, float],
) -> float:
    """Balance of broad liver-like tissue in the slices below those with the widest lungs."""
    lungs = np.count_nonzero(body & (blocks < _LUNG_HU), axis=(1, 2))
    if not lungs.any():
        return math.nan
    first = int(np.flatnonzero(lungs > 0.6 * lungs.max())[0])
    reach = slice(max(0, first - round(_LIVER_REACH_MM / size_mm[0])), first)
    tissue = (body & before_spine & _within(blocks, _LIVER_HU))[reach]
    by_column = np.zeros(len(left_of_spine_mm))
    for plane in tissue:
        by_column += (_depth_mm(plane, size_mm) > _LIVER_CORE_MM).sum(axis=0)
    total = float(by_column.sum())
    if total * math.prod(size_mm) / 1000.0 < _MIN_LIVER_ML:
        return math.nan
    return float(by_column @ -np.sign(left_of_spine_mm)) / total


def _heart_centre_mm(heart_mask: NDArray[np.bool_], spacing_mm: float) -> float:
    """Centre of the mask along the columns; uses every fourth row and every second slice."""
    by_column = heart_mask[::2, ::4].sum(axis=0, dtype=np.int32).sum(axis=0)
    total = int(by_column.sum())
    if total == 0:
        return math.nan
    return float(by_column @ np.arange(len(by_column)) / total) * spacing_mm
