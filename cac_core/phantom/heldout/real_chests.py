"""Real chests as hosts of implanted calcium: contrast medium removed, heart outlined.

The hosts are scans of different people. Weights state the hosts that they were trained on and are
never evaluated on these. `hosts.toml` lists the source and landmarks of each.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, label

from cac_core.components import largest_in_plane
from cac_core.dicom.annotation import read_label_map
from cac_core.dicom.volume import read_volume
from cac_core.phantom.annotated import Site

Points = NDArray[np.float64]

_LANDMARKS = Path(__file__).with_name("hosts.toml")
_LUNG_HU, _FAT_HU, _MUSCLE_HU = -860.0, -105.0, 52.0
#: Outlines are by eye: blood may extend this far beyond them.
_APEX_MM, _EDGE_MM = 6.0, 6.0
#: Calcium of the host: at least this many HU, connected, within this reach of a marked point.
_CALCIUM_HU, _CALCIUM_MM = 130.0, 8.0
_LINES = ("LM", "LAD", "LCX", "RCA", "mitral_annulus", "ascending_aorta", "descending_aorta")


@dataclass(frozen=True)
class Host:
    """A chest without contrast medium, in canonical orientation (slice, row, column).

    `heart` is the pericardial sac up to the bifurcation of the pulmonary trunk. `lines` are centre
    lines (n, 3) in voxels: arteries by site name, `mitral_annulus`, `ascending_aorta`,
    `descending_aorta`; `radii_mm` the radii of both parts of the aorta; `valve` the centre of the
    aortic valve in voxels. `own_calcium` is the `Site` of calcium that the patient has, 0
    elsewhere; None if there is none.
    """

    name: str
    hu: NDArray[np.float32]
    heart: NDArray[np.bool_]
    spacing_mm: Points
    lines: Mapping[str, Points]
    radii_mm: Mapping[str, float]
    valve: Points
    own_calcium: NDArray[np.uint8] | None


def host_names(*, whole: bool = False) -> tuple[str, ...]:
    """Names of the hosts, in order; `whole`: only those whose whole heart was scanned."""
    return tuple(
        name
        for name, known in _landmarks().items()
        if not (whole and min(map(int, known["sac"])) == 0)
    )


def load_host(name: str, data: Path) -> Host:
    """Read a host from the folder of the real chests and remove its contrast medium.

    Raises
    ------
    FileNotFoundError
        If the folder does not contain it.
    """
    known = _landmarks()[name]
    hu, spacing = _read(known, data)
    heart = pericardial_sac(known["sac"], hu, spacing)
    if known["enhanced"]:
        region = _enhanced_region(heart, known, spacing)
        if "aorta_mask" in known:
            aorta, _ = read_label_map(data / known["aorta_mask"])
            region |= binary_dilation(aorta.astype(bool), iterations=2)
        hu = _without_contrast(hu, region, spacing)
    # Smoothed, as residual noise of the host would add to the low-dose noise.
    hu = np.maximum(_blurred(hu, 0.6, spacing), -1024)
    moved = np.zeros(3)
    if name == "crop":
        hu, heart, moved = _embed(hu, heart, spacing)
    own = None
    if "own_calcium" in known:
        points = np.array(known["own_calcium"], float) + moved
        own = calcium_at(hu, points, Site[known["own_site"]], spacing)
    return Host(
        name,
        hu,
        heart,
        spacing,
        {key: np.array(known[key], float) + moved for key in _LINES},
        {part: known[f"{part}_radius_mm"] for part in ("ascending", "descending")},
        np.array(known["aortic_valve"], float) + moved,
        own,
    )


def _landmarks() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_LANDMARKS.read_text(encoding="utf-8"))


def _read(known: dict[str, Any], data: Path) -> tuple[NDArray[np.float32], Points]:
    """HU and spacing in mm."""
    if "volume" in known:
        values, affine = read_label_map(data / known["volume"])
        return values.astype(np.float32), np.linalg.norm(affine[:3, :3], axis=0)
    files = sorted((data / known["series"]).glob("*.dcm"))
    if not files:
        raise FileNotFoundError(f"no series in {data / known['series']}")
    volume = read_volume(files)
    return volume.hu.astype(np.float32), np.array(volume.spacing_mm)


def pericardial_sac(
    polygons: Mapping[str, list[list[float]]], hu: NDArray[np.float32], spacing: Points
) -> NDArray[np.bool_]:
    """The outlined pericardial sac without lung, smooth, and one piece in every slice.

    Parameters
    ----------
    polygons : outlines [[row, column], ...] by slice, seen as stars from their mean point.
    hu : (slice, row, column).
    spacing : (3,), mm.
    """
    body = _from_polygons(polygons, hu.shape) & (_blurred(hu, 1.0, spacing) > -300)
    smooth = _blurred(body.astype(np.float32), 2.0, spacing) >= 0.5
    return largest_in_plane(smooth)


def calcium_at(
    hu: NDArray[np.float32], points: Points, site: Site, spacing: Points
) -> NDArray[np.uint8]:
    """Calcium of the host at marked points: bright voxels near and connected to one of them.

    Parameters
    ----------
    hu : (slice, row, column).
    points : (n, 3), voxels; a point may miss the calcium by one pixel.
    site : where all of it is.
    spacing : (3,), mm.

    Returns
    -------
    `site` at the voxels found, 0 elsewhere; like `hu`.

    Raises
    ------
    ValueError
        If there are none at a point.
    """
    marked = np.ones(hu.shape, np.bool_)
    marked[tuple(np.rint(points).astype(int).T)] = False
    near = distance_transform_edt(marked, sampling=spacing) <= _CALCIUM_MM
    parts, _ = label(near & (hu >= _CALCIUM_HU), np.ones((3, 3, 3)))
    found = set()
    for k, row, column in np.rint(points).astype(int):
        here = set(parts[k, row - 1 : row + 2, column - 1 : column + 2].ravel()) - {0}
        if not here:
            raise ValueError(f"no calcium at {(k, row, column)}")
        found |= here
    return np.where(np.isin(parts, list(found)), int(site), 0).astype(np.uint8)


def _without_contrast(
    hu: NDArray[np.float32], region: NDArray[np.bool_], spacing: Points
) -> NDArray[np.float32]:
    """Reduce enhanced blood and muscle of a region to about 45 HU; the rest is hardly changed.

    The map is monotone, so that borders have no artificial rims.
    """
    # Pulmonary vessels: bright spots surrounded by air.
    hilum = gaussian_filter(hu, (1, 9 / spacing[1], 9 / spacing[2])) < -350
    clipped = np.maximum(hu - 35, 0)
    # Other enhanced organs are reduced too; bone is unchanged.
    outside = np.interp(hu, [-2048, 35, 150, 320, 4000], [-2048, 35, 51, 320, 4000])
    plain = np.where((region | hilum) & (hu > 35), 35 + 16 * (1 - np.exp(-clipped / 45)), outside)
    return np.asarray(plain, np.float32)


def _enhanced_region(
    heart: NDArray[np.bool_], known: dict[str, Any], spacing: Points
) -> NDArray[np.bool_]:
    """Heart, great vessels and hila."""
    across = float(spacing[1])
    region = np.zeros_like(heart)
    found = np.flatnonzero(heart.any(axis=(1, 2)))
    low, high = int(found[0]), int(found[-1])
    line = np.array(known["descending_aorta"], float)
    reach = known["descending_radius_mm"] / across + 5
    for k in range(len(heart)):
        region[k] = _circle(heart.shape[1:], line, k, reach)
        if k < low - round(_APEX_MM / float(spacing[0])):
            continue
        body = heart[min(max(k, low), high)]
        region[k] |= _near(body, _EDGE_MM / across)
        if k < low:
            continue
        rows, columns = (np.flatnonzero(body.any(axis=axis)) for axis in (1, 0))
        # Lung hila and superior vena cava, between sternum and spine.
        left = 8 if k < found[len(found) * 2 // 3] else 28
        behind = 11 if k <= high - round(10 / float(spacing[0])) else 22  # left pulmonary artery
        region[
            k,
            max(0, rows[0] - round(5 / across)) : rows[-1] + round(behind / across),
            max(0, columns[0] - round(45 / across)) : columns[-1] + round(left / across),
        ] = True
    return region


def _blurred(volume: NDArray[np.float32], sigma_mm: float, spacing: Points) -> NDArray[np.float32]:
    """In-plane Gaussian blur."""
    sigma = (0, sigma_mm / spacing[1], sigma_mm / spacing[2])
    return np.asarray(gaussian_filter(volume, sigma), np.float32)


def _circle(shape: tuple[int, ...], line: Points, k: float, radius: float) -> NDArray[np.bool_]:
    """A disc where a centre line (n, 3) in voxels crosses slice k; ends are extended."""
    order = np.argsort(line[:, 0])
    row, column = (np.interp(k, line[order, 0], line[order, axis]) for axis in (1, 2))
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((y - row) ** 2 + (x - column) ** 2 <= radius**2)


def _near(mask: NDArray[np.bool_], reach: float) -> NDArray[np.bool_]:
    """Pixels within `reach` pixels of a mask."""
    if not mask.any():
        return mask
    return np.asarray(distance_transform_edt(~mask) <= reach)


def _embed(
    hu: NDArray[np.float32], heart: NDArray[np.bool_], spacing: Points
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Points]:
    """Embed a crop around the heart in a simple thorax of lung, muscle and fat.

    Returns HU, heart, and the position (3,) of the crop's first voxel.
    """
    across = spacing[1]
    rows, columns = (round(300 / across), round(400 / across))
    begin = np.array([0, (rows - hu.shape[1]) // 2, (columns - hu.shape[2]) // 2 + 9])
    y = (np.arange(rows)[:, None] - begin[1] - 68) * across
    x = (np.arange(columns) - begin[2] - 48) * across
    ring = np.sqrt((x / 168) ** 2 + (y / 116) ** 2)
    plane = np.select(
        [ring > 1, ring > 0.86, ring > 0.76], [-1000.0, _FAT_HU, _MUSCLE_HU], _LUNG_HU
    )
    whole = np.repeat(plane[None].astype(np.float32), len(hu), axis=0)
    feather = np.ones(hu.shape[1:], np.float32)
    for axis, size in enumerate(hu.shape[1:]):
        edge = np.minimum(np.arange(size), np.arange(size)[::-1]) / (8 / across)
        feather *= np.clip(edge, 0, 1).reshape(-1, 1) if axis == 0 else np.clip(edge, 0, 1)
    box = np.s_[:, begin[1] : begin[1] + hu.shape[1], begin[2] : begin[2] + hu.shape[2]]
    whole[box] += feather * (hu - whole[box])
    mask = np.zeros(whole.shape, np.bool_)
    mask[box] = heart
    return whole, mask, begin.astype(float)


def _from_polygons(
    polygons: Mapping[str, list[list[float]]], shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """A closed body from outlines on a few slices, interpolated by radius about a moving centre."""
    levels = np.array(sorted(map(int, polygons)), float)
    angles = np.linspace(-np.pi, np.pi, 181)
    middles, radii = [], []
    for level in levels:
        points = np.array(polygons[str(int(level))], float)
        middle = points.mean(axis=0)
        arm = points - middle
        order = np.argsort(np.arctan2(arm[:, 0], arm[:, 1]))
        at, length = np.arctan2(arm[order, 0], arm[order, 1]), np.hypot(*arm[order].T)
        radii.append(np.interp(angles, at, length, period=2 * np.pi))
        middles.append(middle)
    mask = np.zeros(shape, np.bool_)
    y, x = np.ogrid[: shape[1], : shape[2]]
    slices = np.arange(levels[0], levels[-1] + 1)
    middle_at = PchipInterpolator(levels, middles)(slices)
    radius_at = PchipInterpolator(levels, radii)(slices)
    for k, middle, radius in zip(slices.astype(int), middle_at, radius_at, strict=True):
        dy, dx = y - middle[0], x - middle[1]
        mask[k] = np.hypot(dy, dx) <= np.interp(np.arctan2(dy, dx), angles, radius)
    return mask
