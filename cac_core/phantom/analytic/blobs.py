"""Calcium and metal as Gaussian blobs, rendered exactly.

Each structure is a chain of Gaussian blobs. Convolving a Gaussian with the Gaussian point spread
of scanner and motion gives a Gaussian again, and the slice profile is integrated exactly, so the
rendered contribution is the analytic answer and needs no fine grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Points = NDArray[np.float64]
#: Radius to which a blob is rendered, in standard deviations.
_REACH = 3.2


@dataclass(frozen=True)
class Blobs:
    """Gaussian blobs: centres (n, 3) in mm, standard deviations (n,) in mm, peak HU (n,)."""

    centres: Points
    sigmas: NDArray[np.float64]
    peaks: NDArray[np.float64]

    @staticmethod
    def join(parts: list[Blobs]) -> Blobs:
        """The blobs of all parts."""
        if not parts:
            return Blobs(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
        return Blobs(
            np.concatenate([part.centres for part in parts]),
            np.concatenate([part.sigmas for part in parts]),
            np.concatenate([part.peaks for part in parts]),
        )

    def smear(self, shifts: Points) -> Blobs:
        """The mean of copies shifted by each of `shifts` (m, 3) in mm: a structure in motion."""
        copies = [Blobs(self.centres + s, self.sigmas, self.peaks / len(shifts)) for s in shifts]
        return Blobs.join(copies)


@dataclass(frozen=True)
class PointSpread:
    """Blur of the acquisition: Gaussian sigmas in mm along x, y and z, and slice thickness."""

    sigma_mm: tuple[float, float, float]
    slice_mm: float


@dataclass(frozen=True)
class Grid:
    """Centres of columns, rows and slices in mm, evenly spaced and increasing."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Slice increment, row spacing, column spacing."""
        return (
            float(self.z[1] - self.z[0]),
            float(self.y[1] - self.y[0]),
            float(self.x[1] - self.x[0]),
        )


@dataclass(frozen=True)
class Patch:
    """Part of a volume: its box (slices, rows, columns) and its HU."""

    box: tuple[slice, slice, slice]
    hu: NDArray[np.float32]

    def add_to(self, volume: NDArray[np.float32]) -> None:
        """Add the patch to a volume in place."""
        volume[self.box] += self.hu


def render(blobs: Blobs, spread: PointSpread, grid: Grid) -> Patch:
    """Sum of all blobs after blur, in HU, in the smallest enclosing box."""
    blur = np.asarray(spread.sigma_mm)
    drawn = []
    for centre, sigma, peak in zip(blobs.centres, blobs.sigmas, blobs.peaks, strict=True):
        wide = np.sqrt(sigma**2 + blur**2)
        # The integral is preserved: a wider blob has a lower peak.
        amplitude = peak * sigma**3 / wide.prod()
        sx, wx = _profile(grid.x, centre[0], wide[0])
        sy, wy = _profile(grid.y, centre[1], wide[1])
        sz, wz = _slice_profile(grid.z, centre[2], wide[2], spread.slice_mm)
        if wx.size and wy.size and wz.size:
            hu = (amplitude * wz)[:, None, None] * (wy[:, None] * wx)
            drawn.append(((sz, sy, sx), hu.astype(np.float32)))
    if not drawn:
        return Patch((slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), np.float32))
    low = [min(box[axis].start for box, _ in drawn) for axis in range(3)]
    high = [max(box[axis].stop for box, _ in drawn) for axis in range(3)]
    out = np.zeros([b - a for a, b in zip(low, high, strict=True)], np.float32)
    for (sz, sy, sx), hu in drawn:
        out[
            sz.start - low[0] : sz.stop - low[0],
            sy.start - low[1] : sy.stop - low[1],
            sx.start - low[2] : sx.stop - low[2],
        ] += hu
    return Patch((slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), out)


def chain(points: Points, sigmas: NDArray[np.float64], density: float) -> Blobs:
    """Blobs along a line whose overlap adds up to `density` HU, independent of their spacing."""
    if len(points) > 1:
        spacing = np.linalg.norm(np.diff(points, axis=0), axis=1)
        spacing = np.append(spacing, spacing[-1])
    else:
        spacing = np.full(1, np.inf)
    overlap = np.maximum(1.0, np.sqrt(2 * np.pi) * sigmas / np.maximum(spacing, 1e-3))
    return Blobs(points, sigmas, density / overlap)


def randomise_shape(blobs: Blobs, rng: np.random.Generator) -> Blobs:
    """A structure at the same position with a random shape, from spots to a blunt lump.

    The shape then no longer distinguishes coronary from valvular calcium.
    """
    kept = rng.random(len(blobs.peaks)) < rng.uniform(0.3, 1.0)
    kept[int(rng.integers(len(kept)))] = True
    centres = blobs.centres[kept]
    variation = rng.uniform(0.0, 0.8)
    return Blobs(
        centres + rng.normal(0, rng.uniform(0.0, 1.2), centres.shape),
        blobs.sigmas[kept] * np.exp(rng.uniform(-0.4, 0.3)),
        blobs.peaks[kept] * np.exp(rng.normal(rng.uniform(-0.3, 0.3), variation, len(centres))),
    )


def draw_sigmas(rng: np.random.Generator, n: int, median_mm: float) -> NDArray[np.float64]:
    """Irregular widths along a chain, mm."""
    return np.clip(rng.lognormal(np.log(median_mm), 0.3, n), 0.45, 2.5)


def _profile(at: NDArray[np.float32], centre: float, sigma: float) -> tuple[slice, Points]:
    lo, hi = np.searchsorted(at, [centre - _REACH * sigma, centre + _REACH * sigma])
    near = at[lo:hi].astype(np.float64)
    return slice(int(lo), int(hi)), np.exp(-0.5 * ((near - centre) / sigma) ** 2)


def _slice_profile(at: Points, centre: float, sigma: float, thick: float) -> tuple[slice, Points]:
    """A Gaussian averaged over the thickness of each slice."""
    reach = _REACH * sigma + thick / 2
    lo, hi = np.searchsorted(at, [centre - reach, centre + reach])
    edge = np.sqrt(2) * sigma
    upper = erf((at[lo:hi] + thick / 2 - centre) / edge)
    lower = erf((at[lo:hi] - thick / 2 - centre) / edge)
    weight = (upper - lower) * 0.5 * np.sqrt(2 * np.pi) * sigma / thick
    return slice(int(lo), int(hi)), weight
