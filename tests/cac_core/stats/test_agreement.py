"""Weighted kappa against the figures that R gives for the tables of the paper's supplement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binomtest, chi2, norm, pearsonr, ttest_1samp

from cac_core.stats.agreement import (
    bland_altman,
    concordance,
    intraclass_correlation,
    limit_factors,
    presence,
    proportion,
    spearman,
    squared_correlation,
    weighted_kappa,
)
from schemas.codes import CAC_CATEGORIES
from tests.builders.golden import COHORTS, answer, table

# Supplemental Table 3, three levels with 1-100 and 101-400 merged: rows visual, columns DL/expert.
VISUAL_BY_DL = [[623, 162, 14], [281, 689, 123], [4, 99, 276]]
VISUAL_BY_EXPERT = [[740, 55, 4], [219, 757, 117], [3, 98, 278]]
#: Rows expert, columns deep learning; all published margins and the kappa of 0.80.
EXPERT_BY_DL = [[766, 175, 18, 3], [127, 377, 38, 6], [13, 39, 265, 45], [2, 5, 33, 359]]


@pytest.mark.parametrize(
    ("counts", "weighting", "expected"),
    [
        (VISUAL_BY_DL, "linear", 0.593),
        (VISUAL_BY_DL, "quadratic", 0.682),
        (VISUAL_BY_DL, "unweighted", 0.521),
        (VISUAL_BY_EXPERT, "linear", 0.709),
        (VISUAL_BY_EXPERT, "quadratic", 0.778),
        (VISUAL_BY_EXPERT, "unweighted", 0.653),
    ],
)
def test_kappa_of_the_supplement(counts, weighting, expected) -> None:
    assert weighted_kappa(counts, weighting).value == pytest.approx(expected, abs=0.0005)


@pytest.mark.parametrize(
    ("counts", "low", "high", "same"),
    [(VISUAL_BY_DL, 0.566, 0.620, 0.699), (VISUAL_BY_EXPERT, 0.686, 0.732, 0.782)],
)
def test_interval_of_fleiss_cohen_everitt(counts, low, high, same) -> None:
    kappa = weighted_kappa(counts)
    assert (round(kappa.ci_low, 3), round(kappa.ci_high, 3)) == (low, high)
    assert kappa.n == 2271
    assert round(np.trace(counts) / 2271, 3) == same


def test_standard_error_at_kappa_080() -> None:
    kappa = weighted_kappa(EXPERT_BY_DL)
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
    square = np.array(counts).reshape(4, 4)
    one, other = weighted_kappa(square), weighted_kappa(square.T)
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
    assert limits.bias.value == 2
    spread = 1.96 * math.sqrt(((0 - 2) ** 2 + (1 - 2) ** 2 + 0 + (5 - 2) ** 2) / 3)
    found = (limits.limit_low.value, limits.limit_high.value)
    assert found == pytest.approx((2 - spread, 2 + spread))
    assert math.isnan(bland_altman([1], [1]).bias.value)


def test_factors_of_a_percentile_are_those_of_published_tables() -> None:
    """Tolerance factors of a normal distribution, 95 % content and confidence (Hahn and Meeker)."""
    z = norm.ppf(0.95)
    for n, factor in ((10, 2.911), (30, 2.220), (100, 1.927)):
        assert limit_factors(n, 0.90, z)[1] == pytest.approx(factor, abs=6e-4)


@pytest.mark.parametrize("n", [2, 9, 85, 2271])
def test_factors_of_a_limit_against_the_integral_over_the_variance(n: int) -> None:
    """P(mean + factor SD < true limit), integrated over the chi-square of the variance."""
    df = n - 1
    for factor, tail in zip(limit_factors(n), (0.025, 0.975), strict=True):

        def below(variance: float, factor: float = factor) -> float:
            shift = math.sqrt(n) * (factor * math.sqrt(variance / df) - 1.96)
            return float(norm.cdf(shift) * chi2.pdf(variance, df))

        low, high = chi2.ppf((1e-12, 1 - 1e-12), df)
        assert quad(below, low, high, limit=400)[0] == pytest.approx(tail, abs=2e-5)


def test_intervals_of_limits_and_their_approximation_in_large_samples() -> None:
    """Bland and Altman 1999, section 2: standard error SD sqrt(1 / n + z^2 / (2 (n - 1)))."""
    rng = np.random.default_rng(4)
    n = 4000
    difference = rng.normal(3, 2, n)
    limits = bland_altman(difference, np.zeros(n))
    sd = difference.std(ddof=1)
    half = 1.96 * sd * math.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    for limit in (limits.limit_low, limits.limit_high):
        found = (limit.ci_low, limit.ci_high)
        assert found == pytest.approx((limit.value - half, limit.value + half), abs=0.006)
    mean = ttest_1samp(difference, 0).confidence_interval()
    assert (limits.bias.ci_low, limits.bias.ci_high) == pytest.approx((mean.low, mean.high))


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


def test_presence_of_calcium_deep_learning_against_expert() -> None:
    found = presence(EXPERT_BY_DL)
    assert round(found.kappa.value, 3) == 0.693
    assert round(found.sensitivity.value, 4) == 0.8915
    assert round(found.specificity.value, 4) == 0.7963
    assert (found.sensitivity.n, found.specificity.n) == (2271 - 962, 962)


def test_presence_where_the_reference_sees_none() -> None:
    found = presence([[5, 2], [0, 0]])
    assert math.isnan(found.sensitivity.value)
    assert found.specificity.value == pytest.approx(5 / 7)
    with pytest.raises(ValueError, match="square"):
        presence([[1, 2, 3]])


def test_spearman_of_ties_and_of_what_has_none() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: r = 4.5 / sqrt(4.5 * 5).
    assert spearman([1, 5, 5, 9], [1, 3, 2, 8]).value == pytest.approx(4.5 / math.sqrt(22.5))
    assert math.isnan(spearman([1, 1, 1, 1], [1, 2, 3, 4]).value)
    assert math.isnan(spearman([1, 2, 3], [1, 2, 3]).value)
    perfect = spearman(range(10), range(10))
    assert perfect.value == pytest.approx(1)
    assert perfect.ci_low <= 1 and perfect.ci_high <= 1


# ---- Against R, see tests/golden/make_golden.R ----

PAIRS = {
    "expert_dl": ("expert_cac_category", "cac_category"),
    "visual_dl": ("visual_grade", "cac_category"),
    "visual_expert": ("visual_grade", "expert_cac_category"),
}
THREE = {"equivocal": "present", "0": "absent", "1-100": "present", "101-400": "present"} | {
    ">400": "extensive"
}


def _pair(cohort: str, name: str):
    data = table(cohort)[list(PAIRS[name])].dropna()
    levels = answer(cohort, "agreement", name, "levels")
    if tuple(levels) != CAC_CATEGORIES:
        data = data.replace(THREE)
    return [data[column].tolist() for column in data], levels


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("pair", PAIRS)
def test_kappas_of_r(cohort, pair) -> None:
    (first, second), levels = _pair(cohort, pair)
    matrix = concordance(first, second, levels)
    of_r = answer(cohort, "agreement", pair)
    assert matrix.tolist() == of_r["matrix"]
    for weighting in ("linear", "quadratic", "unweighted"):
        mine = weighted_kappa(matrix, weighting)
        found = (mine.value, mine.standard_error, mine.ci_low, mine.ci_high)
        wanted = [of_r[weighting][name] for name in ("value", "se", "lower", "upper")]
        assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("pair", "counts"),
    [
        ("expert_dl", EXPERT_BY_DL),
        ("visual_dl", VISUAL_BY_DL),
        ("visual_expert", VISUAL_BY_EXPERT),
    ],
)
def test_the_cohort_that_follows_the_paper_has_its_tables(pair, counts) -> None:
    (first, second), levels = _pair("paper", pair)
    assert concordance(first, second, levels).tolist() == counts


@pytest.mark.parametrize("cohort", COHORTS)
def test_presence_of_r(cohort) -> None:
    (first, second), levels = _pair(cohort, "expert_dl")
    mine = presence(concordance(first, second, levels))
    of_r = answer(cohort, "agreement")
    assert mine.kappa.value == pytest.approx(
        of_r["presence_expert_dl"]["unweighted"]["value"], rel=1e-9
    )
    for name in ("sensitivity", "specificity"):
        share, wanted = getattr(mine, name), of_r[f"presence_{name}"]
        assert share.n == wanted["n"]
        found = (share.value, share.ci_low, share.ci_high)
        assert found == pytest.approx([wanted[k] for k in ("value", "lower", "upper")], rel=1e-9)


@pytest.mark.parametrize("cohort", COHORTS)
def test_scores_of_r(cohort) -> None:
    """Correlations, ICC and limits of agreement of deep learning (first) against expert."""
    data = table(cohort)[["agatston", "expert_agatston"]].dropna().to_numpy()
    logs = np.log1p(data)
    of_r = answer(cohort, "agreement")
    rank = spearman(*data.T)
    found = (rank.value, rank.ci_low, rank.ci_high)
    assert found == pytest.approx(
        [of_r["spearman"][k] for k in ("rho", "lower", "upper")], rel=1e-9
    )
    for name, scores in (("raw", data), ("log1p", logs)):
        assert squared_correlation(*scores.T).value == pytest.approx(of_r[name]["r2"], rel=1e-9)
    icc = intraclass_correlation(logs)
    found = (icc.value, icc.ci_low, icc.ci_high)
    assert found == pytest.approx(
        [of_r["icc_log"][name] for name in ("value", "lower", "upper")], rel=1e-9
    )
    limits = bland_altman(*logs.T)
    found = tuple(one.value for one in (limits.bias, limits.limit_low, limits.limit_high))
    assert found == pytest.approx(
        [of_r["bland_altman_log"][name] for name in ("bias", "lower", "upper")], rel=1e-9
    )
    assert limits.n == of_r["n"]


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_spearman_interval_covers(rho) -> None:
    """Normal pairs with known rank correlation 6 / pi asin(rho / 2), 4000 samples of 60."""
    rng = np.random.default_rng(3)
    truth = 6 / math.pi * math.asin(rho / 2)
    inside = 0
    for _ in range(4000):
        a, noise = rng.normal(size=(2, 60))
        found = spearman(a, rho * a + math.sqrt(1 - rho**2) * noise)
        inside += found.ci_low <= truth <= found.ci_high
    assert 0.935 < inside / 4000 < 0.965
