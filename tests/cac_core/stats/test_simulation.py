"""Simulations with known truth: errors of tests, coverage of intervals, bias of estimates.

Limits are those of the binomial count of a simulation at 3.5 standard errors, so that one in about
two thousand right functions would fail, and the seeds are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import chi2, norm

from cac_core.phantom.registry.patients import draw_cohort
from cac_core.stats.agreement import weighted_kappa
from cac_core.stats.bootstrap import METRICS, MarkerData, bootstrap, measure, percentile_interval
from cac_core.stats.cox import fit_cox, hazard_ratio, likelihood_ratio_test, time_order
from cac_core.stats.cox_diagnostics import proportional_hazards_test
from cac_core.stats.describe import chi_square
from cac_core.stats.discrimination import auc, auc_difference, harrell_c
from cac_core.stats.reclassification import moves, nri_kaplan_meier
from cac_core.stats.risk import fit_risk_model
from cac_core.stats.survival import kaplan_meier, log_rank

pytestmark = pytest.mark.slow

Cohort = tuple[np.ndarray, np.ndarray]


def _observed(rng: np.random.Generator, log_hazard: np.ndarray, rounded: bool = False) -> Cohort:
    """Exponential times with uniform censoring to time 2, optionally with ties."""
    event_at = rng.exponential(np.exp(-log_hazard))
    censored_at = rng.uniform(0, 2, len(log_hazard))
    time = np.minimum(event_at, censored_at)
    return (np.ceil(time * 20) if rounded else time), event_at <= censored_at


def _near(share: float, expected: float, runs: int, more: float = 0.0) -> bool:
    return abs(share - expected) < 3.5 * math.sqrt(expected * (1 - expected) / runs) + more


# -- type I errors -------------------------------------------------------------------------------


def test_errors_of_the_survival_tests_are_nominal() -> None:
    """2000 cohorts of 250 in four groups without a difference, days with ties."""
    rng, runs, levels = np.random.default_rng(101), 2000, (0, 1, 2, 3)
    rejected = dict.fromkeys(("log-rank", "trend", "Wald", "likelihood ratio"), 0)
    for _ in range(runs):
        group = rng.integers(0, 4, 250)
        t, d = _observed(rng, np.zeros(250), rounded=True)
        found = log_rank(t, d, group, levels)
        x = np.stack([group == level for level in levels[1:]], axis=1).astype(float)
        fit, null = fit_cox(x, t, d), fit_cox(np.zeros((250, 0)), t, d)
        p_values = (
            found.overall().p_value,
            found.trend().p_value,
            hazard_ratio(fit, 0).p_value,
            likelihood_ratio_test(null, fit)[2],
        )
        for name, p_value in zip(rejected, p_values, strict=True):
            rejected[name] += p_value < 0.05
    assert all(_near(count / runs, 0.05, runs) for count in rejected.values()), rejected


def test_error_of_the_proportional_hazards_test_is_nominal() -> None:
    """1000 cohorts of 200 with a strong, constant effect."""
    rng, runs = np.random.default_rng(102), 1000
    rejected = dict.fromkeys(("term", "global", "global, identity"), 0)
    for _ in range(runs):
        x = np.column_stack([rng.normal(size=200), rng.random(200) < 0.4]).astype(float)
        t, d = _observed(rng, x @ (0.7, -0.5))
        fit = fit_cox(x, t, d)
        (first, _), whole = proportional_hazards_test(fit, x, t, d, [(0,), (1,)])
        _, identity = proportional_hazards_test(fit, x, t, d, [(0,)], "identity")
        for name, test in zip(rejected, (first, whole, identity), strict=True):
            rejected[name] += test.p_value < 0.05
    assert all(_near(count / runs, 0.05, runs) for count in rejected.values()), rejected


def test_the_proportional_hazards_test_finds_an_effect_that_fades() -> None:
    rng, found = np.random.default_rng(103), 0
    for _ in range(100):
        x = (rng.random(300) < 0.5).astype(float)
        # Hazard 4 against 1 up to time 0.3, equal later.
        early = rng.exponential(np.where(x == 1, 0.25, 1.0))
        t = np.where(early < 0.3, early, 0.3 + rng.exponential(1.0, 300))
        fit = fit_cox(x[:, None], t, np.ones(300))
        _, whole = proportional_hazards_test(fit, x[:, None], t, np.ones(300), [(0,)])
        found += whole.p_value < 0.05
    assert found > 90


def test_error_of_the_chi_square_test_is_nominal() -> None:
    """10000 tables of two levels and four groups."""
    rng, runs = np.random.default_rng(104), 10_000
    rejected = 0
    for _ in range(runs):
        yes = rng.binomial([200, 150, 100, 120], 0.3)
        table = np.array([yes, np.array([200, 150, 100, 120]) - yes])
        rejected += chi_square(table, ["a", "b", "c", "d"]).p_value < 0.05
    assert _near(rejected / runs, 0.05, runs)


def test_error_of_delongs_test_of_two_equal_markers_is_nominal() -> None:
    """4000 cohorts of 200, both markers the truth with noise of their own."""
    rng, runs = np.random.default_rng(105), 4000
    rejected, inside = 0, 0
    for _ in range(runs):
        truth = rng.normal(size=200)
        event = rng.random(200) < expit(truth - 0.5)
        found = auc_difference(*(truth + rng.normal(size=(2, 200))), event)
        rejected += found.p_value < 0.05
        inside += found.ci_low <= 0 <= found.ci_high
    assert _near(rejected / runs, 0.05, runs)
    assert inside == runs - rejected


# -- coverage and bias ---------------------------------------------------------------------------


def _covers(
    draw: Callable[[], tuple[float, float, float]], truth: float, runs: int
) -> tuple[float, float]:
    """Share of intervals that hold the truth; bias in standard deviations of the estimate."""
    found = np.array([draw() for _ in range(runs)])
    inside = (found[:, 1] <= truth) & (truth <= found[:, 2])
    return float(inside.mean()), float((found[:, 0].mean() - truth) / found[:, 0].std())


def _unbiased(bias: float, runs: int) -> bool:
    """Below 2 % of the standard error, within the error of this many runs."""
    return abs(bias) < 0.02 + 2.6 / math.sqrt(runs)


@pytest.mark.parametrize("interval", ["log-log", "log", "plain"])
def test_kaplan_meier_covers(interval) -> None:
    """1200 cohorts of 150; survival at time 1 is exp(-1)."""
    rng, runs = np.random.default_rng(106), 1200

    def draw() -> tuple[float, float, float]:
        curve = kaplan_meier(*_observed(rng, np.zeros(150)), interval)
        at = curve.index(1.0)
        return curve.survival[at], curve.ci_low[at], curve.ci_high[at]

    coverage, bias = _covers(draw, math.exp(-1), runs)
    # `plain` and `log` are short of nominal at this size, by up to one per cent.
    assert _near(coverage, 0.95, runs, 0.0 if interval == "log-log" else 0.01)
    assert _unbiased(bias, runs)


def test_cox_coefficients_cover_without_bias() -> None:
    """8000 cohorts of 1000, about 560 events, log hazard ratio 0.5 beside a second covariate."""
    rng, runs = np.random.default_rng(107), 8000

    def draw() -> tuple[float, float, float]:
        x = rng.normal(size=(1000, 2))
        fit = fit_cox(x, *_observed(rng, x @ (0.5, -0.3)))
        ratio = hazard_ratio(fit, 0)
        return tuple(np.log([ratio.value, ratio.ci_low, ratio.ci_high]))

    coverage, bias = _covers(draw, 0.5, runs)
    assert _near(coverage, 0.95, runs)
    # Known to be away from zero by some 2 % of the error at this size (of order 1 / events).
    assert _unbiased(bias - 0.02, runs)


def test_absolute_risk_is_without_bias() -> None:
    """1500 cohorts of 1000; risk by time 1 of someone with x = 1."""
    rng, runs = np.random.default_rng(108), 1500

    def draw() -> tuple[float, float, float]:
        x = rng.normal(size=(1000, 1))
        t, d = _observed(rng, 0.5 * x[:, 0])
        order = time_order(t, d)
        fit = fit_risk_model(x[order], t[order], d[order], 1.0)
        risk = fit.predict(np.array([[1.0]]))[0]
        return risk, risk, risk

    _, bias = _covers(draw, 1 - math.exp(-math.exp(0.5)), runs)
    assert _unbiased(bias, runs)


def test_weighted_kappa_covers_without_bias() -> None:
    """10000 tables of 2271 with the shares of the paper's readers."""
    rng, runs = np.random.default_rng(109), 10_000
    shares = np.array(
        [[766, 127, 13, 2], [175, 377, 39, 5], [18, 38, 265, 33], [3, 6, 45, 359]]
    ) / 2271.0  # fmt: skip
    truth = weighted_kappa(np.rint(shares * 2271).astype(int)).value

    def draw() -> tuple[float, float, float]:
        found = weighted_kappa(rng.multinomial(2271, shares.ravel()).reshape(4, 4))
        return found.value, found.ci_low, found.ci_high

    coverage, bias = _covers(draw, truth, runs)
    assert _near(coverage, 0.95, runs) and _unbiased(bias, runs)


def test_auc_covers_without_bias() -> None:
    """4000 cohorts of 60 and 90; normal markers one standard deviation apart."""
    rng, runs = np.random.default_rng(110), 4000
    event = np.repeat([1, 0], [60, 90])

    def draw() -> tuple[float, float, float]:
        found = auc(rng.normal(size=150) + event, event)
        return found.value, found.ci_low, found.ci_high

    coverage, bias = _covers(draw, float(norm.cdf(1 / math.sqrt(2))), runs)
    assert _near(coverage, 0.95, runs, 0.01) and _unbiased(bias, runs)


def test_harrells_c_covers_without_bias() -> None:
    """4000 uncensored cohorts of 200, log hazard ratio 1 of a normal covariate."""
    rng, runs = np.random.default_rng(111), 4000
    # Of a pair that differs by g, the one with more has its event first with expit(g).
    gaps = math.sqrt(2) * norm.ppf(0.5 + (np.arange(200_000) + 0.5) / 400_000)
    truth = float(expit(gaps).mean())

    def draw() -> tuple[float, float, float]:
        x = rng.normal(size=200)
        found = harrell_c(x, rng.exponential(np.exp(-x)), np.ones(200))
        return found.value, found.ci_low, found.ci_high

    coverage, bias = _covers(draw, truth, runs)
    assert _near(coverage, 0.95, runs, 0.01) and _unbiased(bias, runs)


# -- the bootstrap of net reclassification -------------------------------------------------------


def _two_markers(rng: np.random.Generator, n: int) -> MarkerData:
    """A covariate, and a marker with a real effect."""
    x = rng.normal(size=(n, 2))
    t, d = _observed(rng, x @ (0.6, 0.8))
    order = time_order(t, d)
    base, full = np.ascontiguousarray(x[order, :1]), np.ascontiguousarray(x[order])
    return MarkerData(base, {"marker": full}, t[order], d[order], 1.0, (0.5,))


def test_bootstrap_interval_of_the_nri_covers_a_real_effect() -> None:
    """200 cohorts of 400, 120 resamples each; the truth from 200000 patients."""
    rng, runs = np.random.default_rng(112), 200
    large = _two_markers(rng, 200_000)
    old, new = (
        fit_risk_model(x, large.days, large.event, 1.0).risk
        for x in (large.base, large.full["marker"])
    )
    truth = nri_kaplan_meier(large.days, large.event, *moves(old, new), 1.0)
    inside = dict.fromkeys(("event", "nonevent", "overall"), 0)
    for run in range(runs):
        data = _two_markers(rng, 400)
        fits, _ = measure(data)
        drawn = bootstrap(data, fits, 120, run)
        for part in inside:
            low, high, _ = percentile_interval(drawn.of("marker", f"nri_{part}"))
            inside[part] += low <= getattr(truth, part) <= high
    # Percentiles of 120 resamples are short of nominal by some two per cent by themselves.
    assert all(0.88 < count / runs < 0.99 for count in inside.values()), inside


def test_a_marker_of_pure_noise_has_a_positive_nri_and_a_valid_likelihood_ratio() -> None:
    """25 cohorts like the paper's with 8 markers of noise each; why the NRI is no test here."""
    rng = np.random.default_rng(113)
    nri, lr, excluded = [], [], []
    for seed in range(25):
        data = _noise_markers(rng, seed)
        fits, values = measure(data)
        for found in values.values():
            nri.append(found[METRICS.index("nri_overall")])
            lr.append(found[METRICS.index("lr_chi2_gain")])
        two = {name: data.full[name] for name in ("0", "1")}
        drawn = bootstrap(replace(data, full=two), fits, 100, seed)
        excluded += [percentile_interval(drawn.of(name, "nri_overall"))[0] > 0 for name in two]
    # +0.085 on average: the model follows the chance of the patients it is fitted to.
    assert np.mean(nri) == pytest.approx(0.085, abs=0.015)
    # In a quarter of cohorts (27 %) the interval lies above zero, where 2.5 % would be right.
    assert _near(float(np.mean(excluded)), 0.27, len(excluded))
    assert _near(float((chi2.sf(lr, 3) < 0.05).mean()), 0.05, len(lr))


def _noise_markers(rng: np.random.Generator, seed: int) -> MarkerData:
    """The covariates of the paper, and randomly permuted categories of calcium."""
    cohort = draw_cohort(seed=seed)
    event, days = cohort.mace()
    days = days.astype(float)
    perfusion = np.searchsorted([1, 5, 10], cohort.stress_tpd_pct, side="right")
    base = np.column_stack(
        [
            cohort.age_years,
            cohort.bmi_kg_m2,
            *cohort.yes.values(),
            *(perfusion == level for level in (1, 2, 3)),
            cohort.rest_tpd_pct,
            cohort.stress_lvef_pct,
        ]
    ).astype(float)
    order = time_order(days, event)
    base = np.ascontiguousarray(base[order])
    full = {}
    for number in range(8):
        dealt = rng.permutation(cohort.dl)
        calcium = [dealt == level for level in (1, 2, 3)]
        full[str(number)] = np.column_stack([*calcium, base]).astype(float)
    return MarkerData(base, full, days[order], event[order], 3 * 365.25, (0.1,))
