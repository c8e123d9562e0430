"""Slice grids and canonical axes, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cac_core.dicom.geometry import (
    GeometryError,
    GeometryFault,
    body_axes,
    canonical_affine,
    common_orientation,
    fit_slice_grid,
    slice_normal,
)
from schemas.codes import StudyReason

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])


def positions(z: list[float] | np.ndarray, x: float = -100.0, y: float = -90.0) -> np.ndarray:
    z = np.asarray(z, float)
    return np.column_stack([np.full_like(z, x), np.full_like(z, y), z])


def fault_of(*args: object, **kwargs: object) -> GeometryFault:
    with pytest.raises(GeometryError) as caught:
        fit_slice_grid(*args, **kwargs)  # type: ignore[arg-type]
    return caught.value.fault


def test_spacing_is_the_distance_of_positions_in_any_order() -> None:
    grid = fit_slice_grid(positions([10, 4, 7, 1]), AXIAL)
    assert grid.spacing_mm == 3.0
    assert grid.groups == ((3,), (1,), (2,), (0,))
    np.testing.assert_allclose(grid.origin, [-100, -90, 1])


def test_positions_are_projected_on_the_normal() -> None:
    # Slices turned by 4 degrees about x, positions along their normal: 2 mm apart along it.
    angle = np.deg2rad(4)
    orientation = np.array([1, 0, 0, 0, np.cos(angle), np.sin(angle)])
    along = np.arange(5)[:, None] * 2.0 * slice_normal(orientation)
    assert fit_slice_grid(along, orientation).spacing_mm == pytest.approx(2.0, abs=1e-6)


def test_rounded_positions_are_regular() -> None:
    z = np.round(np.arange(60) * 1.171875, 1)
    grid = fit_slice_grid(positions(z), AXIAL)
    assert grid.spacing_mm == pytest.approx(1.171875, abs=0.001)


@pytest.mark.parametrize(
    ("z", "fault"),
    [
        ([0, 3, 6, 12, 15, 18], GeometryFault.MISSING_SLICES),
        ([0, 3, 6, 15, 18, 27, 30], GeometryFault.MISSING_SLICES),
        ([*range(0, 90, 3), 292.5, 295.5, 298.5], GeometryFault.UNEVEN_SPACING),
        ([0, 3, 6, 10, 13, 16], GeometryFault.UNEVEN_SPACING),
        ([*np.arange(0, 30, 3.0), *np.arange(30, 60, 5.0)], GeometryFault.UNEVEN_SPACING),
        ([0, 3], GeometryFault.TOO_FEW_SLICES),
        ([5, 5, 5, 5], GeometryFault.TOO_FEW_SLICES),
        ([0, 3, np.nan], GeometryFault.INVALID_GEOMETRY),
        ([0, 3, 1e12], GeometryFault.INVALID_GEOMETRY),
    ],
)
def test_irregular_positions_have_a_fault(z: list[float], fault: GeometryFault) -> None:
    assert fault_of(positions(z), AXIAL) == fault


def test_one_missing_slice_of_two_hundred_is_detected() -> None:
    z = np.delete(np.arange(200) * 0.6, 100)
    assert fault_of(positions(z), AXIAL) == GeometryFault.MISSING_SLICES


@pytest.mark.parametrize("off", [0.09, -0.09])
def test_small_errors_of_one_slice_are_accepted(off: float) -> None:
    z = np.arange(20) * 3.0
    z[7] += off
    assert fit_slice_grid(positions(z), AXIAL).spacing_mm == pytest.approx(3.0, abs=0.002)


@pytest.mark.parametrize("off", [0.4, -0.4, 1.0])
def test_larger_errors_of_one_slice_are_refused(off: float) -> None:
    z = np.arange(20) * 3.0
    z[7] += off
    assert fault_of(positions(z), AXIAL) == GeometryFault.UNEVEN_SPACING


def test_duplicates_are_grouped() -> None:
    grid = fit_slice_grid(positions([0, 2, 2, 4, 6]), AXIAL)
    assert [len(group) for group in grid.groups] == [1, 2, 1, 1]


@pytest.mark.parametrize("degrees", [1.0, -18.5, 30.0])
def test_sideways_drift_is_gantry_tilt(degrees: float) -> None:
    shifted = positions(np.arange(10) * 3.0)
    shifted[:, 1] += np.arange(10) * 3.0 * np.tan(np.deg2rad(degrees))
    assert fault_of(shifted, AXIAL) == GeometryFault.GANTRY_TILT


def test_tilted_slices_stacked_along_the_table_are_gantry_tilt() -> None:
    angle = np.deg2rad(18.5)
    orientation = np.array([1, 0, 0, 0, np.cos(angle), -np.sin(angle)])
    assert fault_of(positions(np.arange(10) * 3.0), orientation) == GeometryFault.GANTRY_TILT


def test_one_slice_reconstructed_off_centre_is_detected() -> None:
    shifted = positions(np.arange(10) * 3.0)
    shifted[4, 0] += 5
    assert fault_of(shifted, AXIAL) == GeometryFault.UNEVEN_SPACING


@pytest.mark.parametrize(
    ("cosines", "fault"),
    [
        ([[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]], GeometryFault.MIXED_ORIENTATION),
        ([[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, 1, 0]], GeometryFault.MIXED_ORIENTATION),
        ([[1, 0, 0, 0, 1, 0], [1, 0.01, 0, -0.01, 1, 0]], GeometryFault.MIXED_ORIENTATION),
        ([[0, 0, 0, 0, 0, 0]], GeometryFault.INVALID_GEOMETRY),
        ([[1, 0, 0, 1, 0, 0]], GeometryFault.INVALID_GEOMETRY),
        ([[2, 0, 0, 0, 2, 0]], GeometryFault.INVALID_GEOMETRY),
    ],
)
def test_invalid_and_mixed_orientations(cosines: list[list[float]], fault: GeometryFault) -> None:
    with pytest.raises(GeometryError) as caught:
        common_orientation(np.array(cosines, float))
    assert caught.value.fault == fault


@pytest.mark.parametrize(
    "cosines",
    [
        [1, 0, 0, 0, 0, -1],
        [0, 1, 0, 0, 0, -1],
        [1, 0, 0, 0, np.cos(0.2), np.sin(0.2)],
        [np.sqrt(0.5), np.sqrt(0.5), 0, -np.sqrt(0.5), np.sqrt(0.5), 0],
    ],
    ids=["coronal", "sagittal", "oblique", "turned in plane"],
)
def test_not_axial(cosines: list[float]) -> None:
    with pytest.raises(GeometryError) as caught:
        body_axes(np.array(cosines, float))
    assert caught.value.fault == GeometryFault.NOT_AXIAL_ORIENTATION


def test_three_degrees_off_are_accepted() -> None:
    angle = np.deg2rad(3)
    turn = body_axes(np.array([1, 0, 0, 0, np.cos(angle), np.sin(angle)]))
    assert not (turn.reverse_slices or turn.transpose or turn.reverse_rows or turn.reverse_columns)


IN_PLANE = [
    (x_sign, y_sign, swap) for x_sign in (1, -1) for y_sign in (1, -1) for swap in (False, True)
]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(IN_PLANE),
    st.integers(3, 8),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.floats(0.3, 5), st.floats(0.3, 5)),
)
def test_affine_agrees_with_the_standard_for_every_pixel(
    signs: tuple[int, int, bool],
    n_slices: int,
    shape: tuple[int, int],
    spacing: tuple[float, float],
) -> None:
    """PS3.3 C.7.6.2.1.1 gives the place of a stored pixel; the canonical affine must agree."""
    x_sign, y_sign, swap = signs
    x, y = np.array([x_sign, 0, 0.0]), np.array([0, y_sign, 0.0])
    orientation = np.concatenate([y, x] if swap else [x, y])
    where = positions(np.arange(n_slices) * 2.5)
    grid = fit_slice_grid(where, orientation)
    turn = body_axes(orientation)
    affine = canonical_affine(grid, orientation, spacing, shape, turn)
    # A volume whose pixels hold their own LPS coordinates, computed as the standard says.
    r, c = np.indices(shape)
    stored = (
        where[:, None, None]
        + c[..., None] * spacing[1] * orientation[:3]
        + r[..., None] * spacing[0] * orientation[3:]
    )
    order = [group[0] for group in grid.groups]
    order = order[::-1] if turn.reverse_slices else order
    canonical = np.empty((n_slices, *(shape[::-1] if turn.transpose else shape), 3))
    for place, k in enumerate(order):
        for axis in range(3):
            turn.stored(canonical[place, :, :, axis])[:] = stored[k, :, :, axis]
    index = np.stack([*np.indices(canonical.shape[:3]), np.ones(canonical.shape[:3])], axis=-1)
    np.testing.assert_allclose((index @ affine.T)[..., :3], canonical, atol=1e-4)
    assert (np.diag(affine[:3, :3][::-1]) > 0).all()


def test_every_fault_is_a_reason_of_a_study() -> None:
    assert {fault.value for fault in GeometryFault} <= {reason.value for reason in StudyReason}


def test_tolerances_can_be_set() -> None:
    uneven = positions([0, 3, 6.4, 9, 12])
    assert fault_of(uneven, AXIAL) == GeometryFault.UNEVEN_SPACING
    assert fit_slice_grid(uneven, AXIAL, tolerance_mm=0.5).spacing_mm == pytest.approx(3.0)
    two = positions([0, 3])
    assert fit_slice_grid(two, AXIAL, min_slices=2).spacing_mm == 3.0
    oblique = np.array([1, 0, 0, 0, np.cos(0.2), np.sin(0.2)])
    assert not body_axes(oblique, max_oblique_deg=12.0).transpose
