"""Tissue of an analytic thorax in HU, rendered slice by slice, and its heart mask.

HU values are those of textbooks at 120 kV: fat -100, muscle 50, blood 40, marrow 150, cortical bone
700, inflated lung -850.
"""

from __future__ import annotations

import numpy as np

from cac_core.phantom.analytic.anatomy import Thorax
from cac_core.phantom.analytic.shapes import EDGE_MM, Ellipsoid, ellipse, soft_edge
from cac_core.phantom.analytic.warp import Floats

HU_AIR, HU_FAT, HU_MUSCLE = -1000.0, -100.0, 50.0
_DIAPHRAGM_MM = 2.0  # diaphragm and fat between the heart muscle and the liver


def render_slice(thorax: Thorax, px: Floats, py: Floats, z: float, texture: Floats) -> Floats:
    """HU of soft tissue, lung and bone in the plane z, without coronaries, calcium and noise.

    Parameters
    ----------
    px, py : pixel centres in the image, mm, shapes (1, columns) and (rows, 1).
    z : position of the plane, mm.
    texture : tissue texture (rows, columns) with mean 0 and standard deviation 1.

    Returns
    -------
    (rows, columns).
    """
    x, y = thorax.warp.to_anatomy(px, py, z)
    ax, ay = thorax.body_radii
    body = ellipse(x, y, 0.0, 0.0, ax, ay)
    for side in (-1.0, 1.0) if thorax.breast_mm else ():
        breast = ellipse(x, y, side * 0.5 * ax, -0.72 * ay, 62.0, 0.3 * ay + thorax.breast_mm)
        body = np.maximum(body, breast * (-120 < z < 60))
    hu = HU_AIR + body * np.float32(HU_FAT - HU_AIR)
    cavity = thorax.cavity_radii
    hu = _blend(hu, ellipse(x, y, 0.0, 2.0, cavity[0] + 17, cavity[1] + 15), HU_MUSCLE)
    inside = ellipse(x, y, 0.0, 0.0, *cavity)
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
    """Fraction of each pixel inside the heart, as a reader would outline it."""
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
    # The heart does not overlap the ribs or the spine.
    a, b = thorax.cavity_radii
    best *= ellipse(x, y, 0.0, 0.0, a - 3, b - 3)
    sx, sy, radius = thorax.spine
    return best * (1 - ellipse(x, y, sx, sy, radius * 1.15 + 4, radius + 4))


def _arm(hu: Floats, arm: Ellipsoid, x: Floats, y: Floats, z: float) -> Floats:
    hu = _blend(hu, arm.coverage(x, y, z), HU_FAT)
    cx, cy, radius = float(arm.centre[0]), float(arm.centre[1]), float(arm.radii[0])
    hu = _blend(hu, ellipse(x, y, cx, cy, radius - 8, radius - 4), HU_MUSCLE)
    hu = _blend(hu, ellipse(x, y, cx, cy, 12, 12), 900.0)
    return _blend(hu, ellipse(x, y, cx, cy, 8, 8), 90.0)


def _mediastinum(thorax: Thorax, x: Floats, y: Floats) -> Floats:
    """A band of fat between the lungs, from the sternum to the spine."""
    front, back = thorax.mediastinum_mm
    half = front + (back - front) * np.clip((y + 60) / 110, 0, 1)
    return soft_edge(half - np.abs(x - np.float32(thorax.spine[0]))) * np.ones_like(y)


def _organs(thorax: Thorax, x: Floats, y: Floats, z: float) -> Floats:
    """Liver and spleen under the domes of the diaphragm, and the left lobe under the heart."""
    best = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    lobe = thorax.left_lobe
    if lobe is not None and z <= lobe.centre[2] + lobe.radii[2] + 2 * EDGE_MM:
        level = z if z > lobe.centre[2] else float(lobe.centre[2])
        np.maximum(best, lobe.coverage(x, y, level), out=best)
    for side, top in zip((-1, 1), thorax.diaphragm_z, strict=True):
        dome = Ellipsoid(
            np.array([side * 66.0, 4.0, top - 52.0]), np.array([80.0, 98.0, 52.0]), np.eye(3)
        )
        if z <= top + 2 * EDGE_MM:
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
    body = ellipse(x, y, sx, sy, radius * 1.15, radius)
    inner = ellipse(x, y, sx, sy, radius * 1.15 - 2.5, radius - 2.5)
    hu = _blend(_blend(hu, body, cortex), inner, marrow)
    canal_y = sy + radius + 8
    hu = _blend(hu, ellipse(x, y, sx, canal_y + 14, 7, 16), 380.0 if level >= 10 else HU_MUSCLE)
    hu = _blend(hu, ellipse(x, y, sx, canal_y, 9, 7.5), 30.0)
    sternum = ellipse(x, y, 0.0, -cavity[1] - 6, 19, 5.5)
    hu = _blend(_blend(hu, sternum, 380.0), ellipse(x, y, 0.0, -cavity[1] - 6, 16, 3), 130.0)
    # Ribs descend from the spine to the front.
    a, b = cavity[0] + 6, cavity[1] + 6
    radius_here = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    off_wall = np.abs(radius_here - 1) * min(a, b)
    height = (z + thorax.rib_phase - 0.55 * y) % 30.0 - 15.0
    rib = soft_edge(4.5 - np.sqrt(off_wall**2 + (0.8 * height) ** 2))
    rib *= np.abs(x) > 22
    return _blend(_blend(hu, rib, 480.0), rib * (off_wall < 2.0) * (np.abs(height) < 3), 200.0)


def _table(x: Floats, y: Floats, body_back: float) -> Floats:
    depth = y - (body_back + 6) - 0.0009 * (x * x)
    return soft_edge(2.0 - np.abs(depth - 12)) * (np.abs(x) < 200)


def _blend(hu: Floats, coverage: Floats, value: float) -> Floats:
    return hu + coverage * (np.float32(value) - hu)
