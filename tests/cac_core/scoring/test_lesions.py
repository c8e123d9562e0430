"""Pixels and measures of a lesion: cases computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cac_core.protocol import ScoringProtocol
from cac_core.scoring.lesions import Lesions, density_weight, label_lesions
from schemas.lesion import LESIONS

DEFAULT = ScoringProtocol()
NO_MINIMUM = replace(DEFAULT, min_area_mm2=0.0)
UNIT = (3.0, 1.0, 1.0)


def volume(*planes: list[list[int]]) -> NDArray[np.int16]:
    return np.array(planes, np.int16)


def find(
    hu: NDArray[np.int16],
    protocol: ScoringProtocol = DEFAULT,
    spacing_mm: tuple[float, float, float] = UNIT,
    calcium: NDArray[np.uint8] | None = None,
    heart: NDArray[np.bool_] | None = None,
    threshold_hu: float | None = None,
) -> Lesions:
    calcium = np.ones(hu.shape, np.uint8) if calcium is None else calcium
    heart = np.ones(hu.shape, bool) if heart is None else heart
    return label_lesions(hu, calcium, heart, spacing_mm, protocol, threshold_hu)


@pytest.mark.parametrize(
    ("peak", "weight"),
    [
        (129, None),
        (130, 1),
        (131, 1),
        (199, 1),
        (200, 2),
        (299, 2),
        (300, 3),
        (399, 3),
        (400, 4),
        (3071, 4),
        (32767, 4),
    ],
)
def test_threshold_and_weight_edges(peak: int, weight: int | None) -> None:
    lesions = find(volume([[0, 0, 0], [0, peak, 0], [0, 0, 0]]))
    if weight is None:
        assert len(lesions) == 0
    else:
        assert lesions.weight.tolist() == [weight]
        assert lesions.agatston.tolist() == [weight * 1.0]


def test_the_weight_comes_from_the_peak_of_the_lesion_in_its_own_slice() -> None:
    lesions = find(volume([[150, 410]], [[150, 150]]))
    assert lesions.slice_index.tolist() == [0, 1]
    assert lesions.weight.tolist() == [4, 1]
    assert lesions.agatston.tolist() == [8.0, 2.0]
    assert lesions.peak_hu.tolist() == [410, 150]
    assert lesions.mean_hu.tolist() == [280.0, 150.0]


def test_density_weight_below_the_threshold_is_zero() -> None:
    assert density_weight([129.9, 130.0, 399.9], DEFAULT).tolist() == [0, 1, 3]
    assert density_weight(400, DEFAULT) == 4


def test_a_threshold_for_low_voltage_moves_the_weight_edges_in_proportion() -> None:
    # 177/130 x (200, 300, 400) = 272.3, 408.5, 544.6; published limits 271, 408, 544.
    peaks = [176, 177, 271, 273, 408, 409, 544, 545]
    assert density_weight(peaks, DEFAULT, 177.0).tolist() == [0, 1, 1, 2, 2, 3, 3, 4]
    hu = volume([[150, 0, 250]])
    assert find(hu, threshold_hu=177.0).weight.tolist() == [1]
    assert find(hu).weight.tolist() == [1, 2]
    # A protocol with another threshold of its own keeps the edges that it names.
    own = replace(DEFAULT, threshold_hu=160.0)
    assert density_weight([160, 199, 200], own).tolist() == [1, 1, 2]
    high = replace(DEFAULT, threshold_hu=250.0)
    assert density_weight([249, 250, 299, 300], high).tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize(
    ("row_mm", "n_pixels", "kept"),
    [
        (0.5, 2, True),  # 2 x 0.5 mm2 = 1 mm2, exactly the minimum
        (0.4995, 2, False),  # 0.999 mm2
        (0.1, 10, True),  # 1 mm2 again, which binary fractions miss by one digit
        (0.1, 9, False),
        (1 / 3, 3, True),
        (1.0, 1, True),
    ],
)
def test_minimum_area(row_mm: float, n_pixels: int, kept: bool) -> None:
    lesions = find(volume([[150] * n_pixels]), spacing_mm=(3.0, row_mm, 1.0))
    assert (len(lesions) == 1) is kept


def test_minimum_area_applies_to_each_lesion() -> None:
    # Two pixels of 0.36 mm2 each apart: 0.72 mm2 together, three touching: 1.08 mm2.
    hu = volume([[150, 0, 150, 0, 150, 150, 150]])
    lesions = find(hu, spacing_mm=(3.0, 0.6, 0.6))
    assert lesions.n_pixels.tolist() == [3]
    assert find(hu, NO_MINIMUM, (3.0, 0.6, 0.6)).n_pixels.tolist() == [1, 1, 3]


def test_diagonal_neighbours_are_one_lesion_by_8_and_two_by_4() -> None:
    hu = volume([[210, 0, 0], [0, 140, 0], [0, 0, 0]])
    eight = find(hu)
    assert eight.n_pixels.tolist() == [2]
    assert eight.agatston.tolist() == [4.0]
    four = find(hu, replace(DEFAULT, connectivity=4))
    assert four.n_pixels.tolist() == [1, 1]
    assert four.agatston.tolist() == [2.0, 1.0]


def test_lesions_of_neighbouring_slices_are_not_joined() -> None:
    hu = np.full((3, 2, 2), 150, np.int16)
    hu[1, 0, 0] = 500
    assert find(hu).weight.tolist() == [1, 4, 1]
    # Not even diagonally across slices.
    hu[...] = 0
    hu[0, 0, 0], hu[1, 1, 1] = 150, 150
    assert len(find(hu)) == 2


def test_touching_classes_are_two_lesions() -> None:
    hu = volume([[150, 450, 450]])
    lesions = find(hu, calcium=np.array([[[1, 1, 2]]], np.uint8))
    assert lesions.calcium_class.tolist() == [1, 2]
    assert lesions.weight.tolist() == [4, 4]
    assert lesions.n_pixels.tolist() == [2, 1]
    split = find(hu, calcium=np.array([[[1, 2, 1]]], np.uint8))
    assert split.calcium_class.tolist() == [1, 1, 2]
    assert split.weight.tolist() == [1, 4, 4]


def test_calcium_outside_the_heart_or_unclassified_does_not_count() -> None:
    hu = volume([[500, 0, 500, 0, 500]])
    heart = np.array([[[True, True, False, True, True]]])
    calcium = np.array([[[1, 0, 1, 0, 0]]], np.uint8)
    lesions = find(hu, calcium=calcium, heart=heart)
    assert lesions.centroid_column.tolist() == [0.0]


def test_a_mask_that_cuts_a_lesion_takes_its_peak_and_can_split_it() -> None:
    hu = volume([[150, 150, 450, 150, 150]])
    whole = find(hu)
    assert whole.agatston.tolist() == [20.0]
    heart = np.array([[[True, True, False, True, True]]])
    assert find(hu, heart=heart).agatston.tolist() == [2.0, 2.0]
    # What is left may fall below the minimum area.
    small = (3.0, 0.7, 0.7)
    assert len(find(hu, spacing_mm=small, heart=heart)) == 0


def test_a_lesion_at_the_border_of_the_image() -> None:
    hu = np.zeros((2, 4, 5), np.int16)
    hu[0, :, 0] = hu[0, 0, :] = 140
    hu[1, 3, 4] = 330
    lesions = find(hu)
    assert lesions.n_pixels.tolist() == [8, 1]
    assert lesions.agatston.tolist() == [8.0, 3.0]
    # The left and right border are not neighbours.
    hu[...] = 0
    hu[0, 1, 4] = hu[0, 2, 0] = 150
    assert len(find(hu)) == 2


@pytest.mark.parametrize("increment", [1.5, 2.5, 3.0, 5.0])
def test_anisotropic_pixels_and_slice_increment(increment: float) -> None:
    hu = volume([[310, 200], [150, 130]])
    lesions = find(hu, spacing_mm=(increment, 0.5, 0.8))
    assert lesions.area_mm2.tolist() == pytest.approx([1.6])
    assert lesions.agatston.tolist() == pytest.approx([1.6 * 3 * increment / 3])
    assert lesions.volume_mm3.tolist() == pytest.approx([1.6 * increment])


def test_overlapping_slices_count_by_their_increment() -> None:
    # 3 mm thick slices every 1.5 mm: twice the slices, the same score.
    apart = np.full((4, 3, 3), 150, np.int16)
    overlapping = np.repeat(apart, 2, axis=0)
    assert find(overlapping, spacing_mm=(1.5, 1.0, 1.0)).agatston.sum() == pytest.approx(
        find(apart, spacing_mm=(3.0, 1.0, 1.0)).agatston.sum()
    )


def test_mass_by_hand() -> None:
    # 2 pixels of 0.25 mm2 in 4 mm: 2 mm3 = 0.002 ml; mean 300 HU; 0.8 mg/ml per HU.
    hu = volume([[200, 400]])
    protocol = replace(NO_MINIMUM, mass_calibration_mg_per_ml_hu=0.8)
    lesions = find(hu, protocol, (4.0, 0.5, 0.5))
    assert lesions.mass_mg.tolist() == pytest.approx([0.002 * 300 * 0.8])
    assert math.isnan(find(hu, NO_MINIMUM, (4.0, 0.5, 0.5)).mass_mg[0])


def test_order_and_centroid() -> None:
    hu = np.zeros((2, 4, 6), np.int16)
    calcium = np.ones(hu.shape, np.uint8)
    hu[1, 0, 0] = 150
    hu[0, 0, 0:2] = 150
    calcium[0, 0, 0:2] = 2
    hu[0, 3, 5] = 150
    hu[0, 2:4, 1:3] = 150
    lesions = find(hu, calcium=calcium)
    assert lesions.slice_index.tolist() == [0, 0, 0, 1]
    assert lesions.calcium_class.tolist() == [1, 1, 2, 1]
    assert lesions.centroid_row.tolist() == [2.5, 3.0, 0.0, 0.0]
    assert lesions.centroid_column.tolist() == [1.5, 5.0, 0.5, 0.0]


def test_no_lesions() -> None:
    hu = np.full((2, 3, 3), 500, np.int16)
    nothing = np.zeros(hu.shape, np.uint8)
    for lesions in (
        find(hu, calcium=nothing),
        find(hu, heart=nothing.astype(bool)),
        find(np.zeros((0, 3, 3), np.int16)),
        find(np.full((2, 3, 3), -1024, np.int16)),
    ):
        assert len(lesions) == 0
        assert lesions.rows("0" * 32, "p") == []


def test_non_contiguous_arrays() -> None:
    hu = np.zeros((2, 6, 6), np.int16)
    hu[:, ::2, ::2] = 210
    view = hu[:, ::2, ::2]
    assert find(view).n_pixels.tolist() == [9, 9]
    turned = find(np.asfortranarray(view))
    assert turned.n_pixels.tolist() == [9, 9]


def test_rows_fit_the_table() -> None:
    hu = volume([[210, 140, 0, 500]], [[0, 0, 0, 150]])
    calcium = np.array([[[1, 1, 1, 2]], [[1, 1, 1, 1]]], np.uint8)
    rows = find(hu, calcium=calcium).rows("ab" * 16, "0123456789abcdef")
    assert rows[0] == {
        "study_key": "ab" * 16,
        "protocol_digest": "0123456789abcdef",
        "calcium_class": "coronary",
        "slice_index": 0,
        "centroid_row": 0.0,
        "centroid_column": 0.5,
        "n_pixels": 2,
        "area_mm2": 2.0,
        "peak_hu": 210,
        "mean_hu": 175.0,
        "density_weight": 2,
        "agatston": 4.0,
        "volume_mm3": 6.0,
    }
    assert {type(value) for row in rows for value in row.values()} == {str, int, float}
    table = LESIONS.from_rows(rows)
    assert table.schema.names == list(rows[0])
    assert table["calcium_class"].to_pylist() == ["coronary", "noncoronary", "coronary"]


@pytest.mark.parametrize("spacing_mm", [(0.0, 1.0, 1.0), (3.0, -1.0, 1.0), (3.0, 1.0, math.nan)])
def test_an_invalid_spacing_is_refused(spacing_mm: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="spacing"):
        find(volume([[150]]), spacing_mm=spacing_mm)


def test_inconsistent_arrays_are_refused() -> None:
    hu = np.full((2, 3, 3), 150, np.int16)
    with pytest.raises(ValueError, match="share one shape"):
        find(hu, heart=np.ones((2, 3, 4), bool))
    with pytest.raises(ValueError, match="share one shape"):
        label_lesions(hu[0], hu[0].astype(np.uint8), hu[0] > 0, UNIT, DEFAULT)
    with pytest.raises(ValueError, match="class 3"):
        find(hu, calcium=np.full(hu.shape, 3, np.uint8))
