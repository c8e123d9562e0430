"""Soft tissue, lung and bone of an analytic thorax, rendered slice by slice.

Coordinates are millimetres in the patient's frame: x to the left, y to the back, z to the head,
with the origin in the middle of the heart's slice range and of the field of view. Sizes follow
ordinary adults; HU values are those of textbooks at 120 kV (fat -100, muscle 50, blood 40,
marrow 150, cortical bone 700, inflated lung -850). A `Warp` bends the whole picture, so that the
analytic shapes below are only where each person starts from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from cac_core.phantom.analytic.warp import Floats, Warp, draw_warp

HU_AIR, HU_FAT, HU_MUSCLE = -1000.0, -100.0, 50.0
_WARP_ROOM_MM = 25.0  # more than a warp bends a row or a column of the picture
_DIAPHRAGM_MM = 2.0  # diaphragm and fat between the heart muscle and the liver
_EDGE_MM = 1.6  # width of a tissue border: what the kernel of an attenuation scan leaves of it


@dataclass(frozen=True)
class Ellipsoid:
    """A rotated ellipsoid: `axes` holds its three unit axes as rows, in patient coordinates."""

    centre: NDArray[np.float64]
    radii: NDArray[np.float64]
    axes: NDArray[np.float64]

    def coverage(self, x: Floats, y: Floats, z: float) -> Floats:
        """Share of each pixel inside, 0 to 1, with a soft border; x and y broadcast."""
        norm = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
        dx, dy, dz = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        for axis, radius in zip(self.axes, self.radii, strict=True):
            along = dx * np.float32(axis[0] / radius) + dy * np.float32(axis[1] / radius)
            along += np.float32(axis[2] * dz / radius)
            norm += along * along
        return _soft((1 - np.sqrt(norm)) * np.float32(self.radii.min()))

    def depth(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 at the centre, 0 on the surface, negative outside; points (n, 3)."""
        local = (points - self.centre) @ self.axes.T / self.radii
        return np.asarray(1 - np.sqrt((local**2).sum(axis=1)))

    def reaches(self, z: float) -> bool:
        """Whether a slice at z can meet the ellipsoid."""
        half = float(np.sqrt(((self.axes[:, 2] * self.radii) ** 2).sum()))
        return abs(z - float(self.centre[2])) <= half + 2 * _EDGE_MM


@dataclass(frozen=True)
class Tube:
    """A tube along a polyline, drawn as discs where it crosses a slice."""

    points: NDArray[np.float64]  # (n, 3), mm
    radius: float

    def coverage(self, x: Floats, y: Floats, z: float) -> Floats:
        """Share of each pixel inside, 0 to 1; the tube may run along or across the slice."""
        near = self.points[np.abs(self.points[:, 2] - z) < self.radius]
        x, y = np.broadcast_arrays(x, y)
        best = np.zeros(x.shape, np.float32)
        for px, py, pz in near:
            radius = np.sqrt(self.radius**2 - (pz - z) ** 2)
            box = _near(x, y, px, py, self.radius + _WARP_ROOM_MM)
            distance = np.sqrt((x[box] - np.float32(px)) ** 2 + (y[box] - np.float32(py)) ** 2)
            np.maximum(best[box], _soft(np.float32(radius) - distance), out=best[box])
        return best


@dataclass(frozen=True)
class HeartFrame:
    """The heart's own axes: u to the lateral wall, v to the sternum, w from base to apex."""

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]  # rows u, v, w in patient coordinates
    scale: float

    def to_patient(self, local: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n, 3) given in heart coordinates of a heart of scale 1."""
        return np.asarray(self.centre + self.scale * (local @ self.axes))


@dataclass(frozen=True)
class Thorax:
    """One person's anatomy; every number drawn from one seed."""

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
    left_lobe: Ellipsoid | None  # of the liver: the heart rests on it with next to no fat between
    organ_hu: float
    lung_hu: float
    epicardial_fat_hu: float
    spine: tuple[float, float, float]  # x, y, radius
    rib_phase: float
    diaphragm_z: tuple[float, float]  # right, left
    heart_top_z: float

    @property
    def cavity_radii(self) -> tuple[float, float]:
        """Half axes of the inside of the rib cage, mm."""
        ax, ay = self.body_radii
        return ax - self.wall_mm - 17, ay - 0.8 * self.wall_mm - 15

    def muscle_depth(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Largest depth in any chamber wall; positive inside the heart muscle or its blood."""
        return np.asarray(np.max([chamber.depth(points) for chamber, _ in self.chambers], axis=0))


def draw_thorax(rng: np.random.Generator, spread: float = 1.0) -> Thorax:
    """Draw one person's anatomy: sex, size, breathing state, heart position, and all the rest.

    `spread` is how many times as widely as in people the heart's axes and chambers vary; above 1
    the heart is also turned about its long axis, and the whole picture is bent by root-spread more.
    """
    sex = str(rng.choice(["F", "M"], p=[0.45, 0.55]))
    inspired = float(rng.uniform(0, 1))  # 0 end-expiration, as in the paper, to 1 deep breath
    frame = _draw_frame(rng, sex, inspired, spread)
    wall = float(rng.uniform(12, 52))
    grown = 1.0 if sex == "M" else 0.94
    body = (
        grown * float(rng.uniform(140, 172)) + wall * 0.8,
        grown * float(rng.uniform(98, 118)) + 8 * inspired + wall * 0.8,
    )
    spine = (float(rng.normal(0, 4)), body[1] - wall * 0.55 - 46.0, float(rng.uniform(16, 22)))
    aorta = _aorta(frame, spine, rng)
    blood = float(rng.uniform(32, 54))
    trunk = Tube(
        _smooth(frame.to_patient(np.array([[-2, 26, 2], [2, 25, -12], [8, 18, -30]], float)), 40),
        float(rng.uniform(11, 15)),
    )
    cava = Tube(
        _line(aorta.points[10] + np.array([-32, 8, 60]), frame.centre + np.array([-46, 22, 8]), 60),
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


def render_slice(thorax: Thorax, px: Floats, py: Floats, z: float, texture: Floats) -> Floats:
    """HU of tissue, lung and bone in the plane z, without coronaries, calcium and noise.

    Parameters
    ----------
    px, py : pixel centres in the picture, mm, shapes (1, columns) and (rows, 1).
    texture : tissue texture of shape (rows, columns), mean 0 and standard deviation 1.
    """
    x, y = thorax.warp.to_anatomy(px, py, z)
    ax, ay = thorax.body_radii
    body = _ellipse(x, y, 0.0, 0.0, ax, ay)
    for side in (-1.0, 1.0) if thorax.breast_mm else ():
        breast = _ellipse(x, y, side * 0.5 * ax, -0.72 * ay, 62.0, 0.3 * ay + thorax.breast_mm)
        body = np.maximum(body, breast * (-120 < z < 60))
    hu = HU_AIR + body * np.float32(HU_FAT - HU_AIR)
    cavity = thorax.cavity_radii
    hu = _blend(hu, _ellipse(x, y, 0.0, 2.0, cavity[0] + 17, cavity[1] + 15), HU_MUSCLE)
    inside = _ellipse(x, y, 0.0, 0.0, *cavity)
    lung = np.float32(thorax.lung_hu) + 45 * texture
    hu = hu + inside * (lung - hu)
    hu = _blend(hu, inside * _mediastinum(thorax, x, y), thorax.epicardial_fat_hu + 15)
    hu = _blend(hu, inside * _organs(thorax, x, y, z), thorax.organ_hu)
    hu = _blend(hu, inside * thorax.stomach.coverage(x, y, z), -960.0)
    hu = _blend(hu, heart_coverage(thorax, x, y, z), thorax.epicardial_fat_hu)
    for airway in thorax.airways:
        hu = _blend(hu, airway.coverage(x, y, z), -950.0)
    for vessel, value in thorax.vessels:
        hu = _blend(hu, vessel.coverage(x, y, z), value)
    for chamber, value in thorax.chambers:
        if chamber.reaches(z):
            hu = _blend(hu, chamber.coverage(x, y, z), value)
    hu += 4 * texture * (hu > -300)
    hu = _bones(thorax, hu, x, y, z, cavity)
    for arm in thorax.arms:
        hu = _arm(hu, arm, x, y, z)
    return _blend(hu, _table(px, py, ay), -300.0)


def heart_coverage(thorax: Thorax, x: Floats, y: Floats, z: float) -> Floats:
    """Share of each pixel inside the heart silhouette, as a reader would outline it."""
    best = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    parts = [part for part in thorax.pericardium if part.reaches(z)]
    for part in parts:
        np.maximum(best, part.coverage(x, y, z), out=best)
    if not parts or z > thorax.heart_top_z:
        return np.zeros_like(best)
    if thorax.left_lobe is not None and thorax.left_lobe.reaches(z):
        muscle = np.zeros_like(best)
        for wall, _ in thorax.chambers[:4]:
            if wall.reaches(z):
                grown = Ellipsoid(wall.centre, wall.radii + _DIAPHRAGM_MM, wall.axes)
                np.maximum(muscle, grown.coverage(x, y, z), out=muscle)
        best = np.maximum(np.minimum(best, muscle), best * (1 - thorax.left_lobe.coverage(x, y, z)))
    # A heart does not grow into the ribs or the spine.
    a, b = thorax.cavity_radii
    best *= _ellipse(x, y, 0.0, 0.0, a - 3, b - 3)
    sx, sy, radius = thorax.spine
    return best * (1 - _ellipse(x, y, sx, sy, radius * 1.15 + 4, radius + 4))


def _draw_frame(rng: np.random.Generator, sex: str, inspired: float, spread: float) -> HeartFrame:
    # The heart hangs down in inspiration and lies on the diaphragm in expiration.
    apex = np.array([0.62, -0.55, -0.42 - 0.22 * inspired]) + rng.normal(0, 0.1 * spread, 3)
    apex /= np.linalg.norm(apex)
    lateral = np.array([1.0, 0.0, 0.0]) - apex[0] * apex
    lateral /= np.linalg.norm(lateral)
    if spread > 1:  # turned about its long axis, to either side
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
    """The chambers with a layer of fat, and what fills the grooves between them."""
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
    return Tube(_smooth(knots, 420), float(rng.uniform(12.5, 16.5)))


def _tubes(
    frame: HeartFrame, spine: tuple[float, float, float], rng: np.random.Generator
) -> tuple[Tube, ...]:
    """The gullet; pulmonary arteries above the left atrium, and the veins that enter it."""
    gullet = np.array([spine[0] + rng.uniform(-4, 10), spine[1] - rng.uniform(27, 36), 0.0])
    knots = [
        [(8, 18, -30), (30, 4, -40), (62, -6, -46)],
        [(8, 18, -30), (-24, 4, -44), (-66, -8, -40)],
        [(18, -22, -34), (44, -34, -38), (70, -44, -36)],
        [(16, -26, -22), (40, -44, -20), (66, -58, -14)],
        [(-6, -20, -36), (-36, -24, -40), (-70, -30, -36)],
        [(-6, -26, -26), (-34, -40, -22), (-66, -52, -14)],
    ]
    ends = np.array([gullet, gullet])
    ends[:, 2] = -110.0, 115.0
    tubes = [Tube(_line(ends[0], ends[1], 230), float(rng.uniform(5, 9)))]
    for number, line in enumerate(knots):
        course = frame.to_patient(np.array(line, float) + rng.normal(0, 3, (3, 3)))
        radius = rng.uniform(8, 11) if number < 2 else rng.uniform(4.5, 7.5)
        tubes.append(Tube(_smooth(course, 50), float(radius)))
    return tuple(tubes)


def _stomach(dome_z: float, rng: np.random.Generator) -> Ellipsoid:
    """Gas under the left dome of the diaphragm, much or next to none."""
    radii = rng.uniform(0.1, 1.0) * np.array([34.0, 30.0, 24.0])
    centre = np.array([rng.uniform(50, 80), rng.uniform(-40, 0), dome_z - 26.0 - radii[2]])
    return Ellipsoid(centre, radii, np.eye(3))


def _left_lobe(
    frame: HeartFrame, chambers: tuple[tuple[Ellipsoid, float], ...], rng: np.random.Generator
) -> Ellipsoid:
    """The left lobe of the liver, as high as the lower half of the heart."""
    bottoms = [
        wall.centre[2] - np.sqrt(((wall.axes[:, 2] * wall.radii) ** 2).sum())
        for wall, _ in chambers[:4]
    ]
    radii = np.array([rng.uniform(75, 115), rng.uniform(65, 95), rng.uniform(35, 60)])
    top = min(bottoms) + float(rng.uniform(12, 45))
    place = frame.centre[:2] + np.array([rng.uniform(-25, 20), rng.uniform(-10, 15)])
    return Ellipsoid(np.array([*place, top - radii[2]]), radii, np.eye(3))


def _airways(aorta: Tube, spine: tuple[float, float, float]) -> tuple[Tube, ...]:
    """Trachea and main bronchi behind the great vessels."""
    fork = np.array([spine[0] * 0.5, spine[1] - 38.0, aorta.points[:, 2].max() - 28.0])
    return (
        Tube(_line(fork, fork + np.array([0.0, 2.0, 80.0]), 80), 8.5),
        Tube(_line(fork, fork + np.array([42.0, 6.0, -34.0]), 60), 6.0),
        Tube(_line(fork, fork + np.array([-40.0, 6.0, -30.0]), 60), 6.5),
    )


def _arms(body: tuple[float, float], rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    """Upper arms beside the chest: some patients cannot lift them."""
    radius = float(rng.uniform(38, 52))
    place = body[0] + radius + float(rng.uniform(0, 12))
    return tuple(
        Ellipsoid(
            np.array([side * place, rng.uniform(-10, 30), 0.0]),
            np.array([radius, radius * 1.1, 4000.0]),
            np.eye(3),
        )
        for side in (-1, 1)
    )


def _arm(hu: Floats, arm: Ellipsoid, x: Floats, y: Floats, z: float) -> Floats:
    hu = _blend(hu, arm.coverage(x, y, z), HU_FAT)
    cx, cy, radius = float(arm.centre[0]), float(arm.centre[1]), float(arm.radii[0])
    hu = _blend(hu, _ellipse(x, y, cx, cy, radius - 8, radius - 4), HU_MUSCLE)
    hu = _blend(hu, _ellipse(x, y, cx, cy, 12, 12), 900.0)
    return _blend(hu, _ellipse(x, y, cx, cy, 8, 8), 90.0)


def _smooth(knots: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """A monotone cubic through the knots, sampled at n points."""
    steps = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(steps)])
    return np.asarray(PchipInterpolator(at, knots)(np.linspace(0, at[-1], n)))


def _line(start: NDArray[np.float64], end: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    return start + np.linspace(0, 1, n)[:, None] * (end - start)


def _mediastinum(thorax: Thorax, x: Floats, y: Floats) -> Floats:
    """A band of fat from the sternum to the spine that parts the lungs."""
    front, back = thorax.mediastinum_mm
    half = front + (back - front) * np.clip((y + 60) / 110, 0, 1)
    return _soft(half - np.abs(x - np.float32(thorax.spine[0]))) * np.ones_like(y)


def _organs(thorax: Thorax, x: Floats, y: Floats, z: float) -> Floats:
    """Liver and spleen under the domes of the diaphragm, and the lobe under the heart."""
    best = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    lobe = thorax.left_lobe
    if lobe is not None and z <= lobe.centre[2] + lobe.radii[2] + 2 * _EDGE_MM:
        level = z if z > lobe.centre[2] else float(lobe.centre[2])
        np.maximum(best, lobe.coverage(x, y, level), out=best)
    for side, top in zip((-1, 1), thorax.diaphragm_z, strict=True):
        dome = Ellipsoid(
            np.array([side * 66.0, 4.0, top - 52.0]), np.array([80.0, 98.0, 52.0]), np.eye(3)
        )
        if z <= top + 2 * _EDGE_MM:
            centre = (
                dome
                if z > top - 52
                else Ellipsoid(np.array([side * 66.0, 4.0, z]), dome.radii, np.eye(3))
            )
            np.maximum(best, centre.coverage(x, y, z), out=best)
    return best


def _bones(
    thorax: Thorax, hu: Floats, x: Floats, y: Floats, z: float, cavity: tuple[float, float]
) -> Floats:
    sx, sy, radius = thorax.spine
    level = (z + thorax.rib_phase) % 30.0
    marrow, cortex = (95.0, 110.0) if level < 6 else (165.0, 420.0)
    body = _ellipse(x, y, sx, sy, radius * 1.15, radius)
    inner = _ellipse(x, y, sx, sy, radius * 1.15 - 2.5, radius - 2.5)
    hu = _blend(_blend(hu, body, cortex), inner, marrow)
    canal_y = sy + radius + 8
    hu = _blend(hu, _ellipse(x, y, sx, canal_y + 14, 7, 16), 380.0 if level >= 10 else HU_MUSCLE)
    hu = _blend(hu, _ellipse(x, y, sx, canal_y, 9, 7.5), 30.0)
    sternum = _ellipse(x, y, 0.0, -cavity[1] - 6, 19, 5.5)
    hu = _blend(_blend(hu, sternum, 380.0), _ellipse(x, y, 0.0, -cavity[1] - 6, 16, 3), 130.0)
    # Ribs descend from the spine to the front: the same level lies higher at the back.
    a, b = cavity[0] + 6, cavity[1] + 6
    radius_here = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    off_wall = np.abs(radius_here - 1) * min(a, b)
    height = (z + thorax.rib_phase - 0.55 * y) % 30.0 - 15.0
    rib = _soft(4.5 - np.sqrt(off_wall**2 + (0.8 * height) ** 2))
    rib *= np.abs(x) > 22
    return _blend(_blend(hu, rib, 480.0), rib * (off_wall < 2.0) * (np.abs(height) < 3), 200.0)


def _table(x: Floats, y: Floats, body_back: float) -> Floats:
    depth = y - (body_back + 6) - 0.0009 * (x * x)
    return _soft(2.0 - np.abs(depth - 12)) * (np.abs(x) < 200)


def _near(x: Floats, y: Floats, px: float, py: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns that can lie within `reach` of a point, from the middle row and column."""
    across, down = x[x.shape[0] // 2], y[:, y.shape[1] // 2]
    columns = np.flatnonzero(np.abs(across - np.float32(px)) <= reach)
    rows = np.flatnonzero(np.abs(down - np.float32(py)) <= reach)
    if not columns.size or not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _ellipse(x: Floats, y: Floats, cx: float, cy: float, a: float, b: float) -> Floats:
    norm = np.sqrt(
        ((x - np.float32(cx)) / np.float32(a)) ** 2 + ((y - np.float32(cy)) / np.float32(b)) ** 2
    )
    return _soft((1 - norm) * np.float32(min(a, b)))


def _soft(inside_mm: Floats) -> Floats:
    """From a signed distance (positive inside) to a coverage between 0 and 1."""
    soft: Floats = np.clip(inside_mm / np.float32(_EDGE_MM) + np.float32(0.5), 0, 1)
    return soft


def _blend(hu: Floats, coverage: Floats, value: float) -> Floats:
    return hu + coverage * (np.float32(value) - hu)
