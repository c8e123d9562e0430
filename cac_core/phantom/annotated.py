"""A scan with its truth, as returned by every generator."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

#: A voxel belongs to calcium if calcium adds at least this many HU: twice the noise of a low-dose
#: scan. With less, a voxel of blood reaches 130 HU by noise rather than by calcium.
MIN_CONTRIBUTION_HU = 50.0


class Site(IntEnum):
    """Site of a calcification or device; the labels of the paper, and devices."""

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
        """Whether calcium at the site counts towards the coronary score; a stent is a device."""
        return Site.LM <= self <= Site.RCA


#: Class (0 background, 1 coronary, 2 non-coronary) by site; index it with an array of sites.
CLASS_OF_SITE = np.array([0, *(1 if s.is_coronary else 2 for s in list(Site)[1:])], np.uint8)


@dataclass(frozen=True)
class AnnotatedScan:
    """A scan in canonical orientation: slices to the head, rows to the back, columns to the left.

    All arrays (slice, row, column). `calcium_site` is the `Site` that contributes most to each
    voxel to which calcium or metal adds at least `MIN_CONTRIBUTION_HU`. `hu_noise_free` is `hu`
    before noise and streaks. `spacing_mm` is slice increment, row spacing, column spacing.
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


#: Cause of an error by site, as an index into `cac_core.evaluation.lesion_errors.CAUSES`: noise,
#: valve, aorta, device, pericardium, node.
CAUSE_OF_SITE = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 4, 5, 3], np.uint8)
