"""Summaries and tests against R and against the figures that the paper prints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cac_core.stats.describe import (
    chi_square,
    compare_numbers,
    describe_counts,
    describe_numbers,
    looks_normal,
    normality_p,
    summarise,
)
from schemas.codes import CAC_CATEGORIES
from tests.builders.golden import COHORTS, answer, numbers, table

NUMBERS = (
    "age_years",
    "bmi_kg_m2",
    "agatston",
    "expert_agatston",
    "stress_tpd_pct",
    "rest_tpd_pct",
    "stress_lvef_pct",
)
CATEGORIES = ("hypertension", "diabetes", "dyslipidemia", "family_history", "smoking")
GROUPINGS = {"cac_category": CAC_CATEGORIES, "mace_event": ("0", "1")}


def _grouped(cohort: str, grouping: str, column: str):
    """Values of a column, codes of the groups and their names."""
    data = table(cohort)
    levels = GROUPINGS[grouping]
    codes = data[grouping].astype(str).map({name: at for at, name in enumerate(levels)})
    return data[column].to_numpy(), codes.to_numpy(int), levels


def _near(value, tolerance=1e-9):
    return pytest.approx(value, rel=tolerance, abs=1e-300)


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("column", NUMBERS)
def test_summaries_of_r(cohort, grouping, column) -> None:
    values, codes, levels = _grouped(cohort, grouping, column)
    described = describe_numbers(values, codes, levels)
    of_r = answer(cohort, "description", grouping, "continuous", column)
    for name, summary in zip(levels, described.groups, strict=True):
        wanted = of_r["groups"][name]
        assert summary.n == wanted["n"]
        assert (summary.mean, summary.sd) == pytest.approx((wanted["mean"], wanted["sd"]), rel=1e-9)
        quartiles = (summary.q1, summary.median, summary.q3)
        assert quartiles == pytest.approx(wanted["quartiles_type7"], rel=1e-12)
    assert sum(summary.missing for summary in described.groups) == of_r["missing"]
    assert described.overall.n + described.overall.missing == len(values)
    assert described.overall.missing == of_r["missing"]


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("column", NUMBERS)
def test_tests_of_r(cohort, grouping, column) -> None:
    values, codes, levels = _grouped(cohort, grouping, column)
    samples = [values[(codes == at) & ~np.isnan(values)] for at in range(len(levels))]
    of_r = answer(cohort, "description", grouping, "continuous", column)
    means, ranks = (compare_numbers(samples, levels, normal) for normal in (True, False))
    if len(levels) == 2:
        assert means.statistic == _near(of_r["student"]["t"])
        assert means.df == (of_r["student"]["df"],)
        assert means.p_value == _near(of_r["student"]["p"])
        assert ranks.statistic == of_r["wilcoxon"]["w"]
        assert ranks.p_value == _near(of_r["wilcoxon"]["p"])
    else:
        assert means.statistic == _near(of_r["anova"]["f"])
        assert means.df == tuple(of_r["anova"]["df"])
        assert means.p_value == _near(of_r["anova"]["p"])
        assert ranks.statistic == _near(of_r["kruskal"]["chisq"])
        assert ranks.df == (of_r["kruskal"]["df"],)
        assert ranks.p_value == _near(of_r["kruskal"]["p"])


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("column", NUMBERS)
def test_normality_of_r(cohort, grouping, column) -> None:
    values, codes, levels = _grouped(cohort, grouping, column)
    of_r = answer(cohort, "description", grouping, "continuous", column)
    for at, name in enumerate(levels):
        sample = values[(codes == at) & ~np.isnan(values)]
        assert normality_p(sample) == pytest.approx(of_r["groups"][name]["shapiro_p"], rel=1e-5)


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("column", CATEGORIES)
def test_chi_square_of_r(cohort, grouping, column) -> None:
    values, codes, levels = _grouped(cohort, grouping, column)
    level = np.where(np.isnan(values.astype(float)), -1, values).astype(int)
    described = describe_counts(level, ("no", "yes"), codes, levels)
    of_r = answer(cohort, "description", grouping, "categorical", column)
    assert np.array_equal(described.counts, numbers(of_r["counts"]))
    assert described.test.statistic == _near(of_r["chisq"])
    assert described.test.df == (of_r["df"],)
    assert described.test.p_value == _near(of_r["p"])
    assert sum(described.missing) == described.overall_missing == (level == -1).sum()


# The paper's counts. Supplemental Table 4: without and with MACE.
NO_MACE, MACE = 1951, 320


def _yes_no(*yes_of: tuple[int, int]):
    return [[n - yes for yes, n in yes_of], [yes for yes, _ in yes_of]]


@pytest.mark.parametrize(
    ("yes", "printed"),
    [((1092, 194), 0.1195), ((844, 161), 0.0186)],
    ids=["hypertension", "lipids"],
)
def test_p_values_of_supplemental_table_4(yes, printed) -> None:
    counts = _yes_no((yes[0], NO_MACE), (yes[1], MACE))
    assert round(chi_square(counts, ("no MACE", "MACE")).p_value, 4) == printed


@pytest.mark.parametrize(
    ("counts", "chi2"),
    [
        ([[856, 52], [524, 72], [273, 81], [298, 115]], 141.60),
        ([[555, 36], [889, 109], [337, 65], [170, 110]], 187.78),
    ],
    ids=["CAC", "TPD"],
)
def test_categories_of_supplemental_table_4(counts, chi2) -> None:
    found = chi_square(counts, ("no MACE", "MACE"))
    assert (round(found.statistic, 2), found.df) == (chi2, (3.0,))


@pytest.mark.parametrize(
    ("yes", "chi2"),
    [
        ((368, 293, 200, 286), 99.7),
        ((423, 355, 240, 268), 68.8),
        ((136, 146, 111, 140), 74.1),
        ((334, 246, 187, 236), 61.1),
    ],
    ids=["male", "hypertension", "diabetes", "dyslipidemia"],
)
def test_chi_squares_of_table_1(yes, chi2) -> None:
    counts = _yes_no(*zip(yes, (908, 596, 354, 413), strict=True))
    found = chi_square(counts, CAC_CATEGORIES)
    assert (round(found.statistic, 1), found.df) == (chi2, (3.0,))


def test_the_cohort_that_follows_the_paper_has_its_table_1() -> None:
    """The same chi-squares, from patients instead of counts."""
    values, codes, levels = _grouped("paper", "cac_category", "diabetes")
    found = describe_counts(values, ("no", "yes"), codes, levels)
    assert found.counts[1] == (136, 146, 111, 140)
    assert round(found.test.statistic, 1) == 74.1


def test_quartiles_interpolate_by_hand() -> None:
    summary = summarise([1, 2, 4, 8, math.nan])
    assert (summary.q1, summary.median, summary.q3) == (1.75, 3.0, 5.0)
    assert (summary.n, summary.missing, summary.mean) == (4, 1, 3.75)


def test_normal_samples_get_means_and_skewed_ones_ranks() -> None:
    rng = np.random.default_rng(4)
    group = np.repeat([0, 1], 60)
    bell, skew = rng.normal(size=120), rng.exponential(size=120)
    assert describe_numbers(bell, group, ("a", "b")).test.method.startswith("Student")
    assert describe_numbers(skew, group, ("a", "b")).test.method.startswith("Mann-Whitney")
    three = np.repeat([0, 1, 2], 40)
    assert describe_numbers(bell, three, ("a", "b", "c")).test.method.startswith("one-way")
    assert describe_numbers(skew, three, ("a", "b", "c")).test.method.startswith("Kruskal")
    # One skewed group is enough for ranks.
    assert not looks_normal([bell[:60], skew[:60]])


def test_large_samples_are_tested_by_d_agostino_and_pearson() -> None:
    rng = np.random.default_rng(5)
    assert normality_p(rng.normal(size=5001)) > 0.01
    assert normality_p(rng.exponential(size=5001)) < 1e-100


@pytest.mark.parametrize(
    ("values", "group", "reason"),
    [
        ([1, 2, 3, 4], [0, 0, 0, 0], "no values in b"),
        ([1, 2, math.nan, math.nan], [0, 0, 1, 1], "no values in b"),
        ([math.nan] * 4, [0, 0, 1, 1], "no values in a, b"),
        ([5, 5, 5, 5], [0, 0, 1, 1], "all values are equal"),
    ],
)
def test_numbers_that_cannot_be_compared(values, group, reason) -> None:
    found = describe_numbers(values, group, ("a", "b")).test
    assert math.isnan(found.p_value) and math.isnan(found.statistic)
    assert found.reason == reason


def test_means_without_spread_and_a_single_group() -> None:
    flat = [np.array([1.0, 1.0]), np.array([2.0, 2.0])]
    assert compare_numbers(flat, ("a", "b"), normal=True).reason == "no spread within the groups"
    assert compare_numbers(flat, ("a", "b"), normal=False).reason == ""
    assert compare_numbers(flat[:1], ("a",), normal=True).reason == "fewer than two groups"
    nearly = [np.array([1.0, 1.0 + 1e-15]), np.array([2.0, 2.0])]
    assert compare_numbers(nearly, ("a", "b"), normal=True).p_value < 1e-10


@pytest.mark.parametrize(
    ("level", "group", "reason"),
    [
        ([0, 1, 0], [0, 0, 0], "no values in b"),
        ([0, 0, 0], [0, 1, 0], "all values are of one level"),
        ([-1, -1], [0, 1], "no values in a, b"),
    ],
)
def test_counts_that_cannot_be_compared(level, group, reason) -> None:
    found = describe_counts(level, ("no", "yes"), group, ("a", "b")).test
    assert math.isnan(found.p_value)
    assert found.reason == reason
    assert chi_square([[1], [2]], ("a",)).reason == "fewer than two groups"


def test_levels_that_nobody_has_and_small_cells() -> None:
    with_unseen = chi_square([[30, 20], [0, 0], [10, 40]], ("a", "b"))
    assert with_unseen.statistic == chi_square([[30, 20], [10, 40]], ("a", "b")).statistic
    assert with_unseen.df == (1.0,)
    assert "fewer than 5 expected in 2 of 4 cells" in chi_square([[1, 2], [30, 40]], "ab").method


def test_patients_outside_the_groups_count_in_the_whole_only() -> None:
    found = describe_numbers([1.0, 2.0, 3.0, 100.0], [0, 0, 1, -1], ("a", "b"))
    assert found.overall.n == 4
    assert [summary.n for summary in found.groups] == [2, 1]
    assert found.test.n == 3
    counted = describe_counts([0, 1, 1, 1], ("no", "yes"), [0, 0, 1, -1], ("a", "b"))
    assert counted.overall == (1, 3)
    assert counted.counts == ((1, 0), (1, 1))


def test_refuses_codes_and_values_that_are_none() -> None:
    with pytest.raises(ValueError, match="1 codes outside -1 to 1"):
        describe_numbers([1, 2], [0, 2], ("a", "b"))
    with pytest.raises(ValueError, match="codes for 2 values"):
        describe_numbers([1, 2], [0], ("a", "b"))
    with pytest.raises(ValueError, match="whole numbers"):
        describe_numbers([1, 2], [0.5, 1.0], ("a", "b"))
    with pytest.raises(ValueError, match="1 values are infinite"):
        describe_numbers([1, math.inf], [0, 1], ("a", "b"))


@given(
    st.lists(st.integers(-5, 5), min_size=4, max_size=40),
    st.integers(1, 3),
    st.sampled_from([1.0, 4.0]),
)
def test_scale_and_order_of_patients_change_no_p_value(values, groups, scale) -> None:
    codes = np.arange(len(values)) % (groups + 1)
    names = [str(at) for at in range(groups + 1)]
    first = describe_numbers(np.array(values, float), codes, names).test
    order = np.random.default_rng(0).permutation(len(values))
    again = describe_numbers(scale * np.array(values, float)[order], codes[order], names).test
    assert again.reason == first.reason
    assert again.p_value == pytest.approx(first.p_value, nan_ok=True, rel=1e-6, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "normal"), [("normal", True), ("exponential", False)])
@pytest.mark.parametrize("groups", [2, 4])
def test_type_i_error_is_nominal(draw, normal, groups) -> None:
    """4000 cohorts without a difference: 5 % rejected, within 3.5 standard errors."""
    rng = np.random.default_rng(11)
    names = [str(at) for at in range(groups)]
    rejected = 0
    for _ in range(4000):
        samples = [getattr(rng, draw)(size=30 + 10 * at) for at in range(groups)]
        rejected += compare_numbers(samples, names, normal).p_value < 0.05
    assert rejected / 4000 == pytest.approx(0.05, abs=3.5 * math.sqrt(0.05 * 0.95 / 4000))
