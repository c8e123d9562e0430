"""Simulated readers of synthetic scans, with errors of human readers.

A reader marks connected components above the threshold on the noisy scan. Kinds and approximate
rates of errors follow the paper's review of discrepant cases: small lesions missed in noise, noise
marked as a lesion, ostial plaque confused with aortic wall, circumflex plaque with mitral annulus,
valves and leads marked as coronary calcium.
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
#: Share of equivocal grades among equivocal and present, in the paper.
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
    """Error rates of a reader.

    `small_mm3` is the volume of a lesion that is detected with probability 0.5 at the reference
    noise; `noise_marks` the mean number of noise spots marked per scan; `confused` the share of
    lesions assigned to a neighbouring structure within a few millimetres; `device_as_calcium` the
    share of devices marked as coronary calcium.
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
    """Site of each marked voxel, of the shape of the scan; 0 where nothing is marked."""
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
            if rng.random() < _detection_probability(volume, noise, habits):
                marked[box][lesion] = _assigned_site(scan, box, site, habits, rng)
    _mark_noise(scan, bright, marked, habits, rng)
    return marked


def visual_grade(category: str, seed: int) -> str:
    """A visual grade of a scan of this expert category.

    `absent`, `equivocal`, `present` or `extensive`, with the frequencies of Supplemental Table 3.
    """
    rng = np.random.default_rng([seed, 12])
    share = _VISUAL_COUNTS[:, CAC_CATEGORIES.index(category)]
    grade = ("absent", "present", "extensive")[rng.choice(3, p=share / share.sum())]
    return "equivocal" if grade == "present" and rng.random() < _EQUIVOCAL_SHARE else grade


def _detection_probability(volume_mm3: float, noise_hu: float, habits: ReaderHabits) -> float:
    """Detection probability of a lesion: small lesions are lost in noise."""
    size = habits.small_mm3 * max(noise_hu, 5.0) / 24.0
    return float(1 / (1 + (size / volume_mm3) ** 2.5))


def _assigned_site(
    scan: AnnotatedScan,
    box: tuple[slice, ...],
    site: Site,
    habits: ReaderHabits,
    rng: np.random.Generator,
) -> Site:
    """Site that the reader assigns to a lesion."""
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
    # An ostium lies in the aortic wall even if that wall has no calcium.
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
    """Mark some noise spots in the heart as coronary calcium, preferably large ones."""
    spots = bright & scan.heart_mask & ~binary_dilation(scan.calcium_site > 0)
    parts, count = label(spots, structure=np.ones((3, 3, 3)))
    wanted = min(count, int(rng.poisson(habits.noise_marks)))
    if not wanted:
        return
    size = np.bincount(parts.ravel(), minlength=count + 1)[1:].astype(float)
    weight = size**3
    for number in rng.choice(count, wanted, replace=False, p=weight / weight.sum()):
        marked[parts == number + 1] = rng.choice([Site.LAD, Site.LCX, Site.RCA])
