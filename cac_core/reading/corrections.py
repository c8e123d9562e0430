"""Corrections of a reader: what each one says, and which voxels it changes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from scipy import ndimage

from cac_core.components import label_in_plane
from cac_core.errors import UsageError
from schemas.codes import CalciumSite

#: Most pixels of the path and largest radius of a brush, in pixels.
MOST_POINTS, MOST_RADIUS = 4000, 80.0
#: A missed lesion of more voxels is not a plaque: what was clicked is part of bone or metal.
MOST_GROWN = 50_000

#: Flat indices of voxels.
Voxels = NDArray[np.intp]


class _Correction(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    slice: int = Field(ge=0)


class _AtPixel(_Correction):
    row: int = Field(ge=0)
    column: int = Field(ge=0)
    extent: Literal["calcification", "slice"] = "calcification"


class Assign(_AtPixel):
    """Give the lesion at a pixel to a site; None: it is not calcium.

    `extent` is the whole calcification over all slices, or its part in this slice.
    """

    do: Literal["assign"]
    site: CalciumSite | None


class Grow(_AtPixel):
    """Add the lesion at a pixel: the pixels connected with it that reach the threshold."""

    do: Literal["grow"]
    site: CalciumSite


#: A row or column of a brush, which may reach beyond the slice.
_Place = Annotated[float, Field(ge=-10_000, le=10_000, allow_inf_nan=False)]


class _Brush(_Correction):
    points: list[tuple[_Place, _Place]] = Field(min_length=1, max_length=MOST_POINTS)
    radius_px: float = Field(gt=0, le=MOST_RADIUS)


class Paint(_Brush):
    """Give what reaches the threshold under a brush to a site; None removes calcium."""

    do: Literal["paint"]
    site: CalciumSite | None


class EditHeart(_Brush):
    """Add what is under a brush to the heart, or remove it, also in slices next to this one."""

    do: Literal["heart"]
    add: bool
    reach: int = Field(default=0, ge=0, le=20)


Correction = Annotated[Assign | Grow | Paint | EditHeart, Field(discriminator="do")]
_ADAPTER: TypeAdapter[Assign | Grow | Paint | EditHeart] = TypeAdapter(Correction)


def parse_correction(value: object) -> Assign | Grow | Paint | EditHeart:
    """A correction from JSON.

    Raises
    ------
    UsageError
        If it is not one.
    """
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"That is not a correction ({where}: {first['msg']}).") from None


def disc_pixels(
    points: list[tuple[float, float]], radius_px: float, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Pixels under a round brush that moves from point to point, (rows, columns)."""
    path = np.array(points, np.float64)
    steps = [path[:1]]
    for start, end in pairwise(path):
        n = max(1, int(np.ceil(np.hypot(*(end - start)) / max(1.0, radius_px / 2))))
        steps.append(start + (end - start) * np.arange(1, n + 1)[:, None] / n)
    dense = np.concatenate(steps)
    drawn = np.zeros(shape, np.bool_)
    at = np.rint(dense).astype(int)
    at = at[((at >= 0) & (at < shape)).all(axis=1)]
    drawn[at[:, 0], at[:, 1]] = True
    if not drawn.any():
        return drawn
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    margin = int(np.ceil(radius_px)) + 1
    box = tuple(
        slice(max(0, found[0] - margin), found[-1] + 1 + margin) for found in (rows, columns)
    )
    drawn[box] = ndimage.distance_transform_edt(~drawn[box]) <= radius_px
    return drawn


def connected_voxels(
    mask: NDArray[np.bool_], seed: tuple[int, int, int], *, whole: bool, connectivity: int
) -> Voxels:
    """Voxels of a mask (slice, row, column) that are connected with a seed inside it.

    Parameters
    ----------
    whole : over all slices, by corners too; else in the slice of the seed by `connectivity`.
    """
    k, row, column = seed
    if not whole:
        labels, _ = label_in_plane(mask[k], connectivity)
        at = np.flatnonzero(labels.ravel() == labels[row, column])
        return np.asarray(k * mask[k].size + at, np.intp)
    volume, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    return np.flatnonzero(volume.ravel() == volume[k, row, column])


def brightest_near(
    hu: NDArray[np.int16],
    seed: tuple[int, int, int],
    allowed: Callable[[tuple[int, int, int]], bool],
) -> tuple[int, int, int] | None:
    """The brightest allowed pixel in the slice within one pixel of the seed; None without one."""
    k, row, column = seed
    near = [
        (k, r, c)
        for r in range(max(0, row - 1), min(hu.shape[1], row + 2))
        for c in range(max(0, column - 1), min(hu.shape[2], column + 2))
        if allowed((k, r, c))
    ]
    return max(near, key=lambda at: int(hu[at]), default=None)
