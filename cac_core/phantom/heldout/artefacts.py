"""Kernels, and streaks and bands of dense things, metal and arms beside the chest."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, irfft2, rfft, rfft2
from scipy.ndimage import label, zoom
from scipy.sparse import csr_array

from cac_core.phantom.analytic.noise import metal_streaks

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Cells of the coarse slice along each side, their size in pixels, and the angles of projection.
CELLS, CELL, _VIEWS = 128, 5, 72
#: Attenuation of water at about 65 keV, per mm.
_WATER_PER_MM = 0.0192
_DENSE_HU, _METAL_HU = 300.0, 1800.0
#: Pieces of metal in a slice that have rays of their own.
_MOST_PIECES = 4
#: Share of the dense line integral squared that is lost, for a strength of 1. A cortical bone of
#: 10 mm and 800 HU then loses about 2 %.
_HARDENING = 0.13


def kernel_gain(side: int, pixel_mm: float, sharpness: float) -> Floats:
    """Transfer function (side, side // 2 + 1) of a kernel, relative to the standard one.

    Smooth kernels lower high frequencies; edge-enhancing ones raise those around 0.4 cycles per mm,
    so that edges overshoot (such as Siemens B60, Philips L, GE Lung).

    Parameters
    ----------
    sharpness : -1 to 1; 0 gives 1 everywhere.
    """
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) / pixel_mm
    if sharpness < 0:
        gain = np.exp(-((f / 0.35) ** 2) * -sharpness)
    else:
        gain = 1 + 1.6 * sharpness * (f / 0.4) ** 2 * np.exp(1 - (f / 0.4) ** 2)
    return np.asarray(gain, np.float32)


def apply_gain(image: Floats, gain: Floats) -> None:
    """Multiply the transform of each slice with a transfer function, in place.

    Slices of zeros stay zero.
    """
    for plane in image:
        if plane.any():
            plane[:] = irfft2(rfft2(plane) * gain, s=plane.shape)


def rays_of_metal(metal: Floats, rng: np.random.Generator) -> Floats:
    """Bright and dark rays around metal, HU; both arrays (slice, row, column)."""
    out = np.zeros_like(metal)
    strength = float(rng.uniform(40, 160))
    for k in np.flatnonzero(metal.max(axis=(1, 2)) > _METAL_HU):
        parts, count = label(metal[k] > _METAL_HU / 3)
        for part in range(1, min(count, _MOST_PIECES) + 1):
            out[k] += metal_streaks(np.where(parts == part, metal[k], 0), strength, rng)
    return out


def bands(
    hu: Floats,
    pixel_mm: float,
    hardening: float,
    starvation_hu: float,
    arms: bool,
    rng: np.random.Generator,
) -> Floats:
    """Dark bands between dense things and streaks of few photons, HU, from coarse projections.

    Hardening of the beam lowers a line integral by a share of the squared line integral of dense
    material (Joseph and Spital, J Comput Assist Tomogr 1978;2:100). The noise of a projection grows
    with the exponential of half its line integral.

    Parameters
    ----------
    hu : (slice, row, column).
    hardening : strength; 1 is that of an average scanner with a correction for water only.
    starvation_hu : standard deviation of the streaks in the slices.
    arms : adds two arms, mostly outside the picture.
    """
    coarse = np.stack([_coarse(plane) for plane in hu]) / 1000 + 1
    dense = np.where(coarse > 1 + _DENSE_HU / 1000, coarse - 1, 0)
    if arms:
        muscle, bone = _arms(rng)
        coarse = np.maximum(coarse, muscle)
        dense = np.maximum(dense, bone)
    system = _projector()
    cell_mm = CELL * pixel_mm
    bins = (_VIEWS, 2 * CELLS, len(hu))
    lost = system @ dense.reshape(len(hu), -1).T * np.float32(cell_mm * _WATER_PER_MM)
    change = -hardening * _HARDENING * lost.reshape(bins) ** 2
    total = system @ coarse.reshape(len(hu), -1).T * np.float32(cell_mm * _WATER_PER_MM)
    loud = np.exp(np.clip(total.reshape(bins), 0, 12) / 2)
    hardened = _back(change, system) * np.float32(1000 / (cell_mm * _WATER_PER_MM))
    grain = _back(rng.standard_normal(bins, dtype=np.float32) * loud, system)
    grain *= np.float32(starvation_hu / max(float(grain[:, 32:96, 32:96].std()), 1e-6))
    return np.stack([_at_pixels(plane, hu.shape[1]) for plane in hardened + grain])


def _back(sinogram: Floats, system: csr_array) -> Floats:
    """Filtered back-projection of (view, bin, slice) to (slice, row, column), per cell."""
    size = sinogram.shape[1]
    f = np.fft.rfftfreq(2 * size)
    ramp = (f * np.cos(np.pi * f) ** 2)[:, None]
    filtered = irfft(rfft(sinogram, n=2 * size, axis=1) * ramp, axis=1)[:, :size]
    flat = filtered.astype(np.float32).reshape(-1, sinogram.shape[2])
    image = system.T @ flat * np.float32(np.pi / _VIEWS)
    return np.asarray(image.T.reshape(-1, CELLS, CELLS), np.float32)


@lru_cache(maxsize=1)
def _projector() -> csr_array:
    """Line integrals in cells: (view x bin, row x column), with linear interpolation of bins."""
    at = np.arange(CELLS) - (CELLS - 1) / 2
    cells = np.arange(CELLS * CELLS)
    rows, columns, values = [], [], []
    for view in range(_VIEWS):
        angle = np.pi * view / _VIEWS
        where = (at[:, None] * np.sin(angle) + at * np.cos(angle)).ravel() + CELLS - 0.5
        low = np.floor(where).astype(int)
        for index, share in ((low, 1 - (where - low)), (low + 1, where - low)):
            rows.append(view * 2 * CELLS + index)
            columns.append(cells)
            values.append(share)
    entries = np.concatenate(values).astype(np.float32)
    place = (np.concatenate(rows), np.concatenate(columns))
    return csr_array((entries, place), shape=(_VIEWS * 2 * CELLS, CELLS * CELLS))


def _coarse(plane: Floats) -> Floats:
    """Means over cells of a slice in the middle of a wider square of air."""
    room = (CELLS * CELL - plane.shape[0]) // 2
    wide = np.pad(plane, room, constant_values=-1000)
    return np.asarray(wide.reshape(CELLS, CELL, CELLS, CELL).mean(axis=(1, 3)), np.float32)


def _at_pixels(plane: Floats, size: int) -> Floats:
    fine: Floats = zoom(plane, CELL, order=1, mode="nearest", grid_mode=True)
    begin = (len(fine) - size) // 2
    return fine[begin : begin + size, begin : begin + size]


def _arms(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Muscle (relative to water) and bone (in excess of water) of two arms, in cells."""
    y, x = np.indices((CELLS, CELLS)) - (CELLS - 1) / 2
    muscle, bone = np.zeros((2, CELLS, CELLS), np.float32)
    for side in (-1, 1):
        centre = np.array([rng.uniform(-4, 12), side * rng.uniform(51, 57)])
        distance = np.hypot(y - centre[0], x - centre[1])
        muscle[distance < rng.uniform(7, 10)] = 1.05
        bone[distance < 2.5] = 0.8
    return muscle, bone
