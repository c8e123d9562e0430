"""Survival curves, log-rank, competing risks and rates against R, lifelines and plain loops."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lifelines.statistics import multivariate_logrank_test
from scipy.stats import chi2, norm, poisson

from cac_core.errors import NotEstimableError
from cac_core.stats.cox import fit_cox
from cac_core.stats.survival import (
    cumulative_incidence,
    event_rate,
    kaplan_meier,
    log_rank,
    reverse_kaplan_meier,
)
from tests.builders.designs import CAC, LEVELS, prepared
from tests.builders.golden import answer, numbers, table

COHORTS = ("paper", "nasty")
GROUPS = [("cac_category", level) for level in CAC]
GROUPS += [("visual_level", level) for level in LEVELS["visual_level"]]
INTERVALS = {"log-log": "loglog", "log": "log", "plain": "plain"}


@st.composite
def samples(draw):
    """Days with many ties, codes 0 to 2, and one of three groups."""
    patient = st.tuples(st.integers(0, 7), st.integers(0, 2), st.integers(0, 2))
    t, cause, group = zip(*draw(st.lists(patient, min_size=1, max_size=40)), strict=True)
    return np.array(t, float), np.array(cause), np.array(group)


# -- Kaplan-Meier --------------------------------------------------------------------------------


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize(("column", "level"), GROUPS)
@pytest.mark.parametrize("interval", INTERVALS)
def test_curves_and_their_limits_equal_those_of_r(
    cohort: str, column: str, level: str, interval: str
) -> None:
    frame = prepared(cohort)
    frame = frame[frame[column] == level]
    expected = answer(cohort, "kaplan_meier", column, level)
    curve = kaplan_meier(frame["mace_days"], frame["mace_event"], interval)
    steps = curve.events > 0
    assert curve.days[steps].tolist() == expected["time"]
    assert curve.at_risk[steps].tolist() == expected["n_risk"]
    assert curve.events[steps].tolist() == expected["n_event"]
    assert curve.survival[steps] == pytest.approx(numbers(expected["surv"]), abs=1e-12)
    for mine, theirs in ((curve.ci_low, "lower"), (curve.ci_high, "upper")):
        want = numbers(expected[f"{theirs}_{INTERVALS[interval]}"])
        assert mine[steps] == pytest.approx(want, abs=1e-9, nan_ok=True)
    for day, at_risk, survival in zip(
        *(expected[name] for name in ("year_days", "year_at_risk", "year_surv")), strict=True
    ):
        assert curve.number_at_risk(day) == at_risk
        assert curve.survival[curve.index(day)] == pytest.approx(survival, abs=1e-12)


@settings(deadline=None)
@given(samples())
def test_the_curve_is_the_product_of_its_definition(sample) -> None:
    t, cause, _ = sample
    d = cause == 1
    curve = kaplan_meier(t, d)
    survival = 1.0
    for day in sorted(set(t)):
        survival *= 1 - (d & (t == day)).sum() / (t >= day).sum()
        assert curve.survival[curve.index(day)] == pytest.approx(survival, abs=1e-12)
        assert curve.number_at_risk(day) == (t >= day).sum()
    assert curve.number_at_risk(t.max() + 1) == 0
    assert curve.events.sum() == d.sum() and curve.censored.sum() == (~d).sum()


@settings(deadline=None)
@given(samples())
def test_limits_hold_the_estimate_and_stay_within_zero_and_one(sample) -> None:
    t, cause, _ = sample
    for interval in INTERVALS:
        curve = kaplan_meier(t, cause == 1, interval)
        defined = np.isfinite(curve.ci_low)
        assert (defined == ((curve.survival > 0) & (curve.survival < 1))).all()
        low, high = curve.ci_low[defined], curve.ci_high[defined]
        s = curve.survival[defined]
        assert (low <= s + 1e-12).all() and (s <= high + 1e-12).all()
        assert (low >= 0).all() and (high <= 1).all()


def test_greenwood_worked_by_hand() -> None:
    # Five patients; events at 1 and 3, censored at 2: S(3) = 4/5 * 2/3, var log S = 1/20 + 1/6.
    curve = kaplan_meier([1, 2, 3, 4, 5], [1, 0, 1, 0, 0], "log", confidence=0.9)
    at = curve.index(3)
    assert curve.survival[at] == pytest.approx(8 / 15)
    half = norm.ppf(0.95) * math.sqrt(1 / 20 + 1 / 6)
    assert curve.ci_low[at] == pytest.approx(8 / 15 * math.exp(-half))
    assert curve.ci_high[at] == pytest.approx(min(1.0, 8 / 15 * math.exp(half)))
    assert curve.index(2.9) == curve.index(2) and curve.survival[curve.index(0.5)] == 1.0


def test_without_events_the_curve_stays_at_one_and_has_no_limits() -> None:
    curve = kaplan_meier([3, 1, 2], [0, 0, 0])
    assert (curve.survival == 1).all()
    assert np.isnan(curve.ci_low).all() and np.isnan(curve.ci_high).all()
    assert math.isnan(curve.quantile(0.5))


def test_where_all_have_the_event_the_curve_ends_at_zero() -> None:
    curve = kaplan_meier([1, 1, 2, 2], [1, 1, 1, 1])
    assert curve.survival[-1] == 0.0 and np.isnan(curve.ci_low[-1])
    assert curve.quantile(0.25) == 1.0 and curve.quantile(1.0) == 2.0


def test_quantiles_as_in_r_where_the_curve_lies_on_one() -> None:
    # R: quantile(survfit(Surv(c(1,2,3,4), c(1,1,1,1)) ~ 1), 0.5) is 2.5.
    assert kaplan_meier([1, 2, 3, 4], [1, 1, 1, 1]).quantile(0.5) == 2.5
    assert kaplan_meier([1, 2, 3, 4], [1, 1, 1, 1]).quantile(0.6) == 3.0


@pytest.mark.parametrize("cohort", COHORTS)
def test_follow_up_by_the_reverse_method_equals_that_of_r(cohort: str) -> None:
    frame = table(cohort)
    expected = answer(cohort, "follow_up")
    curve = reverse_kaplan_meier(frame["mace_days"], frame["mace_event"])
    found = [curve.quantile(share) for share in expected["probs"]]
    assert found == expected["reverse_km"]


@pytest.mark.parametrize(
    ("days", "event", "reason"),
    [
        ([1, -2], [1, 0], "days is negative in 1 of 2"),
        ([1, math.nan], [1, 0], "days is missing or infinite in 1 of 2"),
        ([1, 2], [1, 3], "event holds codes other than 0 and 1 in 1 of 2"),
        ([1, 2], [1], "event has 1 values where 2 are needed"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [kaplan_meier, reverse_kaplan_meier, event_rate, lambda t, d: log_rank(t, d, [0, 1], [0, 1])],
)
def test_wrong_follow_up_is_refused(function, days, event, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        function(days, event)


def test_nobody_has_no_curve_and_no_rate() -> None:
    with pytest.raises(NotEstimableError, match="no patients"):
        kaplan_meier([], [])
    with pytest.raises(NotEstimableError, match="no person-time"):
        event_rate([], [])


# -- log-rank ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("column", ["cac_category", "expert_cac_category", "visual_level"])
def test_log_rank_equals_survdiff(cohort: str, column: str) -> None:
    expected = answer(cohort, "log_rank", column)
    frame = prepared(cohort).dropna(subset=[column])
    levels = LEVELS[column]
    args = frame["mace_days"], frame["mace_event"], frame[column]
    found = log_rank(*args, levels)
    assert found.observed == pytest.approx(numbers(expected["observed"]))
    assert found.expected == pytest.approx(numbers(expected["expected"]), rel=1e-10)
    assert found.covariance == pytest.approx(numbers(expected["variance"]), abs=1e-9)
    overall, trend = found.overall(), found.trend()
    assert overall.df == expected["df"]
    assert overall.chi2 == pytest.approx(expected["chisq"], rel=1e-10)
    assert overall.p_value == pytest.approx(expected["p"], rel=1e-9)
    assert trend.chi2 == pytest.approx(expected["trend_chisq"], rel=1e-10)
    assert trend.p_value == pytest.approx(expected["trend_p"], rel=1e-9)
    pairs = list(combinations(levels, 2))
    assert [(pair["first"], pair["second"]) for pair in expected["pairs"]] == pairs
    for pair, two in zip(expected["pairs"], pairs, strict=True):
        part = frame[frame[column].isin(two)]
        test = log_rank(part["mace_days"], part["mace_event"], part[column], two).overall()
        assert test.chi2 == pytest.approx(pair["chisq"], rel=1e-10)
        assert test.p_value == pytest.approx(pair["p"], rel=1e-9)


@settings(deadline=None)
@given(samples())
def test_log_rank_equals_lifelines(sample) -> None:
    t, cause, group = sample
    d = cause == 1
    present = sorted(set(group.tolist()))
    assume(d.any() and len(present) > 1)
    found = log_rank(t, d, group, present)
    assume((np.diag(found.covariance) > 1e-9).all())
    theirs = multivariate_logrank_test(t, group, d)
    # A group that is never at risk together with another would leave theirs singular.
    assume(np.linalg.matrix_rank(found.covariance) == len(present) - 1)
    assert found.overall().chi2 == pytest.approx(theirs.test_statistic, rel=1e-7, abs=1e-9)
    assert found.observed.sum() == pytest.approx(found.expected.sum())
    assert found.covariance.sum() == pytest.approx(0.0, abs=1e-9)


def test_two_groups_worked_by_hand() -> None:
    # A: events at 1 and 3; B: event at 2, censored at 4. Expected in A: 2/4 + 1/3 + 1/2.
    found = log_rank([1, 3, 2, 4], [1, 1, 1, 0], ["A", "A", "B", "B"], ["A", "B"])
    assert found.expected[0] == pytest.approx(2 / 4 + 1 / 3 + 1 / 2)
    variance = 1 / 4 + 2 / 9 + 1 / 4
    value = (2 - found.expected[0]) ** 2 / variance
    assert found.overall().chi2 == pytest.approx(value)
    assert found.overall().p_value == pytest.approx(chi2.sf(value, 1))


def test_the_score_test_of_a_model_without_ties_is_the_log_rank() -> None:
    rng = np.random.default_rng(5)
    x, t, d = rng.integers(0, 3, 60), rng.permutation(60) + 1.0, rng.random(60) < 0.5
    trend = log_rank(t, d, x, [0, 1, 2]).trend()
    # By differences of the likelihood around no effect.
    step = 1e-4
    lower, middle, upper = (_log_likelihood(b, x, t, d) for b in (-step, 0.0, step))
    score = (upper - lower) / (2 * step)
    information = -(upper - 2 * middle + lower) / step**2
    assert trend.chi2 == pytest.approx(score**2 / information, rel=1e-5)


def _log_likelihood(beta: float, x: np.ndarray, t: np.ndarray, d: np.ndarray) -> float:
    at_risk = [np.exp(beta * x[t >= day]).sum() for day in t[d]]
    return float(beta * x[d].sum() - np.log(at_risk).sum())


def test_an_empty_group_takes_no_degree_of_freedom() -> None:
    frame = table("nasty")
    args = frame["mace_days"], frame["mace_event"], frame["cac_category"]
    four, five = log_rank(*args, CAC), log_rank(*args, [*CAC, "never"])
    assert five.observed[-1] == five.expected[-1] == 0
    assert five.overall().df == 3
    assert five.overall().chi2 == pytest.approx(four.overall().chi2)
    three = frame[frame["cac_category"] != "0"]
    without = log_rank(three["mace_days"], three["mace_event"], three["cac_category"], CAC)
    assert without.overall().df == 2


def test_what_the_log_rank_cannot_tell_is_reported() -> None:
    with pytest.raises(NotEstimableError, match="no events"):
        log_rank([1, 2], [0, 0], [0, 1], [0, 1])
    with pytest.raises(NotEstimableError, match="fewer than two groups"):
        log_rank([1, 2], [1, 0], [0, 0], [0, 1])
    # The only event happens when nobody of the other group is left.
    apart = log_rank([1, 2, 3], [0, 1, 0], [0, 1, 1], [0, 1])
    for test in (apart.overall, apart.trend):
        with pytest.raises(NotEstimableError, match="more than one group was at risk"):
            test()


def test_trend_does_not_depend_on_the_units_of_its_scores() -> None:
    frame = table("paper")
    found = log_rank(frame["mace_days"], frame["mace_event"], frame["cac_category"], CAC)
    plain = found.trend()
    assert found.trend([10, 30, 50, 70]).chi2 == pytest.approx(plain.chi2)
    assert found.trend([0, 1, 2, 10]).chi2 != pytest.approx(plain.chi2)
    assert plain.df == 1


# -- competing risks -----------------------------------------------------------------------------

COMPONENTS = ("mi", "unstable_angina", "revascularisation")


def _competing(cohort: str, component: str) -> tuple[np.ndarray, np.ndarray]:
    frame = table(cohort)
    first = frame[f"{component}_first_days"]
    days = first.fillna(frame["follow_up_days"]).to_numpy(float)
    cause = np.where(first.notna(), 1, np.where(frame["death_event"] == 1, 2, 0))
    return days, cause


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("level", ["all", *CAC])
def test_incidence_equals_survfit_and_cuminc(cohort: str, component: str, level: str) -> None:
    days, cause = _competing(cohort, component)
    keep = (table(cohort)["cac_category"] == level).to_numpy() | (level == "all")
    expected = answer(cohort, "competing", component, level)
    days, cause = days[keep], cause[keep]
    if not (cause == 1).any():
        with pytest.raises(NotEstimableError, match="no events"):
            cumulative_incidence(days, cause, 1)
        return
    for of, name in ((1, component), (2, "death")):
        if not (cause == of).any():
            continue
        found = cumulative_incidence(days, cause, of)
        assert found.days.tolist() == np.atleast_1d(expected["time"]).tolist()
        assert found.at_risk.tolist() == np.atleast_1d(expected["n_risk"]).tolist()
        want = np.atleast_1d(numbers(expected["pstate"][name]))
        assert found.incidence == pytest.approx(want, abs=1e-12)
        assert found.events[-1] == (cause == of).sum()


@pytest.mark.parametrize("component", COMPONENTS)
def test_its_error_lies_beside_those_of_r_which_are_other_estimators(component: str) -> None:
    # Ours is the delta method (Marubini and Valsecchi), cmprsk's that of Aalen, survfit's the
    # infinitesimal jackknife. They estimate one thing and agree to a few per cent here.
    days, cause = _competing("paper", component)
    found = cumulative_incidence(days, cause, 1)
    expected = answer("paper", "competing", component, "all")
    yearly = expected["cuminc"]
    z = norm.ppf(0.975)
    for day, variance in zip(yearly["days"], yearly["var"][component], strict=True):
        at = found.index(day)
        low, high = found.ci_low[at], found.ci_high[at]
        value = found.incidence[at]
        # Undo the log-log scale.
        half = (math.log(-math.log(low)) - math.log(-math.log(high))) / 2
        error = half / z * abs(value * math.log(value))
        assert error == pytest.approx(math.sqrt(variance), rel=0.01)
        jackknife = numbers(expected["std_err"][component])[at]
        assert error == pytest.approx(jackknife, rel=0.03)


def _variance_by_loops(t: np.ndarray, cause: np.ndarray, day: float) -> float:
    """Marubini and Valsecchi's sums, term by term."""
    times = sorted({s for s, c in zip(t, cause, strict=True) if c and s <= day})
    survival, incidence, rows = 1.0, 0.0, []
    for s in times:
        n, d = (t >= s).sum(), ((t == s) & (cause > 0)).sum()
        mine = ((t == s) & (cause == 1)).sum()
        incidence += survival * mine / n
        rows.append((n, d, mine, survival, incidence))
        survival *= 1 - d / n
    total = 0.0
    for n, d, mine, before, so_far in rows:
        gap = incidence - so_far
        if n > d:
            total += gap**2 * d / (n * (n - d))
        total += before**2 * mine * (n - mine) / n**3 - 2 * gap * before * mine / n**2
    return total


@settings(deadline=None)
@given(samples())
def test_incidences_of_all_causes_add_up_and_their_limits_follow_the_formula(sample) -> None:
    t, cause, _ = sample
    assume((cause == 1).any() and (cause == 2).any())
    one, two = (cumulative_incidence(t, cause, of) for of in (1, 2))
    curve = kaplan_meier(t, cause > 0)
    for day in one.days:
        total = one.incidence[one.index(day)] + two.incidence[two.index(day)]
        assert total == pytest.approx(1 - curve.survival[curve.index(day)], abs=1e-12)
    at = len(one.days) - 1
    value, variance = one.incidence[at], _variance_by_loops(t, cause, one.days[at])
    if variance > 1e-9 and 0 < value < 1:
        half = norm.ppf(0.975) * math.sqrt(variance) / abs(value * math.log(value))
        assert one.ci_low[at] == pytest.approx(value ** math.exp(half), rel=1e-6, abs=1e-9)
        assert one.ci_high[at] == pytest.approx(value ** math.exp(-half), rel=1e-6, abs=1e-9)


def test_without_competing_events_incidence_is_one_less_survival() -> None:
    frame = table("nasty")
    found = cumulative_incidence(frame["mace_days"], frame["mace_event"], 1)
    curve = kaplan_meier(frame["mace_days"], frame["mace_event"])
    steps = curve.events > 0
    assert found.incidence == pytest.approx(1 - curve.survival[steps])
    # The delta-method variance is Greenwood's then.
    error = np.sqrt(np.cumsum(curve.events / (curve.at_risk * (curve.at_risk - curve.events))))
    f = found.incidence
    half = norm.ppf(0.975) * error[steps] * (1 - f) / np.abs(f * np.log(f))
    assert found.ci_high == pytest.approx(f ** np.exp(-half), rel=1e-6)


# -- rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("level", ["all", *CAC])
def test_rates_and_exact_limits_equal_those_of_r(cohort: str, level: str) -> None:
    frame = table(cohort)
    frame = frame[(frame["cac_category"] == level) | (level == "all")]
    expected = answer(cohort, "rates", level)
    found = event_rate(frame["mace_days"], frame["mace_event"])
    assert found.n_events == expected["events"]
    assert found.person_years == pytest.approx(expected["person_years"], rel=1e-12)
    want = [expected[name] for name in ("rate", "lower", "upper")]
    assert [found.value, found.ci_low, found.ci_high] == pytest.approx(want, rel=1e-9)


@given(st.integers(1, 60), st.floats(0.6, 0.99))
def test_limits_of_a_rate_cut_off_the_tails_of_a_poisson(count: int, confidence: float) -> None:
    n = 100
    found = event_rate(np.full(n, 365.25), np.arange(n) < count, confidence)
    tail = (1 - confidence) / 2
    assert poisson.sf(count - 1, found.ci_low) == pytest.approx(tail, rel=1e-6)
    assert poisson.cdf(count, found.ci_high) == pytest.approx(tail, rel=1e-6)


def test_no_events_have_a_rate_of_zero_with_an_upper_limit() -> None:
    found = event_rate([365.25] * 100, [0] * 100)
    assert (found.value, found.ci_low) == (0.0, 0.0)
    assert found.ci_high == pytest.approx(-math.log(0.025), rel=1e-9)  # of a Poisson at 0


def test_a_log_rank_and_a_model_point_the_same_way() -> None:
    frame = table("paper")
    old = (frame["age_years"] > 70).to_numpy()
    found = log_rank(frame["mace_days"], frame["mace_event"], old, [False, True])
    fit = fit_cox(old[:, None], frame["mace_days"], frame["mace_event"])
    assert found.observed[1] > found.expected[1] and fit.coefficients[0] > 0
