"""Smooth random in-plane deformation of the analytic anatomy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Warp:
    """A sum of sine waves that displaces points within their slice.

    `waves` (n, 3) in radians per mm, `phases` (n,), `shifts` (n, 2) in mm along x and y.
    """

    waves: NDArray[np.float64]
    phases: NDArray[np.float64]
    shifts: NDArray[np.float64]

    def to_anatomy(self, x: Floats, y: Floats, z: float) -> tuple[Floats, Floats]:
        """From image coordinates to the undeformed anatomy; x and y broadcast."""
        x, y = np.broadcast_arrays(x, y)
        moved_x, moved_y = x.copy(), y.copy()
        for (kx, ky, kz), phase, (dx, dy) in zip(self.waves, self.phases, self.shifts, strict=True):
            wave = np.sin(np.float32(kx) * x + np.float32(ky) * y + np.float32(kz * z + phase))
            moved_x += np.float32(dx) * wave
            moved_y += np.float32(dy) * wave
        return moved_x, moved_y

    def to_image(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse for points (n, 3), by fixed-point iteration to 0.01 mm."""
        at = np.array(points, np.float64)
        for _ in range(8):
            swing = np.sin(at @ self.waves.T + self.phases)  # (n, waves)
            at[:, :2] = points[:, :2] - swing @ self.shifts
        return at


def draw_warp(rng: np.random.Generator, strength_mm: float) -> Warp:
    """Waves of 70 to 220 mm that together displace a point by about `strength_mm`."""
    n = 7
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    length = rng.uniform(70, 220, n)
    # Short waves have smaller amplitudes, so that the map stays invertible.
    shifts = rng.normal(0, strength_mm / np.sqrt(n), (n, 2)) * (length / 150)[:, None]
    return Warp(direction * (2 * np.pi / length)[:, None], rng.uniform(0, 2 * np.pi, n), shifts)
