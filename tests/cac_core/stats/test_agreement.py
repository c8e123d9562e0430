"""Weighted kappa against the figures that R gives for the tables of the paper's supplement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, pearsonr

from cac_core.stats.agreement import (
    bland_altman,
    concordance,
    intraclass_correlation,
    proportion,
    squared_correlation,
    weighted_kappa,
)

# Supplemental Table 3, three levels with 1-100 and 101-400 merged: rows visual, columns DL/expert.
VISUAL_BY_DL = [[623, 162, 14], [281, 689, 123], [4, 99, 276]]
VISUAL_BY_EXPERT = [[740, 55, 4], [219, 757, 117], [3, 98, 278]]


@pytest.mark.parametrize(
    ("table", "weighting", "expected"),
    [
        (VISUAL_BY_DL, "linear", 0.593),
        (VISUAL_BY_DL, "quadratic", 0.682),
        (VISUAL_BY_DL, "unweighted", 0.521),
        (VISUAL_BY_EXPERT, "linear", 0.709),
        (VISUAL_BY_EXPERT, "quadratic", 0.778),
        (VISUAL_BY_EXPERT, "unweighted", 0.653),
    ],
)
def test_kappa_of_the_supplement(table, weighting, expected) -> None:
    assert weighted_kappa(table, weighting).value == pytest.approx(expected, abs=0.0005)


def test_interval_of_fleiss_cohen_everitt() -> None:
    kappa = weighted_kappa(VISUAL_BY_DL)
    assert (round(kappa.ci_low, 3), round(kappa.ci_high, 3)) == (0.566, 0.620)
    assert kappa.n == 2271


def test_standard_error_at_kappa_080() -> None:
    table = [[766, 127, 13, 2], [175, 377, 39, 5], [18, 38, 265, 33], [3, 6, 45, 359]]
    kappa = weighted_kappa(table)
    assert kappa.value == pytest.approx(0.8001, abs=5e-5)
    assert kappa.standard_error == pytest.approx(0.0088, abs=5e-5)


def test_perfect_and_undefined() -> None:
    assert weighted_kappa(np.diag([3, 4, 5])).value == pytest.approx(1.0)
    assert math.isnan(weighted_kappa([[7, 0], [0, 0]]).value)
    assert math.isnan(weighted_kappa(np.zeros((3, 3))).value)


def test_refuses_what_is_no_table() -> None:
    with pytest.raises(ValueError, match="square"):
        weighted_kappa([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match="negative"):
        weighted_kappa([[1, -1], [0, 2]])


def test_concordance_counts_pairs() -> None:
    matrix = concordance(["0", "1-100", "0"], ["0", "0", "1-100"], ["0", "1-100"])
    assert matrix.tolist() == [[1, 1], [1, 0]]
    with pytest.raises(ValueError, match="outside the levels"):
        concordance(["x"], ["0"], ["0"])
    with pytest.raises(ValueError, match="ratings"):
        concordance(["0"], [], ["0"])


@given(
    st.lists(st.integers(0, 40), min_size=16, max_size=16).filter(lambda v: sum(v[1:4]) + v[6] > 0)
)
def test_swapping_the_raters_changes_nothing(counts) -> None:
    table = np.array(counts).reshape(4, 4)
    one, other = weighted_kappa(table), weighted_kappa(table.T)
    if not math.isnan(one.value):
        assert one.value == pytest.approx(other.value)
        # The root of a variance that is zero but for rounding (1e-16) is 1e-8.
        assert one.standard_error == pytest.approx(other.standard_error, abs=1e-7)


#: Six subjects rated by four judges (Shrout and Fleiss, Psychol Bull 1979;86:420, table 2).
SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]


def test_icc_of_shrout_and_fleiss() -> None:
    """Their ICC(2,1) is 0.29; psych::ICC in R prints the interval 0.019 to 0.761."""
    icc = intraclass_correlation(SHROUT_FLEISS)
    assert icc.value == pytest.approx(0.29, abs=0.005)
    assert (icc.ci_low, icc.ci_high) == pytest.approx((0.019, 0.761), abs=0.0006)


def test_icc_of_equal_and_of_shifted_ratings() -> None:
    values = np.arange(10.0)
    assert intraclass_correlation(np.stack([values, values], 1)).value == pytest.approx(1)
    shifted = intraclass_correlation(np.stack([values, values + 5], 1))
    assert 0.3 < shifted.value < 0.5  # absolute agreement: a constant difference counts
    assert math.isnan(intraclass_correlation(np.ones((5, 2))).value)
    assert math.isnan(intraclass_correlation(np.ones((2, 2))).value)


def test_bland_altman_by_hand() -> None:
    limits = bland_altman([1, 2, 3, 6], [1, 1, 1, 1])
    assert limits.bias == 2
    spread = 1.96 * math.sqrt(((0 - 2) ** 2 + (1 - 2) ** 2 + 0 + (5 - 2) ** 2) / 3)
    assert (limits.limit_low, limits.limit_high) == pytest.approx((2 - spread, 2 + spread))
    assert math.isnan(bland_altman([1], [1]).bias)


def test_squared_correlation_against_scipy() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=60)
    b = a + rng.normal(size=60)
    result = pearsonr(a, b)
    low, high = result.confidence_interval(0.95)
    mine = squared_correlation(a, b)
    assert mine.value == pytest.approx(result.statistic**2)
    assert (mine.ci_low, mine.ci_high) == pytest.approx((low**2, high**2))
    around_zero = squared_correlation(a, rng.normal(size=60))
    assert around_zero.ci_low == 0 <= around_zero.value <= around_zero.ci_high
    assert math.isnan(squared_correlation([1, 1, 1, 1], [1, 2, 3, 4]).value)


def test_wilson_interval_against_scipy() -> None:
    for count, n in ((0, 20), (7, 20), (20, 20)):
        expected = binomtest(count, n).proportion_ci(method="wilson")
        mine = proportion(count, n)
        assert (mine.ci_low, mine.ci_high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert math.isnan(proportion(0, 0).value)
