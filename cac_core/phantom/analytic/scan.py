"""Synthetic CTAC scans of the analytic generator, with their truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cac_core.phantom.analytic.acquisition import ScanSettings, draw_settings
from cac_core.phantom.analytic.anatomy import Thorax, draw_thorax
from cac_core.phantom.analytic.blobs import Grid, randomise_shape, render
from cac_core.phantom.analytic.calcium import CalciumImage, to_hu
from cac_core.phantom.analytic.coronaries import Artery, draw_arteries
from cac_core.phantom.analytic.noise import correlated_noise, heart_noise_hu, metal_streaks
from cac_core.phantom.analytic.noncoronary import draw_noncoronary
from cac_core.phantom.analytic.plaques import (
    BLOOD_HU,
    draw_balanced_plaque,
    draw_burden,
    lumen,
)
from cac_core.phantom.analytic.tissue import HU_AIR, heart_coverage, render_slice
from cac_core.phantom.annotated import AnnotatedScan, Site
from schemas.codes import CAC_CATEGORIES

Floats = NDArray[np.float32]

#: Category mix of the external cohort in the paper (Results, first paragraph).
CATEGORY_SHARE = (0.400, 0.262, 0.156, 0.182)
#: Variation of heart and artery positions in balanced scans, relative to patients.
_BALANCED_SPREAD = 2.0
#: Range of the scan in z, from below the heart to above the aortic arch, in mm.
SCAN_RANGE_MM = (-108.0, 112.0)


@dataclass(frozen=True)
class SyntheticScan(AnnotatedScan):
    """An annotated scan with the settings and the seed that it was generated from."""

    settings: ScanSettings
    target_category: str
    seed: int


def synthesise_scan(
    seed: int,
    settings: ScanSettings | None = None,
    rare_times: float = 1.0,
    *,
    balanced: bool = False,
) -> SyntheticScan:
    """Generate the scan of a seed; equal arguments give equal bytes.

    Anatomy, calcium, acquisition and noise use separate random streams, so that the same person can
    be scanned with other settings.

    Parameters
    ----------
    settings : acquisition; default: drawn from the seed.
    rare_times : frequency of devices and rare calcifications relative to patients, see
        `draw_noncoronary`.
    balanced : a scan for training only. Many plaques, equally in all arteries and anywhere along
        them, and more non-coronary calcium, both without a characteristic shape, so that a network
        has to tell them apart by their surroundings. Heart and artery positions vary more than in
        patients, so that absolute positions are uninformative. `target_category` then determines
        the amount of non-coronary calcium only.
    """
    streams = [np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(4)]
    anatomy_rng, calcium_rng, settings_rng, noise_rng = streams
    settings = settings or draw_settings(settings_rng)
    spread = _BALANCED_SPREAD if balanced else 1.0
    thorax = draw_thorax(anatomy_rng, spread)
    category = str(calcium_rng.choice(CAC_CATEGORIES, p=CATEGORY_SHARE))
    arteries = draw_arteries(thorax, calcium_rng, spread)
    burden = draw_burden(category, calcium_rng)

    grid = _grid(settings)
    tissue, heart = _render_tissue(thorax, settings, grid, noise_rng)
    _enclose(heart, np.concatenate([artery.line for artery in arteries]), grid)
    if settings.blood_excess_hu:
        tissue += _contrast(thorax, settings, grid)
    calcium = CalciumImage(tissue, settings, grid, calcium_rng)
    _add_blood(tissue, arteries, calcium, grid)
    for _ in range(2 if balanced else 1):
        for site, blobs in draw_noncoronary(thorax, arteries, category, calcium_rng, rare_times):
            reshaped = balanced and site is not Site.DEVICE
            calcium.add_noncoronary(
                site, randomise_shape(blobs, calcium_rng) if reshaped else blobs
            )
    if balanced:
        for _ in range(int(calcium_rng.integers(4, 16))):
            calcium.add_plaque(*draw_balanced_plaque(arteries, calcium_rng))
    else:
        calcium.add_plaques(arteries, burden)
    clean = calcium.image()
    noise = _noise(calcium, thorax, settings, noise_rng)
    outside = grid.x**2 + (grid.y**2)[:, None] > settings.field_radius_mm**2
    clean[:, outside] = HU_AIR
    noise[:, outside] = 0
    return SyntheticScan(
        hu=to_hu(clean + noise),
        hu_noise_free=to_hu(clean),
        heart_mask=heart,
        calcium_site=calcium.sites(),
        spacing_mm=(settings.slice_increment_mm, *(2 * (settings.pixel_spacing_mm,))),
        name=f"synthetic-{seed}",
        settings=settings,
        target_category=category,
        seed=seed,
    )


def _add_blood(tissue: Floats, arteries: list[Artery], calcium: CalciumImage, grid: Grid) -> None:
    """Add the blood of the arteries, which is visible in fat only."""
    blood = render(lumen(arteries), calcium.still, grid)
    tissue[blood.box] += np.clip(BLOOD_HU - tissue[blood.box], 0, blood.hu)


def _noise(
    calcium: CalciumImage, thorax: Thorax, settings: ScanSettings, rng: np.random.Generator
) -> Floats:
    """Noise of the dose and body size, with streaks in slices with metal, HU."""
    area = thorax.body_radii[0] * thorax.body_radii[1] / (175.0 * 115.0)
    sd = heart_noise_hu(settings.tube_current_ma, settings.slice_increment_mm, settings.kvp, area)
    noise = correlated_noise(calcium.tissue.shape, sd, settings.noise_spectrum, rng)
    for k in calcium.metal_slices():
        noise[k] += metal_streaks(calcium.metal[k], float(rng.uniform(20, 90)), rng)
    return noise


def _enclose(
    heart: NDArray[np.bool_], points: NDArray[np.float64], grid: Grid, radius_mm: float = 5.0
) -> None:
    """Include the arteries and the fat around them in the heart mask, as a reader does."""
    x, y, z = grid.x, grid.y, grid.z
    for px, py, pz in points:
        for k in np.flatnonzero(np.abs(z - pz) <= radius_mm):
            c0, c1 = np.searchsorted(x, [px - radius_mm, px + radius_mm])
            r0, r1 = np.searchsorted(y, [py - radius_mm, py + radius_mm])
            square = (x[c0:c1] - px) ** 2 + ((y[r0:r1] - py) ** 2)[:, None]
            heart[k, r0:r1, c0:c1] |= square <= radius_mm**2 - (z[k] - pz) ** 2


def _grid(settings: ScanSettings) -> Grid:
    centre = (settings.n_rows - 1) / 2
    across = ((np.arange(settings.n_rows) - centre) * settings.pixel_spacing_mm).astype(np.float32)
    return Grid(across, across, np.arange(*SCAN_RANGE_MM, settings.slice_increment_mm))


def _render_tissue(
    thorax: Thorax, settings: ScanSettings, grid: Grid, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """Tissue in HU and the heart mask; rendered at half resolution, as borders are soft."""
    cx = ((grid.x[0::2] + grid.x[1::2]) * np.float32(0.5))[None, :]
    cy = ((grid.y[0::2] + grid.y[1::2]) * np.float32(0.5))[:, None]
    # A thick slice is the mean of several planes.
    steps = 2 if settings.slice_increment_mm > 4 else 1
    offsets = (np.arange(steps) + 0.5) / steps - 0.5
    texture = gaussian_filter(rng.standard_normal((12, 64, 64), dtype=np.float32), (1, 1.2, 1.2))
    texture = np.repeat(np.repeat(texture / texture.std(), 4, axis=1), 4, axis=2)
    texture = gaussian_filter(texture, (0, 1.5, 1.5))[:, : cy.shape[0], : cx.shape[1]]
    shading = _shading(cx, cy, rng) * np.float32(settings.shading_hu)
    tissue = np.empty(grid.shape, np.float32)
    heart = np.empty(tissue.shape, np.bool_)
    for k, level in enumerate(grid.z):
        planes = [level + offset * settings.slice_increment_mm for offset in offsets]
        plane_texture = texture[k % len(texture)]
        drawn = [render_slice(thorax, cx, cy, float(plane), plane_texture) for plane in planes]
        tissue[k] = _double(np.mean(drawn, axis=0, dtype=np.float32) + shading)
        warped = thorax.warp.to_anatomy(cx, cy, float(level))
        heart[k] = _double(heart_coverage(thorax, *warped, float(level))) >= 0.5
    return tissue, heart


def _shading(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Slow changes of HU across the image, as from beam hardening; between -1 and 1."""
    fx, fy = rng.uniform(0.004, 0.014, 2)
    a, b = rng.uniform(0, 2 * np.pi, 2)
    return np.asarray(
        np.sin(np.float32(fx) * x + np.float32(a)) * np.sin(np.float32(fy) * y + np.float32(b)),
        np.float32,
    )


def _contrast(thorax: Thorax, settings: ScanSettings, grid: Grid) -> Floats:
    """Contrast medium in the chambers and great vessels."""
    out = np.zeros(grid.shape, np.float32)
    for k, level in enumerate(grid.z):
        x, y = thorax.warp.to_anatomy(grid.x[None, :], grid.y[:, None], float(level))
        parts = [tube.coverage(x, y, float(level)) for tube, _ in thorax.vessels]
        parts += [chamber.coverage(x, y, float(level)) for chamber, _ in thorax.chambers[2:]]
        out[k] = np.max(parts, axis=0) * np.float32(settings.blood_excess_hu)
    return out


def _double(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear interpolation to twice the resolution, with aligned pixel centres."""
    padded = np.pad(coarse, 1, mode="edge")
    for axis in (0, 1):
        lower = np.take(padded, range(0, padded.shape[axis] - 1), axis)
        upper = np.take(padded, range(1, padded.shape[axis]), axis)
        shape = list(padded.shape)
        shape[axis] = 2 * (shape[axis] - 1)
        fine = np.empty(shape, np.float32)
        even: list[slice] = [slice(None), slice(None)]
        odd: list[slice] = [slice(None), slice(None)]
        even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
        fine[tuple(even)] = 0.75 * lower + 0.25 * upper
        fine[tuple(odd)] = 0.25 * lower + 0.75 * upper
        padded = fine
    return padded[1:-1, 1:-1]
