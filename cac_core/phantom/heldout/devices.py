"""Metal and plastic in the chest: leads, catheters, wires of the sternum, rods of the spine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from cac_core.phantom.heldout.calcium_clouds import Cloud, strand
from cac_core.phantom.heldout.scene import Scene

Points = NDArray[np.float64]

_BONE_HU = 180.0


def even_line(knots: Points) -> Points:
    """A smooth line (n, 3) in mm through these points, with one point per mm."""
    steps = np.maximum(np.linalg.norm(np.diff(knots, axis=0), axis=1), 1e-3)
    at = np.concatenate([[0], np.cumsum(steps)])
    return np.asarray(PchipInterpolator(at, knots)(np.arange(0, at[-1], 1.0)))


def draw_devices(scene: Scene, share: float, rng: np.random.Generator) -> Iterator[Cloud]:
    """Clouds of devices; each kind with the chance `share`, rods of the spine rarely."""
    if rng.random() < share:
        yield from _leads(scene, rng)
    if rng.random() < share:
        yield from _catheter(scene, rng)
    if rng.random() < share:
        yield from _wires(scene, rng)
    if rng.random() < share / 4:
        yield from _rods(scene, rng)


def _vein(scene: Scene, rng: np.random.Generator) -> Points | None:
    """Course (2, 3) of the superior vena cava to the right of the ascending aorta, from above."""
    aorta = scene.line("ascending_aorta")
    if aorta is None:
        return None
    aside = np.array([0.0, rng.uniform(-2, 8), -scene.radii_mm["ascending"] - rng.uniform(7, 12)])
    top = max(float((scene.tissue.shape[0] - 2) * scene.spacing_mm[0]), float(aorta[-1, 0]) + 5)
    low = aorta[0] + aside
    return np.array([[top, *(aorta[-1] + aside)[1:]], low])


def _leads(scene: Scene, rng: np.random.Generator) -> Iterator[Cloud]:
    """One or two leads through the right atrium, to its wall or to the right ventricle."""
    vein, front, right = _vein(scene, rng), scene.line("LAD"), scene.line("RCA")
    if vein is None or front is None or right is None:
        return
    atrium = np.array([right[:, 0].mean(), vein[1, 1] + 5, vein[1, 2] - 5])
    # The apex of the right ventricle lies to the right of the end of the anterior artery.
    apex = front[-1] + np.array([rng.uniform(-6, 8), rng.uniform(0, 14), -rng.uniform(12, 30)])
    valve = 0.5 * (atrium + apex) + np.array([-rng.uniform(4, 12), 0.0, 0.0])
    ends = [[*vein, atrium, valve, apex], [*vein, atrium + rng.normal(0, 5, 3)]]
    for knots in ends[: int(rng.integers(1, 3))]:
        moved = np.array(knots) + rng.normal(0, 1.5, 3)
        yield strand(even_line(moved), rng.uniform(0.9, 1.4), rng.uniform(4000, 12000), rng)


def _catheter(scene: Scene, rng: np.random.Generator) -> Iterator[Cloud]:
    """A central venous catheter down to the right atrium."""
    vein = _vein(scene, rng)
    if vein is not None:
        end = vein[1] - np.array([rng.uniform(-15, 30), 0.0, 0.0])
        knots = np.array([vein[0], vein[1] + np.array([1.0, 0, 0]), end])
        knots = knots[np.argsort(-knots[:, 0])]
        yield strand(even_line(knots), 1.1, rng.uniform(500, 2500), rng)


def _bone_at(scene: Scene, k: int, *, front: bool) -> Points | None:
    """Middle (row, column) of the bone before or behind the heart in a slice, in pixels."""
    rows = np.nonzero(scene.heart.any(axis=0))[0]
    body = np.flatnonzero((scene.tissue[k] > -300).any(axis=0))
    if not rows.size or not body.size:
        return None
    middle, reach = int(body.mean()), round(28 / scene.spacing_mm[2])
    half = int(rows.mean())
    part = np.s_[:half] if front else np.s_[int(np.quantile(rows, 0.95)) :]
    band = scene.tissue[k, part, max(middle - reach, 0) : middle + reach] > _BONE_HU
    if band.sum() < 12:
        return None
    at = np.array([places.mean() for places in np.nonzero(band)])
    return np.asarray(at + np.array([part.start or 0, max(middle - reach, 0)]))


def _wires(scene: Scene, rng: np.random.Generator) -> Iterator[Cloud]:
    """Loops of wire around the sternum, as after open surgery."""
    turn = np.linspace(0, 2 * np.pi, 48)
    for level in np.arange(rng.uniform(0, 20), len(scene.tissue) * scene.spacing_mm[0], 22):
        at = _bone_at(scene, int(level / scene.spacing_mm[0]), front=True)
        if at is None:
            continue
        centre = np.array([level, *(at * scene.spacing_mm[1:])])
        tall, wide = rng.uniform(4, 7), rng.uniform(7, 12)
        loop = np.stack(
            [rng.normal(0, 1.5) * np.sin(turn), tall * np.sin(turn), wide * np.cos(turn)], 1
        )
        yield strand(even_line(centre + loop), 0.7, rng.uniform(5000, 14000), rng)


def _rods(scene: Scene, rng: np.random.Generator) -> Iterator[Cloud]:
    """Two rods along the spine."""
    levels = np.arange(2, len(scene.tissue) - 2, 6)
    found = [(k, at) for k in levels if (at := _bone_at(scene, int(k), front=False)) is not None]
    if len(found) < 3:
        return
    hu = rng.uniform(6000, 12000)
    for side in (-1, 1):
        knots = [[k * scene.spacing_mm[0], *(at * scene.spacing_mm[1:])] for k, at in found]
        aside = np.array([0.0, 12.0, side * 15.0])
        yield strand(even_line(np.array(knots) + aside), 2.6, hu, rng)
