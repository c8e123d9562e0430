"""The second generator of synthetic chests, to test on scans unlike the training scans.

Anatomy is a field on a voxel grid (`second_anatomy`) instead of analytic shapes; plaques are clouds
of grains; blur is a Butterworth low-pass filter, with motion as a mean of shifted copies; noise is
generated in projections, with few photons, and back-projected.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, irfft2, rfft, rfft2
from scipy.ndimage import map_coordinates, zoom
from scipy.sparse import csr_array

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
from cac_core.phantom.heldout.second_anatomy import SHAPE, STEP_MM, Chest, spline

Points = NDArray[np.float64]
Floats = NDArray[np.float32]

_SIZE = 512


def synthesise_second(seed: int) -> AnnotatedScan:
    """Generate the scan of a seed; equal seeds give equal bytes."""
    rng = np.random.default_rng([seed, 2])
    chest = Chest(rng)
    pixel = float(rng.uniform(0.74, 1.04))
    spacing = np.array([float(rng.choice([5.0, 5.0, 4.0])), pixel, pixel])
    levels = np.arange(-92.0, 92.0, spacing[0])
    origin = np.array([levels[0], *(2 * [-(_SIZE - 1) / 2 * pixel])])
    tissue, heart = _sampled(chest, levels, spacing, rng)
    cut, order = float(rng.uniform(0.32, 0.55)), float(rng.uniform(2, 4))
    beat = _heart_motion(rng)
    image = CloudImage(tissue, spacing, lambda patch: _lowpass(patch, pixel, cut, order), beat)
    target = draw_target(rng)
    radius = float(rng.uniform(1.2, 2.1))
    arteries = [(site, line - origin) for site, line in chest.arteries]
    for _, line in arteries:
        image.fill(strand(line, radius, 160.0, rng), chest.blood)
    for site, cloud in _noncoronary(chest, arteries, origin, target, rng):
        image.add(site, cloud, moves=site is not Site.DESCENDING_AORTA)
    weight = np.array(
        [0.09 if s is Site.LM else 0.45 if s is Site.LAD else 0.23 for s, _ in arteries]
    )
    weight[4:] *= 0.4

    def draw() -> tuple[Site, Cloud]:
        site, line = arteries[rng.choice(len(arteries), p=weight / weight.sum())]
        return site, plaque(line, radius, target, rng)

    image.add_plaques(draw, target)
    clean = image.noise_free()
    noise = _photon_noise(clean, pixel, float(rng.uniform(18, 28)), heart, rng)
    return AnnotatedScan(
        hu=_to_hu(clean + noise),
        hu_noise_free=_to_hu(clean),
        heart_mask=heart,
        calcium_site=image.sites(),
        spacing_mm=(float(spacing[0]), pixel, pixel),
        name=f"second-{seed}",
    )


def _heart_motion(rng: np.random.Generator) -> Points:
    """Displacements (7, 3) of the heart in mm over a beat: an ellipse."""
    swing = rng.normal(0, 1, 3) * float(rng.uniform(0, 2.4))
    phase = np.linspace(0, 2 * np.pi, 8)[:-1]
    turn = rng.normal(0, 0.5, 3)
    return np.asarray(np.sin(phase)[:, None] * swing + np.cos(phase)[:, None] * turn)


def _noncoronary(
    chest: Chest,
    arteries: list[tuple[Site, Points]],
    origin: Points,
    target: float,
    rng: np.random.Generator,
) -> list[tuple[Site, Cloud]]:
    """Non-coronary calcium and devices; coordinates in mm from the first voxel of the image."""
    more = 0.55 + 0.15 * np.log1p(target)
    return [
        *_valves(chest, origin, more, rng),
        *_aortic_wall(chest, origin, more, rng),
        *_pericardium_and_nodes(chest, origin, rng),
        *_devices(chest, arteries, origin, rng),
    ]


def _at(chest: Chest, origin: Points, *local: float) -> Points:
    """A point in coordinates of the heart, in mm from the first voxel."""
    point: Points = chest.to_grid(np.array([local]))[0] - origin
    return point


def _valves(
    chest: Chest, origin: Points, more: float, rng: np.random.Generator
) -> Iterator[tuple[Site, Cloud]]:
    if rng.random() < 0.2 * more:
        for _ in range(int(rng.integers(1, 5))):
            leaflet = _at(chest, origin, 8, 0, 2) + rng.normal(0, 4, 3)
            yield Site.AORTIC_VALVE, clump(leaflet, 1.1, rng)
    if rng.random() < 0.17 * more:
        turn = rng.uniform(0, 1.5) + np.linspace(0, rng.uniform(0.5, 2.4), 40)
        ring = [
            _at(chest, origin, 6 - 22 * np.sin(t), 22 + 4 * np.cos(t), 22 + 18 * np.cos(t))
            for t in turn
        ]
        annulus = spline(np.array(ring[::5]))
        yield (
            Site.MITRAL_VALVE,
            strand(annulus, rng.uniform(1, 2.2), rng.uniform(300, 1100), rng),
        )


def _aortic_wall(
    chest: Chest, origin: Points, more: float, rng: np.random.Generator
) -> Iterator[tuple[Site, Cloud]]:
    for site, line, share in (
        (Site.ASCENDING_AORTA, chest.aorta[8:60], 0.3),
        (Site.DESCENDING_AORTA, chest.descending[30:], 0.4),
    ):
        for _ in range(1 + int(rng.poisson(1.0)) if rng.random() < share * more else 0):
            k = int(rng.integers(0, len(line) - 1))
            tangent = line[k + 1] - line[k]
            yield site, sheet(line[k] - origin, tangent, 15.5, rng.uniform(3, 9), rng)


def _pericardium_and_nodes(
    chest: Chest, origin: Points, rng: np.random.Generator
) -> Iterator[tuple[Site, Cloud]]:
    if rng.random() < 0.04:
        arc = rng.normal(0, 1, (1, 3)) + np.linspace(0, 0.5, 9)[:, None]
        line = spline(chest.on_surface(arc, 7.0)) - origin
        yield Site.PERICARDIUM, strand(line, 1.2, rng.uniform(300, 900), rng)
    if rng.random() < 0.05:
        node = _at(chest, origin, 34, 26, float(rng.choice([-40, 0, 40])))
        yield Site.LYMPH_NODE, clump(node, 2.6, rng)


def _devices(
    chest: Chest, arteries: list[tuple[Site, Points]], origin: Points, rng: np.random.Generator
) -> Iterator[tuple[Site, Cloud]]:
    """A pacing lead and a stent."""
    if rng.random() < 0.05:
        knots = ((80, 0, -36), (24, 4, -36), (-4, 4, -30), (-22, -22, 10))
        lead = spline(np.array([_at(chest, origin, *knot) for knot in knots]))
        yield Site.DEVICE, strand(lead, 1.1, rng.uniform(3000, 7000), rng)
    if rng.random() < 0.04:
        line = arteries[int(rng.integers(1, 4))][1]
        begin = int(rng.integers(4, max(5, len(line) // 2)))
        yield Site.DEVICE, strand(line[begin : begin + 18], 1.8, rng.uniform(700, 1500), rng)


def _sampled(
    chest: Chest, levels: Points, spacing: Points, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """Tissue and heart mask on the grid of the scan; a slice is the mean over its thickness."""
    across = (np.arange(_SIZE) - (_SIZE - 1) / 2) * spacing[1]
    rows, columns = np.meshgrid(across, across, indexing="ij")
    half = (np.array(SHAPE) - 1) / 2
    index = np.stack([rows / STEP_MM[1] + half[1], columns / STEP_MM[2] + half[2]])
    tissue = np.empty((len(levels), _SIZE, _SIZE), np.float32)
    heart = np.empty(tissue.shape, np.bool_)
    for k, level in enumerate(levels):
        low = (level - spacing[0] / 2) / STEP_MM[0] + half[0]
        high = (level + spacing[0] / 2) / STEP_MM[0] + half[0]
        at = np.clip(np.linspace(low, high, 4), 0, SHAPE[0] - 1.001)
        parts = [
            chest.tissue[int(a)] * (1 - a % 1) + chest.tissue[int(a) + 1] * (a % 1) for a in at
        ]
        plane = np.mean(parts, axis=0)
        tissue[k] = map_coordinates(plane, index, np.float32, order=1, cval=-1000.0)
        middle = float(np.clip(level / STEP_MM[0] + half[0], 0, SHAPE[0] - 1.001))
        share = chest.heart[int(middle)] * (1 - middle % 1) + chest.heart[int(middle) + 1] * (
            middle % 1
        )
        heart[k] = map_coordinates(share, index, np.float32, order=1) >= 0.5
    return tissue, heart


def _lowpass(patch: Floats, pixel_mm: float, cut: float, order: float) -> Floats:
    """An in-plane Butterworth filter; `cut` in cycles per mm."""
    padded = np.pad(patch, ((0, 0), (12, 12), (12, 12)))
    rows, columns = padded.shape[1:]
    f = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)) / pixel_mm
    gain = 1 / (1 + (f / cut) ** (2 * order))
    out = irfft2(rfft2(padded) * gain, s=(rows, columns))[:, 12:-12, 12:-12]
    return np.asarray(out, np.float32)


def _photon_noise(
    clean: Floats, pixel_mm: float, sd_hu: float, heart: NDArray[np.bool_], rng: np.random.Generator
) -> Floats:
    """Noise of few photons: white in the projections, higher behind bone, back-projected."""
    views, bins = 80, 512
    angles = np.linspace(0, np.pi, views, endpoint=False)
    coarse = np.maximum(clean[:, ::8, ::8] / 1000 + 1, 0)  # attenuation relative to water
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
        line = counted * (8 * pixel_mm * 0.0192)  # water at about 65 keV, per mm
        amplitude = np.exp(np.clip(zoom(line, (1, bins / 64), order=1), 0, 9) / 2)
        sinogram = rng.standard_normal((len(clean), bins)) * amplitude
        filtered = irfft(rfft(sinogram, axis=1) * ramp, n=bins, axis=1).astype(np.float32)
        where = np.clip(at * cos + (at * sin)[:, None] + bins / 2, 0, bins - 2).ravel()
        index = where.astype(np.int32)
        share = (where - index).astype(np.float32)
        # Linear interpolation between two neighbouring bins.
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


def _to_hu(values: Floats) -> NDArray[np.int16]:
    return np.clip(np.rint(values), -1024, 3071).astype(np.int16)
