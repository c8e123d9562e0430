"""Semi-synthetic scans: known calcium implanted in deformed real chests, at low dose.

The most realistic test set: anatomy, fat, lungs and bones are those of patients, and calcium is
placed on arteries, valves and aortic walls that were marked on their enhanced scans. Plaque, blur
and noise are independent of the training generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, map_coordinates, uniform_filter1d

from cac_core.errors import UsageError
from cac_core.phantom.annotated import AnnotatedScan, Site
from cac_core.phantom.heldout.calcium_clouds import (
    Cloud,
    CloudImage,
    clump,
    draw_target,
    plaque,
    sheet,
    strand,
)
from cac_core.phantom.heldout.real_chests import Host, host_names, load_host

Points = NDArray[np.float64]
Floats = NDArray[np.float32]

_SIZE = 512
_INCREMENT_MM = 5.0
#: Range in z about the centre of the heart, mm.
_RANGE_MM = (-95.0, 95.0)
_ARTERIES = {Site.LM: "LM", Site.LAD: "LAD", Site.LCX: "LCX", Site.RCA: "RCA"}
_SHARE = (0.08, 0.45, 0.18, 0.29)


@dataclass(frozen=True)
class _Deformation:
    """Map from the image (mm from its centre) to the host (mm from the centre of the heart)."""

    turn: Points  # 3 x 3
    offset: Points  # of the image centre, mm
    waves: Points  # (n, 3), radians per mm
    phases: Points
    shifts: Points  # (n, 3), mm

    def to_host(self, points: Points) -> Points:
        """Points (n, 3) of the image in the host."""
        at = (points - self.offset) @ self.turn.T
        return np.asarray(at + np.sin(at @ self.waves.T + self.phases) @ self.shifts)

    def to_image(self, points: Points) -> Points:
        """The inverse, by fixed-point iteration."""
        at = points.copy()
        for _ in range(10):
            at = points - np.sin(at @ self.waves.T + self.phases) @ self.shifts
        return np.asarray(at @ np.linalg.inv(self.turn).T + self.offset)


def make_variant(host: Host, seed: int) -> AnnotatedScan:
    """A low-dose scan of a deformed host with implanted calcium; equal seeds give equal bytes."""
    rng = np.random.default_rng([seed, sum(map(ord, host.name))])
    spacing = np.array([_INCREMENT_MM, *[float(rng.uniform(0.76, 1.05))] * 2])
    centre = np.array([part.mean() for part in np.nonzero(host.heart)]) * host.spacing_mm
    deformation = _draw_deformation(host, centre, rng)
    levels = np.arange(*_RANGE_MM, _INCREMENT_MM)
    tissue, heart = _resample(host, centre, deformation, levels, spacing)
    origin = np.array([_RANGE_MM[0], *(-(_SIZE - 1) / 2 * spacing[1:])])
    lines = {
        name: deformation.to_image(_smooth(line * host.spacing_mm) - centre) - origin
        for name, line in host.lines.items()
    }
    valve = deformation.to_image((host.valve * host.spacing_mm - centre)[None])[0] - origin
    for artery in _ARTERIES.values():
        _enclose(heart, lines[artery], spacing)
    heart &= tissue < 120  # without the sternum
    sigma = float(rng.uniform(0.55, 0.95)) / spacing[1]
    beat = _heart_motion(rng)
    image = CloudImage(tissue, spacing, lambda patch: _soften(patch, sigma), beat)
    target = draw_target(rng)
    for site, cloud in _noncoronary(lines, valve, host, target, rng):
        image.add(site, cloud, moves=site is not Site.DESCENDING_AORTA)
    radius = float(rng.uniform(1.2, 2.0))

    def draw() -> tuple[Site, Cloud]:
        site = list(_ARTERIES)[rng.choice(4, p=_SHARE)]
        return site, plaque(lines[_ARTERIES[site]], radius, target, rng)

    image.add_plaques(draw, target)
    clean = image.noise_free()
    noise = _noise(clean, float(rng.uniform(18, 28)), float(spacing[1]), heart, rng)
    return AnnotatedScan(
        hu=_to_hu(clean + noise),
        hu_noise_free=_to_hu(clean),
        heart_mask=heart,
        calcium_site=image.sites(),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        name=f"{host.name}-{seed}",
    )


def variant_of(host: str, seed: int, data: Path | None) -> AnnotatedScan:
    """The variant of a real chest by name; see `make_variant`.

    Parameters
    ----------
    data : folder of the real chests; docs/evaluation.md lists its contents.

    Raises
    ------
    UsageError
        If the name is unknown, or the folder does not contain the chest.
    """
    if host not in host_names():
        known = ", ".join(host_names())
        raise UsageError(f"Unknown real chest {host!r}.", f"Choose from {known}.")
    if data is None:
        raise UsageError(
            "The folder of the real chests is not given.",
            "Name it with --data; docs/evaluation.md lists its contents.",
        )
    return make_variant(_load_host(host, data), seed)


@lru_cache(maxsize=3)
def _load_host(name: str, data: Path) -> Host:
    try:
        return load_host(name, data)
    except FileNotFoundError as error:
        raise UsageError(
            f"The real chests are not in {data} ({error}).",
            "docs/evaluation.md lists the contents of the folder.",
        ) from None


def _heart_motion(rng: np.random.Generator) -> Points:
    """Displacements (5, 3) of the heart in mm over a beat: an ellipse."""
    swing = rng.normal(size=3) * float(rng.uniform(0, 1.6))
    phase = np.linspace(0, 2 * np.pi, 6)[:-1]
    other = rng.normal(size=3) * 0.4
    return np.asarray(np.cos(phase)[:, None] * swing + np.sin(phase)[:, None] * other)


def _draw_deformation(host: Host, centre: Points, rng: np.random.Generator) -> _Deformation:
    a, b = rng.normal(0, 0.07, 2)
    roll = rng.normal(0, 0.09)
    tilt = np.array(
        [[1, a, b], [-a, np.cos(roll), np.sin(roll)], [-b, -np.sin(roll), np.cos(roll)]]
    )
    scale = rng.uniform(0.92, 1.1, 3) * rng.uniform(0.92, 1.08)
    direction = rng.normal(size=(6, 3))
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    length = rng.uniform(60, 180, 6)
    # The heart has the same offset from the image centre as in the host.
    middle = (np.array(host.hu.shape[1:]) - 1) / 2 * host.spacing_mm[1:]
    return _Deformation(
        tilt / scale,
        np.array([0.0, *(centre[1:] - middle)]) + rng.normal(0, (4.0, 8.0, 8.0)),
        direction * (2 * np.pi / length)[:, None],
        rng.uniform(0, 2 * np.pi, 6),
        rng.normal(0, 1.6, (6, 3)) * (length / 120)[:, None],
    )


def _resample(
    host: Host, centre: Points, deformation: _Deformation, levels: Points, spacing: Points
) -> tuple[Floats, NDArray[np.bool_]]:
    """Tissue and heart mask on the grid of the image; a slice is the mean of three planes."""
    across = (np.arange(_SIZE) - (_SIZE - 1) / 2) * spacing[1]
    # The map is smooth: it is computed for every eighth pixel and interpolated.
    coarse = across[::8]
    rows, columns = np.meshgrid(coarse, coarse, indexing="ij")
    fine = np.arange(_SIZE) / 8
    grid = np.stack(
        np.meshgrid(
            np.minimum(fine, len(coarse) - 1), np.minimum(fine, len(coarse) - 1), indexing="ij"
        )
    )
    tissue = np.empty((len(levels), _SIZE, _SIZE), np.float32)
    heart = np.empty(tissue.shape, np.bool_)
    weight = gaussian_filter(host.heart.astype(np.float32), 0.6)
    for k, level in enumerate(levels):
        planes = []
        for shift in (-_INCREMENT_MM / 3, 0.0, _INCREMENT_MM / 3):
            flat = np.stack([np.full(rows.size, level + shift), rows.ravel(), columns.ravel()], 1)
            at = (deformation.to_host(flat) + centre) / host.spacing_mm
            at = at.T.reshape(3, *rows.shape)
            index = np.stack([map_coordinates(part, grid, order=1) for part in at])
            planes.append(map_coordinates(host.hu, index, np.float32, order=1, mode="nearest"))
            if shift == 0.0:
                heart[k] = map_coordinates(weight, index, order=1, mode="constant") >= 0.5
        tissue[k] = np.mean(planes, axis=0)
    return tissue, heart


def _smooth(line: Points) -> Points:
    """A centre line (n, 3) in mm, one point per mm."""
    steps = np.maximum(np.linalg.norm(np.diff(line, axis=0), axis=1), 1e-3)
    at = np.concatenate([[0], np.cumsum(steps)])
    return np.asarray(PchipInterpolator(at, line)(np.arange(0, at[-1], 1.0)))


def _enclose(heart: NDArray[np.bool_], line: Points, spacing: Points) -> None:
    """Include an artery with 5 mm around it in the heart mask, as a reader does."""
    reach = 5.0
    for point in line:
        low = np.maximum(np.ceil((point - reach) / spacing).astype(int), 0)
        high = np.minimum(np.floor((point + reach) / spacing).astype(int) + 1, heart.shape)
        if (low >= high).any():
            continue
        axes = np.ix_(*(np.arange(a, b) for a, b in zip(low, high, strict=True)))
        far = sum(
            (axis * step - place) ** 2
            for axis, step, place in zip(axes, spacing, point, strict=True)
        )
        heart[axes] |= far <= reach**2


def _noncoronary(
    lines: dict[str, Points], valve: Points, host: Host, target: float, rng: np.random.Generator
) -> list[tuple[Site, Cloud]]:
    """Non-coronary calcium and devices, mostly of valves and aorta."""
    more = 0.5 + 0.16 * np.log1p(target)
    found = []
    if rng.random() < 0.2 * more:
        for _ in range(int(rng.integers(1, 5))):
            found.append((Site.AORTIC_VALVE, clump(valve + rng.normal(0, 4, 3), 1.2, rng)))
    if rng.random() < 0.18 * more:
        ring = lines["mitral_annulus"]
        n = int(rng.uniform(0.3, 1.0) * len(ring))
        begin = int(rng.integers(0, max(1, len(ring) - n)))
        annulus = ring[begin : begin + n]
        calcium = strand(annulus, rng.uniform(1.0, 2.2), rng.uniform(300, 1100), rng)
        found.append((Site.MITRAL_VALVE, calcium))
    for site, part, share in (
        (Site.ASCENDING_AORTA, "ascending", 0.3),
        (Site.DESCENDING_AORTA, "descending", 0.4),
    ):
        line = lines[f"{part}_aorta"]
        for _ in range(int(rng.poisson(1.2)) if rng.random() < share * more else 0):
            k = int(rng.integers(0, len(line) - 1))
            wall = sheet(
                line[k], line[k + 1] - line[k], host.radii_mm[part], rng.uniform(3, 9), rng
            )
            found.append((site, wall))
    if rng.random() < 0.04:
        start = lines["LAD"][-1]
        arc = start + np.cumsum(rng.normal(0, 0.6, (14, 3)), axis=0) + rng.normal(0, 3, 3)
        found.append((Site.PERICARDIUM, strand(arc, 1.2, rng.uniform(300, 900), rng)))
    if rng.random() < 0.05:
        node = lines["LM"][0] + np.array([rng.uniform(-8, 12), rng.uniform(22, 34), -20.0])
        found.append((Site.LYMPH_NODE, clump(node, 2.5, rng)))
    if rng.random() < 0.04:
        course = lines[str(rng.choice(["LAD", "RCA"]))]
        begin = int(rng.integers(5, max(6, len(course) // 2)))
        found.append(
            (Site.DEVICE, strand(course[begin : begin + 18], 1.8, rng.uniform(700, 1500), rng))
        )
    return found


def _soften(patch: Floats, sigma: float) -> Floats:
    """An in-plane point spread function with a core and wide tails."""
    core = gaussian_filter(patch, (0, sigma, sigma), truncate=4)
    foot = gaussian_filter(patch, (0, 2.2 * sigma, 2.2 * sigma), truncate=3)
    return np.asarray(0.8 * core + 0.2 * foot, np.float32)


def _noise(
    clean: Floats, sd_hu: float, pixel_mm: float, heart: NDArray[np.bool_], rng: np.random.Generator
) -> Floats:
    """Ramp-like noise, with streaks along rows of high attenuation."""
    n = clean.shape[1]
    f = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)) / pixel_mm  # cycles per mm
    cut = float(rng.uniform(0.25, 0.42))
    gain = (f + 0.01) / (1 + (f / cut) ** float(rng.uniform(4, 8)))
    noise = np.empty_like(clean)
    streak = float(rng.uniform(0, 0.35))
    for k in range(len(clean)):
        grain = irfft2(rfft2(rng.standard_normal((n, n), dtype=np.float32)) * gain, s=(n, n))
        grain /= grain.std()
        # The amplitude of streaks increases with the attenuation along the row.
        load = np.maximum(clean[k] + 1000, 0).sum(axis=1)
        load = np.clip(load / load.max(), 0.05, 1) ** 3
        lines = uniform_filter1d(rng.standard_normal((n, n)), 61, axis=1)
        lines = gaussian_filter(lines, (0.8, 0))
        lines *= (load / lines.std())[:, None]
        noise[k] = grain + streak * 2 * lines
    body = gaussian_filter((clean[len(clean) // 2] > -500).astype(np.float32), 40)
    noise *= 0.55 + 0.5 * body / body.max()
    return np.asarray(noise * np.float32(sd_hu / noise[heart].std()), np.float32)


def _to_hu(values: Floats) -> NDArray[np.int16]:
    return np.clip(np.rint(values), -1024, 3071).astype(np.int16)
