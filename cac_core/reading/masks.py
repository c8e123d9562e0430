"""The masks of a reading: heart and calcium by site, corrected step by step, with a live score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cac_core.components import bounding_box
from cac_core.errors import UsageError
from cac_core.protocol import ScoringProtocol
from cac_core.reading.corrections import (
    MOST_GROWN,
    Assign,
    EditHeart,
    Grow,
    Paint,
    Voxels,
    brightest_near,
    connected_voxels,
    disc_pixels,
    parse_correction,
)
from cac_core.scoring.sites import SITE_NUMBERS, SiteScore, score_sites
from schemas.codes import CalciumSite


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """One correction, the voxels it changed, and what they were before."""

    correction: Mapping[str, object]
    voxels: Voxels
    sites_before: NDArray[np.uint8]
    heart_before: NDArray[np.bool_]
    sites_after: NDArray[np.uint8]
    heart_after: NDArray[np.bool_]


@dataclass(eq=False)
class ReadingMasks:
    """Masks of one reading, arrays (slice, row, column).

    Parameters
    ----------
    hu : the scan.
    heart : heart mask, changed in place.
    sites : number of the site of each voxel (`SITE_NUMBERS`), changed in place.
    spacing_mm : slice, row, column spacing.
    protocol, threshold_hu : rules of the score.
    """

    hu: NDArray[np.int16]
    heart: NDArray[np.bool_]
    sites: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    protocol: ScoringProtocol
    threshold_hu: float
    #: Box that holds the heart and all sites: nothing outside is looked at.
    _box: tuple[slice, slice, slice] = field(init=False)
    _done: list[_Change] = field(default_factory=list)
    _undone: list[_Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find the box once; corrections of the heart extend it."""
        found = bounding_box(self.heart | (self.sites > 0))
        self._box = found or (slice(0, 1), slice(0, 1), slice(0, 1))

    @property
    def corrections(self) -> list[Mapping[str, object]]:
        """Corrections that hold, in their order."""
        return [change.correction for change in self._done]

    @property
    def can_redo(self) -> bool:
        """Whether a correction was undone and nothing was corrected since."""
        return bool(self._undone)

    def score(self) -> SiteScore:
        """The score of the masks as they are, by the functions that score a study."""
        return score_sites(
            self.hu,
            self.sites,
            self.heart,
            self.spacing_mm,
            self.protocol,
            self.threshold_hu,
            self._box,
        )

    def correct(self, value: object) -> list[int]:
        """Apply a correction given as JSON; return the slices that it changed.

        Raises
        ------
        UsageError
            If it is no correction, lies outside of the scan, or changes nothing.
        """
        correction = parse_correction(value)
        self._require_inside(correction)
        if isinstance(correction, Assign):
            change = self._assigned(correction)
        elif isinstance(correction, Grow):
            change = self._grown(correction)
        elif isinstance(correction, Paint):
            change = self._painted(correction)
        else:
            change = self._heart_edited(correction)
        if not len(change.voxels):
            raise UsageError("Nothing changes.", "It is so already, or nothing is there.")
        self._done.append(change)
        self._undone.clear()
        return self._apply(change)

    def undo(self) -> list[int]:
        """Take the last correction back; the slices that changed, none without a correction."""
        if not self._done:
            return []
        change = self._done.pop()
        self._undone.append(change)
        self.sites.reshape(-1)[change.voxels] = change.sites_before
        self.heart.reshape(-1)[change.voxels] = change.heart_before
        return self._slices(change)

    def redo(self) -> list[int]:
        """Apply the correction that was undone last; the slices that changed."""
        if not self._undone:
            return []
        change = self._undone.pop()
        self._done.append(change)
        return self._apply(change)

    def _apply(self, change: _Change) -> list[int]:
        self.sites.reshape(-1)[change.voxels] = change.sites_after
        self.heart.reshape(-1)[change.voxels] = change.heart_after
        return self._slices(change)

    def _slices(self, change: _Change) -> list[int]:
        return [int(k) for k in np.unique(change.voxels // self.hu[0].size)]

    def _require_inside(self, correction: Assign | Grow | Paint | EditHeart) -> None:
        outside = correction.slice >= self.hu.shape[0]
        if isinstance(correction, Assign | Grow):
            outside |= correction.row >= self.hu.shape[1] or correction.column >= self.hu.shape[2]
        if outside:
            raise UsageError("The correction lies outside of the scan.")

    def _assigned(self, correction: Assign) -> _Change:
        seed = (correction.slice, correction.row, correction.column)
        near = brightest_near(self.hu, seed, self._marked)
        if near is None:
            raise UsageError("No calcium is marked here.", "Click on a marked lesion.")
        same = self.sites[self._box] == self.sites[near]
        voxels = self._connected(same, near, correction.extent)
        return self._change(correction, voxels, site=correction.site)

    def _grown(self, correction: Grow) -> _Change:
        seed = (correction.slice, correction.row, correction.column)
        if not self.heart[seed]:
            raise UsageError("This is outside of the heart.", "Extend the heart contour first.")
        box = self._box
        possible = self.heart[box] & (self.sites[box] == 0) & (self.hu[box] >= self.threshold_hu)
        near = brightest_near(self.hu, seed, self._unmarked)
        if near is None:
            raise UsageError(f"Nothing unmarked reaches {self.threshold_hu:g} HU here.")
        voxels = self._connected(possible, near, correction.extent)
        if len(voxels) > MOST_GROWN:
            raise UsageError(
                f"What is connected here has {len(voxels)} voxels, too many for a plaque.",
                "Grow it in this slice alone, or use the brush.",
            )
        return self._change(correction, voxels, site=correction.site)

    def _unmarked(self, at: tuple[int, int, int]) -> bool:
        """Whether a voxel can be calcium of the heart and is not marked."""
        bright = self.hu[at] >= self.threshold_hu
        return bool(self.heart[at] and self.sites[at] == 0 and bright)

    def _marked(self, at: tuple[int, int, int]) -> bool:
        return bool(self.sites[at] > 0)

    def _connected(
        self, mask: NDArray[np.bool_], seed: tuple[int, int, int], extent: str
    ) -> Voxels:
        """Voxels of the volume that are connected with a seed in a mask of the box."""
        local = [at - part.start for at, part in zip(seed, self._box, strict=True)]
        found = connected_voxels(
            mask,
            (local[0], local[1], local[2]),
            whole=extent == "calcification",
            connectivity=self.protocol.connectivity,
        )
        index = np.unravel_index(found, mask.shape)
        moved = tuple(axis + side.start for axis, side in zip(index, self._box, strict=True))
        return np.asarray(np.ravel_multi_index(moved, self.hu.shape), np.intp)

    def _painted(self, correction: Paint) -> _Change:
        k = correction.slice
        under = disc_pixels(correction.points, correction.radius_px, self.hu[k].shape)
        under &= (
            self.sites[k] > 0
            if correction.site is None
            else (self.hu[k] >= self.threshold_hu) & self.heart[k]
        )
        return self._change(correction, self._in_slice(k, under), site=correction.site)

    def _heart_edited(self, correction: EditHeart) -> _Change:
        k, reach = correction.slice, correction.reach
        under = disc_pixels(correction.points, correction.radius_px, self.hu[k].shape)
        slices = range(max(0, k - reach), min(len(self.hu), k + reach + 1))
        voxels = np.concatenate([self._in_slice(n, under) for n in slices])
        if correction.add and under.any():
            self._extend(slices, under)
        return self._change(correction, voxels, heart=correction.add)

    def _extend(self, slices: range, plane: NDArray[np.bool_]) -> None:
        """Extend the box by what is added to the heart."""
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        ends = ((slices[0], slices[-1]), (rows[0], rows[-1]), (columns[0], columns[-1]))
        wider = [
            slice(min(part.start, int(low)), max(part.stop, int(high) + 1))
            for part, (low, high) in zip(self._box, ends, strict=True)
        ]
        self._box = (wider[0], wider[1], wider[2])

    def _in_slice(self, k: int, plane: NDArray[np.bool_]) -> Voxels:
        return np.asarray(k * plane.size + np.flatnonzero(plane), np.intp)

    def _change(
        self,
        correction: Assign | Grow | Paint | EditHeart,
        voxels: Voxels,
        *,
        site: CalciumSite | None = None,
        heart: bool | None = None,
    ) -> _Change:
        """The change of voxels that are not so already: of their site, or of the heart."""
        sites, hearts = self.sites.reshape(-1), self.heart.reshape(-1)
        if heart is None:
            number = 0 if site is None else SITE_NUMBERS[site]
            voxels = voxels[sites[voxels] != number]
            after = np.full(len(voxels), number, np.uint8), hearts[voxels]
        else:
            voxels = voxels[hearts[voxels] != heart]
            after = sites[voxels], np.full(len(voxels), heart, np.bool_)
        before = sites[voxels], hearts[voxels]
        return _Change(correction.model_dump(mode="json"), voxels, *before, *after)
