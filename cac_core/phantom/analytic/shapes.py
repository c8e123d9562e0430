"""Soft-edged shapes of the analytic thorax, as the coverage of pixels in a slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from cac_core.phantom.analytic.warp import Floats

#: Width of a tissue border in mm, as the kernel of an attenuation scan leaves it.
EDGE_MM = 1.6
_WARP_ROOM_MM = 25.0  # more than a warp displaces a row or column of the image


@dataclass(frozen=True)
class Ellipsoid:
    """A rotated ellipsoid; `axes` are its unit axes as rows, in patient coordinates."""

    centre: NDArray[np.float64]
    radii: NDArray[np.float64]
    axes: NDArray[np.float64]

    def coverage(self, x: Floats, y: Floats, z: float) -> Floats:
        """Fraction of each pixel inside, 0 to 1, with a soft border; x and y broadcast."""
        norm = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
        dx, dy, dz = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        for axis, radius in zip(self.axes, self.radii, strict=True):
            along = dx * np.float32(axis[0] / radius) + dy * np.float32(axis[1] / radius)
            along += np.float32(axis[2] * dz / radius)
            norm += along * along
        return soft_edge((1 - np.sqrt(norm)) * np.float32(self.radii.min()))

    def depth(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 at the centre, 0 on the surface, negative outside; points (n, 3)."""
        local = (points - self.centre) @ self.axes.T / self.radii
        return np.asarray(1 - np.sqrt((local**2).sum(axis=1)))

    def reaches(self, z: float) -> bool:
        """Whether a slice at z can intersect the ellipsoid."""
        half = float(np.sqrt(((self.axes[:, 2] * self.radii) ** 2).sum()))
        return abs(z - float(self.centre[2])) <= half + 2 * EDGE_MM


@dataclass(frozen=True)
class Tube:
    """A tube along a polyline, drawn as discs where it intersects a slice."""

    points: NDArray[np.float64]  # (n, 3), mm
    radius: float

    def coverage(self, x: Floats, y: Floats, z: float) -> Floats:
        """Fraction of each pixel inside, 0 to 1; the tube may run in or through the slice."""
        near = self.points[np.abs(self.points[:, 2] - z) < self.radius]
        x, y = np.broadcast_arrays(x, y)
        best = np.zeros(x.shape, np.float32)
        for px, py, pz in near:
            radius = np.sqrt(self.radius**2 - (pz - z) ** 2)
            box = _near(x, y, px, py, self.radius + _WARP_ROOM_MM)
            distance = np.sqrt((x[box] - np.float32(px)) ** 2 + (y[box] - np.float32(py)) ** 2)
            np.maximum(best[box], soft_edge(np.float32(radius) - distance), out=best[box])
        return best


def smooth_curve(knots: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """A monotone cubic curve through the knots, sampled at n points."""
    steps = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(steps)])
    return np.asarray(PchipInterpolator(at, knots)(np.linspace(0, at[-1], n)))


def straight_line(
    start: NDArray[np.float64], end: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """N points from start to end."""
    return start + np.linspace(0, 1, n)[:, None] * (end - start)


def _near(x: Floats, y: Floats, px: float, py: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns within `reach` of a point, judged on the middle row and column."""
    across, down = x[x.shape[0] // 2], y[:, y.shape[1] // 2]
    columns = np.flatnonzero(np.abs(across - np.float32(px)) <= reach)
    rows = np.flatnonzero(np.abs(down - np.float32(py)) <= reach)
    if not columns.size or not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def ellipse(x: Floats, y: Floats, cx: float, cy: float, a: float, b: float) -> Floats:
    """Fraction of each pixel in an ellipse about (cx, cy) with half axes a and b."""
    norm = np.sqrt(
        ((x - np.float32(cx)) / np.float32(a)) ** 2 + ((y - np.float32(cy)) / np.float32(b)) ** 2
    )
    return soft_edge((1 - norm) * np.float32(min(a, b)))


def soft_edge(inside_mm: Floats) -> Floats:
    """Coverage, 0 to 1, from a signed distance in mm (positive inside)."""
    soft: Floats = np.clip(inside_mm / np.float32(EDGE_MM) + np.float32(0.5), 0, 1)
    return soft
