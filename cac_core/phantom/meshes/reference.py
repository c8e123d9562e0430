"""A reference heart: blood, muscle and pericardial sac on a grid of 1 mm, and its arteries.

The surfaces of `surfaces.surface_points` are filled, the sac is the closed union of the parts up to
the bifurcation of the pulmonary trunk, and centre lines are traced along the meshes of the
arteries. Arteries that a mesh lacks follow the groove between the chambers that they run in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_closing,
    binary_fill_holes,
    distance_transform_edt,
    gaussian_filter,
    gaussian_filter1d,
    label,
)
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from cac_core.phantom.meshes.surfaces import surface_points, vessels_of

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

_CHAMBERS = ("left_ventricle", "right_ventricle", "left_atrium", "right_atrium", "septum")
_ARTERIES = ("LM", "LAD", "LCX", "RCA")
#: Parts with wide openings on several sides, and half the width of these, mm.
_OPENINGS_MM = {
    "left_atrium": 11.0,
    "right_atrium": 16.0,
    "right_ventricle": 8.0,
    "aorta": 11.0,
    "trunk": 11.0,
}
#: Room around the chambers, mm.
_ROOM_MM = 34
#: Grooves up to twice as wide are inside the bare sac.
_SPAN_MM = 12.0
_LEFT_WALL_MM, _RIGHT_WALL_MM = 9.0, 3.5
#: Distance of an artery that a mesh lacks from the muscle, and its radius.
_ABOVE_MM, _ARTERY_MM = 2.5, 1.6
#: A mesh without pulmonary arteries ends just below the bifurcation.
_TRUNK_END_MM = 16.0
#: Length of an artery that follows a groove: the groove goes on beyond it.
_COURSE_MM = {"LAD": 125, "LCX": 75, "RCA": 150}


@dataclass(frozen=True)
class ReferenceHeart:
    """A heart in mm from its centre, in the order slice (to the head), row (to the back), column.

    Attributes
    ----------
    blood, muscle : coverage of each voxel of 1 mm, in 255ths; the rest of the sac is fat.
    depth : distance in mm to the bare sac, negative inside; fat of a thickness t fills the sac
        where it is below t.
    origin : centre of voxel (0, 0, 0).
    top : level of the bifurcation of the pulmonary trunk, where the sac ends.
    lines : centre lines as in `Scene`, one point per mm.
    valve : centre of the aortic valve.
    aorta_radius_mm : radius of the ascending aorta.
    chambers : centres of the four chambers.
    axis : unit vector from base to apex.
    """

    name: str
    blood: NDArray[np.uint8]
    muscle: NDArray[np.uint8]
    depth: NDArray[np.float16]
    origin: Points
    top: float
    lines: Mapping[str, Points]
    valve: Points
    aorta_radius_mm: float
    chambers: Mapping[str, Points]
    axis: Points


@lru_cache(maxsize=3)
def reference_heart(name: str, data: Path) -> ReferenceHeart:
    """Build a reference heart; takes seconds, and is kept for the process.

    Raises
    ------
    UsageError
        See `surfaces.surface_points`.
    """
    surfaces = surface_points(name, data)
    centre = np.mean([surfaces[part].mean(axis=0) for part in _CHAMBERS[:4]], axis=0)
    surfaces = {part: points - centre for part, points in surfaces.items()}
    grid = _Grid([surfaces[part] for part in _CHAMBERS])
    solids = _solids(surfaces, grid)
    top = _bifurcation(surfaces)
    valve = surfaces["aortic_valve"].mean(axis=0)
    chambers = {part: surfaces[part].mean(axis=0) for part in _CHAMBERS[:4]}
    apex = _apex(surfaces["left_ventricle"], surfaces["mitral_valve"].mean(axis=0))
    axis = apex - surfaces["mitral_valve"].mean(axis=0)

    aorta, radius = _tube(surfaces["aorta"], valve)
    below = grid.levels[:, None, None] <= top
    heart = _whole_heart(surfaces, solids, grid, below)
    lines = _arteries(surfaces, solids, heart, grid, valve)
    lines["mitral_annulus"] = _annulus(surfaces["mitral_valve"], valve)
    lines["tricuspid_annulus"] = _annulus(surfaces["tricuspid_valve"], valve)
    lines["ascending_aorta"] = aorta[aorta[:, 0] <= top]

    vessels = np.any([grid.solid(points) for points in vessels_of(surfaces)] or [heart], axis=0)
    vessels |= grid.near([lines[site] for site in _ARTERIES], _ARTERY_MM)
    vessels |= solids["aorta"] | solids["trunk"]
    bare = _closed(heart | (vessels & _within(heart, 6.0)), _SPAN_MM)
    bare = _largest((bare | grid.near([lines[site] for site in _ARTERIES], 4.0)) & below)
    blood, muscle = _tissues(solids, heart, vessels)
    outside = distance_transform_edt(~bare) - distance_transform_edt(bare)
    return ReferenceHeart(
        name=name,
        blood=_coverage(blood),
        muscle=_coverage(muscle),
        depth=np.asarray(outside, np.float16),
        origin=grid.origin,
        top=top,
        lines=lines,
        valve=valve,
        aorta_radius_mm=radius,
        chambers=chambers,
        axis=np.asarray(axis / np.linalg.norm(axis)),
    )


def _solids(surfaces: Mapping[str, Points], grid: _Grid) -> dict[str, Mask]:
    """The filled parts."""
    solids = {part: grid.solid(surfaces[part]) for part in (*_CHAMBERS, "aorta", "trunk")}
    return solids | {part: _closed(solids[part], reach) for part, reach in _OPENINGS_MM.items()}


def _whole_heart(
    surfaces: Mapping[str, Points], solids: Mapping[str, Mask], grid: _Grid, below: Mask
) -> Mask:
    """Chambers, and the great arteries below the bifurcation of the trunk, filled."""
    # Chambers are open at their valves; together their surfaces are closed.
    whole = [*_CHAMBERS, "aortic_valve", "mitral_valve", "tricuspid_valve"]
    heart = grid.solid(np.concatenate([surfaces[part] for part in whole]))
    heart |= np.any([solids[part] for part in _CHAMBERS], axis=0)
    heart |= (solids["aorta"] | solids["trunk"]) & below
    return np.stack([binary_fill_holes(plane) for plane in heart])


class _Grid:
    """Voxels of 1 mm around the chambers."""

    def __init__(self, chambers: list[Points]) -> None:
        self.origin = np.floor(np.min([points.min(axis=0) for points in chambers], 0)) - _ROOM_MM
        high = np.ceil(np.max([points.max(axis=0) for points in chambers], 0)) + _ROOM_MM
        self.shape = tuple((high - self.origin).astype(int) + 1)

    @property
    def levels(self) -> Points:
        """Level of each slice."""
        return np.asarray(self.origin[0] + np.arange(self.shape[0]))

    def surface(self, points: Points) -> Mask:
        """Voxels that hold points."""
        index = np.rint(points - self.origin).astype(int)
        index = index[((index >= 0) & (index < self.shape)).all(axis=1)]
        mask = np.zeros(self.shape, np.bool_)
        mask[tuple(index.T)] = True
        return mask

    def solid(self, points: Points) -> Mask:
        """Voxels of a surface and those that it encloses in at least two of three directions.

        Surfaces have openings (valves, ends of vessels), so none is closed in space.
        """
        mask = self.surface(points)
        axes = [np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
        if not len(axes[0]):
            return mask
        box = tuple(slice(max(0, a[0] - 2), a[-1] + 3) for a in axes)
        shell = binary_closing(np.pad(mask[box], 2), iterations=2)[2:-2, 2:-2, 2:-2]
        votes = np.zeros(shell.shape, np.uint8)
        for axis in range(3):
            planes = np.moveaxis(shell, axis, 0)
            filled = np.stack([binary_fill_holes(plane) for plane in planes])
            votes += np.moveaxis(filled, 0, axis).astype(np.uint8)
        mask[box] |= votes >= 2
        return mask

    def near(self, lines: list[Points], reach_mm: float) -> Mask:
        """Voxels within a distance of centre lines."""
        return _within(self.surface(np.concatenate(lines)), reach_mm)


def _within(mask: Mask, reach_mm: float) -> Mask:
    return np.asarray(distance_transform_edt(~mask) <= reach_mm)


def _closed(mask: Mask, reach_mm: float) -> Mask:
    """Closing by a ball."""
    return np.asarray(distance_transform_edt(_within(mask, reach_mm)) > reach_mm)


def _coverage(mask: Mask) -> NDArray[np.uint8]:
    """A mask with soft borders, in 255ths."""
    return np.rint(255 * gaussian_filter(mask.astype(np.float32), 0.6)).astype(np.uint8)


def _largest(mask: Mask) -> Mask:
    parts, _ = label(mask)
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def _tissues(solids: Mapping[str, Mask], heart: Mask, vessels: Mask) -> tuple[Mask, Mask]:
    """Blood and muscle; the wall of the left ventricle is thick, that of the right one thin."""
    left = solids["left_ventricle"] | solids["septum"]
    wall = left & (distance_transform_edt(left) <= _LEFT_WALL_MM)
    right = solids["right_ventricle"]
    wall |= right & ~left & (distance_transform_edt(right | left) <= _RIGHT_WALL_MM)
    full = binary_closing(heart, iterations=2) | vessels
    return full & ~wall, wall


def _bifurcation(surfaces: Mapping[str, Points]) -> float:
    """Level at which the right pulmonary artery leaves the trunk."""
    trunk = surfaces["trunk"]
    branch = surfaces.get("vessel:pulmonary_artery_R")
    if branch is None:
        return float(trunk[:, 0].max() - _TRUNK_END_MM)
    reach, _ = cKDTree(trunk[::20]).query(branch)
    return float(branch[reach < 8.0, 0].mean())


def _apex(ventricle: Points, base: Points) -> Points:
    far = np.linalg.norm(ventricle - base, axis=1)
    return np.asarray(ventricle[far >= np.quantile(far, 0.999)].mean(axis=0))


def _tube(points: Points, start: Points) -> tuple[Points, float]:
    """Centre line of a tube from its end near `start`, and its radius.

    Points are sorted by their distance along the surface, in layers of 3 mm.
    """
    _, kept = np.unique(np.rint(points).astype(int), axis=0, return_index=True)
    thin = points[np.sort(kept)]
    pairs = cKDTree(thin).query_pairs(4.0, output_type="ndarray")
    length = np.linalg.norm(thin[pairs[:, 0]] - thin[pairs[:, 1]], axis=1)
    graph = coo_array((length, (pairs[:, 0], pairs[:, 1])), (len(thin), len(thin)))
    first = int(np.argmin(np.linalg.norm(thin - start, axis=1)))
    along = np.asarray(dijkstra(csr_array(graph), directed=False, indices=first))  # type: ignore[call-overload]
    reached = np.isfinite(along)
    layer = (along[reached] / 3.0).astype(int)
    count = np.maximum(np.bincount(layer), 1)
    line = np.stack(
        [np.bincount(layer, thin[reached][:, axis]) / count for axis in range(3)], axis=1
    )[np.bincount(layer) > 0]
    line = _even(line)
    return line, float(np.median(cKDTree(line).query(thin[reached])[0]))


def _even(line: Points) -> Points:
    """The smoothed line with one point per mm."""
    if len(line) < 2:
        return line
    smooth = gaussian_filter1d(line, 1.0, axis=0, mode="nearest")
    steps = np.linalg.norm(np.diff(smooth, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(steps)])
    new = np.arange(0.0, at[-1], 1.0)
    return np.stack([np.interp(new, at, smooth[:, axis]) for axis in range(3)], axis=1)


def _annulus(valve: Points, root: Points) -> Points:
    """The ring of an atrioventricular valve without the part beside the aortic root."""
    centre = valve.mean(axis=0)
    _, _, directions = np.linalg.svd((valve - centre)[::10], full_matrices=False)
    flat = (valve - centre) @ directions[:2].T
    toward = (root - centre) @ directions[:2].T
    angle = np.arctan2(flat[:, 1], flat[:, 0]) - np.arctan2(toward[1], toward[0])
    sector = (np.mod(angle, 2 * np.pi) / (2 * np.pi) * 24).astype(int)
    ring = []
    for k in range(3, 21):
        inside = np.flatnonzero(sector == k)
        if len(inside):
            reach = np.linalg.norm(flat[inside], axis=1)
            ring.append(valve[inside[reach >= 0.93 * reach.max()]].mean(axis=0))
    return _even(np.array(ring))


def _arteries(
    surfaces: Mapping[str, Points],
    solids: Mapping[str, Mask],
    heart: Mask,
    grid: _Grid,
    valve: Points,
) -> dict[str, Points]:
    """Centre lines from the aortic root outwards; the left ones start where the left main ends."""
    grooves = _Grooves(solids, heart, grid)
    root = valve + np.array([12.0, 2.0, 14.0])
    main = (
        _tube(surfaces["LM"], valve)[0]
        if "LM" in surfaces
        else _even(np.linspace(root, root + np.array([2.0, -2.0, 12.0]), 8))
    )
    fork = main[-1]
    found = {"LM": main}
    for site, pair, start in (
        ("LAD", ("left_ventricle", "right_ventricle"), fork),
        ("LCX", ("left_ventricle", "left_atrium"), fork),
        ("RCA", ("right_ventricle", "right_atrium"), valve + np.array([6.0, -14.0, -8.0])),
    ):
        if site in surfaces:
            line = _tube(surfaces[site], start)[0]
        else:
            line = grooves.course(*pair, start)[: _COURSE_MM[site]]
        found[site] = _even(np.concatenate([start[None], line])) if site != "RCA" else line
    return found


class _Grooves:
    """Courses in the grooves between two chambers, on the surface of the heart."""

    def __init__(self, solids: Mapping[str, Mask], heart: Mask, grid: _Grid) -> None:
        self.solids, self.grid = solids, grid
        outside = distance_transform_edt(~heart)
        self.shell = (outside > _ABOVE_MM - 1) & (outside <= _ABOVE_MM + 1)

    def course(self, one: str, other: str, start: Points) -> Points:
        """The groove from its point next to `start`, ordered by the distance along it."""
        near = self.shell & _within(self.solids[one], 6.0) & _within(self.solids[other], 6.0)
        joined = _largest(_within(near, 2.0))
        points = np.argwhere(near & joined) + self.grid.origin
        line, _ = _tube(points, start)
        return line
