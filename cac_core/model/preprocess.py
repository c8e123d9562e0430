"""Network input from HU and masks from network output: normalisation, heart grid, candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor
from torch.nn.functional import interpolate

from cac_core.components import remove_small_components

#: Input is HU clipped to this window and scaled to about -2..4, with 0 at soft tissue.
HU_WINDOW = (-250.0, 650.0)
HU_CENTRE, HU_SCALE = 50.0, 150.0
#: Bright tail: its range above the window, which includes metal, and its relative slope.
TAIL_HU, TAIL_SLOPE = 2000.0, 0.25

#: Field of view of the heart network, centred on the image, and its size in pixels.
HEART_FIELD_MM = 448.0
HEART_PIXELS = 112
#: Approximate slice spacing of the heart network: thinner slices are skipped and interpolated.
HEART_STEP_MM = 5.0

Spacing = tuple[float, float, float]


def normalise(hu: Tensor, *, bright_tail: bool = False) -> Tensor:
    """HU to network input; soft tissue becomes 0, the value of padding.

    With `bright_tail`, HU above the window contribute a quarter of their excess: leads and stents
    are brighter than plaques, which clipping would hide.
    """
    hu = hu.float()
    clipped = hu.clamp(*HU_WINDOW)
    if bright_tail:
        clipped = clipped + TAIL_SLOPE * (hu - HU_WINDOW[1]).clamp(0.0, TAIL_HU)
    return (clipped - HU_CENTRE) / HU_SCALE


@dataclass(frozen=True, slots=True)
class HeartFrame:
    """Centre and half extent of the heart along slice, row, column, in voxels."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]


def heart_frame(mask: NDArray[np.bool_]) -> HeartFrame:
    """Frame of a non-empty mask, from the 1st to the 99th percentile along each axis."""
    centre, half = [], []
    for axis in range(3):
        other = tuple(a for a in range(3) if a != axis)
        share = np.cumsum(mask.sum(axis=other, dtype=np.int64)) / np.count_nonzero(mask)
        low, high = np.searchsorted(share, (0.01, 0.99))
        centre.append((low + high) / 2)
        half.append(max(1.0, (high - low) / 2))
    return HeartFrame((centre[0], centre[1], centre[2]), (half[0], half[1], half[2]))


def heart_position(frame: HeartFrame, slices: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Position channels: -1 to 1 across the heart along each axis, clipped at -2 and 2.

    Parameters
    ----------
    slices : (slices, 1, 1), index of each slice.
    rows, columns : broadcastable to (rows, columns), index of each pixel.

    Returns
    -------
    (slices, 3, rows, columns).
    """
    parts = zip((slices, rows, columns), frame.centre, frame.half, strict=True)
    axes = [(at - centre) / half for at, centre, half in parts]
    shape = (axes[0] + axes[1] + axes[2]).shape
    return torch.stack([axis.expand(shape) for axis in axes], dim=1).clamp(-2.0, 2.0).float()


def heart_slices(n_slices: int, increment_mm: float) -> NDArray[np.int64]:
    """Indices of the slices for the heart network."""
    step = max(1, round(HEART_STEP_MM / increment_mm))
    return np.arange(step // 2 if n_slices > step // 2 else 0, n_slices, step)


def heart_input(hu: NDArray[np.int16], spacing_mm: Spacing) -> Tensor:
    """Input stack of the heart network.

    Returns
    -------
    (slices + 2, 112, 112), normalised; edge slices are repeated as their own neighbours.
    """
    chosen = heart_slices(hu.shape[0], spacing_mm[0])
    box = _field_box(hu.shape, spacing_mm)
    planes = torch.from_numpy(np.ascontiguousarray(_cut(hu[chosen], box)))
    coarse = interpolate(
        normalise(planes)[:, None],
        size=(HEART_PIXELS, HEART_PIXELS),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[:, 0]
    return torch.cat([coarse[:1], coarse, coarse[-1:]])


def heart_labels(mask: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.float32]:
    """A mask on the grid of `heart_input` (without the repeated slices): coverage, 0 to 1."""
    chosen = heart_slices(mask.shape[0], spacing_mm[0])
    planes = torch.from_numpy(
        np.ascontiguousarray(_cut(mask[chosen], _field_box(mask.shape, spacing_mm)))
    )
    size = (HEART_PIXELS, HEART_PIXELS)
    coarse = interpolate(
        planes[:, None].float(), size=size, mode="bilinear", antialias=True, align_corners=False
    )
    return coarse[:, 0].numpy()


def heart_mask(
    probability: Tensor, shape: tuple[int, int, int], spacing_mm: Spacing
) -> NDArray[np.bool_]:
    """Mask at native resolution from the coarse probability.

    Keeps the largest three-dimensional component at 0.5, replaces each slice by its convex hull
    (the network misses parts where blood, muscle and liver have similar HU), and interpolates
    linearly between slices and pixels.

    Parameters
    ----------
    probability : (slices of `heart_slices`, 112, 112).
    """
    coarse = probability.numpy()
    parts, count = label(coarse >= 0.5)
    if count == 0:
        return np.zeros(shape, np.bool_)
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    kept = np.where((parts == largest) | (coarse < 0.5), coarse, 0.0).astype(np.float32)
    for plane in kept:
        plane[_convex_hull(plane >= 0.5) & (plane < 0.5)] = 1.0
    rows = np.flatnonzero((kept >= 0.5).any(axis=(1, 2)))
    box = _field_box(shape, spacing_mm)
    mask = np.zeros(shape, np.bool_)
    chosen = heart_slices(shape[0], spacing_mm[0])
    first = max(0, int(chosen[rows[0]]) - int(np.diff(chosen[:2]).sum()))
    last = min(shape[0] - 1, int(chosen[rows[-1]]) + int(np.diff(chosen[:2]).sum()))
    for k in range(first, last + 1):
        plane = torch.from_numpy(_between(kept, chosen, k))
        size = (box[1] - box[0], box[3] - box[2])
        fine = interpolate(plane[None, None], size=size, mode="bilinear", align_corners=False)
        _paste(mask[k], fine[0, 0].numpy() >= 0.5, box)
    return mask


def _convex_hull(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose centre lies in the convex hull of the centres of the given pixels."""
    try:
        edges = ConvexHull(np.argwhere(plane)).equations
    except (QhullError, ValueError):  # fewer than three pixels, or all on a line
        return plane
    centres = np.indices(plane.shape).reshape(2, -1)
    inside = np.all(edges[:, :2] @ centres + edges[:, 2:] <= 1e-9, axis=0)
    return np.asarray(inside.reshape(plane.shape))


def candidates(
    hu: NDArray[np.int16],
    mask: NDArray[np.bool_],
    spacing_mm: Spacing,
    *,
    threshold_hu: float,
    min_area_mm2: float,
    connectivity: int,
) -> NDArray[np.bool_]:
    """Voxels that can be calcium: bright, inside the heart, in a large enough 2-D component.

    A lesion is a subset of one such component, so nothing is lost by looking nowhere else.
    """
    found = np.zeros(hu.shape, np.bool_)
    extent = find_objects(mask.view(np.uint8), max_label=1)[0]
    if extent is None:
        return found
    bright = (hu[extent] >= threshold_hu) & mask[extent]
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    found[extent] = remove_small_components(bright, pixel_mm2, min_area_mm2, connectivity)
    return found


def _field_box(shape: tuple[int, ...], spacing_mm: Spacing) -> tuple[int, int, int, int]:
    """Rows and columns (start, stop, start, stop) of the centred field; may exceed the image."""
    box: list[int] = []
    for size, spacing in zip(shape[1:], spacing_mm[1:], strict=True):
        wanted = round(HEART_FIELD_MM / spacing)
        begin = (size - wanted) // 2
        box += [begin, begin + wanted]
    return box[0], box[1], box[2], box[3]


def _cut(planes: NDArray[np.generic], box: tuple[int, int, int, int]) -> NDArray[np.generic]:
    """Crop each plane to the box, padded with air (or False) outside the image."""
    r0, r1, c0, c1 = box
    _, rows, columns = planes.shape
    inside = planes[:, max(r0, 0) : min(r1, rows), max(c0, 0) : min(c1, columns)]
    before = (max(-r0, 0), max(r1 - rows, 0)), (max(-c0, 0), max(c1 - columns, 0))
    if not any(before[0] + before[1]):
        return inside
    fill = False if planes.dtype == np.bool_ else -1024
    return np.pad(inside, ((0, 0), *before), constant_values=fill)


def _paste(
    plane: NDArray[np.bool_], field: NDArray[np.bool_], box: tuple[int, int, int, int]
) -> None:
    r0, r1, c0, c1 = box
    rows, columns = plane.shape
    top, left = max(r0, 0), max(c0, 0)
    bottom, right = min(r1, rows), min(c1, columns)
    plane[top:bottom, left:right] = field[top - r0 : bottom - r0, left - c0 : right - c0]


def _between(planes: NDArray[np.float32], chosen: NDArray[np.int64], k: int) -> NDArray[np.float32]:
    """Plane at slice k, interpolated linearly between its neighbours in `chosen`."""
    after = int(np.searchsorted(chosen, k))
    if after == 0 or after == len(chosen):
        held: NDArray[np.float32] = planes[min(after, len(chosen) - 1)]
        return held
    low, high = int(chosen[after - 1]), int(chosen[after])
    share = np.float32((k - low) / (high - low))
    mixed: NDArray[np.float32] = (1 - share) * planes[after - 1] + share * planes[after]
    return mixed
