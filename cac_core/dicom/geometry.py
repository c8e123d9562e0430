"""From slice positions to a regular grid, and from scanner axes to the canonical ones.

Pure geometry on arrays: no DICOM objects here. Coordinates are LPS millimetres as in DICOM
(x to the patient's left, y to posterior, z to the head; PS3.3 C.7.6.2.1.1). Spacing comes from
the positions projected on the slice normal and from nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cac_core.errors import StudyError
from schemas.codes import StudyReason

Vector = NDArray[np.float64]

#: Axes may be off the body axes by this much; the volume is not resampled for it.
MAX_OBLIQUE_DEG = 5.0
_MAX_TILTED_GANTRY_DEG = 45.0
#: Slices of one series agree in orientation to this angle (header rounding is far below).
MAX_ORIENTATION_SPREAD_DEG = 0.25
#: Positions may run off the slice normal by this much: 1.7 mm over 200 mm.
MAX_TILT_DEG = 0.5
#: A regular grid is met when no slice is off by more than the larger of these.
GRID_TOLERANCE_MM = 0.1
GRID_TOLERANCE_RELATIVE = 0.025
#: Closer than this, two slices are at one position.
SAME_POSITION_MM = 0.05
#: Positions beyond any scanner room are broken numbers.
_MAX_COORDINATE_MM = 100_000.0
_UNIT_VECTOR_TOLERANCE = 0.01
#: Slice increments that are scored: CT reconstructs from 0.2 mm, CTAC up to 10 mm. Between slices
#: further apart than 20 mm whole coronary arteries have room.
SLICE_INCREMENT_MM = (0.1, 20.0)
#: 0.1 mm is finer than any body CT; 6.8 mm has an attenuation map on a SPECT matrix of 64 x 64.
PIXEL_SPACING_MM = (0.1, 8.0)
#: The widest reconstruction of a body scanner has 820 mm, the longest table moves 2 m.
_MAX_FIELD_MM = 1000.0
_MAX_COVERAGE_MM = 2500.0


@dataclass(frozen=True, slots=True)
class SliceGrid:
    """Slices on a regular grid.

    Parameters
    ----------
    groups : for each grid position in ascending order along the normal, the indices of the
        slices given there (more than one where slices were duplicated).
    spacing_mm : slice increment, from the fit.
    origin : LPS position of the first pixel of the first slice, from the fit.
    """

    groups: tuple[tuple[int, ...], ...]
    spacing_mm: float
    origin: Vector


@dataclass(frozen=True, slots=True)
class Reorientation:
    """Transpose and flips from (slice, row, column) as stored to the canonical orientation."""

    reverse_slices: bool
    transpose: bool
    reverse_rows: bool
    reverse_columns: bool

    def plane(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the canonical view of one stored slice; no copy."""
        turned = pixels.T if self.transpose else pixels
        turned = turned[::-1] if self.reverse_rows else turned
        return turned[:, ::-1] if self.reverse_columns else turned


def tolerance_mm(spacing_mm: float) -> float:
    """Return how far a slice may lie off the regular grid."""
    return max(GRID_TOLERANCE_MM, GRID_TOLERANCE_RELATIVE * spacing_mm)


def common_orientation(orientations: NDArray[np.float64]) -> Vector:
    """Return the orientation shared by all slices, made orthonormal.

    Shape (6,): row direction cosines, then column direction cosines.

    Parameters
    ----------
    orientations : (n, 6) ImageOrientationPatient of the slices.

    Raises
    ------
    StudyError
        `invalid_geometry` for cosines that are no orthogonal unit vectors;
        `mixed_orientation` where slices differ.
    """
    rows, columns = orientations[:, :3], orientations[:, 3:]
    lengths = np.linalg.norm([rows, columns], axis=2)
    skew = np.abs(np.sum(rows * columns, axis=1))
    valid = np.isfinite(orientations).all() and bool(
        (np.abs(lengths - 1) <= _UNIT_VECTOR_TOLERANCE).all()
        and (skew <= _UNIT_VECTOR_TOLERANCE).all()
    )
    if not valid:
        raise StudyError(StudyReason.INVALID_GEOMETRY, "direction cosines not orthonormal")
    first = middle_row(orientations)
    # The chord between unit vectors; the arc cosine would lose all digits at small angles.
    spread = np.linalg.norm((orientations - first).reshape(-1, 2, 3), axis=2).max()
    if spread > np.deg2rad(MAX_ORIENTATION_SPREAD_DEG):
        detail = f"directions differ by {np.rad2deg(2 * np.arcsin(min(spread / 2, 1))):.1f} degrees"
        raise StudyError(StudyReason.MIXED_ORIENTATION, detail)
    row = first[:3] / np.linalg.norm(first[:3])
    column = first[3:] - row * (first[3:] @ row)
    return np.concatenate([row, column / np.linalg.norm(column)])


def middle_row(values: NDArray[np.float64]) -> Vector:
    """Return the middle one of rows (n, k) in lexical order: the same whatever the files' order."""
    return np.asarray(values[np.lexsort(values.T[::-1])[len(values) // 2]])


def slice_normal(orientation: Vector) -> Vector:
    """Return the normal of the slices: row direction x column direction."""
    return np.cross(orientation[:3], orientation[3:])


def fit_slice_grid(
    positions: NDArray[np.float64], orientation: Vector, min_slices: int = 3
) -> SliceGrid:
    """Fit slice positions to a regular grid along the normal.

    Parameters
    ----------
    positions : (n, 3) ImagePositionPatient, any order.
    orientation : (6,) from `common_orientation`.
    min_slices : fewest distinct positions.

    Raises
    ------
    StudyError
        `invalid_geometry`, `too_few_slices`, `missing_slices`, `uneven_spacing` or
        `gantry_tilt`.
    """
    if not np.isfinite(positions).all() or (np.abs(positions) > _MAX_COORDINATE_MM).any():
        raise StudyError(StudyReason.INVALID_GEOMETRY, "slice positions are not usable numbers")
    along = positions @ slice_normal(orientation)
    groups = group_by_position(along)
    if len(groups) < min_slices:
        detail = f"{len(groups)} distinct slices, {min_slices} needed"
        raise StudyError(StudyReason.TOO_FEW_SLICES, detail)
    firsts = positions[[group[0] for group in groups]]
    grid_index = np.arange(len(groups), dtype=np.float64)
    spacing = _check_spacing(np.array([along[group[0]] for group in groups]))
    step, origin = _fit_line(grid_index, firsts)
    _check_tilt(step, origin, firsts, slice_normal(orientation), spacing)
    return SliceGrid(groups, spacing, origin)


def check_extent(
    spacing_mm: float, pixel_spacing_mm: tuple[float, float], shape: tuple[int, int, int]
) -> None:
    """Refuse sizes that no CT scanner makes: a header that is wrong, so areas would be wrong too.

    Parameters
    ----------
    spacing_mm : slice increment.
    pixel_spacing_mm : between rows, between columns.
    shape : slices, rows, columns.

    Raises
    ------
    StudyError
        `implausible_geometry`.
    """
    fields = (shape[1] * pixel_spacing_mm[0], shape[2] * pixel_spacing_mm[1])
    ranges = (
        ("slice increment", (spacing_mm,), SLICE_INCREMENT_MM),
        ("pixel spacing", pixel_spacing_mm, PIXEL_SPACING_MM),
        ("field of view", fields, (0.0, _MAX_FIELD_MM)),
        ("coverage", (spacing_mm * shape[0],), (0.0, _MAX_COVERAGE_MM)),
    )
    for name, values, (low, high) in ranges:
        for value in values:
            if not low <= value <= high:
                detail = f"{name} of {value:.6g} mm; usable are {low:g} to {high:g} mm"
                raise StudyError(StudyReason.IMPLAUSIBLE_GEOMETRY, detail)


def check_transverse(orientation: Vector) -> None:
    """Refuse coronal and sagittal slices before their positions are judged.

    Up to 45 degrees the slices may still be axial ones of a tilted gantry.

    Raises
    ------
    StudyError
        `not_axial_orientation`.
    """
    off = np.rad2deg(np.arccos(min(abs(slice_normal(orientation)[2]), 1.0)))
    if off > _MAX_TILTED_GANTRY_DEG:
        detail = f"slice normal {off:.1f} degrees off the body axis"
        raise StudyError(StudyReason.NOT_AXIAL_ORIENTATION, detail)


def body_axes(orientation: Vector) -> Reorientation:
    """Find the flips and transpose that bring axial slices to the canonical orientation.

    Raises
    ------
    StudyError
        `not_axial_orientation` where an axis is off a body axis by more than
        `MAX_OBLIQUE_DEG`.
    """
    row, column, normal = orientation[:3], orientation[3:], slice_normal(orientation)
    cosine = np.cos(np.deg2rad(MAX_OBLIQUE_DEG))
    transpose = abs(row[1]) > abs(row[0])
    along_x, along_y = (column, row) if transpose else (row, column)
    if min(abs(normal[2]), abs(along_x[0]), abs(along_y[1])) < cosine:
        off = np.rad2deg(np.arccos(min(abs(normal[2]), 1.0)))
        detail = f"slice normal {off:.1f} degrees off the body axis"
        raise StudyError(StudyReason.NOT_AXIAL_ORIENTATION, detail)
    return Reorientation(
        reverse_slices=bool(normal[2] < 0),
        transpose=bool(transpose),
        reverse_rows=bool(along_y[1] < 0),
        reverse_columns=bool(along_x[0] < 0),
    )


def canonical_affine(
    grid: SliceGrid,
    orientation: Vector,
    pixel_spacing_mm: tuple[float, float],
    stored_shape: tuple[int, int],
    turn: Reorientation,
) -> NDArray[np.float64]:
    """Build the affine of the canonical volume: (slice, row, column, 1) to LPS millimetres, 4 x 4.

    Parameters
    ----------
    grid, orientation : of the stored slices.
    pixel_spacing_mm : stored PixelSpacing, between rows, then between columns.
    stored_shape : rows and columns as stored.
    turn : from `body_axes`.
    """
    between_rows = orientation[3:] * pixel_spacing_mm[0]
    between_columns = orientation[:3] * pixel_spacing_mm[1]
    steps = [slice_normal(orientation) * grid.spacing_mm, between_rows, between_columns]
    counts = [len(grid.groups), *stored_shape]
    if turn.transpose:
        steps[1:], counts[1:] = steps[:0:-1], counts[:0:-1]
    origin = grid.origin.copy()
    reverse = (turn.reverse_slices, turn.reverse_rows, turn.reverse_columns)
    for axis, reversed_ in enumerate(reverse):
        if reversed_:
            origin += steps[axis] * (counts[axis] - 1)
            steps[axis] = -steps[axis]
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack(steps)
    affine[:3, 3] = origin
    # Flipped series must give the same digest: drop what only rounding tells apart.
    return np.round(affine, 6) + 0.0


def group_by_position(along: Vector) -> tuple[tuple[int, ...], ...]:
    """Group the slices by position, ascending along the normal."""
    order = np.argsort(along, kind="stable")
    breaks = np.flatnonzero(np.diff(along[order]) > SAME_POSITION_MM) + 1
    return tuple(tuple(int(i) for i in part) for part in np.split(order, breaks))


def _fit_line(index: Vector, points: NDArray[np.float64]) -> tuple[Vector, Vector]:
    """Fit the least-squares step and origin of points (n, k) over their grid index (n,)."""
    centred = index - index.mean()
    step = centred @ points / (centred @ centred)
    return step, points.mean(axis=0) - step * index.mean()


def _residual(index: Vector, along: Vector) -> tuple[float, float]:
    """Return the fitted spacing, and the largest distance of a slice from the fit."""
    step, origin = _fit_line(index, along[:, None])
    worst = np.abs(origin[0] + step[0] * index - along).max()
    return float(step[0]), float(worst)


def _check_spacing(along: Vector) -> float:
    """Return the spacing of ascending positions; tell missing slices from an uneven grid."""
    index = np.arange(along.size, dtype=np.float64)
    spacing, worst = _residual(index, along)
    gaps = np.diff(along)
    tolerance = tolerance_mm(spacing)
    # A slow drift can hide a gap from the fit's residual, but not from the single gaps.
    if worst <= tolerance and np.abs(gaps - spacing).max() <= 2 * tolerance:
        return round(spacing, 6)
    single = float(np.median(gaps[gaps <= 1.5 * gaps.min()]))
    steps = np.rint(gaps / single)
    filled_spacing, filled_worst = _residual(np.concatenate([[0.0], np.cumsum(steps)]), along)
    if steps.max() > 1 and filled_worst <= tolerance_mm(filled_spacing):
        n_missing = int(steps.sum()) - steps.size
        detail = f"{n_missing} slice(s) of {filled_spacing:.3f} mm missing"
        raise StudyError(StudyReason.MISSING_SLICES, detail)
    detail = f"slice gaps from {gaps.min():.3f} to {gaps.max():.3f} mm"
    raise StudyError(StudyReason.UNEVEN_SPACING, detail)


def _check_tilt(
    step: Vector,
    origin: Vector,
    positions: NDArray[np.float64],
    normal: Vector,
    spacing_mm: float,
) -> None:
    """Check that positions run in a straight line, and along the normal."""
    line = origin + np.arange(len(positions))[:, None] * step
    worst = np.linalg.norm(positions - line, axis=1).max()
    # In-plane rounding adds to the tolerance along the normal.
    if worst > 2 * tolerance_mm(spacing_mm):
        detail = f"slices shifted sideways by up to {worst:.2f} mm"
        raise StudyError(StudyReason.UNEVEN_SPACING, detail)
    sideways = step - normal * (step @ normal)
    angle = np.rad2deg(np.arctan2(np.linalg.norm(sideways), abs(step @ normal)))
    if angle > MAX_TILT_DEG:
        detail = f"positions run {angle:.1f} degrees off the slice normal"
        raise StudyError(StudyReason.GANTRY_TILT, detail)
