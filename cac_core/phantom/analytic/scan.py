"""One synthetic CTAC scan: anatomy, arteries, calcium, blur, noise and streaks, with its truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cac_core.phantom.analytic.anatomy import (
    HU_AIR,
    Thorax,
    draw_thorax,
    heart_coverage,
    render_slice,
)
from cac_core.phantom.analytic.blobs import Blobs, Grid, Patch, PointSpread, another_form, render
from cac_core.phantom.analytic.coronaries import Artery, draw_arteries
from cac_core.phantom.analytic.noise import (
    Grain,
    correlated_noise,
    draw_grain,
    heart_noise_hu,
    metal_streaks,
)
from cac_core.phantom.analytic.noncoronary import draw_noncoronary
from cac_core.phantom.analytic.plaques import (
    BLOOD_HU,
    draw_balanced_plaque,
    draw_burden,
    draw_plaque,
    lumen,
    ostial_plaque,
)
from cac_core.phantom.annotated import MIN_CONTRIBUTION_HU, AnnotatedScan, Site
from cac_core.phantom.truth import true_agatston
from schemas.codes import CAC_CATEGORIES

Floats = NDArray[np.float32]

#: Category mix of the external cohort in the paper (Results, first paragraph).
CATEGORY_SHARE = (0.400, 0.262, 0.156, 0.182)
#: How many times as widely as in people hearts lie and arteries stray in scans to learn from.
_BALANCED_SPREAD = 2.0
#: Covered range along the body, from below the heart to above the arch, in mm.
SCAN_RANGE_MM = (-108.0, 112.0)


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """Acquisition and reconstruction of one scan.

    `sharpening` is the overshoot of an edge-enhancing kernel (0 none); `field_radius_mm` the
    circle that is reconstructed, air beyond it; `beating_mm` how far the arteries move apart from
    where they are blurred.
    """

    slice_increment_mm: float
    pixel_spacing_mm: float
    tube_current_ma: float
    kvp: float = 120.0
    n_rows: int = 512
    in_plane_sigma_mm: float = 0.85
    grain: Grain = field(default_factory=Grain)
    motion_sigma_mm: float = 1.0
    beating_mm: float = 0.0
    sharpening: float = 0.0
    shading_hu: float = 0.0
    field_radius_mm: float = 1000.0
    blood_excess_hu: float = 0.0  # contrast medium, for planted defects


@dataclass(frozen=True)
class SyntheticScan(AnnotatedScan):
    """An annotated scan of this generator, with what it was made from."""

    settings: ScanSettings
    target_category: str
    seed: int


def draw_settings(rng: np.random.Generator) -> ScanSettings:
    """Acquisition as in the paper's training sites: 2.5, 3 and 5 mm; 20 to some 400 mA."""
    increment = float(rng.choice([2.5, 3.0, 5.0], p=[0.25, 0.2, 0.55]))
    low_dose = increment == 5.0 or rng.random() < 0.6
    return _draw_look(
        rng,
        increment,
        float(
            rng.choice([20, 30, 60] if increment == 5.0 else [45, 60])
            if low_dose
            else rng.uniform(150, 420)
        ),
    )


def draw_external_settings(rng: np.random.Generator) -> ScanSettings:
    """Acquisition of the paper's external site: 5 mm, 20 mA, 120 kV."""
    settings = _draw_look(rng, 5.0, 20.0)
    return settings if settings.kvp == 120.0 else _draw_look(rng, 5.0, 20.0)


def _draw_look(rng: np.random.Generator, increment: float, current: float) -> ScanSettings:
    spacing = float(rng.choice([0.78125, 0.8789, 0.9766, 1.0742]))
    return ScanSettings(
        slice_increment_mm=increment,
        pixel_spacing_mm=spacing,
        tube_current_ma=current,
        kvp=120.0 if rng.random() < 0.95 else 130.0,
        in_plane_sigma_mm=float(rng.uniform(0.6, 1.1)),
        grain=draw_grain(rng),
        motion_sigma_mm=float(rng.uniform(0.3, 1.5)),
        beating_mm=float(rng.uniform(0.5, 4.0)) if rng.random() < 0.5 else 0.0,
        sharpening=float(rng.uniform(0.1, 0.7)) if rng.random() < 0.35 else 0.0,
        shading_hu=float(rng.uniform(0, 9)),
        field_radius_mm=float(rng.uniform(0.42, 0.5)) * 512 * spacing
        if rng.random() < 0.3
        else 1000.0,
    )


def synthesise_scan(
    seed: int,
    settings: ScanSettings | None = None,
    rare_times: float = 1.0,
    *,
    balanced: bool = False,
) -> SyntheticScan:
    """Make the scan of a seed; the same arguments give the same bytes.

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
    calcium = _Calcium(tissue, settings, grid, calcium_rng)
    blood = render(lumen(arteries), calcium.still, grid)
    # Seen where it runs in fat: blood in muscle or beside the liver looks like these.
    tissue[blood.box] += np.clip(BLOOD_HU - tissue[blood.box], 0, blood.hu)
    for _ in range(2 if balanced else 1):  # twice as much to learn from
        for site, blobs in draw_noncoronary(thorax, arteries, category, calcium_rng, rare_times):
            reshaped = balanced and site is not Site.DEVICE
            calcium.place(site, another_form(blobs, calcium_rng) if reshaped else blobs)
    if balanced:
        for _ in range(int(calcium_rng.integers(4, 16))):
            calcium.add_plaque(*draw_balanced_plaque(arteries, calcium_rng))
    else:
        calcium.grow(arteries, burden)
    clean = calcium.picture(noise_rng)
    area = thorax.body_radii[0] * thorax.body_radii[1] / (175.0 * 115.0)
    sd = heart_noise_hu(settings.tube_current_ma, settings.slice_increment_mm, settings.kvp, area)
    noise = correlated_noise(clean.shape, sd, settings.grain, noise_rng)
    for k in calcium.metal_slices():
        noise[k] += metal_streaks(calcium.metal[k], float(noise_rng.uniform(20, 90)), noise_rng)
    outside = grid.x**2 + (grid.y**2)[:, None] > settings.field_radius_mm**2
    clean[:, outside] = HU_AIR
    noise[:, outside] = 0
    return SyntheticScan(
        hu=_to_hu(clean + noise),
        hu_noise_free=_to_hu(clean),
        heart_mask=heart,
        calcium_site=calcium.sites(),
        spacing_mm=(settings.slice_increment_mm, *(2 * (settings.pixel_spacing_mm,))),
        name=f"synthetic-{seed}",
        settings=settings,
        target_category=category,
        seed=seed,
    )


class _Calcium:
    """Calcium and metal of a scan as it grows, by class, with the site that adds most."""

    def __init__(
        self, tissue: Floats, settings: ScanSettings, grid: Grid, rng: np.random.Generator
    ) -> None:
        self.tissue, self.grid, self.rng = tissue, grid, rng
        self.sharpening = settings.sharpening
        motion, blur, thick = (
            settings.motion_sigma_mm,
            settings.in_plane_sigma_mm,
            settings.slice_increment_mm,
        )
        self.spread = PointSpread(
            (
                float(np.hypot(blur, motion)),
                float(np.hypot(blur, motion * 0.7)),
                motion * 0.8 + 0.3,
            ),
            thick,
        )
        self.still = PointSpread((blur, blur, 0.4), thick)
        beat = rng.normal(size=3) * (1.0, 1.0, 0.6)
        beat *= settings.beating_mm / 2 / np.linalg.norm(beat)
        self.beat = np.stack([beat, -beat]) if settings.beating_mm else np.zeros((1, 3))
        self.coronary = np.zeros_like(tissue)
        self.other = np.zeros_like(tissue)
        self.metal = np.zeros_like(tissue)
        self.coronary_site = np.zeros(tissue.shape, np.uint8)
        self.other_site = np.zeros(tissue.shape, np.uint8)

    def place(self, site: Site, blobs: Blobs) -> None:
        """Add calcium or metal that is no plaque; what lies outside the heart does not move."""
        moving = site not in (
            Site.AORTIC_ARCH,
            Site.DESCENDING_AORTA,
            Site.LYMPH_NODE,
        )
        patch = render(
            blobs.smear(self.beat) if moving else blobs,
            self.spread if moving else self.still,
            self.grid,
        )
        stronger = patch.hu > 0.5 * self.other[patch.box]
        self.other_site[patch.box][stronger] = site
        patch.add_to(self.other)
        if site is Site.DEVICE:
            patch.add_to(self.metal)

    def grow(self, arteries: list[Artery], burden: float) -> None:
        """Add plaques until the noise-free score reaches `burden`.

        A plaque that overshoots by more than a quarter is thrown away and another one tried.
        """
        score = np.zeros(self.grid.shape[0])
        for attempt in range(60):
            if score.sum() >= 0.85 * burden:
                break
            if attempt == 0 and burden > 20 and self.rng.random() < 0.15:
                site, plaque = ostial_plaque(arteries, self.rng)
            else:
                site, plaque = draw_plaque(arteries, burden, self.rng)
            patch = render(plaque.smear(self.beat), self.spread, self.grid)
            trial = score.copy()
            rows, columns = patch.box[1:]
            for k in range(patch.box[0].start, patch.box[0].stop):
                # A lesion may reach beyond the new plaque, into one that it touches.
                wide = np.s_[k : k + 1, _wider(rows), _wider(columns)]
                calcium = self.coronary[wide].copy()
                top, left = wide[1].start, wide[2].start
                calcium[
                    0,
                    rows.start - top : rows.stop - top,
                    columns.start - left : columns.stop - left,
                ] += patch.hu[k - patch.box[0].start]
                outside = self._score(k, calcium=self.coronary[wide], box=wide)
                trial[k] += self._score(k, calcium=calcium, box=wide) - outside
            if trial.sum() <= 1.25 * burden:
                self._add_coronary(site, patch)
                score = trial

    def add_plaque(self, site: Site, plaque: Blobs) -> None:
        """Add a plaque whatever the score."""
        self._add_coronary(site, render(plaque.smear(self.beat), self.spread, self.grid))

    def _add_coronary(self, site: Site, patch: Patch) -> None:
        stronger = patch.hu > 0.5 * self.coronary[patch.box]
        self.coronary_site[patch.box][stronger] = site
        patch.add_to(self.coronary)

    def _score(self, k: int, calcium: Floats, box: tuple[slice, slice, slice]) -> float:
        return true_agatston(
            _to_hu(self.tissue[box] + calcium),
            calcium >= MIN_CONTRIBUTION_HU,
            self.grid.spacing_mm,
        )

    def picture(self, rng: np.random.Generator) -> Floats:
        """Tissue with all that was placed, after the kernel's overshoot and the beam's shading."""
        hu = self.tissue + self.coronary + self.other
        if self.sharpening:
            width = 1.4 / self.grid.spacing_mm[1]
            soft = gaussian_filter(hu, (0, width, width), truncate=2.5)
            # Metal and bone would ring beyond all measure.
            hu += np.float32(self.sharpening) * np.clip(hu - soft, -150, 150)
        return hu

    def metal_slices(self) -> NDArray[np.int64]:
        """Slices in which metal throws streaks."""
        return np.flatnonzero(self.metal.reshape(len(self.metal), -1).max(axis=1) > 600)

    def sites(self) -> NDArray[np.uint8]:
        """The site of each voxel to which calcium or metal adds enough."""
        site = np.where(self.coronary >= self.other, self.coronary_site, self.other_site)
        site[np.maximum(self.coronary, self.other) < MIN_CONTRIBUTION_HU] = Site.NONE
        return site


def _wider(part: slice, margin: int = 6) -> slice:
    return slice(max(0, part.start - margin), part.stop + margin)


def _enclose(
    heart: NDArray[np.bool_], points: NDArray[np.float64], grid: Grid, radius_mm: float = 5.0
) -> None:
    """Take the arteries with the fat around them into the heart mask, as a reader does."""
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
    """Tissue in HU and the heart mask; drawn at half resolution, as its borders are soft."""
    cx = ((grid.x[0::2] + grid.x[1::2]) * np.float32(0.5))[None, :]
    cy = ((grid.y[0::2] + grid.y[1::2]) * np.float32(0.5))[:, None]
    # A thick slice averages what lies in it.
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
        grain = texture[k % len(texture)]
        drawn = [render_slice(thorax, cx, cy, float(plane), grain) for plane in planes]
        tissue[k] = _double(np.mean(drawn, axis=0, dtype=np.float32) + shading)
        warped = thorax.warp.to_anatomy(cx, cy, float(level))
        heart[k] = _double(heart_coverage(thorax, *warped, float(level))) >= 0.5
    return tissue, heart


def _shading(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Slow changes of HU across the picture, as beam hardening leaves them; between -1 and 1."""
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
