"""Cox models against R, against lifelines, by hand, and where there is nothing to estimate."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy.optimize import minimize_scalar

from cac_core.errors import NotEstimableError
from cac_core.stats.cox import (
    CollinearColumnError,
    ConstantColumnError,
    CoxFit,
    fit_cox,
    hazard_ratio,
    likelihood_ratio_test,
    time_order,
)
from cac_core.stats.cox_diagnostics import dfbeta, martingale_residuals, proportional_hazards_test
from cac_core.stats.risk import fit_risk_model
from tests.builders.designs import (
    BASE,
    SMALL,
    Followed,
    absolute_risks,
    baseline,
    design,
    prepared,
)
from tests.builders.golden import answer, numbers

#: In `nasty`, nobody of this level has an event.
EMPTY = "cac_category=1-100"
UNIVARIABLE = ("cac_category", "expert_cac_category", "visual_level", *BASE)
MODELS = {
    "full": ("cac_category", *BASE),
    "base": BASE,
    "small": SMALL,
}
HORIZON = 3 * 365.25


def _model(cohort: str, name: str) -> tuple[Followed, list[int]]:
    """The data of a model of R, and where its columns are among R's."""
    data = design(cohort, MODELS[name])
    if cohort == "nasty":  # R's fits of `base` and `full` are of the same patients
        data = design(prepared(cohort).dropna(subset=[n for n in _needed(name)]), MODELS[name])
    every = list(range(len(data.names)))
    if cohort == "nasty" and EMPTY in data.names:
        every.remove(data.names.index(EMPTY))
        data = data.without(EMPTY)
    return data, every


def _needed(name: str) -> tuple[str, ...]:
    return SMALL if name == "small" else ("cac_category", *BASE)


def _assert_equals_r(fit: CoxFit, expected: dict, columns: list[int], tolerance: float) -> None:
    for name, got in (("coef", fit.coefficients), ("se", fit.standard_errors)):
        want = np.atleast_1d(numbers(expected[name]))[columns]
        assert got == pytest.approx(want, rel=tolerance, abs=tolerance), name
    for at, column in enumerate(columns):
        ratio = hazard_ratio(fit, at)
        want = [np.atleast_1d(numbers(expected[n]))[column] for n in ("hr", "lower", "upper", "p")]
        got = [ratio.value, ratio.ci_low, ratio.ci_high, ratio.p_value]
        assert got == pytest.approx(want, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
@pytest.mark.parametrize("term", UNIVARIABLE)
def test_univariable_models_equal_those_of_r(cohort: str, term: str) -> None:
    expected = answer(cohort, "cox", "univariable", term)
    data = design(cohort, (term,))
    columns = list(range(len(data.names)))
    assert len(data.days) == expected["n"] and data.event.sum() == expected["n_events"]
    whole = data
    if cohort == "nasty" and EMPTY in data.names:
        columns.remove(0)
        data = data.without(EMPTY)
    fit = fit_cox(data.x, data.days, data.event)
    _assert_equals_r(fit, expected, columns, 1e-9)
    assert fit.log_likelihood == pytest.approx(expected["loglik"], rel=1e-11)
    null = fit_cox(np.zeros((len(whole.days), 0)), whole.days, whole.event)
    assert null.log_likelihood == pytest.approx(expected["loglik_null"], rel=1e-12)
    if whole is data:
        value, df, p_value = likelihood_ratio_test(null, fit)
        assert (value, df) == (pytest.approx(expected["lr"], rel=1e-9), expected["df"])
        assert p_value == pytest.approx(expected["lr_p"], rel=1e-8)
        assert fit.log_likelihood_null == pytest.approx(null.log_likelihood, rel=1e-9)


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
@pytest.mark.parametrize("name", MODELS)
def test_multivariable_models_equal_those_of_r(cohort: str, name: str) -> None:
    data, columns = _model(cohort, name)
    expected = answer(cohort, "cox", name, "fit")
    fit = fit_cox(data.x, data.days, data.event)
    _assert_equals_r(fit, expected, columns, 1e-8)
    # Also where a level has no events: leaving its patients out is the limit that R runs to.
    assert fit.log_likelihood == pytest.approx(expected["loglik"], rel=1e-10)
    covariance = numbers(answer(cohort, "cox", name, "covariance"))[np.ix_(columns, columns)]
    assert fit.covariance == pytest.approx(covariance, rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
@pytest.mark.parametrize("source", ["expert_cac_category", "visual_level"])
def test_models_of_other_readings_equal_those_of_r(cohort: str, source: str) -> None:
    key = "expert" if source.startswith("expert") else "visual"
    data = design(cohort, (source, *BASE))
    for model, first in (("full", 0), ("base", len(data.terms[0]))):
        expected = answer(cohort, "cox", key, model)
        assert len(data.days) == expected["n"]
        fit = fit_cox(data.x[:, first:], data.days, data.event)
        _assert_equals_r(fit, expected, list(range(len(expected["coef"]))), 1e-8)
        assert fit.log_likelihood == pytest.approx(expected["loglik"], rel=1e-10)


@pytest.mark.parametrize("outcome", ["death_mi", "death", "mace_no_early_revascularisation"])
def test_other_outcomes_equal_those_of_r(outcome: str) -> None:
    expected = answer("paper", "cox", "outcomes", outcome)
    data = design("paper", MODELS["full"], outcome)
    fit = fit_cox(data.x, data.days, data.event)
    assert (fit.n, fit.n_events) == (expected["n"], expected["n_events"])
    _assert_equals_r(fit, expected, list(range(len(data.names))), 1e-8)


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
@pytest.mark.parametrize("name", MODELS)
def test_baseline_hazard_is_efrons_as_in_r(cohort: str, name: str) -> None:
    data, _ = _model(cohort, name)
    expected = answer(cohort, "cox", name, "baseline")
    fit = fit_cox(data.x, data.days, data.event)
    times, hazard = baseline(fit, data.x, data.days, data.event)
    assert times.tolist() == expected["time"]
    assert hazard == pytest.approx(numbers(expected["cumhaz_zero"]), rel=1e-7)


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
@pytest.mark.parametrize("name", ["full", "base"])
def test_risks_of_all_patients_equal_those_of_r(cohort: str, name: str) -> None:
    data, _ = _model(cohort, name)
    expected = numbers(answer(cohort, "cox", "risk_3_years", name))
    whole = design(prepared(cohort).dropna(subset=[*_needed(name)]), MODELS[name])
    order = time_order(whole.days, whole.event == 1)
    x, days, event = whole.x[order], whole.days[order], whole.event[order] == 1
    # Refits stop at a wider tolerance; they have the patients of a level without events, at 0.
    found = fit_risk_model(x, days, event, HORIZON)
    assert found.risk == pytest.approx(expected[order], abs=4e-9)
    assert found.predict(x) == pytest.approx(found.risk, abs=1e-9)
    again = fit_risk_model(x, days, event, HORIZON, found.coefficients)
    assert again.risk == pytest.approx(expected[order], abs=4e-9)
    risk = absolute_risks(data.x, data.days, data.event, HORIZON)
    if len(risk) < len(expected):
        kept = whole.x[:, whole.names.index(EMPTY)] == 0
        assert np.abs(expected[~kept]).max() < 1e-9
        expected = expected[kept]
    assert risk == pytest.approx(expected, abs=1e-9)


def _zph_columns(data: Followed) -> list[tuple[int, ...]]:
    return [columns for columns in data.terms if columns]


@pytest.mark.parametrize("transform", ["km", "identity"])
@pytest.mark.parametrize(
    ("cohort", "name"),
    [("paper", "full"), ("paper", "base"), ("paper", "small"), ("nasty", "base"),
     ("nasty", "small")],
)  # fmt: skip
def test_proportional_hazards_tests_equal_cox_zph(cohort: str, name: str, transform: str) -> None:
    data, _ = _model(cohort, name)
    fit = fit_cox(data.x, data.days, data.event)
    by_term = answer(cohort, "cox", name, "zph", f"{transform}_terms")
    by_column = answer(cohort, "cox", name, "zph", f"{transform}_coefficients")
    singles = [(column,) for column in range(len(data.names))]
    for expected, terms in ((by_term, _zph_columns(data)), (by_column, singles)):
        tests, whole = proportional_hazards_test(
            fit, data.x, data.days, data.event, terms, transform
        )
        got = [*tests, whole]
        assert [test.df for test in got] == expected["df"]
        assert [t.chi2 for t in got] == pytest.approx(numbers(expected["chisq"]), rel=1e-6)
        assert [t.p_value for t in got] == pytest.approx(numbers(expected["p"]), abs=1e-7)


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
@pytest.mark.parametrize("name", ["base", "small"])
def test_residuals_equal_those_of_r(cohort: str, name: str) -> None:
    data, _ = _model(cohort, name)
    expected = answer(cohort, "cox", name, "residuals")
    rows = np.array(expected["rows"]) - 1
    fit = fit_cox(data.x, data.days, data.event)
    martingale = martingale_residuals(fit, data.x, data.days, data.event)
    assert martingale[rows] == pytest.approx(numbers(expected["martingale"]), abs=1e-8)
    assert (martingale**2).sum() == pytest.approx(expected["martingale_sum_of_squares"], rel=1e-8)
    influence = dfbeta(fit, data.x, data.days, data.event)
    want = np.stack([numbers(expected["dfbeta"][column]) for column in data.names], axis=1)
    assert influence[rows] == pytest.approx(want, abs=1e-8)
    scaled = np.abs(influence / fit.standard_errors).max(axis=0)
    assert scaled == pytest.approx(np.array(_values(expected["dfbetas_max"], data)), rel=1e-6)


def _values(given_by_r: object, data: Followed) -> list[float]:
    if isinstance(given_by_r, dict):
        return [given_by_r[column] for column in data.names]
    return list(given_by_r)


def test_lifelines_gives_the_same_fit_with_a_strict_tolerance() -> None:
    data = design("nasty", SMALL)
    frame = pd.DataFrame(data.x, columns=data.names)
    frame["days"], frame["event"] = data.days, data.event
    strict = {"precision": 1e-12, "r_precision": 1e-14}
    theirs = CoxPHFitter().fit(frame, "days", "event", fit_options=strict)
    ours = fit_cox(data.x, data.days, data.event)
    assert ours.coefficients == pytest.approx(theirs.params_.to_numpy(), abs=1e-7)
    assert ours.standard_errors == pytest.approx(theirs.standard_errors_.to_numpy(), rel=1e-6)
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood_, rel=1e-9)
    martingale = theirs.compute_residuals(frame, "martingale")["martingale"].sort_index()
    assert martingale_residuals(ours, data.x, data.days, data.event).sum() == pytest.approx(0.0)
    assert len(martingale) == len(data.days)


# -- by hand -------------------------------------------------------------------------------------


def test_two_patients_a_time_worked_by_hand() -> None:
    # Risk sets of a two-group sample without ties: events at 1 (exposed; 2 exposed and 2 not at
    # risk), 2 (not exposed; 1 and 2), 3 (exposed; 1 and 1). With r = exp(beta) the likelihood is
    # r/(2r+2) * 1/(r+2) * r/(r+1), whose derivative is zero where 2 = 2r/(r+1) + r/(r+2).
    x, days, event = [[1], [0], [1], [0]], [1, 2, 3, 4], [1, 1, 1, 0]
    r = (1 + math.sqrt(17)) / 2  # of r^2 - r - 4 = 0
    fit = fit_cox(x, days, event)
    assert fit.coefficients[0] == pytest.approx(math.log(r), abs=1e-10)
    assert fit.log_likelihood == pytest.approx(
        math.log(r / (2 * r + 2) / (r + 2) * r / (r + 1)), abs=1e-12
    )
    assert fit.log_likelihood_null == pytest.approx(-math.log(4 * 3 * 2))
    # The information is the sum of q (1 - q), q the exposed share of each risk set's hazard.
    shares = np.array([2 * r / (2 * r + 2), r / (r + 2), r / (r + 1)])
    assert fit.covariance[0, 0] == pytest.approx(1 / (shares * (1 - shares)).sum())
    hazard = np.cumsum([1 / (2 * r + 2), 1 / (r + 2), 1 / (r + 1)])
    ordered = np.array(x, float), np.array(days, float), np.array(event) == 1
    assert baseline(fit, *ordered)[1] == pytest.approx(hazard)
    risk = fit_risk_model(*ordered, 2.0)
    assert risk.predict(np.array([[0.0], [1.0]])) == pytest.approx(
        [1 - math.exp(-hazard[1]), 1 - math.exp(-hazard[1] * r)]
    )
    expected = [1 - hazard[0] * r, 1 - hazard[1], 1 - hazard[2] * r, -hazard[2]]
    assert martingale_residuals(fit, x, days, event) == pytest.approx(expected)


def test_tied_events_worked_by_hand() -> None:
    # Both events at day 1: one exposed (r), one not; 1 exposed and 2 others at risk. Efron:
    # L = r / [(r + 2) ((r + 2) - (r + 1) / 2)] = 2 r / ((r + 2) (r + 3)); its maximum at r^2 = 6.
    fit = fit_cox([[1], [0], [0]], [1, 1, 2], [1, 1, 0])
    r = math.sqrt(6)
    assert math.exp(fit.coefficients[0]) == pytest.approx(r, rel=1e-9)
    assert fit.log_likelihood == pytest.approx(math.log(2 * r / ((r + 2) * (r + 3))))
    found = baseline(fit, np.array([[1], [0], [0]]), np.array([1.0, 1, 2]), np.array([1, 1, 0]))
    assert found[1] == pytest.approx([1 / (r + 2) + 1 / (r + 2 - (r + 1) / 2)])


# -- properties ----------------------------------------------------------------------------------


def _naive(beta: float, x: np.ndarray, t: np.ndarray, d: np.ndarray) -> float:
    """Efron's log-likelihood straight from its definition, one covariate."""
    total = 0.0
    for day in np.unique(t[d]):
        dead = d & (t == day)
        at_risk, tied = np.exp(beta * x[t >= day]).sum(), np.exp(beta * x[dead]).sum()
        total += beta * x[dead].sum()
        total -= sum(math.log(at_risk - k / dead.sum() * tied) for k in range(dead.sum()))
    return total


@st.composite
def samples(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One covariate with many ties, few days, up to 30 patients."""
    patient = st.tuples(st.integers(0, 4), st.integers(1, 6), st.booleans())
    x, t, d = zip(*draw(st.lists(patient, min_size=6, max_size=30)), strict=True)
    return np.array(x, float), np.array(t, float), np.array(d)


def _estimable(x: np.ndarray, t: np.ndarray, d: np.ndarray) -> CoxFit:
    try:
        fit = fit_cox(x[:, None], t, d)
    except NotEstimableError:
        assume(False)
        raise
    assume(abs(fit.coefficients[0]) < 5)
    return fit


@settings(deadline=None, max_examples=60)
@given(samples())
def test_the_fit_is_the_maximum_of_the_definition(sample) -> None:
    x, t, d = sample
    fit = _estimable(x, t, d)
    best = minimize_scalar(lambda b: -_naive(b, x, t, d), bounds=(-8, 8), method="bounded")
    assert fit.log_likelihood == pytest.approx(_naive(float(fit.coefficients[0]), x, t, d))
    assert fit.log_likelihood >= -best.fun - 1e-9
    assert fit.log_likelihood_null == pytest.approx(_naive(0.0, x, t, d))


@settings(deadline=None, max_examples=40)
@given(samples(), st.floats(0.01, 100), st.floats(-1000, 1000), st.randoms(use_true_random=False))
def test_shift_scale_order_and_units_of_time_change_nothing(sample, scale, shift, random) -> None:
    x, t, d = sample
    fit = _estimable(x, t, d)
    order = list(range(len(x)))
    random.shuffle(order)
    other = fit_cox((x * scale + shift)[order][:, None], (t * 30.5)[order], d[order])
    assert other.coefficients * scale == pytest.approx(fit.coefficients, rel=1e-6, abs=1e-6)
    assert other.log_likelihood == pytest.approx(fit.log_likelihood, rel=1e-9)
    residual = martingale_residuals(fit, x[:, None], t, d)
    moved = martingale_residuals(other, (x * scale + shift)[order][:, None], t[order], d[order])
    assert moved == pytest.approx(residual[order], abs=1e-6)
    mirrored = fit_cox(-x[:, None], t, d)
    assert mirrored.coefficients == pytest.approx(-fit.coefficients, abs=1e-7)


@settings(deadline=None, max_examples=40)
@given(samples())
def test_residuals_sum_to_zero_and_dfbeta_to_the_score(sample) -> None:
    x, t, d = sample
    fit = _estimable(x, t, d)
    martingale = martingale_residuals(fit, x[:, None], t, d)
    assert martingale.sum() == pytest.approx(0.0, abs=1e-9)
    assert (martingale <= 1 + 1e-12).all() and (martingale[~d] <= 1e-12).all()
    # Score residuals sum to the gradient, which the maximum makes zero.
    assert dfbeta(fit, x[:, None], t, d).sum() == pytest.approx(0.0, abs=1e-5)


def test_dfbeta_is_near_the_change_when_a_patient_is_left_out() -> None:
    data = design("nasty", ("age_10", "stress_tpd_pct"))
    fit = fit_cox(data.x, data.days, data.event)
    influence = dfbeta(fit, data.x, data.days, data.event)
    changes = []
    for row in range(0, len(data.days), 15):
        keep = np.arange(len(data.days)) != row
        left = fit_cox(data.x[keep], data.days[keep], data.event[keep])
        changes.append(fit.coefficients - left.coefficients)
    assert np.corrcoef(np.ravel(changes), influence[::15].ravel())[0, 1] > 0.99


def test_patients_twice_at_other_days_double_the_information() -> None:
    rng = np.random.default_rng(3)
    x, t, d = rng.normal(size=(80, 2)), rng.permutation(80) + 1.0, rng.random(80) < 0.6
    one = fit_cox(x, t, d)
    # A far smaller shift than any gap: no ties, almost the likelihood squared.
    two = fit_cox(np.tile(x, (2, 1)), np.concatenate([t, t + 1e-6]), np.tile(d, 2))
    assert two.coefficients == pytest.approx(one.coefficients, abs=0.02)
    assert two.standard_errors == pytest.approx(one.standard_errors / math.sqrt(2), rel=0.02)


def test_patients_after_the_last_event_or_before_the_first_tell_nothing() -> None:
    data = design("nasty", ("age_10",))
    fit = fit_cox(data.x, data.days, data.event)
    x, days = np.append(data.x, [[9.0]], axis=0), np.append(data.days, 0.0)
    early = fit_cox(x, days, np.append(data.event, 0))
    assert early.coefficients == pytest.approx(fit.coefficients, rel=1e-9)
    assert early.log_likelihood == pytest.approx(fit.log_likelihood, rel=1e-12)


def test_censored_on_the_day_of_an_event_are_at_risk_then() -> None:
    assert time_order(np.array([2.0, 1.0, 1.0]), np.array([True, False, True])).tolist() == [
        2,
        1,
        0,
    ]
    with_censored = fit_cox(np.zeros((4, 0)), [1, 1, 2, 3], [1, 0, 1, 1])
    # Risk sets of four, two and one.
    assert with_censored.log_likelihood_null == pytest.approx(-math.log(4 * 2 * 1))


def test_a_binary_covariate_alone_has_almost_the_error_of_its_counts() -> None:
    # STATISTICS: sqrt(1/d1 + 1/d0) where the ratio is not far from 1.
    data = design("paper", ("diabetes",))
    exposed = data.x[:, 0] == 1
    d1, d0 = data.event[exposed].sum(), data.event[~exposed].sum()
    fit = fit_cox(data.x, data.days, data.event)
    assert fit.standard_errors[0] == pytest.approx(math.sqrt(1 / d1 + 1 / d0), rel=0.02)


# -- what cannot be estimated --------------------------------------------------------------------

DAYS, EVENT = [1, 2, 3, 4, 5, 6], [1, 0, 1, 0, 1, 0]
X = [[1.0, 0.0], [2.0, 1.0], [0.0, 1.0], [4.0, 0.0], [3.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("x", "days", "event", "reason"),
    [
        (X, [*DAYS[:-1], -1], EVENT, "days is negative in 1 of 6"),
        (X, [*DAYS[:-1], math.nan], EVENT, "days is missing or infinite in 1 of 6"),
        (X, DAYS, [2, 1, 2, 1, 1, 1], "event holds codes other than 0 and 1 in 2 of 6"),
        (X, DAYS, [math.nan, *EVENT[1:]], "event is missing or infinite in 1 of 6"),
        (X, DAYS[:-1], EVENT[:-1], r"shapes \(6, 2\) and \(5,\) do not fit"),
        (X, DAYS, EVENT[:-1], "event has 5 values where 6 are needed"),
        ([row[0] for row in X], DAYS, EVENT, "do not fit together"),
        ([[math.nan, 0.0], *X[1:]], DAYS, EVENT, "missing or not finite"),
        ([[math.inf, 0.0], *X[1:]], DAYS, EVENT, "missing or not finite"),
    ],
)
def test_wrong_data_are_refused(x, days, event, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fit_cox(x, days, event)


def test_no_events_and_nobody_are_reported() -> None:
    for x, days, event in ((X, DAYS, [0] * 6), (np.zeros((0, 2)), [], [])):
        with pytest.raises(NotEstimableError, match="no events"):
            fit_cox(x, days, event)


def test_constant_columns_are_named() -> None:
    x = np.column_stack([np.array(X), np.full(6, 0.1)])
    with pytest.raises(ConstantColumnError, match="constant column 2 of the design") as refused:
        fit_cox(x, DAYS, EVENT)
    assert refused.value.columns == (2,)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_columns_that_follow_from_those_before_are_named(scale: float) -> None:
    x = np.array(X) * scale
    x = np.column_stack([x, 3 * x[:, 0] - 2 * x[:, 1] + 7])
    with pytest.raises(CollinearColumnError, match="collinear column 2 of the design") as refused:
        fit_cox(x, DAYS, EVENT)
    assert refused.value.columns == (2,)


def test_nearly_collinear_columns_are_still_fitted() -> None:
    rng = np.random.default_rng(2)
    first = rng.normal(size=200)
    x = np.column_stack([first, first + 1e-3 * rng.normal(size=200)])
    fit = fit_cox(x, rng.exponential(size=200), np.ones(200))
    assert np.isfinite(fit.standard_errors).all()


@pytest.mark.parametrize("far", [1.0, 1000.0])
def test_separation_is_reported_whatever_the_scale(far: float) -> None:
    # Who has more always has the event first; nobody else has one.
    x = far * np.array([6.0, 5, 4, 3, 2, 1])
    with pytest.raises(NotEstimableError, match="separation"):
        fit_cox(x[:, None], DAYS, [1, 1, 1, 1, 1, 0])
    flag = far * np.array([1.0, 1, 1, 0, 0, 0])
    with pytest.raises(NotEstimableError, match="separation"):
        fit_cox(flag[:, None], DAYS, [1, 1, 1, 0, 0, 0])


def test_a_level_without_events_is_separation_for_the_bare_fit() -> None:
    data = design("nasty", MODELS["full"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotEstimableError, match="separation"):
            fit_cox(data.x, data.days, data.event)


def test_a_very_strong_effect_is_not_taken_for_separation() -> None:
    rng = np.random.default_rng(8)
    x = rng.random(400) < 0.5
    days = rng.exponential(np.where(x, 0.002, 1.0))
    fit = fit_cox(x[:, None], days, np.ones(400))
    assert math.log(100) < fit.coefficients[0] < math.log(5000)


def test_all_in_one_risk_set_and_one_event_are_enough() -> None:
    fit = fit_cox([[0.0], [1.0], [3.0]], [5, 5, 5], [0, 1, 0])
    # L = r / (1 + r + r^3); maximum where 1 = 2 r^3.
    assert math.exp(fit.coefficients[0]) == pytest.approx(0.5 ** (1 / 3), rel=1e-9)
