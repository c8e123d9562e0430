"""Calcium of the test generators: structures as clouds of small grains.

Independent of the analytic blobs of the training generator: a structure is a cloud of grains of
0.5 mm that are binned into voxels, shifted with the motion of the heart, and blurred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from cac_core.phantom.annotated import MIN_CONTRIBUTION_HU, Site

Points = NDArray[np.float64]
Floats = NDArray[np.float32]
Blur = Callable[[Floats], Floats]

_GRAIN_MM3 = 0.125
#: Quantiles of the Agatston score: categories and quartiles of the paper's external cohort
#: (Results; Supplemental Table 1).
_QUANTILES = (0.400, 0.500, 0.662, 0.750, 0.818, 1.0)
_SCORES = (1.5, 15.0, 100.0, 208.0, 400.0, 3000.0)


@dataclass(frozen=True)
class Cloud:
    """Grains of one structure: positions (n, 3) in mm (slice, row, column) and HU (n,)."""

    points: Points
    hu: NDArray[np.float64]


def draw_target(rng: np.random.Generator) -> float:
    """Target score of a person, drawn from the quantiles of the cohort; 0 in four of ten."""
    u = float(rng.random())
    if u < _QUANTILES[0]:
        return 0.0
    return float(np.exp(np.interp(u, _QUANTILES, np.log(_SCORES))))


def agatston(hu: NDArray[np.int16], wanted: NDArray[np.bool_], spacing_mm: Points) -> float:
    """Agatston score of marked voxels by the default protocol."""
    total = 0.0
    pixel = float(spacing_mm[1] * spacing_mm[2])
    for plane, marked in zip(hu, wanted & (hu >= 130), strict=True):
        if not marked.any():
            continue
        parts, count = label(marked, np.ones((3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        peaks = np.zeros(count, np.int64)
        np.maximum.at(peaks, parts[marked] - 1, plane[marked])
        kept = sizes * pixel >= 1.0
        total += float((sizes * np.minimum(peaks // 100, 4))[kept].sum()) * pixel
    return total * float(spacing_mm[0]) / 3.0


def plaque(line: Points, radius_mm: float, burden: float, rng: np.random.Generator) -> Cloud:
    """A plaque in an artery, eccentric, concentric or spotty; larger for a high burden.

    Parameters
    ----------
    line : centre line (n, 3) in mm, one point per mm.
    burden : target Agatston score of the person.
    """
    scale = 0.55 + 0.4 * np.log10(1 + burden / 20)
    length = float(np.clip(rng.gamma(1.4, 4.5) * scale, 1.0, 40.0))
    begin = float(rng.triangular(0, 0.12, 1)) * max(len(line) - length - 1, 0)
    thick = float(rng.uniform(0.4, 1.3)) * scale
    shape = rng.choice(3, p=[0.45, 0.3, 0.25])
    count = int(np.clip(length * np.pi * thick**2 * rng.uniform(0.5, 1.0) / _GRAIN_MM3, 8, 6000))
    if shape == 2:
        where = rng.uniform(0, length, max(1, int(length / 4)))
        along = rng.choice(where, count) + rng.normal(0, 0.6, count)
    else:
        along = rng.uniform(0, length, count)
        # Gaps along the artery.
        along = along[np.sin(along * rng.uniform(0.3, 1.2) + rng.uniform(0, 6)) > -0.7]
    at = np.clip(begin + along, 0, len(line) - 1.001)
    low = at.astype(int)
    share = (at - low)[:, None]
    centre = line[low] * (1 - share) + line[low + 1] * share
    angle = rng.uniform(0, 2 * np.pi) + (
        rng.normal(0, 0.7, len(at)) if shape == 0 else rng.uniform(0, 2 * np.pi, len(at))
    )
    reach = radius_mm * 0.8 if shape == 0 else 0.0
    radial = reach + thick * np.sqrt(rng.random(len(at))) * rng.choice([-1, 1], len(at))
    across, other = _sides(line, low)
    points = centre + radial[:, None] * (
        np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * other
    )
    density = rng.uniform(250, 1500) * np.exp(rng.normal(0, 0.3, len(at)))
    return Cloud(points, density)


def lined(line: Points, radius_mm: float, rng: np.random.Generator) -> Cloud:
    """Confluent calcium of the wall along a whole artery or most of it, uniform or grainy.

    Parameters
    ----------
    line : centre line (n, 3) in mm, one point per mm, from the origin of the artery.
    radius_mm : inner radius of the artery.
    """
    length = float(len(line) - 1) * float(rng.uniform(0.75, 1.0))
    # Half of them begin at the origin of the artery and touch the wall of the parent vessel.
    begin = 0.0 if rng.random() < 0.5 else float(rng.uniform(0, 0.5)) * (len(line) - 1 - length)
    thick = float(rng.uniform(0.5, 1.1))
    grainy = rng.random() < 0.5
    area = 2 * np.pi * (radius_mm + thick / 2) * thick
    count = int(np.clip(length * area * rng.uniform(0.55, 1.0) / _GRAIN_MM3, 60, 12_000))
    at = np.clip(begin + rng.uniform(0, length, count), 0, len(line) - 1.001)
    low = at.astype(int)
    share = (at - low)[:, None]
    across, other = _sides(line, low)
    # The side of the wall with more calcium turns along the artery.
    around = rng.uniform(0, 2 * np.pi) + at * rng.uniform(-0.1, 0.1)
    angle = around + rng.normal(0, rng.uniform(0.9, 3.0), count)
    radial = (radius_mm + thick * rng.random(count))[:, None]
    points = line[low] * (1 - share) + line[low + 1] * share
    points = points + radial * (np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * other)
    hu = np.full(count, rng.uniform(250, 1300))
    if grainy:
        hu *= np.exp(rng.normal(0, 0.5, count)) * (1 + 0.5 * np.sin(at * rng.uniform(0.2, 1.5)))
    return Cloud(points, hu)


def sheet(
    centre: Points, normal: Points, radius_mm: float, size_mm: float, rng: np.random.Generator
) -> Cloud:
    """A patch on the wall of a tube with this axis point, axis direction and radius."""
    axis = normal / np.linalg.norm(normal)
    first = np.cross(axis, rng.normal(size=3))
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    n = int(np.clip(size_mm**2 * rng.uniform(4, 12), 20, 4000))
    angle = rng.normal(0, size_mm / radius_mm / 2, n)
    radius = radius_mm + rng.normal(0, 0.5, n)
    points = centre + radius[:, None] * (
        np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
    )
    points = points + rng.normal(0, size_mm / 3, n)[:, None] * axis
    return Cloud(points, rng.uniform(250, 1300) * np.exp(rng.normal(0, 0.3, n)))


def clump(centre: Points, spread_mm: float, rng: np.random.Generator) -> Cloud:
    """A compact structure: valve leaflet, lymph node."""
    n = int(np.clip(rng.gamma(2, 40), 15, 600))
    points = centre + rng.normal(0, spread_mm, (n, 3)) * rng.uniform(0.4, 1.2, 3)
    return Cloud(points, rng.uniform(250, 1300) * np.exp(rng.normal(0, 0.3, n)))


def strand(line: Points, thick_mm: float, hu: float, rng: np.random.Generator) -> Cloud:
    """A uniform strand along a centre line with one point per mm: annulus, lead, stent."""
    per_mm = max(4, int(np.pi * thick_mm**2 / _GRAIN_MM3))
    at = np.repeat(line, per_mm, axis=0) + rng.uniform(-0.5, 0.5, (len(line) * per_mm, 1)) * 0.7
    points = at + rng.normal(0, thick_mm / 2, at.shape)
    return Cloud(points, np.full(len(points), hu))


class CloudImage:
    """Tissue with calcium and its sites, added structure by structure.

    Parameters
    ----------
    tissue : (slice, row, column), HU, without calcium.
    spacing_mm : grid spacing; voxel (0, 0, 0) is at the origin.
    blur : in-plane blur of a patch (slice, row, column).
    beat : displacements (m, 3) in mm of the heart during the scan.
    """

    def __init__(self, tissue: Floats, spacing_mm: Points, blur: Blur, beat: Points) -> None:
        self.tissue, self.spacing, self.blur, self.beat = tissue, spacing_mm, blur, beat
        self.coronary = np.zeros_like(tissue)
        self.other = np.zeros_like(tissue)
        self.site = np.zeros(tissue.shape, np.uint8)
        self._strongest = np.zeros_like(tissue)

    def add(self, site: Site, cloud: Cloud, *, moves: bool = True) -> None:
        """Add a structure."""
        box, hu = self._rendered(cloud, moves)
        self._add(site, box, hu)

    def add_rendered(self, sites: NDArray[np.uint8], hu: Floats) -> None:
        """Add calcium that is an image already, with its `Site` at every voxel."""
        for site in np.unique(sites[sites > 0]):
            box = (slice(0, sites.shape[0]), slice(0, sites.shape[1]), slice(0, sites.shape[2]))
            self._add(Site(site), box, np.where(sites == site, hu, 0).astype(np.float32))

    def fill(self, cloud: Cloud, limit_hu: float) -> None:
        """Add blood, up to `limit_hu`: an artery in muscle stays invisible."""
        box, hu = self._rendered(cloud, moves=True)
        tissue = self.tissue[box]
        tissue += np.clip(limit_hu - tissue, 0, hu)

    def add_plaques(
        self,
        draw: Callable[[], tuple[Site, Cloud]],
        target: float,
    ) -> None:
        """Add plaques until the noise-free score is near the target, without exceeding it."""
        score = 0.0
        for _ in range(80):
            if score >= 0.8 * target:
                return
            site, cloud = draw()
            box, hu = self._rendered(cloud, moves=True)
            slices = np.s_[box[0]]
            before = self._score(slices, self.coronary[slices])
            trial = self.coronary[slices].copy()
            trial[(slice(None), *box[1:])] += hu
            gained = self._score(slices, trial) - before
            if score + gained <= 1.3 * target:
                self._add(site, box, hu)
                score += gained

    def noise_free(self) -> Floats:
        """The image without noise, HU."""
        return self.tissue + self.coronary + self.other

    def sites(self) -> NDArray[np.uint8]:
        """Site of each voxel to which calcium or metal adds `MIN_CONTRIBUTION_HU`."""
        kept = np.maximum(self.coronary, self.other) >= MIN_CONTRIBUTION_HU
        return np.where(kept, self.site, 0).astype(np.uint8)

    def _score(self, slices: slice, calcium: Floats) -> float:
        hu = np.rint(self.tissue[slices] + calcium).astype(np.int16)
        return agatston(hu, calcium >= MIN_CONTRIBUTION_HU, self.spacing)

    def _add(self, site: Site, box: tuple[slice, slice, slice], hu: Floats) -> None:
        stronger = hu > self._strongest[box]
        self.site[box][stronger] = site
        self._strongest[box][stronger] = hu[stronger]
        (self.coronary if site.is_coronary else self.other)[box] += hu

    def _rendered(self, cloud: Cloud, moves: bool) -> tuple[tuple[slice, slice, slice], Floats]:
        """Bin grains into voxels, then blur."""
        beat = self.beat if moves else np.zeros((1, 3))
        points = (cloud.points[None] + beat[:, None]).reshape(-1, 3) / self.spacing
        mass = np.tile(cloud.hu / len(beat), len(beat)) * _GRAIN_MM3 / float(self.spacing.prod())
        shape = np.array(self.tissue.shape)
        inside = ((points > 0) & (points < shape - 1)).all(axis=1)
        points, mass = points[inside], mass[inside]
        if not len(points):
            return (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), np.float32)
        room = np.array([1, 9, 9])
        low = np.maximum(points.min(axis=0).astype(int) - room, 0)
        high = np.minimum(points.max(axis=0).astype(int) + 2 + room, shape)
        out = np.zeros(high - low, np.float32)
        base = np.floor(points).astype(int)
        share = points - base
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod(np.where(corner, share, 1 - share), axis=1) * mass
            np.add.at(out, tuple((base + corner - low).T), weight.astype(np.float32))
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return (box[0], box[1], box[2]), self.blur(out)


def _sides(line: Points, at: NDArray[np.int64]) -> tuple[Points, Points]:
    """Two directions perpendicular to the line at each of the given points."""
    step = line[np.minimum(at + 1, len(line) - 1)] - line[np.maximum(at - 1, 0)]
    step /= np.maximum(np.linalg.norm(step, axis=1), 1e-6)[:, None]
    helper = np.where(np.abs(step[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    first = np.cross(step, helper)
    first /= np.linalg.norm(first, axis=1)[:, None]
    return first, np.cross(step, first)
