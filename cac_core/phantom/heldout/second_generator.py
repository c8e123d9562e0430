"""A second generator of synthetic chests, to test on what the first one did not make.

Anatomy is a field on a grid of voxels (chambers as metaballs whose border is ruffled by smooth
noise, fat as a shell, ribs and vessels by distance to curves) instead of analytic ellipsoids;
plaques are clouds of grains; blur is a Butterworth low-pass with motion as a mean of shifted
pictures; noise is made in the projections and filtered back, with as few photons as pass the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, irfft2, rfft, rfft2
from scipy.interpolate import CubicSpline
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, zoom
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from cac_core.phantom.annotated import AnnotatedScan, Site
from cac_core.phantom.heldout.grains import (
    Cloud,
    Picture,
    along,
    clump,
    draw_target,
    plaque,
    sheet,
)

Points = NDArray[np.float64]
Floats = NDArray[np.float32]

_SIZE = 512
#: Working grid: mm per voxel (slice, row, column) and how many.
_STEP = np.array([2.5, 2.0, 2.0])
_SHAPE = (88, 180, 200)
#: Furrows up to twice as wide are spanned by the pericardium (22 mm, as in the real chests).
_SPAN_PX = 11
#: Middles and widths of the metaballs, mm from the middle of the heart (up, back, left).
_BALLS = {
    "left ventricle": ((-10, 0, 26), (30, 26, 27)),
    "left apex": ((-30, -14, 44), (18, 17, 18)),
    "right ventricle": ((-14, -26, 0), (28, 20, 26)),
    "right outflow": ((18, -28, 12), (20, 14, 15)),
    "left atrium": ((14, 32, 6), (20, 19, 26)),
    "right atrium": ((-2, 6, -34), (28, 24, 18)),
}


class _Chest:
    """One person: tissue on the working grid, heart, and where arteries and aorta run."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(_SHAPE, _STEP, strict=True)]
        self.z, self.y, self.x = np.meshgrid(*axes, indexing="ij", sparse=True)
        self.middle = np.array([rng.normal(-8, 6), rng.uniform(-26, -8), rng.uniform(8, 26)])
        self.size = float(rng.uniform(0.95, 1.2))
        self.roll = float(rng.normal(0, 0.16))
        self.fat_mm = float(rng.uniform(6, 13))
        self.blood = float(rng.uniform(33, 52))
        self.body = (rng.uniform(100, 128), rng.uniform(150, 182))
        muscle = self._metaballs(_BALLS)
        # A border of the field at 1: larger outside, so that a shell of fat is a larger level.
        self.muscle = muscle
        self.arteries = self._arteries()
        self.aorta, self.descending = self._aorta()
        self.heart = self._silhouette()
        self.tissue = self._tissue()

    def _ruffle(self, coarse: float, size: float) -> Floats:
        """Smooth noise of the working grid with features of `coarse` mm."""
        small = [max(4, int(n * step / coarse)) for n, step in zip(_SHAPE, _STEP, strict=True)]
        noise = self.rng.standard_normal(small)
        scale = [n / m for n, m in zip(_SHAPE, small, strict=True)]
        grown = zoom(noise, scale, order=2)[: _SHAPE[0], : _SHAPE[1], : _SHAPE[2]]
        return np.asarray(grown * size, np.float32)

    def to_local(self, points: Sequence[Points] | Points) -> list[Points]:
        """Coordinates about the heart's middle, in sizes of a mean heart, unrolled."""
        z, y, x = (p - m for p, m in zip(points, self.middle, strict=True))
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return [z / self.size, (cos * y - sin * x) / self.size, (sin * y + cos * x) / self.size]

    def place(self, local: Points) -> Points:
        """The inverse, for points (n, 3)."""
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        z, y, x = (np.asarray(local, float) * self.size).T
        turned = np.stack([z, cos * y + sin * x, -sin * y + cos * x], 1)
        return np.asarray(turned + self.middle)

    def _metaballs(self, balls: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> Floats:
        """Distance-like field: below 1 inside the merged balls."""
        at = self.to_local([self.z, self.y, self.x])
        field = np.zeros(_SHAPE, np.float32)
        for middle, width in balls.values():
            spread = np.array(width) * self.rng.uniform(0.92, 1.1, 3)
            moved = np.array(middle) + self.rng.normal(0, 2.0, 3)
            square = sum(((a - m) / w) ** 2 for a, m, w in zip(at, moved, spread, strict=True))
            field += np.exp(-1.6 * square).astype(np.float32)
        # exp(-1.6) on the border of a lone ball.
        level = np.sqrt(np.maximum(-np.log(np.maximum(field, 1e-9)) / 1.6, 0))
        return np.asarray(level + self._ruffle(28, 0.03), np.float32)

    def _on_surface(self, line: Points, beyond_mm: float) -> Points:
        """Points moved along rays from the heart's middle to just above the muscle; (n, 3) mm."""
        start = self.place(np.array([[-2.0, 0.0, 4.0]]))[0]
        unit = (line - start) / np.linalg.norm(line - start, axis=1)[:, None]
        radii = np.arange(10, 95, 0.5)
        ray = start + unit[:, None] * radii[None, :, None]
        level = map_coordinates(
            self.muscle, ((ray / _STEP) + (np.array(_SHAPE) - 1) / 2).reshape(-1, 3).T, order=1
        ).reshape(len(unit), -1)
        last = (level < 1).cumsum(axis=1).argmax(axis=1)
        reach = gaussian_filter(radii[last], 2.0, mode="nearest") + beyond_mm
        return np.asarray(start + unit * reach[:, None])

    def _arteries(self) -> list[tuple[Site, Points]]:
        """Left main, three arteries and some branches on the surface, a point per mm."""
        rng = self.rng
        origin = self.place(np.array([[24.0, -2.0, 4.0]]))[0]
        fork = self.place(np.array([[22.0, -8.0, 20.0]]) + rng.normal(0, 1.5, (1, 3)))[0]
        right = self.place(np.array([[20.0, -16.0, -8.0]]))[0]
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
        lines = [(Site.LM, _spline(np.stack([origin, (origin + fork) / 2, fork])))]
        for site, knots in courses.items():
            aim = self.place(np.array(knots, float) + rng.normal(0, 3.0, (len(knots), 3)))
            lines.append((site, self._course(right if site is Site.RCA else fork, aim)))
        for site, end_at in ((Site.LAD, (-4, -18, 52)), (Site.LCX, (-14, 12, 50))):
            if rng.random() < 0.6:
                parent = next(line for s, line in lines if s is site)
                begin = parent[len(parent) // 4]
                end = self.place(np.array([end_at], float))
                lines.append((site, self._course(begin, np.stack([(begin + end[0]) / 2, end[0]]))))
        return lines

    def _course(self, begin: Points, aim: Points) -> Points:
        """From a point over the surface along the aims, a point per mm."""
        rough = _spline(np.concatenate([begin[None], aim]))
        on = self._on_surface(rough, float(self.rng.uniform(1.5, 4.0)))
        # From its mouth the artery comes to the surface within some 12 mm.
        share = np.clip(np.arange(len(on)) / 12, 0, 1)[:, None]
        return _spline(((1 - share) * rough + share * on)[::4])

    def _aorta(self) -> tuple[Points, Points]:
        """Ascending part with arch, and descending part; a point per mm."""
        rng = self.rng
        root = self.place(np.array([[6.0, 0.0, 0.0]]))[0]
        top = root + np.array([78 + rng.normal(0, 5), 12.0, 6.0])
        spine = np.array([0.0, self.body[0] - 62.0, 22.0])
        rise = np.array([[0.0, 0, 0], [32, -6, -12], [60, -2, -12]])
        up = _spline(np.concatenate([root + rise, top[None]]))
        down = np.stack(
            [
                top,
                np.array([top[0] - 10, (top[1] + spine[1]) / 2 + 6, 18.0]),
                np.array([top[0] - 36, spine[1], 22.0]),
                np.array([-20.0, spine[1] + rng.normal(0, 3), 18.0]),
                np.array([-112.0, spine[1] + 4, 10.0]),
            ]
        )
        return up, _spline(down)

    def _far(self, line: Points, mm: float) -> Floats:
        """Distance to a line in mm, as far as `mm`, on the working grid."""
        out = np.full(_SHAPE, mm, np.float32)
        half = (np.array(_SHAPE) - 1) / 2
        low = np.maximum(np.floor((line.min(axis=0) - mm) / _STEP + half).astype(int), 0)
        high = np.minimum(np.ceil((line.max(axis=0) + mm) / _STEP + half).astype(int) + 1, _SHAPE)
        if (low >= high).any():
            return out
        axes = [
            (np.arange(a, b) - h) * s for a, b, h, s in zip(low, high, half, _STEP, strict=True)
        ]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        far, _ = cKDTree(line).query(grid.reshape(-1, 3), distance_upper_bound=mm)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        out[box] = np.minimum(far, mm).reshape(grid.shape[:3])
        return out

    def _silhouette(self) -> Floats:
        """Share of each voxel in the heart, as a reader outlines it: up to the pulmonary fork.

        The pericardium spans the furrows between the chambers, with fat below it.
        """
        fat = self.muscle - self.fat_mm / (30 * self.size)
        inside = _edge((1 - fat) * 28 * self.size)
        for _, line in self.arteries:
            inside = np.maximum(inside, _edge(5.5 - self._far(line, 8)))
        inside = np.maximum(inside, _edge(17 - self._far(self.aorta[:30], 22)))
        for k in np.flatnonzero((inside >= 0.5).any(axis=(1, 2))):
            body = np.pad(inside[k] >= 0.5, _SPAN_PX)
            grown = distance_transform_edt(~body) <= _SPAN_PX
            spanned = distance_transform_edt(grown) > _SPAN_PX
            inside[k] = np.maximum(inside[k], spanned[_SPAN_PX:-_SPAN_PX, _SPAN_PX:-_SPAN_PX])
        left_main = self.arteries[0][1][:, 0].mean()
        smooth = gaussian_filter(inside, (0.6, 1.6, 1.6))
        return np.asarray(smooth * (self.z < left_main + 15), np.float32)

    def _tissue(self) -> Floats:
        """HU on the working grid, without arteries."""
        rng = self.rng
        a, b = self.body
        power = rng.uniform(2.2, 2.9)
        ring = (np.abs(self.y / a) ** power + np.abs(self.x / b) ** power) ** (1 / power)
        ring = ring + self._ruffle(70, 0.02)
        wall, cage = rng.uniform(0.10, 0.24), 0.11
        hu = np.where(ring < 1, -103.0, -1000.0).astype(np.float32)
        hu[ring < 1 - wall] = 54
        lung = _edge((1 - wall - cage - ring) * a)
        air = float(rng.uniform(-885, -770)) + self._ruffle(6, 35) + self._ruffle(30, 15)
        dome = 30 * np.cos(self.x / 75) ** 2 - 80 + 24 * (self.x < 0) + rng.normal(0, 6)
        below = _edge(dome - 18 * (self.y / a) ** 2 - self.z)
        hu += lung * (1 - below) * (air - hu)
        hu += lung * below * (57 + self._ruffle(20, 4) - hu)
        front = np.abs(self.x + rng.normal(0, 4)) - rng.uniform(10, 26) - 10 * (self.y > 10)
        hu += lung * (1 - below) * _edge(-front) * (-95 - hu)
        # The outline is smooth, the border of fat and lung is not.
        fat = np.clip(0.5 + 3 * (self.heart - 0.5), 0, 1)
        hu += fat * (float(rng.uniform(-104, -78)) - hu)
        for line, radius in self._vessels():
            hu += _edge(radius - self._far(line, radius + 4)) * (self.blood - hu)
        hu += _edge((1 - self.muscle) * 28 * self.size) * (
            self.blood + rng.uniform(0, 9) + self._ruffle(12, 2.5) - hu
        )
        # Bone beside the heart ends where the heart begins.
        hu += (1 - fat) * (self._bones(hu.copy(), ring, 1 - wall - cage) - hu)
        return hu

    def _vessels(self) -> list[tuple[Points, float]]:
        rng = self.rng
        cava = self.place(np.array([[-2, 6, -38], [22, 4, -36]], float))
        cava = np.concatenate([cava, [[110.0, cava[1, 1] - 6, cava[1, 2] - 2]]])
        trunk = self.place(np.array([[20, -26, 12], [36, -14, 16], [42, 6, 14]], float))
        vessels = [
            (self.aorta, float(rng.uniform(14, 18))),
            (self.descending, float(rng.uniform(11, 15))),
            (_spline(cava), float(rng.uniform(8, 11))),
            (_spline(trunk), float(rng.uniform(11, 14))),
        ]
        for side in (-1, 1):
            for level, thick in ((38, 8.0), (8, 6.0)):
                end = [level + rng.normal(0, 6), 22, side * 84]
                line = self.place(np.array([[level, 14, side * 6], [level, 20, side * 46], end]))
                vessels.append((_spline(line), thick * float(rng.uniform(0.7, 1.1))))
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


def synthesise_second(seed: int) -> AnnotatedScan:
    """Make the scan of a seed; the same seed gives the same bytes."""
    rng = np.random.default_rng([seed, 2])
    chest = _Chest(rng)
    pixel = float(rng.uniform(0.74, 1.04))
    spacing = np.array([float(rng.choice([5.0, 5.0, 4.0])), pixel, pixel])
    levels = np.arange(-92.0, 92.0, spacing[0])
    origin = np.array([levels[0], *(2 * [-(_SIZE - 1) / 2 * pixel])])
    tissue, heart = _sampled(chest, levels, spacing, rng)
    cut, order = float(rng.uniform(0.32, 0.55)), float(rng.uniform(2, 4))
    swing = rng.normal(0, 1, 3) * float(rng.uniform(0, 2.4))
    phase = np.linspace(0, 2 * np.pi, 8)[:-1]
    turn = rng.normal(0, 0.5, 3)
    beat = np.sin(phase)[:, None] * swing + np.cos(phase)[:, None] * turn
    picture = Picture(tissue, spacing, lambda patch: _lowpass(patch, pixel, cut, order), beat)
    target = draw_target(rng)
    radius = float(rng.uniform(1.2, 2.1))
    arteries = [(site, line - origin) for site, line in chest.arteries]
    for _, line in arteries:
        picture.fill(along(line, radius, 160.0, rng), chest.blood)
    for site, cloud in _noncoronary(chest, arteries, origin, target, rng):
        picture.place(site, cloud, moves=site is not Site.DESCENDING_AORTA)
    weight = np.array(
        [0.09 if s is Site.LM else 0.45 if s is Site.LAD else 0.23 for s, _ in arteries]
    )
    weight[4:] *= 0.4

    def draw() -> tuple[Site, Cloud]:
        site, line = arteries[rng.choice(len(arteries), p=weight / weight.sum())]
        return site, plaque(line, radius, target, rng)

    picture.grow(draw, target)
    clean = picture.clean()
    noise = _photon_noise(clean, pixel, float(rng.uniform(18, 28)), heart, rng)
    return AnnotatedScan(
        hu=_to_hu(clean + noise),
        hu_noise_free=_to_hu(clean),
        heart_mask=heart,
        calcium_site=picture.sites(),
        spacing_mm=(float(spacing[0]), pixel, pixel),
        name=f"second-{seed}",
    )


def _noncoronary(
    chest: _Chest,
    arteries: list[tuple[Site, Points]],
    origin: Points,
    target: float,
    rng: np.random.Generator,
) -> list[tuple[Site, Cloud]]:
    """Calcium of valves, aorta, pericardium and nodes, and metal."""
    more = 0.55 + 0.15 * np.log1p(target)
    found: list[tuple[Site, Cloud]] = []

    def at(*local: float) -> Points:
        point: Points = chest.place(np.array([local]))[0] - origin
        return point

    if rng.random() < 0.2 * more:
        for _ in range(int(rng.integers(1, 5))):
            found.append((Site.AORTIC_VALVE, clump(at(8, 0, 2) + rng.normal(0, 4, 3), 1.1, rng)))
    if rng.random() < 0.17 * more:
        turn = rng.uniform(0, 1.5) + np.linspace(0, rng.uniform(0.5, 2.4), 40)
        ring = [at(6 - 22 * np.sin(t), 22 + 4 * np.cos(t), 22 + 18 * np.cos(t)) for t in turn]
        strand = along(
            _spline(np.array(ring[::5])), rng.uniform(1, 2.2), rng.uniform(300, 1100), rng
        )
        found.append((Site.MITRAL_VALVE, strand))
    for site, line, share in (
        (Site.ASCENDING_AORTA, chest.aorta[8:60], 0.3),
        (Site.DESCENDING_AORTA, chest.descending[30:], 0.4),
    ):
        for _ in range(1 + int(rng.poisson(1.0)) if rng.random() < share * more else 0):
            k = int(rng.integers(0, len(line) - 1))
            wall = sheet(line[k] - origin, line[k + 1] - line[k], 15.5, rng.uniform(3, 9), rng)
            found.append((site, wall))
    if rng.random() < 0.04:
        rim = chest._on_surface(rng.normal(0, 1, (1, 3)) + np.linspace(0, 0.5, 9)[:, None], 7.0)
        found.append(
            (Site.PERICARDIUM, along(_spline(rim) - origin, 1.2, rng.uniform(300, 900), rng))
        )
    if rng.random() < 0.05:
        node = at(34, 26, float(rng.choice([-40, 0, 40])))
        found.append((Site.LYMPH_NODE, clump(node, 2.6, rng)))
    if rng.random() < 0.05:
        knots = np.array([at(80, 0, -36), at(24, 4, -36), at(-4, 4, -30), at(-22, -22, 10)])
        found.append((Site.DEVICE, along(_spline(knots), 1.1, rng.uniform(3000, 7000), rng)))
    if rng.random() < 0.04:
        line = arteries[int(rng.integers(1, 4))][1]
        begin = int(rng.integers(4, max(5, len(line) // 2)))
        found.append(
            (Site.DEVICE, along(line[begin : begin + 18], 1.8, rng.uniform(700, 1500), rng))
        )
    return found


def _sampled(
    chest: _Chest, levels: Points, spacing: Points, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """Tissue and heart on the scan's grid; a slice is the mean over its thickness."""
    across = (np.arange(_SIZE) - (_SIZE - 1) / 2) * spacing[1]
    rows, columns = np.meshgrid(across, across, indexing="ij")
    half = (np.array(_SHAPE) - 1) / 2
    index = np.stack([rows / _STEP[1] + half[1], columns / _STEP[2] + half[2]])
    tissue = np.empty((len(levels), _SIZE, _SIZE), np.float32)
    heart = np.empty(tissue.shape, np.bool_)
    for k, level in enumerate(levels):
        low = (level - spacing[0] / 2) / _STEP[0] + half[0]
        high = (level + spacing[0] / 2) / _STEP[0] + half[0]
        at = np.clip(np.linspace(low, high, 4), 0, _SHAPE[0] - 1.001)
        parts = [
            chest.tissue[int(a)] * (1 - a % 1) + chest.tissue[int(a) + 1] * (a % 1) for a in at
        ]
        plane = np.mean(parts, axis=0)
        tissue[k] = map_coordinates(plane, index, np.float32, order=1, cval=-1000.0)
        middle = float(np.clip(level / _STEP[0] + half[0], 0, _SHAPE[0] - 1.001))
        share = chest.heart[int(middle)] * (1 - middle % 1) + chest.heart[int(middle) + 1] * (
            middle % 1
        )
        heart[k] = map_coordinates(share, index, np.float32, order=1) >= 0.5
    return tissue, heart


def _lowpass(patch: Floats, pixel_mm: float, cut: float, order: float) -> Floats:
    """A Butterworth filter in the plane; `cut` in cycles per mm."""
    padded = np.pad(patch, ((0, 0), (12, 12), (12, 12)))
    rows, columns = padded.shape[1:]
    f = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)) / pixel_mm
    gain = 1 / (1 + (f / cut) ** (2 * order))
    out = irfft2(rfft2(padded) * gain, s=(rows, columns))[:, 12:-12, 12:-12]
    return np.asarray(out, np.float32)


def _photon_noise(
    clean: Floats, pixel_mm: float, sd_hu: float, heart: NDArray[np.bool_], rng: np.random.Generator
) -> Floats:
    """Noise of few photons: white in the projections, louder behind bone, filtered back."""
    views, bins = 80, 512
    angles = np.linspace(0, np.pi, views, endpoint=False)
    coarse = np.maximum(clean[:, ::8, ::8] / 1000 + 1, 0)  # share of water's attenuation
    position = (np.arange(coarse.shape[1]) - (coarse.shape[1] - 1) / 2) * 8
    row, column = np.meshgrid(position, position, indexing="ij")
    ramp = np.abs(np.fft.rfftfreq(bins)) * np.cos(np.pi * np.fft.rfftfreq(bins)) ** rng.uniform(
        0.5, 2
    )
    back = np.zeros((_SIZE * _SIZE, len(clean)), np.float32)
    at = np.arange(_SIZE) - (_SIZE - 1) / 2
    for angle in angles:
        cos, sin = np.cos(angle), np.sin(angle)
        bin_of = np.clip(np.rint((column * cos + row * sin) / 8 + 31.5).astype(int), 0, 63)
        counted = np.stack([np.bincount(bin_of.ravel(), c.ravel(), 64) for c in coarse])
        line = counted * (8 * pixel_mm * 0.0192)  # of water at some 65 keV, per mm
        loud = np.exp(np.clip(zoom(line, (1, bins / 64), order=1), 0, 9) / 2)
        sinogram = rng.standard_normal((len(clean), bins)) * loud
        filtered = irfft(rfft(sinogram, axis=1) * ramp, n=bins, axis=1).astype(np.float32)
        where = np.clip(at * cos + (at * sin)[:, None] + bins / 2, 0, bins - 2).ravel()
        index = where.astype(np.int32)
        share = (where - index).astype(np.float32)
        # Each pixel takes its share of two neighbouring bins.
        spread = csr_array(
            (
                np.stack([1 - share, share], 1).ravel(),
                np.stack([index, index + 1], 1).ravel(),
                np.arange(0, 2 * len(index) + 1, 2),
            ),
            shape=(len(index), bins),
        )
        back += spread @ np.ascontiguousarray(filtered.T)
    noise = back.T.reshape(clean.shape)
    return np.asarray(noise * np.float32(sd_hu / noise[heart].std()), np.float32)


def _spline(knots: Points) -> Points:
    """A cubic curve through the knots (n, 3) in mm with a point per mm."""
    steps = np.maximum(np.linalg.norm(np.diff(knots, axis=0), axis=1), 1e-3)
    at = np.concatenate([[0], np.cumsum(steps)])
    return np.asarray(CubicSpline(at, knots, bc_type="natural")(np.arange(0, at[-1], 1.0)))


def _edge(inside_mm: NDArray[np.floating]) -> Floats:
    """A smooth step about 2.5 mm wide from a distance, positive inside."""
    return np.asarray(1 / (1 + np.exp(-np.clip(inside_mm * 1.6, -30, 30))), np.float32)


def _to_hu(values: Floats) -> NDArray[np.int16]:
    return np.clip(np.rint(values), -1024, 3071).astype(np.int16)
