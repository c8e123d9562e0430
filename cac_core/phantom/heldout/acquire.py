"""From a still chest to an annotated scan: calcium, motion, blur, artefacts and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2
from scipy.ndimage import (
    convolve1d,
    distance_transform_edt,
    gaussian_filter,
    uniform_filter1d,
)

from cac_core.components import largest_in_plane
from cac_core.phantom.annotated import (
    CLASS_OF_SITE,
    MIN_CONTRIBUTION_HU,
    AnnotatedScan,
    Site,
)
from cac_core.phantom.heldout.artefacts import apply_gain, bands, kernel_gain, rays_of_metal
from cac_core.phantom.heldout.calcium_clouds import CloudImage, draw_target
from cac_core.phantom.heldout.look import CALCIUM_BY_KVP, Look
from cac_core.phantom.heldout.placement import (
    ARTERIES,
    arteries_of,
    draw_plaque,
    lined_arteries,
    noncoronary,
)
from cac_core.phantom.heldout.scene import Scene
from cac_core.phantom.heldout.ungated import move

Points = NDArray[np.float64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Sites = NDArray[np.uint8]

#: Reach of the heart mask around an artery, mm, as readers outline it.
_AROUND_ARTERY_MM = 5.0
#: HU of the tissue that real calcium replaces.
_UNDER_CALCIUM_HU = 45.0
#: Calcium at rest of at least this many HU lends its site to the calcium that has moved from it.
_SEED_HU = 10.0


def acquire(scene: Scene, rng: np.random.Generator, look: Look) -> AnnotatedScan:
    """An annotated scan of a scene with implanted calcium; equal generators give equal bytes.

    The tissue of the scene has the slice thickness of the look already.
    """
    spacing = np.asarray(scene.spacing_mm, float)
    pixel = float(spacing[1])
    heart = _outlined(scene, spacing)
    image = _populated(scene, spacing, look, rng)
    seeds = _seeds(image)
    parts = [image.tissue, image.coronary, image.other]
    _at_voltage(parts, heart, look.kvp)
    if look.beating is not None:
        move(parts, heart, scene.line("RCA"), spacing, look.beating, rng)
    dirt = _artefacts(parts, pixel, look, rng)
    if look.sharpness:
        gain = kernel_gain(heart.shape[1], pixel, look.sharpness)
        for part in parts:
            apply_gain(part, gain)
    clean = image.noise_free()
    noise = _noise(clean, pixel, heart, look, rng)
    reach = 0 if look.beating is None else int(np.ceil(look.beating.lift_mm / 2 / spacing[0]))
    return AnnotatedScan(
        hu=_to_hu(clean + noise + dirt),
        hu_noise_free=_to_hu(clean),
        heart_mask=heart,
        calcium_site=_truth(seeds, image.coronary, image.other, reach),
        spacing_mm=(float(spacing[0]), pixel, float(spacing[2])),
        name=scene.name,
    )


def _outlined(scene: Scene, spacing: Points) -> Mask:
    """The heart mask of a reader: the pericardial sac and the arteries, without the sternum."""
    heart = scene.heart.copy()
    for artery in ARTERIES.values():
        line = scene.line(artery)
        if line is not None:
            _enclose(heart, line, spacing)
    return largest_in_plane(scene.heart | (heart & (scene.tissue < 120)))


def _enclose(heart: NDArray[np.bool_], line: Points, spacing: Points) -> None:
    """Include an artery in the heart mask."""
    reach = _AROUND_ARTERY_MM
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


def _populated(scene: Scene, spacing: Points, look: Look, rng: np.random.Generator) -> CloudImage:
    """The tissue with the calcium and the devices of a person."""
    sigma = float(rng.uniform(0.55, 0.95)) / spacing[1]
    beat = _heart_motion(rng) if look.beating is None else np.zeros((1, 3))
    tissue, own = _apart(scene)
    beside = (look.thickness_mm / look.increment_mm - 1) / 2

    def blur(patch: Floats) -> Floats:
        return _soften(_overlapping(patch, beside), sigma)

    image = CloudImage(tissue, spacing, blur, beat)
    if scene.own_sites is not None:
        image.add_rendered(scene.own_sites, own)
    has_lined = rng.random() < look.lined_share
    target = float(np.exp(rng.uniform(0, np.log(400)))) if has_lined else draw_target(rng)
    radius = scene.artery_radius_mm or float(rng.uniform(1.2, 2.0))
    for site, cloud in noncoronary(scene, 2000.0 if has_lined else target, look, rng):
        image.add(site, cloud, moves=site is not Site.DESCENDING_AORTA)
    if has_lined:
        for site, cloud in lined_arteries(scene, radius, rng):
            image.add(site, cloud)
    arteries = arteries_of(scene)
    if arteries:
        image.add_plaques(lambda: draw_plaque(arteries, radius, target, look, rng), target)
    return image


def _apart(scene: Scene) -> tuple[Floats, Floats]:
    """The tissue without its real calcium, and that calcium as HU."""
    if scene.own_sites is None:
        return scene.tissue.astype(np.float32), np.zeros((0, 0, 0), np.float32)
    excess = np.maximum(scene.tissue - np.float32(_UNDER_CALCIUM_HU), 0)
    own = np.where(scene.own_sites > 0, excess, 0).astype(np.float32)
    return scene.tissue - own, own


def _heart_motion(rng: np.random.Generator) -> Points:
    """Displacements (5, 3) of the heart in mm over a beat: an ellipse."""
    swing = rng.normal(size=3) * float(rng.uniform(0, 1.6))
    phase = np.linspace(0, 2 * np.pi, 6)[:-1]
    other = rng.normal(size=3) * 0.4
    return np.asarray(np.cos(phase)[:, None] * swing + np.sin(phase)[:, None] * other)


def _overlapping(patch: Floats, beside: float) -> Floats:
    """Slices thicker than their increment: each sees this share of both its neighbours."""
    if beside <= 0:
        return patch
    weights = np.array([beside, 1.0, beside]) / (1 + 2 * beside)
    thick: Floats = convolve1d(patch, weights, axis=0, mode="constant")
    return thick


def _soften(patch: Floats, sigma: float) -> Floats:
    """An in-plane point spread function with a core and wide tails."""
    core = gaussian_filter(patch, (0, sigma, sigma), truncate=4)
    foot = gaussian_filter(patch, (0, 2.2 * sigma, 2.2 * sigma), truncate=3)
    return np.asarray(0.8 * core + 0.2 * foot, np.float32)


def _at_voltage(parts: list[Floats], heart: Mask, kvp: int) -> None:
    """Scale calcium and bone to a tube voltage, in place; parts are tissue, then calcium."""
    factor = np.float32(CALCIUM_BY_KVP[kvp])
    if factor == 1:
        return
    for calcium in parts[1:]:
        calcium *= factor
    bone = (parts[0] > 150) & ~heart
    parts[0][bone] = 150 + (parts[0][bone] - 150) * factor


def _artefacts(
    parts: list[Floats], pixel_mm: float, look: Look, rng: np.random.Generator
) -> Floats:
    """Rays of metal, bands of dense things and streaks of few photons, HU."""
    metal = parts[2]
    out = rays_of_metal(metal, rng)
    if look.hardening or look.arms:
        total = parts[0] + parts[1] + metal
        starved = float(rng.uniform(1, 9)) * (1.5 if look.arms else 1)
        out += bands(total, pixel_mm, look.hardening, starved, look.arms, rng)
    return out


def _seeds(image: CloudImage) -> list[Sites]:
    """Sites of the coronary and of the other calcium at rest, where there is enough of it."""
    coronary = CLASS_OF_SITE[image.site] == 1
    return [
        np.where((contribution >= _SEED_HU) & (coronary == wanted), image.site, 0)
        for contribution, wanted in ((image.coronary, True), (image.other, False))
    ]


def _truth(seeds: list[Sites], coronary: Floats, other: Floats, reach: int) -> Sites:
    """Site of each voxel to which calcium or metal adds `MIN_CONTRIBUTION_HU`.

    Calcium that has moved has the site of the nearest calcium of its class at rest.

    Parameters
    ----------
    reach : number of slices on both sides that calcium may come from.
    """
    out = np.zeros(coronary.shape, np.uint8)
    stronger = coronary > other
    kept = np.maximum(coronary, other) >= MIN_CONTRIBUTION_HU
    for sites, mine in zip(seeds, (kept & stronger, kept & ~stronger), strict=True):
        for k in np.flatnonzero(mine.any(axis=(1, 2))):
            out[k] += _nearest(_seen_from(sites, int(k), reach), mine[k])
    return out


def _seen_from(sites: Sites, k: int, reach: int) -> Sites:
    """Sites of a slice, and where it has none those of the closest slice, within the reach."""
    plane: Sites = sites[k].copy()
    for step in range(1, reach + 1):
        for other in (k - step, k + step):
            if 0 <= other < len(sites):
                plane[plane == 0] = sites[other][plane == 0]
    return plane


def _nearest(sites: Sites, marked: Mask) -> Sites:
    """The site nearest to each marked pixel of a slice; 0 elsewhere, and without any site."""
    out: Sites = np.zeros_like(sites)
    if sites.any():
        places = np.nonzero(marked | (sites > 0))
        box = np.ix_(*(np.arange(part.min(), part.max() + 1) for part in places))
        index = distance_transform_edt(sites[box] == 0, return_distances=False, return_indices=True)
        out[box] = np.where(marked[box], sites[box][tuple(index)], 0)
    return out


def _noise(
    clean: Floats, pixel_mm: float, heart: Mask, look: Look, rng: np.random.Generator
) -> Floats:
    """Ramp-like noise of the kernel, with streaks along rows of high attenuation."""
    n = clean.shape[1]
    f = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)) / pixel_mm  # cycles per mm
    cut = float(rng.uniform(0.25, 0.42))
    gain = (f + 0.01) / (1 + (f / cut) ** float(rng.uniform(4, 8)))
    gain = (gain * kernel_gain(n, pixel_mm, look.sharpness)).astype(np.float32)
    noise = np.empty_like(clean)
    streak = np.float32(rng.uniform(0, 0.35))
    for k in range(len(clean)):
        grain = irfft2(rfft2(rng.standard_normal((n, n), dtype=np.float32)) * gain, s=(n, n))
        # The amplitude of streaks increases with the attenuation along the row.
        load = np.maximum(clean[k] + 1000, 0).sum(axis=1)
        load = np.clip(load / load.max(), 0.05, 1) ** 3
        lines = uniform_filter1d(rng.standard_normal((n, n), dtype=np.float32), 61, axis=1)
        lines = gaussian_filter(lines, (0.8, 0))
        noise[k] = grain / grain.std() + streak * 2 * lines * (load / lines.std())[:, None]
    body = gaussian_filter((clean[len(clean) // 2] > -500).astype(np.float32), 40)
    noise *= 0.55 + 0.5 * body / body.max()
    # Smooth kernels lower the noise, sharp ones raise it.
    level = float(rng.uniform(*look.noise_hu)) * (1 + 0.5 * look.sharpness)
    return np.asarray(noise * np.float32(level / noise[heart].std()), np.float32)


def _to_hu(values: Floats) -> NDArray[np.int16]:
    return np.clip(np.rint(values), -1024, 3071).astype(np.int16)
