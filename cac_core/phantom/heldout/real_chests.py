"""Real chests as hosts of implanted calcium: contrast medium removed, heart outlined.

The three hosts are enhanced scans of different people. Weights state the hosts that they were
trained on and are never evaluated on these. `hosts.toml` lists the source and landmarks of each.
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
from scipy.ndimage import (
    binary_dilation,
    binary_propagation,
    distance_transform_edt,
    gaussian_filter,
    label,
)

from cac_core.dicom.annotation import read_label_map
from cac_core.dicom.volume import read_volume

Points = NDArray[np.float64]

_LANDMARKS = Path(__file__).with_name("hosts.toml")
_LUNG_HU, _FAT_HU, _MUSCLE_HU = -860.0, -105.0, 52.0
#: Blood of the apex may extend this far below the lowest outlined slice.
_APEX_MM = 6.0


@dataclass(frozen=True)
class Host:
    """A chest without contrast medium, in canonical orientation (slice, row, column).

    `lines` are centre lines (n, 3) in voxels: arteries by site name, `mitral_annulus`,
    `ascending_aorta`, `descending_aorta`; `radii_mm` the radii of both parts of the aorta; `valve`
    the centre of the aortic valve in voxels.
    """

    name: str
    hu: NDArray[np.float32]
    heart: NDArray[np.bool_]
    spacing_mm: Points
    lines: Mapping[str, Points]
    radii_mm: Mapping[str, float]
    valve: Points


def host_names() -> tuple[str, ...]:
    """Names of the hosts, in order."""
    return tuple(_landmarks())


def load_host(name: str, data: Path) -> Host:
    """Read a host from the folder of the real chests and remove its contrast medium.

    Raises
    ------
    FileNotFoundError
        If the folder does not contain it.
    """
    known = _landmarks()[name]
    hu, heart, aorta, spacing = _read(known, data)
    lines = {
        key: np.array(known[key], float)
        for key in (
            "LM",
            "LAD",
            "LCX",
            "RCA",
            "mitral_annulus",
            "ascending_aorta",
            "descending_aorta",
        )
    }
    plain = _without_contrast(hu, heart, aorta, known, spacing)
    if name == "crop":
        plain, heart, lines, moved = _embed(plain, heart, lines, spacing)
    else:
        moved = np.zeros(3)
    return Host(
        name,
        plain,
        heart,
        spacing,
        lines,
        {part: known[f"{part}_radius_mm"] for part in ("ascending", "descending")},
        np.array(known["aortic_valve"], float) + moved,
    )


def _landmarks() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_LANDMARKS.read_text(encoding="utf-8"))


def _read(
    known: dict[str, Any], data: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_] | None, Points]:
    if "series" in known:
        files = sorted(path for path in (data / known["series"]).glob("*") if path.is_file())
        if not files:
            raise FileNotFoundError(f"no series in {data / known['series']}")
        volume = read_volume(files)
        hu, spacing = volume.hu.astype(np.float32), np.array(volume.spacing_mm)
        heart = _from_polygons(known["heart"], volume.hu.shape)
        return hu, _silhouette(heart, hu, known, spacing), None, spacing
    values, affine = read_label_map(data / known["volume"])
    hu = values.astype(np.float32)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if "labels" in known:
        labels, _ = read_label_map(data / known["labels"])
        heart, aorta = np.asarray(labels == known["heart_label"]), None
    else:
        mask, frame = read_label_map(data / known["heart_mask"])
        heart = _on_grid(mask.astype(bool), frame, affine, hu.shape)
        aorta = read_label_map(data / known["aorta_mask"])[0].astype(bool)
    low, high = known["heart_slices"]
    heart[:low], heart[high:] = False, False
    return hu, _silhouette(heart, hu, known, spacing), aorta, spacing


def _silhouette(
    heart: NDArray[np.bool_], hu: NDArray[np.float32], known: dict[str, Any], spacing: Points
) -> NDArray[np.bool_]:
    """Heart mask as outlined by a reader: muscle, blood, aortic root and fat up to the lung."""
    out = np.zeros_like(heart)
    across = float(spacing[1])
    aorta = np.array(known["ascending_aorta"], float)
    wall = known["ascending_radius_mm"] / across
    for k in np.flatnonzero(heart.any(axis=(1, 2))):
        body = heart[k].copy()
        if k >= known["aortic_valve"][0] - 2:
            body |= _circle(body.shape, aorta, float(k), wall)
        body = np.pad(body, round(40 / across))
        closed = ~_near(~_near(body, 22 / across), 22 / across)
        # Without branches of the pulmonary artery, which a label map includes in the heart.
        full = _near(~_near(~closed, 9 / across), 9 / across)
        edge = round(40 / across)
        full = full[edge:-edge, edge:-edge]
        out[k] = _near(full, 4 / across) & (gaussian_filter(hu[k], 1.0) > -300) | full
    smooth = gaussian_filter(out.astype(np.float32), (0.8, 2.5 / across, 2.5 / across)) >= 0.5
    parts, _ = label(smooth)
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def _without_contrast(
    hu: NDArray[np.float32],
    heart: NDArray[np.bool_],
    aorta: NDArray[np.bool_] | None,
    known: dict[str, Any],
    spacing: Points,
) -> NDArray[np.float32]:
    """Reduce enhanced blood and muscle to about 45 HU; fat, lung and bone stay unchanged.

    The map is monotone, so that borders have no artificial rims.
    """
    across = float(spacing[1])
    region = _enhanced_region(hu, heart, aorta, known, spacing)
    # Pulmonary vessels: bright spots surrounded by air.
    region |= gaussian_filter(hu, (1, 9 / across, 9 / across)) < -350
    clipped = np.maximum(hu - 35, 0)
    # Other enhanced organs are reduced too; bone is unchanged.
    outside = np.interp(hu, [-2048, 35, 150, 320, 4000], [-2048, 35, 51, 320, 4000])
    plain = np.where(region & (hu > 35), 35 + 16 * (1 - np.exp(-clipped / 45)), outside)
    # Smoothed, as residual noise of the enhanced scan would add to the low-dose noise.
    calm = gaussian_filter(plain, (0, 0.6 / across, 0.6 / across))
    return np.maximum(calm, -1024).astype(np.float32)


def _enhanced_region(
    hu: NDArray[np.float32],
    heart: NDArray[np.bool_],
    aorta: NDArray[np.bool_] | None,
    known: dict[str, Any],
    spacing: Points,
) -> NDArray[np.bool_]:
    """Heart, great vessels and hila."""
    across = float(spacing[1])
    region = np.zeros_like(heart)
    found = np.flatnonzero(heart.any(axis=(1, 2)))
    for k in range(int(found[0]), len(heart)):
        body = heart[min(k, int(found[-1]))]
        region[k] = _near(body, 9 / across)
        rows, columns = (np.flatnonzero(body.any(axis=axis)) for axis in (1, 0))
        # Lung hila and superior vena cava, between sternum and spine.
        left = 8 if k < found[len(found) * 2 // 3] else 28
        region[
            k,
            max(0, rows[0] - round(5 / across)) : rows[-1] + round(11 / across),
            max(0, columns[0] - round(45 / across)) : columns[-1] + round(left / across),
        ] = True
    low = int(found[0])
    under = slice(max(0, low - round(_APEX_MM / float(spacing[0]))), low)
    bright = _near(heart[low], 9 / across) & (hu[under] > 150)
    region[under] = binary_propagation(bright & (hu[under] > 200), mask=bright)
    if aorta is not None:
        region |= binary_dilation(aorta, iterations=2)
    line = np.array(known["descending_aorta"], float)
    for k in range(len(heart)):
        reach = known["descending_radius_mm"] / across + 5
        region[k] |= _circle(heart.shape[1:], line, k, reach)
    return region


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
    hu: NDArray[np.float32],
    heart: NDArray[np.bool_],
    lines: Mapping[str, Points],
    spacing: Points,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], dict[str, Points], Points]:
    """Embed a crop around the heart in a simple thorax of lung, muscle and fat."""
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
    return whole, mask, {name: line + begin for name, line in lines.items()}, begin.astype(float)


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
    slices = np.arange(levels[0] - 2, levels[-1] + 1)
    middle_at = PchipInterpolator(levels, middles)(np.clip(slices, levels[0], levels[-1]))
    radius_at = PchipInterpolator(levels, radii)(np.clip(slices, levels[0], levels[-1]))
    for k, middle, radius in zip(slices.astype(int), middle_at, radius_at, strict=True):
        shrunk = 1.0 if k >= levels[0] else 0.75 - 0.3 * (levels[0] - k - 1)
        dy, dx = y - middle[0], x - middle[1]
        mask[k] = np.hypot(dy, dx) <= shrunk * np.interp(np.arctan2(dy, dx), angles, radius)
    return mask


def _on_grid(
    mask: NDArray[np.bool_], frame: Points, affine: Points, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """A mask resampled to another grid of equal spacing and axes."""
    begin = np.rint((np.linalg.inv(frame) @ affine)[:3, 3]).astype(int)
    index = [np.arange(size) + start for size, start in zip(shape, begin, strict=True)]
    inside = [(part >= 0) & (part < size) for part, size in zip(index, mask.shape, strict=True)]
    out = np.zeros(shape, np.bool_)
    out[np.ix_(*inside)] = mask[
        np.ix_(*(part[kept] for part, kept in zip(index, inside, strict=True)))
    ]
    return out
