"""From slice positions to a regular grid, and from scanner axes to the canonical axes.

Pure geometry on arrays, without DICOM objects. Coordinates are LPS millimetres as in DICOM (x to
the patient's left, y to posterior, z to the head; PS3.3 C.7.6.2.1.1). The slice increment comes
from the positions projected on the slice normal, never from SliceThickness or
SpacingBetweenSlices. All tolerances are keyword arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cac_core.dicom.increment import SAME_POSITION_MM

Vector = NDArray[np.float64]
_Pixel = TypeVar("_Pixel", bound=np.generic)

#: Largest angle between the axes of the volume and of the body; below it nothing is resampled.
MAX_OBLIQUE_DEG = 5.0
#: Largest angle between slice normal and body axis that a tilted gantry can explain.
MAX_TILTED_GANTRY_DEG = 45.0
#: Largest angle between the orientations of two slices; rounding in headers is far below it.
MAX_ORIENTATION_SPREAD_DEG = 0.25
#: Largest angle between the line of positions and the slice normal: 1.7 mm over 200 mm.
MAX_TILT_DEG = 0.5
#: A slice lies on the grid when it is off by no more than the larger of these two: an absolute
#: distance, and a share of the slice increment.
GRID_TOLERANCE_MM = 0.1
GRID_TOLERANCE_RELATIVE = 0.025
#: Coordinates above this are corrupt: no scanner room is that large.
MAX_COORDINATE_MM = 100_000.0
#: Largest deviation of direction cosines from unit length and from a right angle.
UNIT_VECTOR_TOLERANCE = 0.01
#: Slice increments that are scored. CT reconstructs from 0.2 mm, CTAC up to 10 mm; above 20 mm a
#: whole coronary artery fits between two slices.
SLICE_INCREMENT_MM = (0.1, 20.0)
#: Body CT has pixels above 0.1 mm; an attenuation map on a SPECT matrix of 64 x 64 has 6.8 mm.
PIXEL_SPACING_MM = (0.1, 8.0)
#: Body scanners reconstruct up to 820 mm; tables move up to 2 m.
MAX_FIELD_MM = 1000.0
MAX_COVERAGE_MM = 2500.0


class GeometryFault(StrEnum):
    """What is wrong with a geometry; each value is also a `schemas.codes.StudyReason`."""

    INVALID_GEOMETRY = "invalid_geometry"
    IMPLAUSIBLE_GEOMETRY = "implausible_geometry"
    NOT_AXIAL_ORIENTATION = "not_axial_orientation"
    MIXED_ORIENTATION = "mixed_orientation"
    GANTRY_TILT = "gantry_tilt"
    MISSING_SLICES = "missing_slices"
    UNEVEN_SPACING = "uneven_spacing"
    TOO_FEW_SLICES = "too_few_slices"


class GeometryError(ValueError):
    """Positions or orientations do not describe a regular axial volume.

    Parameters
    ----------
    fault : what is wrong.
    detail : the numbers that show it.
    """

    def __init__(self, fault: GeometryFault, detail: str) -> None:
        super().__init__(fault, detail)
        self.fault = fault
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.fault.value}: {self.detail}"


@dataclass(frozen=True, slots=True)
class SliceGrid:
    """Slices on a regular grid.

    Parameters
    ----------
    groups : for each grid position, in ascending order along the normal, the indices of the
        slices at it (more than one where slices are duplicated).
    spacing_mm : slice increment of the fitted grid.
    origin : (3,), LPS position of the first pixel of the first slice, from the fit.
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

    def stored(self, plane: NDArray[_Pixel]) -> NDArray[_Pixel]:
        """Return the view as stored of one canonical slice; no copy."""
        flipped = plane[::-1] if self.reverse_rows else plane
        flipped = flipped[:, ::-1] if self.reverse_columns else flipped
        return flipped.T if self.transpose else flipped


def grid_tolerance_mm(
    spacing_mm: float,
    *,
    absolute_mm: float = GRID_TOLERANCE_MM,
    relative: float = GRID_TOLERANCE_RELATIVE,
) -> float:
    """Return the largest distance of a slice from the regular grid.

    Parameters
    ----------
    spacing_mm : slice increment.
    absolute_mm, relative : the larger one counts; `relative` is a share of the slice increment.
    """
    return max(absolute_mm, relative * spacing_mm)


def common_orientation(
    orientations: NDArray[np.float64],
    *,
    unit_vector_tolerance: float = UNIT_VECTOR_TOLERANCE,
    max_spread_deg: float = MAX_ORIENTATION_SPREAD_DEG,
) -> Vector:
    """Return the orientation that all slices share, made orthonormal.

    Parameters
    ----------
    orientations : (n, 6), ImageOrientationPatient of the slices.
    unit_vector_tolerance : largest deviation of the cosines from length 1 and from a right angle.
    max_spread_deg : largest angle of a slice to the middle one.

    Returns
    -------
    (6,), row direction cosines, then column direction cosines.

    Raises
    ------
    GeometryError
        `invalid_geometry` where the cosines are not orthogonal unit vectors, `mixed_orientation`
        where slices differ.
    """
    if not _are_orthonormal(orientations, unit_vector_tolerance):
        raise GeometryError(GeometryFault.INVALID_GEOMETRY, "direction cosines not orthonormal")
    first = middle_row(orientations)
    # The chord between unit vectors; the arc cosine would lose all digits at small angles.
    spread = np.linalg.norm((orientations - first).reshape(-1, 2, 3), axis=2).max()
    if spread > np.deg2rad(max_spread_deg):
        detail = f"directions differ by {np.rad2deg(2 * np.arcsin(min(spread / 2, 1))):.1f} degrees"
        raise GeometryError(GeometryFault.MIXED_ORIENTATION, detail)
    row = first[:3] / np.linalg.norm(first[:3])
    column = first[3:] - row * (first[3:] @ row)
    return np.concatenate([row, column / np.linalg.norm(column)])


def _are_orthonormal(orientations: NDArray[np.float64], tolerance: float) -> bool:
    rows, columns = orientations[:, :3], orientations[:, 3:]
    lengths = np.linalg.norm([rows, columns], axis=2)
    skew = np.abs(np.sum(rows * columns, axis=1))
    return bool(
        np.isfinite(orientations).all()
        and (np.abs(lengths - 1) <= tolerance).all()
        and (skew <= tolerance).all()
    )


def middle_row(values: NDArray[np.float64]) -> Vector:
    """Return the middle row of (n, k) values in lexical order, independent of the file order."""
    return np.asarray(values[np.lexsort(values.T[::-1])[len(values) // 2]])


def slice_normal(orientation: Vector) -> Vector:
    """Return the normal of the slices: row direction x column direction."""
    return np.cross(orientation[:3], orientation[3:])


def fit_slice_grid(
    positions: NDArray[np.float64],
    orientation: Vector,
    *,
    min_slices: int = 3,
    same_position_mm: float = SAME_POSITION_MM,
    tolerance_mm: float = GRID_TOLERANCE_MM,
    relative_tolerance: float = GRID_TOLERANCE_RELATIVE,
    max_tilt_deg: float = MAX_TILT_DEG,
    max_coordinate_mm: float = MAX_COORDINATE_MM,
) -> SliceGrid:
    """Fit slice positions to a regular grid along the normal, by least squares.

    Parameters
    ----------
    positions : (n, 3), ImagePositionPatient, in any order.
    orientation : (6,), from `common_orientation`.
    min_slices : fewest distinct positions.
    same_position_mm : slices closer than this share a position.
    tolerance_mm, relative_tolerance : distance of a slice from the grid, see `grid_tolerance_mm`.
    max_tilt_deg : largest angle between the line of positions and the normal.
    max_coordinate_mm : largest coordinate that is accepted as a number.

    Raises
    ------
    GeometryError
        `invalid_geometry`, `too_few_slices`, `missing_slices`, `uneven_spacing` or
        `gantry_tilt`.
    """
    if not np.isfinite(positions).all() or (np.abs(positions) > max_coordinate_mm).any():
        detail = "slice positions are not usable numbers"
        raise GeometryError(GeometryFault.INVALID_GEOMETRY, detail)
    normal = slice_normal(orientation)
    along = positions @ normal
    groups = group_by_position(along, same_position_mm=same_position_mm)
    if len(groups) < min_slices:
        detail = f"{len(groups)} distinct slices, {min_slices} needed"
        raise GeometryError(GeometryFault.TOO_FEW_SLICES, detail)
    first = [group[0] for group in groups]
    tolerance = _Tolerance(tolerance_mm, relative_tolerance)
    spacing = _check_spacing(along[first], tolerance)
    step, origin = _fit_line(np.arange(len(groups), dtype=np.float64), positions[first])
    _check_line(step, origin, positions[first], tolerance.at(spacing))
    _check_tilt(step, normal, max_tilt_deg)
    return SliceGrid(groups, spacing, origin)


def check_extent(
    spacing_mm: float,
    pixel_spacing_mm: tuple[float, float],
    shape: tuple[int, int, int],
    *,
    slice_increment_range_mm: tuple[float, float] = SLICE_INCREMENT_MM,
    pixel_spacing_range_mm: tuple[float, float] = PIXEL_SPACING_MM,
    max_field_mm: float = MAX_FIELD_MM,
    max_coverage_mm: float = MAX_COVERAGE_MM,
) -> None:
    """Refuse sizes that no CT scanner makes: the header is wrong, and so would areas be.

    Parameters
    ----------
    spacing_mm : slice increment.
    pixel_spacing_mm : between rows, between columns.
    shape : slices, rows, columns.
    slice_increment_range_mm, pixel_spacing_range_mm : smallest and largest plausible value.
    max_field_mm, max_coverage_mm : largest size in the slice, and along the normal.

    Raises
    ------
    GeometryError
        `implausible_geometry`.
    """
    fields = (shape[1] * pixel_spacing_mm[0], shape[2] * pixel_spacing_mm[1])
    ranges = (
        ("slice increment", (spacing_mm,), slice_increment_range_mm),
        ("pixel spacing", pixel_spacing_mm, pixel_spacing_range_mm),
        ("field of view", fields, (0.0, max_field_mm)),
        ("coverage", (spacing_mm * shape[0],), (0.0, max_coverage_mm)),
    )
    for name, values, (low, high) in ranges:
        for value in values:
            if not low <= value <= high:
                detail = f"{name} of {value:.6g} mm; usable are {low:g} to {high:g} mm"
                raise GeometryError(GeometryFault.IMPLAUSIBLE_GEOMETRY, detail)


def check_transverse(
    orientation: Vector, *, max_tilted_gantry_deg: float = MAX_TILTED_GANTRY_DEG
) -> None:
    """Refuse coronal and sagittal slices before their positions are checked.

    Below the limit the slices may still be axial slices of a tilted gantry.

    Parameters
    ----------
    orientation : (6,), from `common_orientation`.
    max_tilted_gantry_deg : largest angle between slice normal and body axis.

    Raises
    ------
    GeometryError
        `not_axial_orientation`.
    """
    angle = _angle_to_body_axis_deg(orientation)
    if angle > max_tilted_gantry_deg:
        raise _not_axial(angle)


def body_axes(orientation: Vector, *, max_oblique_deg: float = MAX_OBLIQUE_DEG) -> Reorientation:
    """Find the flips and transpose that bring axial slices to the canonical orientation.

    Parameters
    ----------
    orientation : (6,), from `common_orientation`.
    max_oblique_deg : largest angle between an axis of the volume and the body axis next to it.

    Raises
    ------
    GeometryError
        `not_axial_orientation` where an axis exceeds that angle.
    """
    row, column, normal = orientation[:3], orientation[3:], slice_normal(orientation)
    cosine = np.cos(np.deg2rad(max_oblique_deg))
    transpose = abs(row[1]) > abs(row[0])
    along_x, along_y = (column, row) if transpose else (row, column)
    if min(abs(normal[2]), abs(along_x[0]), abs(along_y[1])) < cosine:
        raise _not_axial(_angle_to_body_axis_deg(orientation))
    return Reorientation(
        reverse_slices=bool(normal[2] < 0),
        transpose=bool(transpose),
        reverse_rows=bool(along_y[1] < 0),
        reverse_columns=bool(along_x[0] < 0),
    )


def _angle_to_body_axis_deg(orientation: Vector) -> float:
    return float(np.rad2deg(np.arccos(min(abs(slice_normal(orientation)[2]), 1.0))))


def _not_axial(angle_deg: float) -> GeometryError:
    detail = f"slice normal {angle_deg:.1f} degrees off the body axis"
    return GeometryError(GeometryFault.NOT_AXIAL_ORIENTATION, detail)


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
    # Flipped series must give the same digest: remove differences of rounding.
    return np.round(affine, 6) + 0.0


def group_by_position(
    along: Vector, *, same_position_mm: float = SAME_POSITION_MM
) -> tuple[tuple[int, ...], ...]:
    """Group slices by position, in ascending order.

    Parameters
    ----------
    along : (n,), positions along the normal in mm.
    same_position_mm : slices closer than this share a position.

    Returns
    -------
    Indices of the slices at each position.
    """
    order = np.argsort(along, kind="stable")
    breaks = np.flatnonzero(np.diff(along[order]) > same_position_mm) + 1
    return tuple(tuple(int(i) for i in part) for part in np.split(order, breaks))


@dataclass(frozen=True, slots=True)
class _Tolerance:
    """Largest distance of a slice from the grid: absolute, and relative to the increment."""

    absolute_mm: float
    relative: float

    def at(self, spacing_mm: float) -> float:
        return grid_tolerance_mm(spacing_mm, absolute_mm=self.absolute_mm, relative=self.relative)


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


def _check_spacing(along: Vector, tolerance: _Tolerance) -> float:
    """Return the spacing of ascending positions; distinguish missing slices from uneven ones."""
    index = np.arange(along.size, dtype=np.float64)
    spacing, worst = _residual(index, along)
    gaps = np.diff(along)
    limit = tolerance.at(spacing)
    # A slow drift can hide a gap from the residual of the fit, but not from the single gaps.
    if worst <= limit and np.abs(gaps - spacing).max() <= 2 * limit:
        return round(spacing, 6)
    single = float(np.median(gaps[gaps <= 1.5 * gaps.min()]))
    steps = np.rint(gaps / single)
    filled_spacing, filled_worst = _residual(np.concatenate([[0.0], np.cumsum(steps)]), along)
    if steps.max() > 1 and filled_worst <= tolerance.at(filled_spacing):
        n_missing = int(steps.sum()) - steps.size
        detail = f"{n_missing} slice(s) of {filled_spacing:.3f} mm missing"
        raise GeometryError(GeometryFault.MISSING_SLICES, detail)
    detail = f"slice gaps from {gaps.min():.3f} to {gaps.max():.3f} mm"
    raise GeometryError(GeometryFault.UNEVEN_SPACING, detail)


def _check_line(
    step: Vector, origin: Vector, positions: NDArray[np.float64], tolerance_mm: float
) -> None:
    """Check that positions (n, 3) run in a straight line."""
    line = origin + np.arange(len(positions))[:, None] * step
    worst = np.linalg.norm(positions - line, axis=1).max()
    # In-plane rounding adds to the tolerance along the normal.
    if worst > 2 * tolerance_mm:
        detail = f"slices shifted sideways by up to {worst:.2f} mm"
        raise GeometryError(GeometryFault.UNEVEN_SPACING, detail)


def _check_tilt(step: Vector, normal: Vector, max_tilt_deg: float) -> None:
    """Check that the line of positions runs along the normal."""
    sideways = step - normal * (step @ normal)
    angle = np.rad2deg(np.arctan2(np.linalg.norm(sideways), abs(step @ normal)))
    if angle > max_tilt_deg:
        detail = f"positions run {angle:.1f} degrees off the slice normal"
        raise GeometryError(GeometryFault.GANTRY_TILT, detail)
