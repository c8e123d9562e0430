"""Non-coronary calcium and devices in and around the heart, at all sites listed in the paper."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cac_core.phantom.analytic.anatomy import Thorax
from cac_core.phantom.analytic.blobs import Blobs, Points, chain, draw_sigmas
from cac_core.phantom.analytic.coronaries import Artery, resample
from cac_core.phantom.annotated import Site

Found = tuple[Site, Blobs]

#: Relative amount of non-coronary calcium by coronary category.
_BURDEN = {"0": 0.5, "1-100": 0.8, "101-400": 1.1, ">400": 1.4}
#: Share of people with a pacing lead, sternal wires and a stent (discrepant cases of the paper).
_LEAD_SHARE, _WIRE_SHARE, _STENT_SHARE = 0.05, 0.04, 0.04


def draw_noncoronary(
    thorax: Thorax,
    arteries: list[Artery],
    category: str,
    rng: np.random.Generator,
    rare_times: float = 1.0,
) -> list[Found]:
    """Calcium of valves, aorta, pericardium and lymph nodes, and devices, in mm of the image.

    Parameters
    ----------
    rare_times : frequency of rare sites (all but mitral valve, aortic valve and aorta) relative to
        patients.
    """
    more = _BURDEN[category]
    found = [
        *_valves(thorax, more, rare_times, rng),
        *_aortic_wall(thorax, more, rng),
        *_pericardium(thorax, rare_times, rng),
        *_nodes(thorax, rare_times, rng),
        *_leads(thorax, rare_times, rng),
        *_wires(thorax, rare_times, rng),
    ]
    bent = [(site, _bend(thorax, blobs)) for site, blobs in found]
    return [*bent, *_stents(arteries, rare_times * _BURDEN[category], rng)]


def _bend(thorax: Thorax, blobs: Blobs) -> Blobs:
    return Blobs(thorax.warp.to_image(blobs.centres), blobs.sigmas, blobs.peaks)


def _valves(
    thorax: Thorax, more: float, rare_times: float, rng: np.random.Generator
) -> Iterator[Found]:
    to_patient = thorax.frame.to_patient
    if rng.random() < 0.17 * more:  # next to the circumflex
        angles = rng.uniform(-0.5, 1.3) + np.linspace(0, rng.uniform(0.15, 2.6), 24)
        wide = rng.uniform(0.85, 1.15)
        ring = np.stack(
            [
                15 + 19 * wide * np.cos(angles),
                -14 - 17 * wide * np.sin(angles),
                0 * angles + rng.uniform(-9, -3),
            ],
            axis=1,
        )
        yield (
            Site.MITRAL_VALVE,
            chain(to_patient(ring), draw_sigmas(rng, 24, 1.2), float(rng.uniform(400, 1300))),
        )
    for site, share, place, count in (
        (Site.AORTIC_VALVE, 0.2, (-4, 6, -9), 5),
        (Site.TRICUSPID_VALVE, 0.012 * rare_times, (-22, -2, -4), 3),
        (Site.PULMONARY_VALVE, 0.012 * rare_times, (0, 26, -6), 3),
    ):
        if rng.random() < share * more:
            for _ in range(int(rng.integers(1, count))):
                at = to_patient(np.array([place]) + rng.normal(0, 5, (1, 3)))
                leaf = at + rng.normal(0, 1.3, (4, 3))
                yield site, chain(leaf, draw_sigmas(rng, 4, 1.0), float(rng.uniform(300, 1000)))


def _aortic_wall(thorax: Thorax, more: float, rng: np.random.Generator) -> Iterator[Found]:
    for site, share, first, last in (
        (Site.ASCENDING_AORTA, 0.26, 2, 70),
        (Site.AORTIC_ARCH, 0.3, 110, 200),
        (Site.DESCENDING_AORTA, 0.35, 210, 400),
    ):
        if rng.random() < share * more:
            for _ in range(int(rng.integers(1, 6))):
                yield site, _wall_plaque(thorax, int(rng.integers(first, last)), rng)


def _wall_plaque(thorax: Thorax, at: int, rng: np.random.Generator) -> Blobs:
    """A plaque in the aortic wall."""
    centre, tangent = thorax.aorta.points[at], thorax.aorta.points[at + 1] - thorax.aorta.points[at]
    tangent = tangent / np.linalg.norm(tangent)
    side = np.cross(tangent, rng.normal(size=3))
    side /= np.linalg.norm(side)
    other = np.cross(tangent, side)
    angles = np.linspace(0, rng.uniform(0.1, 0.9), 8)[:, None]
    rim = centre + thorax.aorta.radius * (np.cos(angles) * side + np.sin(angles) * other)
    return chain(rim, draw_sigmas(rng, 8, 1.0), float(rng.uniform(300, 1200)))


def _pericardium(thorax: Thorax, rare_times: float, rng: np.random.Generator) -> Iterator[Found]:
    """Calcified sheets on the surface of the heart."""
    if rng.random() >= 0.03 * rare_times:
        return
    shell = thorax.pericardium[0]
    for _ in range(int(rng.integers(1, 4))):
        theta, phi = rng.uniform(0, 2 * np.pi), rng.uniform(-0.9, 0.9)
        sweep = np.linspace(0, rng.uniform(0.15, 0.6), 14)
        local = np.stack(
            [
                np.cos(theta + sweep) * np.cos(phi),
                np.sin(theta + sweep) * np.cos(phi),
                np.full(14, np.sin(phi)),
            ],
            axis=1,
        )
        sheet = shell.centre + (local * shell.radii * 0.97) @ shell.axes
        yield (
            Site.PERICARDIUM,
            chain(sheet, draw_sigmas(rng, 14, 0.9), float(rng.uniform(400, 1200))),
        )


def _nodes(thorax: Thorax, rare_times: float, rng: np.random.Generator) -> Iterator[Found]:
    """Calcified lymph nodes at the hila and below the carina."""
    if rng.random() >= 0.05 * rare_times:
        return
    for _ in range(int(rng.integers(1, 4))):
        place = np.array([rng.choice([-46, -8, 48]), -22.0, -38.0]) + rng.normal(0, 7, 3)
        at = thorax.frame.to_patient(place[None])
        cluster = at + rng.normal(0, rng.uniform(1.0, 2.5), (6, 3))
        yield Site.LYMPH_NODE, Blobs(cluster, draw_sigmas(rng, 6, 1.4), rng.uniform(250, 1200, 6))


def _leads(thorax: Thorax, rare_times: float, rng: np.random.Generator) -> Iterator[Found]:
    """Pacing leads through the superior vena cava to right ventricle, atrium or coronary sinus."""
    if rng.random() >= _LEAD_SHARE * rare_times:
        return
    cava = thorax.superior_vena_cava.points
    ends: list[Points] = [np.array([[-32, -2, -16], [-22, 2, 0], [-14, 6, 26], [-8, 4, 44]], float)]
    if rng.random() < 0.5:
        ends.append(np.array([[-34, 4, -20], [-28, 16, -14]], float))
    if rng.random() < 0.25:  # through the coronary sinus to the lateral vein
        ends.append(np.array([[-28, -8, -12], [4, -34, -6], [36, -26, -2], [44, -8, 22]], float))
    for end in ends:
        inside = thorax.frame.to_patient(end + rng.normal(0, 2, end.shape))
        line = resample(np.concatenate([cava[::6][:-1], inside]), 1.0)
        yield (
            Site.DEVICE,
            chain(line, np.full(len(line), 0.7), float(np.exp(rng.uniform(7.3, 9.0)))),
        )
        # The tip electrode.
        yield Site.DEVICE, chain(line[-6:], np.full(6, 1.0), float(rng.uniform(4000, 9000)))


def _wires(thorax: Thorax, rare_times: float, rng: np.random.Generator) -> Iterator[Found]:
    """Sternal wires after surgery, and clips along a graft."""
    if rng.random() >= _WIRE_SHARE * rare_times:
        return
    front = -thorax.cavity_radii[1] - 6
    for level in np.arange(-60, 70, 26) + rng.normal(0, 3):
        angles = np.linspace(0, 2 * np.pi, 30)
        loop = np.stack(
            [14 * np.cos(angles), front + 8 * np.sin(angles), level + 3 * np.sin(angles / 2)], 1
        )
        yield Site.DEVICE, chain(loop, np.full(30, 0.6), float(rng.uniform(3000, 6000)))
    for at in np.array([[6, 34, 0], [8, 33, 14], [10, 32, 26]], float):
        if rng.random() < 0.7:
            clip = thorax.frame.to_patient((at + rng.normal(0, 2, 3))[None])
            yield Site.DEVICE, chain(clip, np.full(1, 0.9), float(rng.uniform(3000, 8000)))


def _stents(arteries: list[Artery], more: float, rng: np.random.Generator) -> Iterator[Found]:
    """A stent in an artery; more frequent in people with calcium."""
    if rng.random() >= _STENT_SHARE * more:
        return
    mains = [a for a in arteries if not a.is_branch and a.site is not Site.LM]
    artery = mains[rng.integers(len(mains))]
    start = int(rng.integers(4, max(5, len(artery.line) // 2)))
    part = artery.line[start : start + int(rng.integers(10, 28))]
    yield (
        Site.DEVICE,
        chain(part, np.full(len(part), artery.radius_mm), float(rng.uniform(700, 1500))),
    )
