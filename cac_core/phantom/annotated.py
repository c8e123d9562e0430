"""A scan with its truth: what every generator gives, whatever way it made the picture."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

#: A voxel belongs to calcium where calcium adds at least this much to it: twice the noise of a
#: low-dose scan. With less, a voxel of blood reaches 130 HU by noise rather than by calcium.
MIN_CONTRIBUTION_HU = 50.0


class Site(IntEnum):
    """Where a calcification (or a metal part) lies; the labels of the paper, and devices."""

    NONE = 0
    LM = 1
    LAD = 2
    LCX = 3
    RCA = 4
    AORTIC_VALVE = 5
    MITRAL_VALVE = 6
    TRICUSPID_VALVE = 7
    PULMONARY_VALVE = 8
    ASCENDING_AORTA = 9
    AORTIC_ARCH = 10
    DESCENDING_AORTA = 11
    PERICARDIUM = 12
    LYMPH_NODE = 13
    DEVICE = 14

    @property
    def is_coronary(self) -> bool:
        """Whether calcium here counts to the coronary score; a stent is a device."""
        return Site.LM <= self <= Site.RCA


#: Class (0 background, 1 coronary, 2 non-coronary) of each site, to index with an array of sites.
CLASS_OF_SITE = np.array([0, *(1 if s.is_coronary else 2 for s in list(Site)[1:])], np.uint8)


@dataclass(frozen=True)
class AnnotatedScan:
    """A scan in canonical orientation (slice to the head, row to the back, column to the left).

    `calcium_site` holds a `Site` wherever calcium or metal adds at least `MIN_CONTRIBUTION_HU`:
    the one that adds most. `hu_noise_free` is `hu` before noise and streaks. All arrays (slice,
    row, column); `spacing_mm` is slice increment, row spacing, column spacing.
    """

    hu: NDArray[np.int16]
    hu_noise_free: NDArray[np.int16]
    heart_mask: NDArray[np.bool_]
    calcium_site: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    name: str

    @property
    def calcium_class(self) -> NDArray[np.uint8]:
        """0 for background, 1 coronary, 2 non-coronary."""
        classes: NDArray[np.uint8] = CLASS_OF_SITE[self.calcium_site]
        return classes


#: Cause of a miss or a false alarm that a site stands for, as an index into
#: `cac_core.evaluation.lesion_errors.CAUSES`: noise, valve, aorta, device, pericardium, node.
CAUSE_OF_SITE = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 4, 5, 3], np.uint8)
