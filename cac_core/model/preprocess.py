"""Network input from HU and masks from network output: normalisation, heart grid, candidates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import (
    gaussian_filter1d,
    label,
    maximum_filter1d,
    minimum_filter1d,
)
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import interpolate

from cac_core.components import bounding_box, remove_small_components

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
#: Standard deviation of the smoothing of the heart probability across slices.
_SMOOTHING_MM = 3.0
#: A slice keeps its own outline if it holds this share of what it and its neighbours agree on.
_OWN_SHARE = 0.5
#: Outward normals (directions, 2), along rows and columns, of the polygons that outline the heart.
_ANGLES = np.arange(128) * (2 * np.pi / 128)
_NORMALS = np.stack([np.sin(_ANGLES), np.cos(_ANGLES)], axis=1)
#: Every outline contains a disc of this radius, in coarse pixels, about each of its pixels.
_LEAST_RADIUS = 0.25

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
    r0, r1, c0, c1 = _field_box(hu.shape, spacing_mm)
    low, high = HU_WINDOW
    by_row, by_column = _resampling(hu.shape[1], r0, r1), _resampling(hu.shape[2], c0, c1)
    coarse = np.empty((len(chosen), HEART_PIXELS, HEART_PIXELS), np.float32)
    for plane, k in zip(coarse, chosen, strict=True):
        # Above the lower limit, so that what lies outside the image is 0.
        above = np.clip(hu[k], int(low), int(high)).astype(np.float32) - np.float32(low)
        plane[:] = (by_column @ (by_row @ above).T).T
    stack = torch.from_numpy((coarse + np.float32(low - HU_CENTRE)) / np.float32(HU_SCALE))
    return torch.cat([stack[:1], stack, stack[-1:]])


@lru_cache(maxsize=64)
def _resampling(size: int, begin: int, end: int) -> csr_array[np.float32]:
    """Weights of antialiased bilinear resampling of [begin, end) to 112 pixels: (112, size).

    Pixels outside of the image, 0 to size - 1, have no column.
    """
    each = torch.eye(end - begin)[None, None]
    size_out = (HEART_PIXELS, end - begin)
    weights = interpolate(each, size=size_out, mode="bilinear", antialias=True)[0, 0].numpy()
    inside = np.zeros((HEART_PIXELS, size), np.float32)
    first, last = max(begin, 0), min(end, size)
    inside[:, first:last] = weights[:, first - begin : last - begin]
    return csr_array(inside)


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
    """Mask at native resolution from the coarse probability: no gap, each slice in one piece.

    The probability is smoothed across slices; up to two weak slices between good ones do not
    separate parts, and the largest part is kept. Each slice becomes a convex polygon (the network
    misses parts where blood, muscle and liver have similar HU), given by its extent along fixed
    directions (its support function). The extent of a slice that holds less than half of what its
    neighbours share is interpolated; nowhere is a slice smaller than both its neighbours. Slices in
    between have the linear interpolation of the extents, which is a convex polygon again, and the
    outermost outlines extend half a step.

    Parameters
    ----------
    probability : (slices of `heart_slices`, 112, 112).
    """
    mask = np.zeros(shape, np.bool_)
    chosen = heart_slices(shape[0], spacing_mm[0])
    step = int(chosen[1] - chosen[0]) if len(chosen) > 1 else shape[0]
    smoothing = _SMOOTHING_MM / (step * spacing_mm[0])
    coarse = gaussian_filter1d(probability.numpy(), smoothing, axis=0, mode="nearest")
    own, closed = _largest_part(coarse >= 0.5)
    if not closed.any():
        return mask
    # A fine pixel must lie in the smallest disc, or a slice could be empty.
    least = max(_LEAST_RADIUS, max(spacing_mm[1:]) * HEART_PIXELS / HEART_FIELD_MM / np.sqrt(2))
    n_own, n_closed = own.sum(axis=(1, 2)), closed.sum(axis=(1, 2))
    good = np.flatnonzero((n_own > 0) & (n_own >= _OWN_SHARE * n_closed))
    at = np.arange(good[0], good[-1] + 1)
    extents = _along(at, good, np.stack([_extents(coarse[k], own[k], least) for k in good]))
    extents[1:-1] = np.maximum(extents[1:-1], np.minimum(extents[:-2], extents[2:]))
    first = max(0, int(chosen[at[0]]) - step // 2)
    last = min(shape[0] - 1, int(chosen[at[-1]]) + step // 2)
    fine = _along(np.arange(first, last + 1), chosen[at], extents)
    _fill(mask[first : last + 1], fine, _field_box(shape, spacing_mm))
    return mask


def _largest_part(found: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The largest part of a stack, without and with what closes up to two slices between parts."""
    room = np.pad(found, ((2, 2), (0, 0), (0, 0))).view(np.uint8)
    closed = minimum_filter1d(maximum_filter1d(room, 3, axis=0), 3, axis=0)[2:-2]
    parts, count = label(closed)
    if count == 0:
        return found, found
    part = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return found & part, part


def _extents(
    plane: NDArray[np.float32], own: NDArray[np.bool_], least: float
) -> NDArray[np.float64]:
    """Extent of the region of pixels `own` of a plane along each normal, from pixel (0, 0).

    Between a pixel and its neighbour outside, the border is where the linear interpolation of the
    probability crosses 0.5; it is at least `least` pixels away from the pixel.
    """
    at = np.argwhere(own)
    far = (at @ _NORMALS.T).max(axis=0) + least
    padded = np.pad(plane, 1)
    here = plane[own]
    for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        beside = padded[at[:, 0] + 1 + step[0], at[:, 1] + 1 + step[1]]
        border = beside < 0.5
        share = (here[border] - 0.5) / (here[border] - beside[border])
        points = at[border] + share[:, None] * np.array(step)
        far = np.maximum(far, (points @ _NORMALS.T).max(axis=0, initial=-np.inf))
    return np.asarray(far)


def _along(
    wanted: NDArray[np.int64], known: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rows of `values` at `wanted`, interpolated linearly between those at `known`; ends held."""
    return np.stack([np.interp(wanted, known, column) for column in values.T], axis=1)


def _fill(
    planes: NDArray[np.bool_], extents: NDArray[np.float64], box: tuple[int, int, int, int]
) -> None:
    """Set the pixels of each plane that lie within its extents along all normals."""
    rows, columns = (
        (np.arange(size) - begin + 0.5) * HEART_PIXELS / (end - begin) - 0.5
        for size, begin, end in zip(planes.shape[1:], box[::2], box[1::2], strict=True)
    )
    right = _NORMALS[:, 1] > 0
    for plane, far in zip(planes, extents, strict=True):
        # Where a row crosses each side of the polygon: (directions, rows).
        crossing = (far[:, None] - _NORMALS[:, :1] * rows) / _NORMALS[:, 1:]
        begin = np.searchsorted(columns, crossing[~right].max(axis=0))
        end = np.searchsorted(columns, crossing[right].min(axis=0), side="right")
        for row in np.flatnonzero(begin < end):
            plane[row, begin[row] : end[row]] = True


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
    extent = bounding_box(mask)
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
