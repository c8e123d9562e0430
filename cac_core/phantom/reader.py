"""Readers who annotate synthetic scans, and err as people do.

A reader marks connected components above the threshold on the noisy picture. What goes wrong, and
about how often, follows the paper's review of discrepant cases: small lesions lost in noise, noise
taken for a lesion, ostial plaque and aortic wall confused, circumflex plaque and mitral annulus
confused, valves and leads taken for coronary calcium.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, label

from cac_core.phantom.annotated import AnnotatedScan, Site
from schemas.codes import CAC_CATEGORIES

_THRESHOLD_HU = 130

#: Counts of visual grade (rows) by expert category (columns) in Supplemental Table 3.
_VISUAL_COUNTS = np.array([[740, 53, 2, 4], [219, 478, 279, 117], [3, 17, 81, 278]], float)
#: Studies that the paper's readers called equivocal, among equivocal and present together.
_EQUIVOCAL_SHARE = 28 / 1093

_NEIGHBOURS = {
    Site.LM: (Site.ASCENDING_AORTA, Site.AORTIC_VALVE),
    Site.RCA: (Site.ASCENDING_AORTA, Site.AORTIC_VALVE),
    Site.LCX: (Site.MITRAL_VALVE,),
    Site.ASCENDING_AORTA: (Site.LM, Site.RCA),
    Site.AORTIC_VALVE: (Site.LM, Site.RCA),
    Site.MITRAL_VALVE: (Site.LCX,),
}


@dataclass(frozen=True, slots=True)
class ReaderHabits:
    """How a reader errs.

    `small_mm3` is the volume of a lesion that is seen half of the time at the reference noise;
    `noise_marks` the mean number of noise spots marked per scan; `confused` the share of lesions
    given to a neighbouring structure where the two lie within a few millimetres.
    """

    small_mm3: float = 9.0
    noise_marks: float = 0.12
    confused: float = 0.15
    device_as_calcium: float = 0.05


def annotate(
    scan: AnnotatedScan,
    seed: int,
    habits: ReaderHabits = ReaderHabits(),
) -> NDArray[np.uint8]:
    """A reader's site of each marked voxel, an array of the scan's shape; 0 where not marked."""
    rng = np.random.default_rng([seed, 11])
    marked = np.zeros(scan.hu.shape, np.uint8)
    bright = scan.hu >= _THRESHOLD_HU
    noise = float((scan.hu - scan.hu_noise_free.astype(np.float32))[scan.heart_mask].std())
    for site in Site:
        if site is Site.NONE:
            continue
        parts, _ = label(bright & (scan.calcium_site == site), structure=np.ones((3, 3, 3)))
        for number, box in enumerate(find_objects(parts), start=1):
            lesion = parts[box] == number
            volume = lesion.sum() * float(np.prod(scan.spacing_mm))
            if rng.random() < _seen(volume, noise, habits):
                marked[box][lesion] = _called(scan, box, site, habits, rng)
    _mark_noise(scan, bright, marked, habits, rng)
    return marked


def visual_grade(category: str, seed: int) -> str:
    """A grade as a reporting physician gives it, who sees a scan of this expert category.

    `absent`, `equivocal`, `present` or `extensive`, with the frequencies of the paper's
    Supplemental Table 3.
    """
    rng = np.random.default_rng([seed, 12])
    share = _VISUAL_COUNTS[:, CAC_CATEGORIES.index(category)]
    grade = ("absent", "present", "extensive")[rng.choice(3, p=share / share.sum())]
    return "equivocal" if grade == "present" and rng.random() < _EQUIVOCAL_SHARE else grade


def _seen(volume_mm3: float, noise_hu: float, habits: ReaderHabits) -> float:
    """Probability that a reader sees a lesion: small ones drown in noise."""
    size = habits.small_mm3 * max(noise_hu, 5.0) / 24.0
    return float(1 / (1 + (size / volume_mm3) ** 2.5))


def _called(
    scan: AnnotatedScan,
    box: tuple[slice, ...],
    site: Site,
    habits: ReaderHabits,
    rng: np.random.Generator,
) -> Site:
    """What the reader calls a lesion that is there."""
    if site is Site.DEVICE:
        return Site.LAD if rng.random() < habits.device_as_calcium else site
    others = _NEIGHBOURS.get(site, ())
    if not others or rng.random() >= habits.confused:
        return site
    room = tuple(
        slice(max(0, part.start - reach), part.stop + reach)
        for part, reach in zip(box, (1, 8, 8), strict=True)
    )
    near = [other for other in others if (scan.calcium_site[room] == other).any()]
    # A mouth of an artery lies in the aortic wall even where that wall holds no calcium.
    if not near and site in (Site.LM, Site.LCX) and rng.random() < 0.3:
        near = [others[0]]
    return near[0] if near else site


def _mark_noise(
    scan: AnnotatedScan,
    bright: NDArray[np.bool_],
    marked: NDArray[np.uint8],
    habits: ReaderHabits,
    rng: np.random.Generator,
) -> None:
    """Take some spots of noise in the heart for coronary calcium, the larger ones first."""
    spots = bright & scan.heart_mask & ~binary_dilation(scan.calcium_site > 0)
    parts, count = label(spots, structure=np.ones((3, 3, 3)))
    wanted = min(count, int(rng.poisson(habits.noise_marks)))
    if not wanted:
        return
    size = np.bincount(parts.ravel(), minlength=count + 1)[1:].astype(float)
    weight = size**3
    for number in rng.choice(count, wanted, replace=False, p=weight / weight.sum()):
        marked[parts == number + 1] = rng.choice([Site.LAD, Site.LCX, Site.RCA])
