"""Calcium and metal of an analytic scan, added structure by structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cac_core.phantom.analytic.acquisition import ScanSettings
from cac_core.phantom.analytic.blobs import Blobs, Grid, Patch, PointSpread, render
from cac_core.phantom.analytic.coronaries import Artery
from cac_core.phantom.analytic.plaques import draw_plaque, ostial_plaque
from cac_core.phantom.analytic.tissue import HU_AIR
from cac_core.phantom.annotated import MIN_CONTRIBUTION_HU, Site
from cac_core.phantom.truth import true_agatston

Floats = NDArray[np.float32]


class CalciumImage:
    """Calcium and metal of a scan by class, with the site that contributes most to each voxel."""

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

    def add_noncoronary(self, site: Site, blobs: Blobs) -> None:
        """Add non-coronary calcium or metal; structures outside the heart do not move."""
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

    def add_plaques(self, arteries: list[Artery], burden: float) -> None:
        """Add plaques until the noise-free Agatston score reaches `burden`.

        A plaque that would exceed it by more than a quarter is rejected and another one drawn.
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
                # A lesion may extend beyond the new plaque, into one that it touches.
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
        """Add a plaque regardless of the score."""
        self._add_coronary(site, render(plaque.smear(self.beat), self.spread, self.grid))

    def _add_coronary(self, site: Site, patch: Patch) -> None:
        stronger = patch.hu > 0.5 * self.coronary[patch.box]
        self.coronary_site[patch.box][stronger] = site
        patch.add_to(self.coronary)

    def _score(self, k: int, calcium: Floats, box: tuple[slice, slice, slice]) -> float:
        return true_agatston(
            to_hu(self.tissue[box] + calcium),
            calcium >= MIN_CONTRIBUTION_HU,
            self.grid.spacing_mm,
        )

    def image(self) -> Floats:
        """Tissue with calcium and metal in HU, after edge enhancement, without noise."""
        hu = self.tissue + self.coronary + self.other
        if self.sharpening:
            width = 1.4 / self.grid.spacing_mm[1]
            soft = gaussian_filter(hu, (0, width, width), truncate=2.5)
            # Clipped, as metal and bone would cause extreme overshoot.
            hu += np.float32(self.sharpening) * np.clip(hu - soft, -150, 150)
        return hu

    def metal_slices(self) -> NDArray[np.int64]:
        """Slices in which metal causes streaks."""
        return np.flatnonzero(self.metal.reshape(len(self.metal), -1).max(axis=1) > 600)

    def sites(self) -> NDArray[np.uint8]:
        """Site of each voxel to which calcium or metal adds `MIN_CONTRIBUTION_HU`."""
        site = np.where(self.coronary >= self.other, self.coronary_site, self.other_site)
        site[np.maximum(self.coronary, self.other) < MIN_CONTRIBUTION_HU] = Site.NONE
        return site


def _wider(part: slice, margin: int = 6) -> slice:
    return slice(max(0, part.start - margin), part.stop + margin)


def to_hu(values: Floats) -> NDArray[np.int16]:
    """Values rounded to HU, within the range of a 12-bit scan."""
    return np.clip(np.rint(values), HU_AIR - 24, 3071).astype(np.int16)
