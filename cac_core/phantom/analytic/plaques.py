"""Coronary plaques from pinpoint to confluent, and the calcium burden of a person."""

from __future__ import annotations

import numpy as np

from cac_core.phantom.analytic.blobs import Blobs, Points, chain, draw_sigmas, randomise_shape
from cac_core.phantom.analytic.coronaries import Artery
from cac_core.phantom.annotated import Site

#: Share of plaques per artery; most are in the LAD, as in patients.
_ARTERY_SHARE = {Site.LM: 0.08, Site.LAD: 0.46, Site.LCX: 0.18, Site.RCA: 0.28}
#: HU of blood: an artery raises its surroundings up to this value.
BLOOD_HU = 45.0


def lumen(arteries: list[Artery]) -> Blobs:
    """The lumen of the arteries: blood in fat, about 120 HU above its surroundings."""
    return Blobs.join([chain(a.line, np.full(len(a.line), a.radius_mm), 125.0) for a in arteries])


def draw_burden(category: str, rng: np.random.Generator) -> float:
    """Target Agatston score of a person in the category.

    Distributed within the categories so that a cohort has the quantiles of the paper's external
    cohort (Supplemental Table 1: median 15, upper quartile 208).
    """
    u = float(rng.random())
    if category == "0":
        return 0.0
    if category == "1-100":
        return 1.5 + 98.0 * u * u
    low, high = (104.0, 396.0) if category == "101-400" else (405.0, 2800.0)
    return float(low * (high / low) ** u)


def draw_plaque(
    arteries: list[Artery], burden: float, rng: np.random.Generator
) -> tuple[Site, Blobs]:
    """One coronary plaque, larger for a high burden: eccentric, spotty or concentric."""
    size = float(np.clip(np.log10(burden + 10) / 2.3, 0.45, 1.4))
    site = list(_ARTERY_SHARE)[rng.choice(4, p=list(_ARTERY_SHARE.values()))]
    choices = [a for a in arteries if a.site is site]
    weights = np.array([0.35 if a.is_branch else 1.0 for a in choices])
    artery = choices[rng.choice(len(choices), p=weights / weights.sum())]
    length = float(np.clip(rng.lognormal(1.3, 0.8) * size**2, 1.0, 45.0))
    # Plaques are mostly in the proximal half of an artery, occasionally at its ostium.
    reach = 0.05 if rng.random() < 0.08 else 0.85
    start = int(len(artery.line) * rng.beta(1.1, 2.2) * reach)
    part = artery.line[start : start + max(1, round(length))]
    sigma = float(np.clip(rng.lognormal(-0.05, 0.35) * size, 0.45, 2.0))
    density = float(np.clip(rng.lognormal(6.6, 0.5), 300, 2600))
    wall = rng.normal(size=3)
    wall *= artery.radius_mm * rng.uniform(0, 0.9) / np.linalg.norm(wall)
    kind = rng.random()
    if kind < 0.3 and len(part) > 3:  # spots
        part = part[np.sort(rng.choice(len(part), max(2, len(part) // 3), replace=False))]
        spread = rng.normal(0, 0.6 * artery.radius_mm, part.shape)
        return site, Blobs(
            part + spread,
            draw_sigmas(rng, len(part), sigma),
            density * rng.uniform(0.5, 1.0, len(part)),
        )
    part = part + wall + rng.normal(0, 0.25, part.shape)
    return site, chain(part, draw_sigmas(rng, len(part), sigma), density)


def draw_balanced_plaque(arteries: list[Artery], rng: np.random.Generator) -> tuple[Site, Blobs]:
    """A plaque of a balanced scan: uniform over arteries and positions, of any size and shape."""
    if rng.random() < 0.1:
        site, blobs = ostial_plaque(arteries, rng)
        return site, randomise_shape(blobs, rng)
    sites = list(_ARTERY_SHARE)
    site = sites[rng.integers(len(sites))]
    choices = [a for a in arteries if a.site is site]
    line = choices[rng.integers(len(choices))].line
    length = float(np.clip(rng.lognormal(1.0, 0.9), 1.0, 30.0))
    start = int(rng.integers(0, max(1, len(line) - round(length))))
    part = line[start : start + max(1, round(length))]
    sigma, peak = float(rng.uniform(0.5, 1.8)), float(np.clip(rng.lognormal(6.5, 0.5), 300, 2600))
    part = part + rng.normal(0, 0.7, 3)
    return site, randomise_shape(chain(part, draw_sigmas(rng, len(part), sigma), peak), rng)


def ostial_plaque(arteries: list[Artery], rng: np.random.Generator) -> tuple[Site, Blobs]:
    """A plaque at the ostium of the left main or right coronary artery, at the aortic wall."""
    site = Site.LM if rng.random() < 0.6 else Site.RCA
    line = next(a for a in arteries if a.site is site).line
    # The first points of the course are inside the aorta.
    start = int(rng.integers(6, 10)) if site is Site.LM else int(rng.integers(1, 5))
    part: Points = line[start : start + int(rng.integers(2, 6))]
    return site, chain(part, draw_sigmas(rng, len(part), 1.0), float(rng.uniform(400, 1100)))
