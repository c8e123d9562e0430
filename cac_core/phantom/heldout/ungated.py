"""Motion of the heart during a rotation of an ungated scan.

A parallel projection at one angle is a line through the origin of the 2-D Fourier transform of the
slice (Fourier slice theorem; Kak and Slaney, Principles of Computerized Tomographic Imaging, IEEE
Press 1988, chapter 3). A filtered back-projection of a moving slice therefore takes each wedge of
its Fourier transform from the slice at the time at which these angles were measured. Borders that
move along such a wedge become crescents and double contours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, zoom

Points = NDArray[np.float64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Side of the square around the heart in which slices move, pixels; and of its coarse grid.
SIDE = 256
_COARSE = 4
#: Distance outside the heart at which motion ends, mm.
FADE_MM = 20.0
_BONE_HU = 200.0
#: Most displacement along the body over a beat, mm.
MOST_LIFT_MM = 8.0
#: Reach of the motion of the right coronary artery around its line, mm.
_GROOVE_MM = 11.0


@dataclass(frozen=True)
class Beating:
    """Motion of the heart, and of the gantry.

    Attributes
    ----------
    shift_mm : displacement (row, column) of the whole heart over a beat, peak to peak.
    squeeze_mm : displacement towards the centre of the heart 40 mm away from it, peak to peak.
    groove_mm : additional displacement (row, column) around the right coronary artery.
    lift_mm : displacement of the whole heart along the body, peak to peak.
    rotation_s, beat_s : duration of a rotation and of a beat.
    sectors : number of times at which the slice is taken during half a rotation.
    """

    shift_mm: tuple[float, float]
    squeeze_mm: float
    groove_mm: tuple[float, float]
    lift_mm: float
    rotation_s: float
    beat_s: float
    sectors: int = 8


def draw_beating(rng: np.random.Generator) -> Beating:
    """Motion of 2 to 8 mm of the ventricles and up to 10 mm of the right coronary artery.

    The ranges are assumptions, not measurements; a rotation takes 0.5 to 1 s, a beat 0.8 to 1 s.
    """
    turn, other = rng.uniform(0, 2 * np.pi, 2)
    whole = float(rng.uniform(2, 8))
    share = float(rng.uniform(0, 1))
    groove = float(rng.uniform(0, 10))
    return Beating(
        (whole * share * float(np.sin(turn)), whole * share * float(np.cos(turn))),
        whole * (1 - share),
        (groove * float(np.sin(other)), groove * float(np.cos(other))),
        float(rng.uniform(0, MOST_LIFT_MM)),
        float(rng.uniform(0.5, 1.0)),
        float(rng.uniform(0.8, 1.0)),
        int(rng.integers(6, 11)),
    )


def wedges(side: int, sectors: int, start: float) -> Floats:
    """Share of each time in each frequency, (sectors, side, side // 2 + 1) for `rfft2`.

    The angle of measurement increases from `start` (radians) over half a turn; between two times
    the shares change linearly. They add up to one, and the mean of the slice is that of all times.
    """
    angle = np.arctan2(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    at = ((angle - start) % np.pi) / np.pi * (sectors - 1)
    hats = np.maximum(1 - np.abs(at - np.arange(sectors)[:, None, None]), 0)
    hats[:, 0, 0] = 1 / sectors
    return np.asarray(hats, np.float32)


def move(
    images: Sequence[Floats],
    heart: Mask,
    groove: Points | None,
    spacing_mm: Points,
    beating: Beating,
    rng: np.random.Generator,
) -> None:
    """Replace slices by those of a beating heart, in place; images change together.

    Parameters
    ----------
    images : (slice, row, column) each; the first is the tissue, whose bones stay at rest. Slices
        of the others are skipped where they and their neighbours are zero.
    groove : line of the right coronary artery (n, 3) in mm.

    Notes
    -----
    The operator is linear in the image. Each slice has an angle and a phase of its own, as the
    table moves between them. Nothing changes outside the square around the heart.
    """
    box = _square(heart)
    weight, toward, near = _fields(images[0], heart, groove, spacing_mm, box)
    window = _window()
    grid = np.stack(np.meshgrid(*2 * [np.arange(SIDE, dtype=np.float32)], indexing="ij"))
    reach = int(np.ceil(MOST_LIFT_MM / 2 / spacing_mm[0]))
    step = spacing_mm[:, None, None].astype(np.float32)
    still = [image[(slice(None), *box)].copy() for image in images]
    for k in map(int, np.flatnonzero(weight.any(axis=(1, 2)))):
        shares = wedges(SIDE, beating.sectors, float(rng.uniform(0, np.pi)))
        base = [_fine(part) for part in (weight[k], *toward[k], near[k])]
        low = max(k - reach, 0)
        first = np.stack([np.full_like(grid[0], k - low), *grid])
        places = [
            np.asarray(first - _field(base, path, beating) / step, np.float32)
            for path in _paths(beating, rng)
        ]
        for image, source in zip(images, still, strict=True):
            stack = source[low : k + reach + 1]
            if stack.any():
                image[(k, *box)] += window * _change(stack, source[k], shares, places)


def _change(stack: Floats, still: Floats, shares: Floats, places: Sequence[Floats]) -> Floats:
    """What motion changes in the square of one slice, from the slices around it."""
    change: NDArray[np.complex64] = np.zeros(shares.shape[1:], np.complex64)
    for share, place in zip(shares, places, strict=True):
        seen = map_coordinates(stack, place, np.float32, order=1, mode="nearest")
        change += share * np.asarray(rfft2(seen - still), np.complex64)
    return np.asarray(irfft2(change, s=still.shape), np.float32)


def _square(heart: Mask) -> tuple[slice, slice]:
    """Rows and columns of the square around the heart."""
    begins = []
    for axis, size in ((1, heart.shape[1]), (2, heart.shape[2])):
        found = np.flatnonzero(heart.any(axis=(0, 3 - axis)))
        middle = int(found[0] + found[-1]) // 2 if found.size else size // 2
        begins.append(int(np.clip(middle - SIDE // 2, 0, size - SIDE)))
    return slice(begins[0], begins[0] + SIDE), slice(begins[1], begins[1] + SIDE)


def _window() -> Floats:
    """1 inside, falling smoothly to 0 at the edge of the square."""
    edge = np.minimum(np.arange(SIDE), np.arange(SIDE)[::-1]) / (SIDE / 12)
    side = 0.5 - 0.5 * np.cos(np.pi * np.clip(edge, 0, 1))
    return np.outer(side, side).astype(np.float32)


def _fields(
    tissue: Floats, heart: Mask, groove: Points | None, spacing_mm: Points, box: tuple[slice, slice]
) -> tuple[Floats, Floats, Floats]:
    """On the coarse grid: share of the motion, direction from the centre, nearness of the groove.

    Returns
    -------
    (slice, row, column), (slice, 2, row, column) and (slice, row, column).
    """
    step = spacing_mm * (1, _COARSE, _COARSE)
    coarse = heart[(slice(None), *box)][:, ::_COARSE, ::_COARSE]
    if not coarse.any():
        nothing = np.zeros(coarse.shape, np.float32)
        return nothing, np.stack([nothing, nothing], axis=1), nothing
    outside = distance_transform_edt(~coarse, sampling=step)
    weight = 0.5 + 0.5 * np.cos(np.pi * np.clip(outside / FADE_MM, 0, 1))
    bone = (tissue[(slice(None), *box)][:, ::_COARSE, ::_COARSE] > _BONE_HU) & ~coarse
    weight *= np.clip(1 - 3 * gaussian_filter(bone.astype(np.float32), (0.5, 1, 1)), 0, 1)
    # Motion ends within the square.
    weight *= _window()[::_COARSE, ::_COARSE]
    places = np.indices(coarse.shape[1:]) * step[1]
    centre = np.array([part.mean() for part in np.nonzero(coarse.any(axis=0))]) * step[1]
    away = (places - centre[:, None, None]) / 40.0
    away /= np.maximum(np.hypot(*away), 1)
    near = np.zeros(coarse.shape)
    if groove is not None:
        origin = np.array([0.0, box[0].start * spacing_mm[1], box[1].start * spacing_mm[2]])
        index = np.rint((groove - origin) / step).astype(int)
        index = index[((index >= 0) & (index < coarse.shape)).all(axis=1)]
        line = np.zeros(coarse.shape, np.bool_)
        line[tuple(index.T)] = True
        if line.any():
            far = distance_transform_edt(~line, sampling=step)
            near = np.exp(-0.5 * (far / _GROOVE_MM) ** 2) * weight
    return (
        weight.astype(np.float32),
        (weight[:, None] * away).astype(np.float32),
        near.astype(np.float32),
    )


def _fine(plane: Floats) -> Floats:
    """A field of the coarse grid at every pixel, (row, column)."""
    fine: Floats = zoom(
        np.pad(plane, (0, 1), mode="edge"), _COARSE, order=1, mode="nearest", grid_mode=False
    )
    return fine[:SIDE, :SIDE]


def _paths(beating: Beating, rng: np.random.Generator) -> Points:
    """Courses (sectors, 4) of shift, squeeze, groove and lift over half a rotation, -0.5 to 0.5."""
    share = np.linspace(0, 1, beating.sectors)
    turns = beating.rotation_s / 2 / beating.beat_s * share
    phases = rng.uniform(0, 1, 4) * 0.3 + rng.uniform(0, 1)
    linear = rng.uniform(-0.5, 0.5, 4)
    waves = np.sin(2 * np.pi * (turns[:, None] + phases))
    return np.asarray(0.5 * (1 - np.abs(linear)) * waves + linear * (share[:, None] - 0.5))


def _field(base: list[Floats], path: Points, beating: Beating) -> Floats:
    """Displacement (3, row, column) in mm at one time."""
    weight, down, right, near = base
    shift, squeeze, groove, lift = (np.float32(value) for value in path)
    inside = [
        weight * (shift * np.float32(beating.shift_mm[axis]))
        + outward * (squeeze * np.float32(beating.squeeze_mm))
        + near * (groove * np.float32(beating.groove_mm[axis]))
        for axis, outward in enumerate((down, right))
    ]
    return np.stack([weight * (lift * np.float32(beating.lift_mm)), *inside])
