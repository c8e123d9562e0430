"""A varied reference heart in the place of the heart of a chest.

The heart is fitted to the sac that it replaces, turned, bent and its chambers resized. The place of
the old heart is filled with what surrounds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    gaussian_filter,
    map_coordinates,
    zoom,
)

from cac_core.components import largest_in_plane
from cac_core.phantom.heldout.scene import Scene
from cac_core.phantom.meshes.reference import ReferenceHeart

Points = NDArray[np.float64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Bone and other dense structures are not overwritten by the heart.
_BONE_HU = 140.0
#: Every n-th pixel of the deformation is computed, the others are interpolated.
_COARSE = 8
#: Width of the blur that smooths the outline of the sac, mm.
_OUTLINE_MM = 3.0
#: Vessels outside the sac are drawn up to this far from it, mm.
_STUMP_MM = 18.0


@dataclass(frozen=True)
class _Variation:
    """Map from the chest (mm from the centre of its heart) to the reference heart (mm)."""

    turn: Points  # 3 x 3
    waves: Points  # (n, 3), radians per mm
    phases: Points
    shifts: Points  # (n, 3), mm
    bumps: Points  # centres (m, 3) in the reference, mm
    swell: Points  # (m,), relative growth at the centre
    reach: Points  # (m,), mm

    def to_reference(self, points: Points) -> Points:
        """Points (n, 3) of the chest in the reference heart."""
        at = points @ self.turn.T
        return np.asarray(at + self._bend(at))

    def to_chest(self, points: Points) -> Points:
        """The inverse, by fixed-point iteration."""
        at = points.copy()
        for _ in range(12):
            at = points - self._bend(at)
        return np.asarray(at @ np.linalg.inv(self.turn).T)

    def _bend(self, at: Points) -> Points:
        moved = np.sin(at @ self.waves.T + self.phases) @ self.shifts
        for centre, swell, reach in zip(self.bumps, self.swell, self.reach, strict=True):
            arm = at - centre
            fall = np.exp(-0.5 * (arm**2).sum(axis=1) / reach**2)
            moved = moved - (swell * fall)[:, None] * arm
        return np.asarray(moved)


@dataclass(frozen=True)
class _Look:
    """Tissue of the heart: HU, and the mean thickness of the fat under the pericardium, mm."""

    blood_hu: float
    muscle_hu: float
    fat_hu: float
    fat_mm: float
    texture_hu: float


def with_mesh_heart(
    scene: Scene, heart: ReferenceHeart, thickness_mm: float, rng: np.random.Generator
) -> Scene:
    """Replace the heart of a chest; equal arguments and state of `rng` give equal bytes.

    Parameters
    ----------
    scene : a chest whose whole heart is in its grid; its arteries, valves and own calcium are
        dropped with its heart, its descending aorta stays.
    thickness_mm : of a slice.
    """
    centre = np.array([part.mean() for part in np.nonzero(scene.heart)]) * scene.spacing_mm
    variation = _draw_variation(scene, heart, rng)
    look = _draw_look(rng)
    box = _box(scene, centre)
    depth, blood, muscle = _sampled(scene, heart, variation, centre, box, thickness_mm)
    # Fat is thick in some places and thin in others.
    fat_mm = look.fat_mm * (1 + 0.5 * _uneven(depth.shape, (12, 60, 60), rng))
    sac = _sac(scene, depth < np.maximum(fat_mm, 0.5), box)
    tissue = _emptied(scene, sac, box)
    hu = (
        look.fat_hu
        + blood * (look.blood_hu - look.fat_hu)
        + muscle * (look.muscle_hu - look.fat_hu)
    )
    hu += look.texture_hu * _uneven(hu.shape, (2, 4, 4), rng)
    coverage = gaussian_filter(sac.astype(np.float32), (0, 0.7, 0.7))
    part = tissue[box]
    stump = (blood + muscle) * ((depth < _STUMP_MM) & ~sac & (part < look.blood_hu))
    part += stump * (look.blood_hu - part)
    part += coverage * (hu - part)
    mask = np.zeros_like(scene.heart)
    mask[box] = _outlined(sac, scene.spacing_mm[1])
    lines = {
        name: variation.to_chest(line) + centre for name, line in _drawn_lines(heart, rng).items()
    }
    if "descending_aorta" in scene.lines:
        lines["descending_aorta"] = scene.lines["descending_aorta"]
    scale = float(np.cbrt(abs(np.linalg.det(variation.turn))))
    return replace(
        scene,
        tissue=tissue,
        heart=mask,
        lines=lines,
        valve=variation.to_chest(heart.valve[None])[0] + centre,
        radii_mm={**scene.radii_mm, "ascending": heart.aorta_radius_mm / scale},
        own_sites=None,
    )


def _draw_variation(scene: Scene, heart: ReferenceHeart, rng: np.random.Generator) -> _Variation:
    """Size as the sac that is replaced, within limits; axes, septum and chambers as in people."""
    wanted = _extent(scene.heart, scene.spacing_mm)
    given = _extent(heart.depth < 4, np.ones(3))
    size = np.clip(wanted / given, 0.8, 1.35) * rng.uniform(0.94, 1.06, 3)
    turn = _rotation(heart.axis, rng.normal(0, 0.16)) @ _rotation(
        _unit(rng.normal(size=3)), rng.normal(0, 0.12)
    )
    length = rng.uniform(50, 160, 8)
    names = sorted(heart.chambers)
    return _Variation(
        turn=turn / size,
        waves=np.array([_unit(rng.normal(size=3)) for _ in length]) * (2 * np.pi / length)[:, None],
        phases=rng.uniform(0, 2 * np.pi, 8),
        shifts=rng.normal(0, 1.2, (8, 3)) * (length / 100)[:, None],
        bumps=np.array([heart.chambers[name] for name in names]),
        swell=rng.normal(0, 0.1, len(names)),
        reach=rng.uniform(22, 34, len(names)),
    )


def _draw_look(rng: np.random.Generator) -> _Look:
    blood = float(rng.uniform(30, 54))
    return _Look(
        blood_hu=blood,
        muscle_hu=blood + float(rng.uniform(0, 14)),
        fat_hu=float(rng.uniform(-108, -70)),
        fat_mm=float(rng.uniform(1.5, 6.0)),
        texture_hu=float(rng.uniform(0, 9)),
    )


def _drawn_lines(heart: ReferenceHeart, rng: np.random.Generator) -> dict[str, Points]:
    """The arteries with the left main and the circumflex of varying length."""
    lines = dict(heart.lines)
    trunk = np.concatenate([lines["LM"], lines["LAD"]])
    end = int(np.clip(len(lines["LM"]) + rng.normal(0, 4), 4, len(trunk) - 40))
    lines["LM"], lines["LAD"] = trunk[:end], trunk[end:]
    for site in ("LCX", "RCA"):
        lines[site] = lines[site][: max(20, int(len(lines[site]) * rng.uniform(0.6, 1.0)))]
    return lines


def _box(scene: Scene, centre: Points) -> tuple[slice, slice, slice]:
    """Part of the grid around the heart, a multiple of the coarse steps in the plane."""
    reach = np.array([105.0, 112.0, 128.0])
    low = np.maximum(np.floor((centre - reach) / scene.spacing_mm).astype(int), 0)
    high = np.minimum(np.ceil((centre + reach) / scene.spacing_mm).astype(int), scene.tissue.shape)
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _sampled(
    scene: Scene,
    heart: ReferenceHeart,
    variation: _Variation,
    centre: Points,
    box: tuple[slice, slice, slice],
    thickness_mm: float,
) -> tuple[Floats, Floats, Floats]:
    """Depth, blood and muscle of the reference on the grid; a slice is the mean of its planes."""
    rows, columns = (
        np.arange(part.start, part.stop) * step
        for part, step in zip(box[1:], scene.spacing_mm[1:], strict=True)
    )
    levels = np.arange(box[0].start, box[0].stop) * scene.spacing_mm[0]
    shape = (len(levels), len(rows), len(columns))
    depth, blood, muscle = (np.zeros(shape, np.float32) for _ in range(3))
    coarse = np.stack(np.meshgrid(rows[::_COARSE], columns[::_COARSE], indexing="ij"), -1)
    fine = (
        np.stack(np.meshgrid(np.arange(len(rows)), np.arange(len(columns)), indexing="ij"))
        / _COARSE
    )
    field = heart.depth.astype(np.float32)
    shifts = (np.arange(3) - 1) / 3 * thickness_mm
    for k, level in enumerate(levels):
        for shift in shifts:
            flat = np.empty((coarse[..., 0].size, 3))
            flat[:, 0] = level + shift
            flat[:, 1:] = coarse.reshape(-1, 2)
            at = variation.to_reference(flat - centre) - heart.origin
            at = at.T.reshape(3, *coarse.shape[:2])
            index = np.stack([map_coordinates(part, fine, order=1, mode="nearest") for part in at])
            blood[k] += _looked_up(heart.blood, index, 0) / (255 * len(shifts))
            muscle[k] += _looked_up(heart.muscle, index, 0) / (255 * len(shifts))
            if shift == 0:
                depth[k] = _looked_up(field, index, 99)
    return depth, blood, muscle


def _looked_up(volume: NDArray[np.uint8] | Floats, index: Points, outside: float) -> Floats:
    return np.asarray(
        map_coordinates(volume, index, np.float32, order=1, mode="constant", cval=outside)
    )


def _sac(scene: Scene, sac: Mask, box: tuple[slice, slice, slice]) -> Mask:
    """The sac without bone, in one piece per slice."""
    host = scene.tissue[box]
    dense = (gaussian_filter(host, (0, 1, 1)) > _BONE_HU) & ~scene.heart[box]
    return largest_in_plane(sac & ~binary_dilation(dense, np.ones((1, 3, 3), np.bool_), 2))


def _outlined(sac: Mask, pixel_mm: float) -> Mask:
    """The sac as a reader outlines it: without stumps of veins and narrow notches."""
    blur = (0, _OUTLINE_MM / pixel_mm, _OUTLINE_MM / pixel_mm)
    return largest_in_plane(gaussian_filter(sac.astype(np.float32), blur) >= 0.4)


def _emptied(scene: Scene, sac: Mask, box: tuple[slice, slice, slice]) -> Floats:
    """The chest with its heart replaced by the tissue next to it: lung, liver, fat."""
    tissue = scene.tissue.copy()
    part = tissue[box]
    away = binary_dilation(scene.heart[box], np.ones((1, 3, 3), np.bool_), 3) & (part < _BONE_HU)
    # What lies next to it in its own slice, unless that is far.
    sampling = (3.0, 1.0, 1.0)
    _, nearest = distance_transform_edt(away, sampling, return_indices=True)
    filled = part[tuple(nearest)]
    smooth = gaussian_filter(filled, (0.6, 3, 3))
    part[away & ~sac] = smooth[away & ~sac]
    return tissue


def _uneven(
    shape: tuple[int, ...], steps: tuple[int, int, int], rng: np.random.Generator
) -> Floats:
    """Noise of about unit deviation that changes over steps of so many voxels."""
    small = [max(2, -(-n // step) + 1) for n, step in zip(shape, steps, strict=True)]
    grown = zoom(rng.standard_normal(small).astype(np.float32), steps, order=1)
    return np.asarray(grown[tuple(slice(0, n) for n in shape)], np.float32)


def _extent(mask: Mask, spacing_mm: Points) -> Points:
    """Width of a mask along each axis, from its 2nd to its 98th percentile, mm."""
    widths = []
    for axis in range(3):
        other = tuple(a for a in range(3) if a != axis)
        share = np.cumsum(mask.sum(axis=other)) / mask.sum()
        low, high = np.searchsorted(share, (0.02, 0.98))
        widths.append((high - low + 1) * spacing_mm[axis])
    return np.array(widths)


def _rotation(axis: Points, angle: float) -> Points:
    """Rotation matrix about a unit vector (Rodrigues)."""
    cross = np.cross(np.eye(3), axis)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def _unit(vector: Points) -> Points:
    return np.asarray(vector / np.linalg.norm(vector))
