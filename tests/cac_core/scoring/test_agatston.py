"""Sums over lesions, and the threshold for a tube voltage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import (
    GRANI_2018_THRESHOLDS_HU,
    CalciumScore,
    score_calcium,
    threshold_for_kvp,
)
from cac_core.scoring.lesions import label_lesions
from schemas.codes import QualityFlag

DEFAULT = ScoringProtocol()
TABLE = replace(DEFAULT, kvp_rule="table", kvp_thresholds_hu=GRANI_2018_THRESHOLDS_HU)


def two_lesions(protocol: ScoringProtocol, increment_mm: float = 5.0) -> CalciumScore:
    """Coronary: 4 mm2 of 250 HU and 1 mm2 of 420 HU; non-coronary: 3 mm2 of 150 HU."""
    hu = np.zeros((3, 6, 6), np.int16)
    calcium = np.ones(hu.shape, np.uint8)
    hu[0, 0:2, 0:2] = 250
    hu[2, 5, 5] = 420
    hu[1, 3, 0:3] = 150
    calcium[1] = 2
    heart = np.ones(hu.shape, bool)
    spacing_mm = (increment_mm, 1.0, 1.0)
    return score_calcium(label_lesions(hu, calcium, heart, spacing_mm, protocol), protocol)


def test_a_study_by_hand() -> None:
    score = two_lesions(DEFAULT)
    assert score.agatston == pytest.approx((4 * 2 + 1 * 4) * 5 / 3)
    assert score.agatston_noncoronary == pytest.approx(3 * 1 * 5 / 3)
    assert score.calcium_volume_mm3 == pytest.approx(5 * 5)
    assert score.calcium_mass_mg is None
    assert score.n_lesions == 2
    assert score.cac_category == "1-100"


def test_mass_where_calibrated() -> None:
    score = two_lesions(replace(DEFAULT, mass_calibration_mg_per_ml_hu=0.75), 3.0)
    # 12 mm3 of 250 HU and 3 mm3 of 420 HU, coronary only.
    assert score.calcium_mass_mg == pytest.approx(0.75 * (0.012 * 250 + 0.003 * 420))


def test_a_study_without_calcium() -> None:
    nothing = np.zeros((2, 3, 3), np.int16)
    for factor, mass in ((None, None), (0.8, 0.0)):
        protocol = replace(DEFAULT, mass_calibration_mg_per_ml_hu=factor)
        lesions = label_lesions(
            nothing, nothing.astype(np.uint8), nothing == 0, (3.0, 1.0, 1.0), protocol
        )
        assert score_calcium(lesions, protocol) == CalciumScore(0.0, 0.0, 0.0, mass, 0, "0")


def test_a_score_of_exactly_100_stays_in_its_category() -> None:
    # 1000 lesions of 0.1, which the exactly rounded sum puts at 99.99999999999999.
    hu = np.full((1000, 1, 1), 150, np.int16)
    protocol = replace(DEFAULT, min_area_mm2=0.0)
    lesions = label_lesions(hu, np.ones(hu.shape, np.uint8), hu > 0, (0.3, 1.0, 1.0), protocol)
    score = score_calcium(lesions, protocol)
    assert score.agatston == 100.0
    assert score.cac_category == "1-100"


def test_a_score_of_exactly_one_is_not_zero() -> None:
    # 0.3 / 3 x 10 is 0.9999999999999999 in binary.
    hu = np.full((10, 1, 1), 150, np.int16)
    protocol = replace(DEFAULT, min_area_mm2=0.0)
    lesions = label_lesions(hu, np.ones(hu.shape, np.uint8), hu > 0, (0.3, 1.0, 1.0), protocol)
    assert lesions.agatston.sum() < 1.0
    assert score_calcium(lesions, protocol).cac_category == "1-100"


@pytest.mark.parametrize("protocol", [DEFAULT, TABLE])
@pytest.mark.parametrize("kvp", [120.0, 120, 119.8])
def test_120_kvp_needs_no_flag(protocol: ScoringProtocol, kvp: float) -> None:
    assert threshold_for_kvp(kvp, protocol) == (130.0, ())


@pytest.mark.parametrize("protocol", [DEFAULT, TABLE])
@pytest.mark.parametrize("kvp", [None, math.nan, 0.0, -1.0, math.inf])
def test_an_unknown_voltage_is_flagged(protocol: ScoringProtocol, kvp: float | None) -> None:
    assert threshold_for_kvp(kvp, protocol) == (130.0, (QualityFlag.MISSING_KVP,))


@pytest.mark.parametrize("kvp", [70.0, 80.0, 100.0, 110.0, 130.0, 140.0])
def test_rule_flag_keeps_the_threshold(kvp: float) -> None:
    filled = replace(TABLE, kvp_rule="flag")
    assert threshold_for_kvp(kvp, filled) == (130.0, (QualityFlag.KVP_NOT_120,))


def test_rule_table_takes_the_entry_and_nothing_between_entries() -> None:
    adjusted = (QualityFlag.KVP_THRESHOLD_ADJUSTED,)
    assert threshold_for_kvp(80.0, TABLE) == (177.0, adjusted)
    assert threshold_for_kvp(70.0, TABLE) == (207.0, adjusted)
    assert threshold_for_kvp(75.0, TABLE) == (130.0, (QualityFlag.KVP_NOT_120,))
    assert threshold_for_kvp(140.0, TABLE) == (130.0, (QualityFlag.KVP_NOT_120,))
    assert threshold_for_kvp(80.0, replace(DEFAULT, kvp_rule="table")) == (
        130.0,
        (QualityFlag.KVP_NOT_120,),
    )


def test_the_threshold_of_the_protocol_is_kept() -> None:
    assert threshold_for_kvp(120.0, replace(DEFAULT, threshold_hu=90.0)) == (90.0, ())
