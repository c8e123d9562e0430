"""Anatomy of the second generator: tissue of one person on a voxel grid.

Chambers are metaballs whose border is perturbed by smooth noise, fat is a shell around them, ribs
and vessels are defined by the distance to curves. Nothing is shared with the analytic generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, zoom
from scipy.spatial import cKDTree

from cac_core.phantom.annotated import Site

Points = NDArray[np.float64]
Floats = NDArray[np.float32]

#: Working grid: mm per voxel and number of voxels (slice, row, column).
STEP_MM = np.array([2.5, 2.0, 2.0])
SHAPE = (88, 180, 200)
#: The pericardium spans grooves up to twice as wide (22 mm, as in the real chests).
_SPAN_PX = 11
#: Centres and widths of the metaballs, mm from the centre of the heart (up, back, left).
_BALLS = {
    "left ventricle": ((-10, 0, 26), (30, 26, 27)),
    "left apex": ((-30, -14, 44), (18, 17, 18)),
    "right ventricle": ((-14, -26, 0), (28, 20, 26)),
    "right outflow": ((18, -28, 12), (20, 14, 15)),
    "left atrium": ((14, 32, 6), (20, 19, 26)),
    "right atrium": ((-2, 6, -34), (28, 24, 18)),
}


class Chest:
    """One person: tissue on the working grid, heart mask, courses of arteries and aorta."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE, STEP_MM, strict=True)]
        self.z, self.y, self.x = np.meshgrid(*axes, indexing="ij", sparse=True)
        self.middle = np.array([rng.normal(-8, 6), rng.uniform(-26, -8), rng.uniform(8, 26)])
        self.size = float(rng.uniform(0.95, 1.2))
        self.roll = float(rng.normal(0, 0.16))
        self.fat_mm = float(rng.uniform(6, 13))
        self.blood = float(rng.uniform(33, 52))
        self.body = (rng.uniform(100, 128), rng.uniform(150, 182))
        # The border of the muscle is at 1; higher levels are shells around it.
        self.muscle = self._metaballs(_BALLS)
        self.arteries = self._arteries()
        self.aorta, self.descending = self._aorta()
        self.heart = self._silhouette()
        self.tissue = self._tissue()

    def _smooth_noise(self, coarse: float, size: float) -> Floats:
        """Smooth noise on the working grid with features of `coarse` mm."""
        small = [max(4, int(n * step / coarse)) for n, step in zip(SHAPE, STEP_MM, strict=True)]
        noise = self.rng.standard_normal(small)
        scale = [n / m for n, m in zip(SHAPE, small, strict=True)]
        grown = zoom(noise, scale, order=2)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
        return np.asarray(grown * size, np.float32)

    def to_local(self, points: Sequence[Points] | Points) -> list[Points]:
        """Coordinates about the centre of the heart, scaled to a mean heart and unrolled."""
        z, y, x = (p - m for p, m in zip(points, self.middle, strict=True))
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return [z / self.size, (cos * y - sin * x) / self.size, (sin * y + cos * x) / self.size]

    def to_grid(self, local: Points) -> Points:
        """The inverse, for points (n, 3)."""
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        z, y, x = (np.asarray(local, float) * self.size).T
        turned = np.stack([z, cos * y + sin * x, -sin * y + cos * x], 1)
        return np.asarray(turned + self.middle)

    def _metaballs(self, balls: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> Floats:
        """A distance-like field, below 1 inside the merged balls."""
        at = self.to_local([self.z, self.y, self.x])
        field = np.zeros(SHAPE, np.float32)
        for middle, width in balls.values():
            spread = np.array(width) * self.rng.uniform(0.92, 1.1, 3)
            moved = np.array(middle) + self.rng.normal(0, 2.0, 3)
            square = sum(((a - m) / w) ** 2 for a, m, w in zip(at, moved, spread, strict=True))
            field += np.exp(-1.6 * square).astype(np.float32)
        # A single ball has exp(-1.6) on its border.
        level = np.sqrt(np.maximum(-np.log(np.maximum(field, 1e-9)) / 1.6, 0))
        return np.asarray(level + self._smooth_noise(28, 0.03), np.float32)

    def on_surface(self, line: Points, beyond_mm: float) -> Points:
        """Points (n, 3) in mm, projected radially to just above the muscle."""
        start = self.to_grid(np.array([[-2.0, 0.0, 4.0]]))[0]
        unit = (line - start) / np.linalg.norm(line - start, axis=1)[:, None]
        radii = np.arange(10, 95, 0.5)
        ray = start + unit[:, None] * radii[None, :, None]
        level = map_coordinates(
            self.muscle, ((ray / STEP_MM) + (np.array(SHAPE) - 1) / 2).reshape(-1, 3).T, order=1
        ).reshape(len(unit), -1)
        last = (level < 1).cumsum(axis=1).argmax(axis=1)
        reach = gaussian_filter(radii[last], 2.0, mode="nearest") + beyond_mm
        return np.asarray(start + unit * reach[:, None])

    def _arteries(self) -> list[tuple[Site, Points]]:
        """Left main, three arteries and branches on the surface, one point per mm."""
        rng = self.rng
        origin = self.to_grid(np.array([[24.0, -2.0, 4.0]]))[0]
        fork = self.to_grid(np.array([[22.0, -8.0, 20.0]]) + rng.normal(0, 1.5, (1, 3)))[0]
        right = self.to_grid(np.array([[20.0, -16.0, -8.0]]))[0]
        courses = {
            Site.LAD: [(16, -34, 22), (0, -44, 26), (-22, -38, 34), (-44, -24, 46)],
            Site.LCX: [(18, 6, 40), (4, 22, 42), (-10, 36, 30), (-18, 42, 14)],
            Site.RCA: [
                (12, -34, -22),
                (-6, -26, -36),
                (-26, -6, -38),
                (-34, 18, -22),
                (-32, 32, 4),
            ],
        }
        lines = [(Site.LM, spline(np.stack([origin, (origin + fork) / 2, fork])))]
        for site, knots in courses.items():
            aim = self.to_grid(np.array(knots, float) + rng.normal(0, 3.0, (len(knots), 3)))
            lines.append((site, self._course(right if site is Site.RCA else fork, aim)))
        for site, end_at in ((Site.LAD, (-4, -18, 52)), (Site.LCX, (-14, 12, 50))):
            if rng.random() < 0.6:
                parent = next(line for s, line in lines if s is site)
                begin = parent[len(parent) // 4]
                end = self.to_grid(np.array([end_at], float))
                lines.append((site, self._course(begin, np.stack([(begin + end[0]) / 2, end[0]]))))
        return lines

    def _course(self, begin: Points, aim: Points) -> Points:
        """A course from a point over the surface along the knots, one point per mm."""
        rough = spline(np.concatenate([begin[None], aim]))
        on = self.on_surface(rough, float(self.rng.uniform(1.5, 4.0)))
        # From its ostium the artery reaches the surface within about 12 mm.
        share = np.clip(np.arange(len(on)) / 12, 0, 1)[:, None]
        return spline(((1 - share) * rough + share * on)[::4])

    def _aorta(self) -> tuple[Points, Points]:
        """Ascending part with arch, and descending part; one point per mm."""
        rng = self.rng
        root = self.to_grid(np.array([[6.0, 0.0, 0.0]]))[0]
        top = root + np.array([78 + rng.normal(0, 5), 12.0, 6.0])
        spine = np.array([0.0, self.body[0] - 62.0, 22.0])
        rise = np.array([[0.0, 0, 0], [32, -6, -12], [60, -2, -12]])
        up = spline(np.concatenate([root + rise, top[None]]))
        down = np.stack(
            [
                top,
                np.array([top[0] - 10, (top[1] + spine[1]) / 2 + 6, 18.0]),
                np.array([top[0] - 36, spine[1], 22.0]),
                np.array([-20.0, spine[1] + rng.normal(0, 3), 18.0]),
                np.array([-112.0, spine[1] + 4, 10.0]),
            ]
        )
        return up, spline(down)

    def _distance(self, line: Points, mm: float) -> Floats:
        """Distance to a line on the working grid, at most `mm`."""
        out = np.full(SHAPE, mm, np.float32)
        half = (np.array(SHAPE) - 1) / 2
        low = np.maximum(np.floor((line.min(axis=0) - mm) / STEP_MM + half).astype(int), 0)
        high = np.minimum(np.ceil((line.max(axis=0) + mm) / STEP_MM + half).astype(int) + 1, SHAPE)
        if (low >= high).any():
            return out
        axes = [
            (np.arange(a, b) - h) * s for a, b, h, s in zip(low, high, half, STEP_MM, strict=True)
        ]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        far, _ = cKDTree(line).query(grid.reshape(-1, 3), distance_upper_bound=mm)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        out[box] = np.minimum(far, mm).reshape(grid.shape[:3])
        return out

    def _silhouette(self) -> Floats:
        """Fraction of each voxel in the heart mask, up to the pulmonary bifurcation.

        The pericardium spans the grooves between the chambers, with fat below it.
        """
        fat = self.muscle - self.fat_mm / (30 * self.size)
        inside = _edge((1 - fat) * 28 * self.size)
        for _, line in self.arteries:
            inside = np.maximum(inside, _edge(5.5 - self._distance(line, 8)))
        inside = np.maximum(inside, _edge(17 - self._distance(self.aorta[:30], 22)))
        for k in np.flatnonzero((inside >= 0.5).any(axis=(1, 2))):
            body = np.pad(inside[k] >= 0.5, _SPAN_PX)
            grown = distance_transform_edt(~body) <= _SPAN_PX
            spanned = distance_transform_edt(grown) > _SPAN_PX
            inside[k] = np.maximum(inside[k], spanned[_SPAN_PX:-_SPAN_PX, _SPAN_PX:-_SPAN_PX])
        left_main = self.arteries[0][1][:, 0].mean()
        smooth = gaussian_filter(inside, (0.6, 1.6, 1.6))
        return np.asarray(smooth * (self.z < left_main + 15), np.float32)

    def _tissue(self) -> Floats:
        """HU on the working grid, without coronary arteries."""
        rng = self.rng
        a, b = self.body
        power = rng.uniform(2.2, 2.9)
        ring = (np.abs(self.y / a) ** power + np.abs(self.x / b) ** power) ** (1 / power)
        ring = ring + self._smooth_noise(70, 0.02)
        wall, cage = rng.uniform(0.10, 0.24), 0.11
        hu = np.where(ring < 1, -103.0, -1000.0).astype(np.float32)
        hu[ring < 1 - wall] = 54
        lung = _edge((1 - wall - cage - ring) * a)
        air = (
            float(rng.uniform(-885, -770)) + self._smooth_noise(6, 35) + self._smooth_noise(30, 15)
        )
        dome = 30 * np.cos(self.x / 75) ** 2 - 80 + 24 * (self.x < 0) + rng.normal(0, 6)
        below = _edge(dome - 18 * (self.y / a) ** 2 - self.z)
        hu += lung * (1 - below) * (air - hu)
        hu += lung * below * (57 + self._smooth_noise(20, 4) - hu)
        front = np.abs(self.x + rng.normal(0, 4)) - rng.uniform(10, 26) - 10 * (self.y > 10)
        hu += lung * (1 - below) * _edge(-front) * (-95 - hu)
        # The outline is smoother than the border between fat and lung.
        fat = np.clip(0.5 + 3 * (self.heart - 0.5), 0, 1)
        hu += fat * (float(rng.uniform(-104, -78)) - hu)
        for line, radius in self._vessels():
            hu += _edge(radius - self._distance(line, radius + 4)) * (self.blood - hu)
        hu += _edge((1 - self.muscle) * 28 * self.size) * (
            self.blood + rng.uniform(0, 9) + self._smooth_noise(12, 2.5) - hu
        )
        # Bone does not overlap the heart.
        hu += (1 - fat) * (self._bones(hu.copy(), ring, 1 - wall - cage) - hu)
        return hu

    def _vessels(self) -> list[tuple[Points, float]]:
        rng = self.rng
        cava = self.to_grid(np.array([[-2, 6, -38], [22, 4, -36]], float))
        cava = np.concatenate([cava, [[110.0, cava[1, 1] - 6, cava[1, 2] - 2]]])
        trunk = self.to_grid(np.array([[20, -26, 12], [36, -14, 16], [42, 6, 14]], float))
        vessels = [
            (self.aorta, float(rng.uniform(14, 18))),
            (self.descending, float(rng.uniform(11, 15))),
            (spline(cava), float(rng.uniform(8, 11))),
            (spline(trunk), float(rng.uniform(11, 14))),
        ]
        for side in (-1, 1):
            for level, thick in ((38, 8.0), (8, 6.0)):
                end = [level + rng.normal(0, 6), 22, side * 84]
                line = self.to_grid(np.array([[level, 14, side * 6], [level, 20, side * 46], end]))
                vessels.append((spline(line), thick * float(rng.uniform(0.7, 1.1))))
        return vessels

    def _bones(self, hu: Floats, ring: Floats, inner: float) -> Floats:
        a, _ = self.body
        back = a - 46.0
        spine = np.hypot((self.y - back) / 17, (self.x) / 20)
        disc = np.sin(2 * np.pi * (self.z + self.rng.uniform(0, 30)) / 31) > 0.8
        hu += _edge((1 - spine) * 17) * (np.where(disc, 90, 190) - hu)
        hu += _edge(2.0 - np.abs(1 - spine) * 17) * ~disc * (520 - hu)
        arch = np.hypot((self.y - back - 30) / 20, self.x / 7)
        hu += _edge((1 - arch) * 7) * (420 - hu)
        bone = np.abs(ring - inner - 0.05) * a
        wave = np.sin(2 * np.pi * (self.z - 0.5 * self.y + self.rng.uniform(0, 30)) / 29)
        rib = _edge(4.0 - bone) * _edge((wave - 0.35) * 8) * (np.abs(self.x) > 24)
        hu += rib * (430 - hu)
        breast = np.hypot((self.y + a * inner + 4) / 6, self.x / 19)
        hu += _edge((1 - breast) * 6) * (self.z > -50) * (330 - hu)
        return hu


def spline(knots: Points) -> Points:
    """A cubic curve through the knots (n, 3) in mm, one point per mm."""
    steps = np.maximum(np.linalg.norm(np.diff(knots, axis=0), axis=1), 1e-3)
    at = np.concatenate([[0], np.cumsum(steps)])
    return np.asarray(CubicSpline(at, knots, bc_type="natural")(np.arange(0, at[-1], 1.0)))


def _edge(inside_mm: NDArray[np.floating]) -> Floats:
    """A smooth step, about 2.5 mm wide, from a signed distance in mm (positive inside)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(inside_mm * 1.6, -30, 30))), np.float32)
