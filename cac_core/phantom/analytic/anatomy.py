"""Anatomy of an analytic thorax, drawn from a seed.

Coordinates are millimetres in the patient's frame: x to the left, y to the back, z to the head,
with the origin in the middle of the heart's slice range and of the field of view. Sizes are those
of adults. A `Warp` deforms the image, so the analytic shapes are only the starting point of a
person's anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cac_core.phantom.analytic.shapes import Ellipsoid, Tube, smooth_curve, straight_line
from cac_core.phantom.analytic.warp import Warp, draw_warp


@dataclass(frozen=True)
class HeartFrame:
    """Axes of the heart: u to the lateral wall, v to the sternum, w from base to apex."""

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]  # rows u, v, w in patient coordinates
    scale: float

    def to_patient(self, local: NDArray[np.float64]) -> NDArray[np.float64]:
        """Patient coordinates of points (n, 3) in the coordinates of a heart of scale 1."""
        return np.asarray(self.centre + self.scale * (local @ self.axes))


@dataclass(frozen=True)
class Thorax:
    """Anatomy of one person."""

    sex: str
    frame: HeartFrame
    warp: Warp
    chambers: tuple[tuple[Ellipsoid, float], ...]  # with HU; walls before cavities
    pericardium: tuple[Ellipsoid, ...]
    vessels: tuple[tuple[Tube, float], ...]
    aorta: Tube
    superior_vena_cava: Tube
    airways: tuple[Tube, ...]
    body_radii: tuple[float, float]
    wall_mm: float
    breast_mm: float
    arms: tuple[Ellipsoid, ...]
    mediastinum_mm: tuple[float, float]
    stomach: Ellipsoid
    left_lobe: Ellipsoid | None  # of the liver; the heart rests on it with little fat between
    organ_hu: float
    lung_hu: float
    epicardial_fat_hu: float
    spine: tuple[float, float, float]  # x, y, radius
    rib_phase: float
    diaphragm_z: tuple[float, float]  # right, left
    heart_top_z: float

    @property
    def cavity_radii(self) -> tuple[float, float]:
        """Half axes of the inner rib cage, mm."""
        ax, ay = self.body_radii
        return ax - self.wall_mm - 17, ay - 0.8 * self.wall_mm - 15

    def muscle_depth(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Largest depth in any chamber; positive inside heart muscle or blood."""
        return np.asarray(np.max([chamber.depth(points) for chamber, _ in self.chambers], axis=0))


def draw_thorax(rng: np.random.Generator, spread: float = 1.0) -> Thorax:
    """Draw the anatomy of one person.

    Parameters
    ----------
    spread : variation of heart axes and chambers relative to patients; above 1 the heart is also
        rotated about its long axis, and the warp is stronger by the square root.
    """
    # Long, because the order of the draws determines the scan of a seed.
    sex = str(rng.choice(["F", "M"], p=[0.45, 0.55]))
    inspired = float(rng.uniform(0, 1))  # 0 end-expiration, as in the paper, to 1 inspiration
    frame = _draw_frame(rng, sex, inspired, spread)
    wall = float(rng.uniform(12, 52))
    size = 1.0 if sex == "M" else 0.94
    body = (
        size * float(rng.uniform(140, 172)) + wall * 0.8,
        size * float(rng.uniform(98, 118)) + 8 * inspired + wall * 0.8,
    )
    spine = (float(rng.normal(0, 4)), body[1] - wall * 0.55 - 46.0, float(rng.uniform(16, 22)))
    aorta = _aorta(frame, spine, rng)
    blood = float(rng.uniform(32, 54))
    trunk = Tube(
        smooth_curve(
            frame.to_patient(np.array([[-2, 26, 2], [2, 25, -12], [8, 18, -30]], float)), 40
        ),
        float(rng.uniform(11, 15)),
    )
    cava = Tube(
        straight_line(
            aorta.points[10] + np.array([-32, 8, 60]), frame.centre + np.array([-46, 22, 8]), 60
        ),
        float(rng.uniform(8, 11)),
    )
    base = -22.0 - 26.0 * inspired
    chambers = _chambers(frame, blood, rng, spread)
    left_main_z = float(frame.to_patient(np.array([[10.0, 18.0, -12.0]]))[0, 2])
    thorax = Thorax(
        sex=sex,
        frame=frame,
        warp=draw_warp(rng, float(rng.uniform(1.0, 6.0) * np.sqrt(spread))),
        chambers=chambers,
        pericardium=_pericardium(frame, chambers, rng),
        vessels=tuple((tube, blood) for tube in (aorta, trunk, cava, *_tubes(frame, spine, rng))),
        aorta=aorta,
        superior_vena_cava=cava,
        airways=_airways(aorta, spine),
        body_radii=body,
        wall_mm=wall,
        breast_mm=float(rng.uniform(8, 38)) if sex == "F" else 0.0,
        arms=_arms(body, rng) if rng.random() < 0.12 else (),
        mediastinum_mm=(float(rng.uniform(6, 28)), float(rng.uniform(18, 34))),
        stomach=_stomach(base, rng),
        left_lobe=None,
        organ_hu=55.0,
        lung_hu=float(rng.uniform(-890, -820) + 90 * (1 - inspired)),
        epicardial_fat_hu=float(rng.uniform(-105, -72)),
        spine=spine,
        rib_phase=float(rng.uniform(0, 30)),
        diaphragm_z=(base + float(rng.uniform(-14, 8)), base - 12 + float(rng.uniform(-14, 8))),
        # Readers outline the heart up to the bifurcation of the pulmonary trunk.
        heart_top_z=left_main_z + float(rng.uniform(13, 19)) * frame.scale,
    )
    lobe = _left_lobe(frame, chambers, rng) if rng.random() < 0.75 else None
    return replace(thorax, left_lobe=lobe, organ_hu=float(rng.uniform(44, 66)))


def _draw_frame(rng: np.random.Generator, sex: str, inspired: float, spread: float) -> HeartFrame:
    # The heart is upright in inspiration and lies on the diaphragm in expiration.
    apex = np.array([0.62, -0.55, -0.42 - 0.22 * inspired]) + rng.normal(0, 0.1 * spread, 3)
    apex /= np.linalg.norm(apex)
    lateral = np.array([1.0, 0.0, 0.0]) - apex[0] * apex
    lateral /= np.linalg.norm(lateral)
    if spread > 1:  # rotated about its long axis
        turn = rng.normal(0, 0.1 * spread)
        lateral = np.cos(turn) * lateral + np.sin(turn) * np.cross(apex, lateral)
    centre = np.array([rng.uniform(4, 28), rng.uniform(-32, -10), rng.normal(0, 6)])
    scale = float(rng.uniform(0.84, 1.08) if sex == "F" else rng.uniform(0.92, 1.18))
    return HeartFrame(centre, np.stack([lateral, np.cross(apex, lateral), apex]), scale)


def _ellipsoid(frame: HeartFrame, local: tuple[float, float, float], radii: object) -> Ellipsoid:
    centre = frame.to_patient(np.array([local], float))[0]
    return Ellipsoid(centre, np.asarray(radii, float) * frame.scale, frame.axes)


def _chambers(
    frame: HeartFrame, blood: float, rng: np.random.Generator, spread: float
) -> tuple[tuple[Ellipsoid, float], ...]:
    def size(low: float, high: float) -> float:
        room = (high - low) / 2 * (spread - 1)
        return float(rng.uniform(low - room, high + room))

    muscle = blood + float(rng.uniform(2, 12))
    wall = float(rng.uniform(8, 12))
    left = np.array([28.0, 28.0, 44.0]) * size(0.93, 1.05)
    parts = [
        ((12, -8, 24), left, muscle),
        ((-16, 14, 18), np.array([26.0, 24.0, 38.0]) * size(0.95, 1.08), muscle),
        ((8, -20, -28), np.array([27.0, 20.0, 19.0]) * size(0.9, 1.15), blood),
        ((-32, -2, -20), np.array([20.0, 24.0, 23.0]) * size(0.9, 1.1), blood),
        ((12, -8, 22), left - wall, blood),
        ((-16, 14, 17), np.array([22.0, 20.0, 33.0]), blood),
    ]
    return tuple((_ellipsoid(frame, local, radii), hu) for local, radii, hu in parts)


def _pericardium(
    frame: HeartFrame, chambers: tuple[tuple[Ellipsoid, float], ...], rng: np.random.Generator
) -> tuple[Ellipsoid, ...]:
    """The chambers with a layer of fat, and filling of the grooves between them."""
    fat = float(rng.uniform(5, 12))
    layers = [
        Ellipsoid(wall.centre, wall.radii + fat * rng.uniform(0.8, 1.2), wall.axes)
        for wall, _ in chambers[:4]
    ]
    full = 0.92 + 0.016 * fat
    return (
        _ellipsoid(frame, (0, 0, 6), np.array([43.0, 40.0, 52.0]) * full),
        _ellipsoid(frame, (-8, -6, -20), np.array([45.0, 38.0, 34.0]) * full),
        _ellipsoid(frame, (-2, 14, -24), np.array([30.0, 25.0, 34.0]) * full),
        *layers,
    )


def _aorta(frame: HeartFrame, spine: tuple[float, float, float], rng: np.random.Generator) -> Tube:
    root = frame.to_patient(np.array([[-4.0, 6.0, -10.0]]))[0]
    side = frame.scale * rng.uniform(0.9, 1.1)
    top = root[2] + 88 + rng.normal(0, 5)
    back = np.array([spine[0] + 24.0, spine[1] - 8.0, 0.0])
    knots = np.array(
        [
            root,
            root + np.array([-9 * side, -4, 28]),
            root + np.array([-12 * side, 0, 56]),
            [root[0] - 2, root[1] + 16, top - 6],
            [root[0] + 18, (root[1] + back[1]) / 2 + 6, top],
            [back[0], back[1] - 4, top - 26],
            [back[0], back[1], 20],
            [back[0] - 6, back[1] + 2, -60],
            [back[0] - 12, back[1] + 2, -190],
        ]
    )
    return Tube(smooth_curve(knots, 420), float(rng.uniform(12.5, 16.5)))


def _tubes(
    frame: HeartFrame, spine: tuple[float, float, float], rng: np.random.Generator
) -> tuple[Tube, ...]:
    """Oesophagus, pulmonary arteries, and pulmonary veins at the left atrium."""
    oesophagus = np.array([spine[0] + rng.uniform(-4, 10), spine[1] - rng.uniform(27, 36), 0.0])
    knots = [
        [(8, 18, -30), (30, 4, -40), (62, -6, -46)],
        [(8, 18, -30), (-24, 4, -44), (-66, -8, -40)],
        [(18, -22, -34), (44, -34, -38), (70, -44, -36)],
        [(16, -26, -22), (40, -44, -20), (66, -58, -14)],
        [(-6, -20, -36), (-36, -24, -40), (-70, -30, -36)],
        [(-6, -26, -26), (-34, -40, -22), (-66, -52, -14)],
    ]
    ends = np.array([oesophagus, oesophagus])
    ends[:, 2] = -110.0, 115.0
    tubes = [Tube(straight_line(ends[0], ends[1], 230), float(rng.uniform(5, 9)))]
    for number, line in enumerate(knots):
        course = frame.to_patient(np.array(line, float) + rng.normal(0, 3, (3, 3)))
        radius = rng.uniform(8, 11) if number < 2 else rng.uniform(4.5, 7.5)
        tubes.append(Tube(smooth_curve(course, 50), float(radius)))
    return tuple(tubes)


def _stomach(dome_z: float, rng: np.random.Generator) -> Ellipsoid:
    """Gas in the stomach under the left dome of the diaphragm, of variable volume."""
    radii = rng.uniform(0.1, 1.0) * np.array([34.0, 30.0, 24.0])
    centre = np.array([rng.uniform(50, 80), rng.uniform(-40, 0), dome_z - 26.0 - radii[2]])
    return Ellipsoid(centre, radii, np.eye(3))


def _left_lobe(
    frame: HeartFrame, chambers: tuple[tuple[Ellipsoid, float], ...], rng: np.random.Generator
) -> Ellipsoid:
    """The left lobe of the liver, up to the lower half of the heart."""
    bottoms = [
        wall.centre[2] - np.sqrt(((wall.axes[:, 2] * wall.radii) ** 2).sum())
        for wall, _ in chambers[:4]
    ]
    radii = np.array([rng.uniform(75, 115), rng.uniform(65, 95), rng.uniform(35, 60)])
    top = min(bottoms) + float(rng.uniform(12, 45))
    centre = frame.centre[:2] + np.array([rng.uniform(-25, 20), rng.uniform(-10, 15)])
    return Ellipsoid(np.array([*centre, top - radii[2]]), radii, np.eye(3))


def _airways(aorta: Tube, spine: tuple[float, float, float]) -> tuple[Tube, ...]:
    """Trachea and main bronchi behind the great vessels."""
    fork = np.array([spine[0] * 0.5, spine[1] - 38.0, aorta.points[:, 2].max() - 28.0])
    return (
        Tube(straight_line(fork, fork + np.array([0.0, 2.0, 80.0]), 80), 8.5),
        Tube(straight_line(fork, fork + np.array([42.0, 6.0, -34.0]), 60), 6.0),
        Tube(straight_line(fork, fork + np.array([-40.0, 6.0, -30.0]), 60), 6.5),
    )


def _arms(body: tuple[float, float], rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    """Upper arms beside the chest, for patients who cannot raise them."""
    radius = float(rng.uniform(38, 52))
    lateral = body[0] + radius + float(rng.uniform(0, 12))
    return tuple(
        Ellipsoid(
            np.array([side * lateral, rng.uniform(-10, 30), 0.0]),
            np.array([radius, radius * 1.1, 4000.0]),
            np.eye(3),
        )
        for side in (-1, 1)
    )
