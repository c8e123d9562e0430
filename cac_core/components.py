"""Boxes and connected components of masks, and the minimum area that a lesion must reach."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Relative rounding error allowed below the minimum area: the area of a lesion is a product of
#: floating-point spacings, and one that equals the minimum must not be lost.
_AREA_TOLERANCE = 1e-9


def label_in_plane(
    mask: NDArray[np.bool_], connectivity: int = 8
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Label the connected components of each slice; pixels of different slices never join.

    Parameters
    ----------
    mask : (row, column) or (slice, row, column).
    connectivity : 4 or 8 neighbours of a pixel.

    Returns
    -------
    Labels, of the shape of `mask`, 0 for background; number of pixels by label, (n + 1,), with 0
    for the background.
    """
    structure = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    if mask.ndim == 3:
        structure = np.stack([np.zeros_like(structure), structure, np.zeros_like(structure)])
    labels, count = ndimage.label(mask, structure)
    n_pixels = np.bincount(labels.ravel(), minlength=count + 1)
    n_pixels[0] = 0
    return np.asarray(labels, np.int32), n_pixels


def largest_in_plane(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected component of each slice of a (slice, row, column) mask."""
    labels, n_pixels = label_in_plane(mask)
    kept = np.zeros(len(n_pixels), np.bool_)
    for plane in labels:
        present = np.unique(plane)
        if present[-1] > 0:
            kept[present[np.argmax(n_pixels[present])]] = True
    return np.asarray(kept[labels])


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Return the smallest box around a (slice, row, column) mask; None for an empty mask."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size:
        return None
    levels = slice(int(slices[0]), int(slices[-1]) + 1)
    plane = np.asarray(mask[levels].any(axis=0))
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return (
        levels,
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )


def reaches_area(
    n_pixels: NDArray[np.intp], pixel_mm2: float, min_area_mm2: float
) -> NDArray[np.bool_]:
    """Whether components have at least the minimum area, apart from rounding errors.

    Parameters
    ----------
    n_pixels : (n,), number of pixels of each component.
    pixel_mm2 : area of a pixel.
    min_area_mm2 : minimum area.
    """
    return np.asarray(n_pixels * pixel_mm2 >= min_area_mm2 * (1 - _AREA_TOLERANCE))


def remove_small_components(
    mask: NDArray[np.bool_], pixel_mm2: float, min_area_mm2: float, connectivity: int
) -> NDArray[np.bool_]:
    """Remove the components of each slice that are below the minimum area.

    Parameters
    ----------
    mask : (slice, row, column).
    pixel_mm2 : area of a pixel.
    connectivity : 4 or 8 neighbours of a pixel.
    """
    labels, n_pixels = label_in_plane(mask, connectivity)
    large = reaches_area(n_pixels, pixel_mm2, min_area_mm2)
    large[0] = False
    return np.asarray(large[labels])
