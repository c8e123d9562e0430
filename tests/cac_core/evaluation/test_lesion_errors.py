"""Comparison of a segmentation with the truth, on pictures small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.evaluation.lesion_errors import CAUSES, compare, dice
from cac_core.protocol import ScoringProtocol

SHAPE = (4, 12, 12)
SPACING = (3.0, 1.0, 1.0)


def scene() -> dict[str, np.ndarray]:
    """Two true lesions (8 and 2 voxels), a valve beside the second, everything in the heart."""
    hu = np.full(SHAPE, 40, np.int16)
    true = np.zeros(SHAPE, np.uint8)
    causes = np.zeros(SHAPE, np.uint8)
    true[1:3, 1:3, 1:3] = 1
    true[1, 8, 8:10] = 1
    true[1, 10, 8:10] = 2
    causes[true == 2] = CAUSES.index("valve")
    hu[true > 0] = 250
    hu[1, 1, 1] = 500
    heart = np.ones(SHAPE, bool)
    return {"hu": hu, "true": true, "causes": causes, "heart": heart}


def run(s: dict[str, np.ndarray], found: np.ndarray, heart: np.ndarray | None = None):
    return compare(
        s["hu"],
        true_heart=s["heart"],
        true_class=s["true"],
        cause_of_voxel=s["causes"],
        found_heart=s["heart"] if heart is None else heart,
        found_class=found,
        spacing_mm=SPACING,
        protocol=ScoringProtocol(),
    )


def test_all_found() -> None:
    s = scene()
    result = run(s, s["true"])
    assert [(le.volume_mm3, le.peak_hu, le.found, le.cause) for le in result.true_lesions] == [
        (24.0, 500.0, True, ""),
        (6.0, 250.0, True, ""),
    ]
    assert result.false_lesions == ()
    assert (result.false_positive_mm3, result.sensitivity, result.heart_dice) == (0, 1, 1)


def test_nothing_found_names_the_causes() -> None:
    result = run(scene(), np.zeros(SHAPE, np.uint8))
    assert [lesion.cause for lesion in result.true_lesions] == ["noise", "valve"]
    assert result.sensitivity == 0


def test_false_positives_on_the_valve_and_in_noise() -> None:
    s = scene()
    s["hu"][3, 4:6, 4] = 140
    found = s["true"].copy()
    found[s["true"] == 2] = 1
    found[3, 4:6, 4] = 1
    result = run(s, found)
    assert [(lesion.cause, lesion.volume_mm3) for lesion in result.false_lesions] == [
        ("valve", 6.0),
        ("noise", 6.0),
    ]
    assert result.false_positive_mm3 == 12


def test_what_the_found_heart_leaves_out_is_missed() -> None:
    s = scene()
    heart = s["heart"].copy()
    heart[:, :5] = False
    result = run(s, s["true"], heart)
    assert [lesion.found for lesion in result.true_lesions] == [False, True]
    assert result.sensitivity == pytest.approx(2 / 10)
    assert result.heart_dice == dice(s["heart"], heart)
    assert (result.coronary_mm3, result.coronary_in_heart_mm3) == (30.0, 6.0)
    assert result.slices_in_pieces == 0


def test_a_heart_in_pieces_is_counted_by_slice() -> None:
    s = scene()
    heart = s["heart"].copy()
    heart[2, :, 3] = False
    assert run(s, s["true"], heart).slices_in_pieces == 1


def test_below_the_threshold_or_the_minimum_area_is_no_lesion() -> None:
    s = scene()
    s["hu"][1, 8, 8:10] = 129
    small = compare(
        s["hu"],
        true_heart=s["heart"],
        true_class=s["true"],
        cause_of_voxel=s["causes"],
        found_heart=s["heart"],
        found_class=s["true"],
        spacing_mm=(3, 0.4, 0.4),
        protocol=ScoringProtocol(),
    )
    assert small.true_lesions == ()  # 4 pixels of 0.16 mm2 in each slice
    assert small.sensitivity is None
    assert len(run(s, s["true"]).true_lesions) == 1


def test_dice_by_hand() -> None:
    a, b = np.zeros(4, bool), np.zeros(4, bool)
    assert dice(a, b) == 1
    a[:2], b[1:4] = True, True
    assert dice(a, b) == pytest.approx(2 * 1 / 5)
