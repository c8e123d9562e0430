"""One synthetic CTAC scan: anatomy, arteries, calcium, blur and noise, with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cac_core.phantom.anatomy import (
    HU_AIR,
    Thorax,
    draw_thorax,
    heart_coverage,
    render_slice,
)
from cac_core.phantom.calcium import (
    PointSpread,
    coronary_courses,
    draw_burden,
    draw_noncoronary,
    draw_plaque,
    lumen,
    render,
)
from cac_core.phantom.noise import correlated_noise, heart_noise_hu
from cac_core.phantom.truth import true_agatston
from schemas.codes import CAC_CATEGORIES

#: Category mix of the external cohort in the paper (Results, first paragraph).
CATEGORY_SHARE = (0.400, 0.262, 0.156, 0.182)
#: A voxel belongs to calcium where calcium adds at least this much to it.
MIN_CONTRIBUTION_HU = 30.0
#: Covered range along the body, from below the heart to above the arch, in mm.
SCAN_RANGE_MM = (-108.0, 112.0)


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """Acquisition and reconstruction of one scan."""

    slice_increment_mm: float
    pixel_spacing_mm: float
    tube_current_ma: float
    kvp: float = 120.0
    n_rows: int = 512
    in_plane_sigma_mm: float = 0.85
    noise_grain_px: float = 0.9
    motion_sigma_mm: float = 1.0
    blood_excess_hu: float = 0.0  # contrast medium, for planted defects


@dataclass(frozen=True)
class SyntheticScan:
    """A scan in canonical orientation (slice to the head, row to the back, column to the left).

    `calcium_class` is 0 for background, 1 coronary, 2 non-coronary: the class that adds more,
    wherever calcium adds at least `MIN_CONTRIBUTION_HU`. All arrays (slice, row, column).
    """

    hu: NDArray[np.int16]
    hu_noise_free: NDArray[np.int16]
    heart_mask: NDArray[np.bool_]
    calcium_class: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    settings: ScanSettings
    target_category: str
    seed: int


def draw_settings(rng: np.random.Generator) -> ScanSettings:
    """Acquisition as in the paper's sites: 2.5, 3 and 5 mm; 20 to some 400 mA; mostly 120 kV."""
    increment = float(rng.choice([2.5, 3.0, 5.0], p=[0.25, 0.2, 0.55]))
    low_dose = increment == 5.0 or rng.random() < 0.6
    return ScanSettings(
        slice_increment_mm=increment,
        pixel_spacing_mm=float(rng.choice([0.78125, 0.8789, 0.9766, 1.0742])),
        tube_current_ma=float(
            rng.choice([20, 30, 60] if increment == 5.0 else [45, 60])
            if low_dose
            else rng.uniform(150, 420)
        ),
        kvp=120.0 if rng.random() < 0.95 else 130.0,
        in_plane_sigma_mm=float(rng.uniform(0.7, 1.05)),
        noise_grain_px=float(rng.uniform(0.75, 1.15)),
        motion_sigma_mm=float(rng.uniform(0.4, 1.5)),
    )


def synthesise_scan(seed: int, settings: ScanSettings | None = None) -> SyntheticScan:
    """Make the scan of a seed; the same seed and settings give the same bytes.

    Anatomy, calcium, acquisition and noise draw from streams of their own, so that the same
    person can be scanned with other settings.
    """
    streams = [np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(4)]
    anatomy_rng, calcium_rng, settings_rng, noise_rng = streams
    settings = settings or draw_settings(settings_rng)
    thorax = draw_thorax(anatomy_rng)
    category = str(calcium_rng.choice(CAC_CATEGORIES, p=CATEGORY_SHARE))
    courses = coronary_courses(thorax, calcium_rng)
    burden = draw_burden(category, calcium_rng)
    elsewhere = draw_noncoronary(thorax, category, calcium_rng)

    x, y, z = _grid(settings)
    motion = settings.motion_sigma_mm
    blur = settings.in_plane_sigma_mm
    spread = PointSpread(
        (float(np.hypot(blur, motion)), float(np.hypot(blur, motion * 0.7)), motion * 0.8 + 0.3),
        settings.slice_increment_mm,
    )
    still = PointSpread((blur, blur, 0.4), settings.slice_increment_mm)
    noncoronary = render(elsewhere, spread, x, y, z)
    tissue, heart = _render_tissue(thorax, settings, x, y, z, noise_rng)
    _enclose(heart, np.concatenate(list(courses.values())), x, y, z)
    tissue += render(lumen(courses), still, x, y, z)
    coronary = _grow(tissue, courses, burden, spread, (x, y, z), calcium_rng)
    if settings.blood_excess_hu:
        tissue += _contrast(thorax, settings, x, y, z)
    tissue += coronary
    tissue += noncoronary
    area = thorax.body_radii[0] * thorax.body_radii[1] / (175.0 * 115.0)
    sd = heart_noise_hu(settings.tube_current_ma, settings.slice_increment_mm, settings.kvp, area)
    noise = correlated_noise(tissue.shape, sd, settings.noise_grain_px, noise_rng)
    classes = np.where(coronary >= noncoronary, np.uint8(1), np.uint8(2))
    classes[np.maximum(coronary, noncoronary) < MIN_CONTRIBUTION_HU] = 0
    return SyntheticScan(
        hu=_to_hu(tissue + noise),
        hu_noise_free=_to_hu(tissue),
        heart_mask=heart,
        calcium_class=classes,
        spacing_mm=(settings.slice_increment_mm, *(2 * (settings.pixel_spacing_mm,))),
        settings=settings,
        target_category=category,
        seed=seed,
    )


def _grow(
    tissue: NDArray[np.float32],
    courses: dict[str, NDArray[np.float64]],
    burden: float,
    spread: PointSpread,
    grid: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Add plaques until the noise-free score reaches `burden`; gives their contribution in HU.

    A plaque that overshoots by more than a quarter is thrown away and another one tried.
    """
    x, y, z = grid
    spacing = (float(z[1] - z[0]), float(y[1] - y[0]), float(x[1] - x[0]))
    total = np.zeros_like(tissue)
    per_slice = np.zeros(len(z))
    for _ in range(60):
        if per_slice.sum() >= 0.85 * burden:
            break
        added = render(draw_plaque(courses, burden, rng), spread, x, y, z)
        touched = np.flatnonzero(added.any(axis=(1, 2)))
        trial = per_slice.copy()
        for k in touched:
            rows = np.flatnonzero((total[k] + added[k]).any(axis=1))
            columns = np.flatnonzero((total[k] + added[k]).any(axis=0))
            box = np.s_[k : k + 1, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            calcium = total[box] + added[box]
            trial[k] = true_agatston(
                _to_hu(tissue[box] + calcium), calcium >= MIN_CONTRIBUTION_HU, spacing
            )
        if trial.sum() <= 1.25 * burden:
            total += added
            per_slice = trial
    return total


def _enclose(
    heart: NDArray[np.bool_],
    points: NDArray[np.float64],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float64],
    radius_mm: float = 5.0,
) -> None:
    """Take the arteries with the fat around them into the heart mask, as a reader does."""
    for px, py, pz in points:
        for k in np.flatnonzero(np.abs(z - pz) <= radius_mm):
            c0, c1 = np.searchsorted(x, [px - radius_mm, px + radius_mm])
            r0, r1 = np.searchsorted(y, [py - radius_mm, py + radius_mm])
            square = (x[c0:c1] - px) ** 2 + ((y[r0:r1] - py) ** 2)[:, None]
            heart[k, r0:r1, c0:c1] |= square <= radius_mm**2 - (z[k] - pz) ** 2


def _grid(
    settings: ScanSettings,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    centre = (settings.n_rows - 1) / 2
    across = ((np.arange(settings.n_rows) - centre) * settings.pixel_spacing_mm).astype(np.float32)
    return across, across, np.arange(*SCAN_RANGE_MM, settings.slice_increment_mm)


def _render_tissue(
    thorax: Thorax,
    settings: ScanSettings,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Tissue in HU and the heart mask; drawn at half resolution, as its borders are soft."""
    cx = ((x[0::2] + x[1::2]) * np.float32(0.5))[None, :]
    cy = ((y[0::2] + y[1::2]) * np.float32(0.5))[:, None]
    # A thick slice averages what lies in it.
    steps = 2 if settings.slice_increment_mm > 4 else 1
    offsets = (np.arange(steps) + 0.5) / steps - 0.5
    texture = gaussian_filter(rng.standard_normal((12, 64, 64), dtype=np.float32), (1, 1.2, 1.2))
    texture = np.repeat(np.repeat(texture / texture.std(), 4, axis=1), 4, axis=2)
    texture = gaussian_filter(texture, (0, 1.5, 1.5))[:, : cy.shape[0], : cx.shape[1]]
    tissue = np.empty((len(z), len(y), len(x)), np.float32)
    heart = np.empty(tissue.shape, np.bool_)
    for k, level in enumerate(z):
        planes = [level + offset * settings.slice_increment_mm for offset in offsets]
        grain = texture[k % len(texture)]
        drawn = [render_slice(thorax, cx, cy, float(plane), grain) for plane in planes]
        tissue[k] = _double(np.mean(drawn, axis=0, dtype=np.float32))
        heart[k] = _double(heart_coverage(thorax, cx, cy, float(level))) >= 0.5
    return tissue, heart


def _contrast(
    thorax: Thorax,
    settings: ScanSettings,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Contrast medium in the chambers and great vessels."""
    out = np.zeros((len(z), len(y), len(x)), np.float32)
    for k, level in enumerate(z):
        parts = [tube.coverage(x[None, :], y[:, None], float(level)) for tube, _ in thorax.vessels]
        parts += [
            chamber.coverage(x[None, :], y[:, None], float(level))
            for chamber, _ in thorax.chambers[2:]
        ]
        out[k] = np.max(parts, axis=0) * np.float32(settings.blood_excess_hu)
    return out


def _double(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear interpolation to twice the resolution, pixel centres kept."""
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


def _to_hu(values: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.rint(values), HU_AIR - 24, 3071).astype(np.int16)
