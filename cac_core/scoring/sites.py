"""Calcium by site: which vessel or other structure each lesion belongs to, and the score of each.

A volume of sites has the number of a site in each voxel, 0 for none. Sites decide the class of a
voxel; lesions and their scores come from `label_lesions_of` and `score_calcium`, as for the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cac_core.components import bounding_box
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import CalciumScore, score_calcium
from cac_core.scoring.lesions import CORONARY, NONCORONARY, Lesions, label_lesions_of
from schemas.codes import CalciumSite

#: Number of each site in a volume of sites.
SITE_NUMBERS: dict[CalciumSite, int] = {site: n for n, site in enumerate(CalciumSite, start=1)}
_SITES: tuple[CalciumSite | None, ...] = (None, *CalciumSite)
CORONARY_SITES = (
    CalciumSite.CORONARY, CalciumSite.LM, CalciumSite.LAD, CalciumSite.LCX, CalciumSite.RCA,
)  # fmt: skip
#: Class of each number, 0 background, 1 coronary, 2 non-coronary.
CLASS_OF_SITE = np.array(
    [0, *(CORONARY if site in CORONARY_SITES else NONCORONARY for site in CalciumSite)], np.uint8
)


@dataclass(frozen=True, slots=True, eq=False)
class SiteScore:
    """Score of a volume of sites.

    Parameters
    ----------
    score : of all lesions, as for the model.
    lesions : in the order of `label_lesions`.
    sites : (n,), number of the site that most pixels of each lesion have.
    """

    score: CalciumScore
    lesions: Lesions
    sites: NDArray[np.uint8]

    def agatston(self, site: CalciumSite) -> float:
        """Sum of the lesions of a site; over all coronary sites this is the Agatston score."""
        mine = self.sites == SITE_NUMBERS[site]
        return round(float(self.lesions.agatston[mine].sum()), 9)


def site_named(number: int) -> CalciumSite | None:
    """The site of a number; None for 0."""
    return _SITES[number]


def sites_of_classes(calcium_class: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sites without names from the classes of the model, of the same shape."""
    numbers = (0, SITE_NUMBERS[CalciumSite.CORONARY], SITE_NUMBERS[CalciumSite.NONCORONARY])
    return np.array(numbers, np.uint8)[calcium_class]


def score_sites(
    hu: NDArray[np.int16],
    sites: NDArray[np.uint8],
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    protocol: ScoringProtocol,
    threshold_hu: float,
    within: tuple[slice, slice, slice] | None = None,
) -> SiteScore:
    """Score a volume of sites; arrays (slice, row, column).

    Only the box around the sites is read, so that a correction shows its score at once.

    Parameters
    ----------
    sites : number of the site of each voxel.
    heart_mask : calcium outside is ignored.
    spacing_mm : slice, row, column spacing.
    protocol, threshold_hu : as in `label_lesions`.
    within : box that is known to hold all sites; without one the whole volume is searched.
    """
    box = _box_of(sites, within)
    part, classes = sites[box], CLASS_OF_SITE[sites[box]]
    found, named = label_lesions_of(
        part, hu[box], classes, heart_mask[box], spacing_mm, protocol, threshold_hu
    )
    moved = _moved(found, box)
    return SiteScore(score_calcium(moved, protocol), moved, named)


def _box_of(
    sites: NDArray[np.uint8], within: tuple[slice, slice, slice] | None
) -> tuple[slice, slice, slice]:
    """The smallest box around all sites; one voxel where there are none."""
    found = bounding_box((sites if within is None else sites[within]) > 0)
    if found is None:
        return slice(0, 1), slice(0, 1), slice(0, 1)
    if within is None:
        return found
    moved = [
        slice(part.start + whole.start, part.stop + whole.start)
        for part, whole in zip(found, within, strict=True)
    ]
    return moved[0], moved[1], moved[2]


def _moved(lesions: Lesions, box: tuple[slice, slice, slice]) -> Lesions:
    """Lesions of a box at their place in the volume."""
    return replace(
        lesions,
        slice_index=lesions.slice_index + box[0].start,
        centroid_row=lesions.centroid_row + box[1].start,
        centroid_column=lesions.centroid_column + box[2].start,
    )
