"""Where calcium and devices lie in a scene, in patients and in people with much calcium."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cac_core.phantom.annotated import Site
from cac_core.phantom.heldout.calcium_clouds import (
    Cloud,
    clump,
    lined,
    plaque,
    sheet,
    strand,
)
from cac_core.phantom.heldout.devices import draw_devices
from cac_core.phantom.heldout.look import Look
from cac_core.phantom.heldout.scene import Scene

Points = NDArray[np.float64]
Placed = tuple[Site, Cloud]

#: Names of the lines of the arteries in a scene.
ARTERIES = {Site.LM: "LM", Site.LAD: "LAD", Site.LCX: "LCX", Site.RCA: "RCA"}


def arteries_of(scene: Scene) -> dict[Site, Points]:
    """The lines of the arteries that the scene has."""
    found = {site: scene.line(name) for site, name in ARTERIES.items()}
    return {site: line for site, line in found.items() if line is not None}


def draw_plaque(
    arteries: dict[Site, Points],
    radius_mm: float,
    target: float,
    look: Look,
    rng: np.random.Generator,
) -> Placed:
    """A plaque in one of these arteries, by the shares of the look."""
    chance = np.array([look.artery_shares[site - Site.LM] for site in arteries])
    site = list(arteries)[rng.choice(len(chance), p=chance / chance.sum())]
    return site, plaque(arteries[site], radius_mm, target, rng)


def lined_arteries(scene: Scene, radius_mm: float, rng: np.random.Generator) -> Iterator[Placed]:
    """One to four arteries lined with calcium, often together with their surroundings.

    The aortic root at the origins and the mitral annulus beside the circumflex are calcified too
    in half of these people, so that coronary and other calcium touch.
    """
    arteries = list(arteries_of(scene).items())
    for index in rng.permutation(len(arteries))[: int(rng.integers(1, 5))]:
        site, line = arteries[index]
        yield site, lined(line, radius_mm, rng)
    if rng.random() < 0.5:
        for name in ("LM", "RCA"):
            line = scene.line(name)
            if line is not None:
                root = line[0] - 2.5 * (line[1] - line[0]) / np.linalg.norm(line[1] - line[0])
                yield Site.ASCENDING_AORTA, clump(root, 1.6, rng)
    if rng.random() < 0.5:
        yield from _annulus(scene, "mitral_annulus", Site.MITRAL_VALVE, rng)


def noncoronary(
    scene: Scene, target: float, look: Look, rng: np.random.Generator
) -> Iterator[Placed]:
    """Non-coronary calcium and devices, mostly of valves and aorta.

    Parameters
    ----------
    target : Agatston score of the person; people with more have more elsewhere.
    """
    more = (0.5 + 0.16 * np.log1p(target)) * look.noncoronary_times
    if scene.valve is not None and rng.random() < 0.2 * more:
        for _ in range(int(rng.integers(1, 5))):
            yield Site.AORTIC_VALVE, clump(scene.valve + rng.normal(0, 4, 3), 1.2, rng)
    if rng.random() < 0.18 * more:
        yield from _annulus(scene, "mitral_annulus", Site.MITRAL_VALVE, rng)
    if rng.random() < 0.01 * more:
        yield from _annulus(scene, "tricuspid_annulus", Site.TRICUSPID_VALVE, rng)
    yield from _aortic_walls(scene, more, rng)
    yield from _rare(scene, look, rng)
    for cloud in draw_devices(scene, look.device_share, rng):
        yield Site.DEVICE, cloud


def _annulus(scene: Scene, name: str, site: Site, rng: np.random.Generator) -> Iterator[Placed]:
    ring = scene.line(name)
    if ring is not None:
        n = max(2, int(rng.uniform(0.3, 1.0) * len(ring)))
        begin = int(rng.integers(0, max(1, len(ring) - n)))
        part = ring[begin : begin + n]
        yield site, strand(part, rng.uniform(1.0, 2.2), rng.uniform(300, 1100), rng)


def _aortic_walls(scene: Scene, more: float, rng: np.random.Generator) -> Iterator[Placed]:
    for site, part, share in (
        (Site.ASCENDING_AORTA, "ascending", 0.3),
        (Site.DESCENDING_AORTA, "descending", 0.4),
    ):
        line = scene.line(f"{part}_aorta")
        if line is None or part not in scene.radii_mm:
            continue
        for _ in range(int(rng.poisson(1.2)) if rng.random() < share * more else 0):
            k = int(rng.integers(0, len(line) - 1))
            tangent, radius = line[k + 1] - line[k], scene.radii_mm[part]
            yield site, sheet(line[k], tangent, radius, rng.uniform(3, 9), rng)


def _rare(scene: Scene, look: Look, rng: np.random.Generator) -> Iterator[Placed]:
    """Calcium of the pericardium and of lymph nodes, and stents."""
    front, main = scene.line("LAD"), scene.line("LM")
    if front is not None and rng.random() < 0.04 * look.noncoronary_times:
        arc = front[-1] + np.cumsum(rng.normal(0, 0.6, (14, 3)), axis=0) + rng.normal(0, 3, 3)
        yield Site.PERICARDIUM, strand(arc, 1.2, rng.uniform(300, 900), rng)
    if main is not None and rng.random() < 0.05 * look.noncoronary_times:
        node = main[0] + np.array([rng.uniform(-8, 12), rng.uniform(22, 34), -20.0])
        yield Site.LYMPH_NODE, clump(node, 2.5, rng)
    course = scene.line(str(rng.choice(["LAD", "RCA"])))
    if course is not None and rng.random() < 0.04 * look.noncoronary_times:
        begin = int(rng.integers(5, max(6, len(course) // 2)))
        stent = course[begin : begin + 18]
        yield Site.DEVICE, strand(stent, 1.8, rng.uniform(700, 1500), rng)
