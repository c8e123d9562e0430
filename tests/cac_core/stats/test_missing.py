"""Imputation keeps what is known and finds what is not; pooling by hand, and coverage."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import expit

from cac_core.errors import UsageError
from cac_core.stats import missing
from cac_core.stats.missing import ImputationPlan, impute, pool, survival_predictors
from tests.builders.golden import answer, table

PLAN = ImputationPlan(imputations=3, cycles=3, donors=5, seed=7)


def _columns(n: int = 200, seed: int = 0) -> tuple[dict, dict]:
    """Two correlated covariates with holes, one without, and an outcome."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    x = 0.8 * z + 0.6 * rng.normal(size=n)
    yes = (z + rng.normal(size=n) > 0).astype(float)
    x[rng.random(n) < 0.3] = np.nan
    yes[rng.random(n) < 0.2] = np.nan
    return {"x-ray": x, "z": z, "yes": yes}, {"event": (rng.random(n) < 0.3).astype(float)}


def test_known_values_stay_and_filled_ones_were_observed() -> None:
    covariates, auxiliary = _columns()
    tables = impute(covariates, auxiliary, PLAN)
    assert len(tables) == 3
    for filled in tables:
        assert list(filled) == list(covariates)
        for name, values in covariates.items():
            known = ~np.isnan(values)
            assert np.array_equal(filled[name][known], values[known])
            assert np.isin(filled[name], values[known]).all()
    assert not np.array_equal(tables[0]["x-ray"], tables[1]["x-ray"])


def test_filled_values_follow_the_other_columns() -> None:
    covariates, auxiliary = _columns(n=400)
    hidden = np.isnan(covariates["x-ray"])
    filled = np.mean([t["x-ray"][hidden] for t in impute(covariates, auxiliary, PLAN)], axis=0)
    assert np.corrcoef(filled, covariates["z"][hidden])[0, 1] > 0.8


def test_the_seed_decides_and_the_number_of_tables_does_not() -> None:
    covariates, auxiliary = _columns()
    np.random.seed(1)  # the global state must not matter
    first = impute(covariates, auxiliary, PLAN)
    np.random.seed(2)
    again = impute(covariates, auxiliary, ImputationPlan(imputations=5, cycles=3, donors=5, seed=7))
    other = impute(covariates, auxiliary, ImputationPlan(imputations=3, cycles=3, donors=5, seed=8))
    for one, two in zip(first, again[:3], strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(first[0]["x-ray"], other[0]["x-ray"])


def test_the_columns_given_are_not_touched() -> None:
    covariates, auxiliary = _columns()
    before = covariates["x-ray"].copy()
    impute(covariates, auxiliary, PLAN)
    assert np.array_equal(covariates["x-ray"], before, equal_nan=True)


def test_nothing_missing_equals_complete(monkeypatch) -> None:
    """Neither the package nor the seed matters then, and pooling gives the one fit back."""
    monkeypatch.setattr(missing, "import_module", _not_installed)
    data = table("paper")
    columns = {"age": data["age_years"].to_numpy(), "bmi": data["bmi_kg_m2"].to_numpy()}
    tables = impute(columns, {}, PLAN)
    assert all(np.array_equal(t["age"], columns["age"]) for t in tables)
    fit = answer("paper", "cox", "small", "fit")
    covariance = np.array(answer("paper", "cox", "small", "covariance"))
    pooled = pool([fit["coef"]] * 3, [covariance] * 3)
    assert pooled.coefficients == pytest.approx(fit["coef"])
    assert pooled.standard_errors == pytest.approx(fit["se"])
    assert np.exp(pooled.ci_low) == pytest.approx(fit["lower"])
    assert np.exp(pooled.ci_high) == pytest.approx(fit["upper"])
    assert pooled.p_values == pytest.approx(fit["p"], rel=1e-9)
    assert pooled.missing_share.max() < 1e-25 < 1e25 < pooled.df.min()


def _not_installed(name: str):
    raise ModuleNotFoundError(name)


def test_without_the_package_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setattr(missing, "import_module", _not_installed)
    with pytest.raises(UsageError, match=r"cac-cohort\[impute\]"):
        impute(*_columns(), PLAN)


def test_the_package_is_imported_when_needed_only() -> None:
    code = "import sys, cac_core.stats.missing; sys.exit('statsmodels' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert importlib.util.find_spec("statsmodels") is not None


@pytest.mark.parametrize(
    ("covariates", "auxiliary", "message"),
    [
        ({"a": [1, 2], "b": [1]}, {}, "one length"),
        ({"a": [1, math.inf, math.nan]}, {}, "a: 1 values are infinite"),
        ({"a": [1, 2]}, {"e": [math.nan, 1]}, "e: 1 values are missing in an auxiliary"),
        ({"a": [math.nan] * 3}, {}, "a: 0 observed values, 5 needed"),
        ({"a": [*range(9), math.nan]}, {"e": [1] * 10}, "no column from which"),
    ],
)
def test_refuses_columns_that_cannot_be_imputed(covariates, auxiliary, message) -> None:
    with pytest.raises(ValueError, match=message):
        impute(covariates, auxiliary, PLAN)


def test_refuses_plans_that_pool_nothing() -> None:
    with pytest.raises(ValueError, match="two or more imputations"):
        ImputationPlan(imputations=1)
    with pytest.raises(ValueError, match="one or more donors"):
        ImputationPlan(donors=0)


def test_a_constant_column_is_filled_with_its_value() -> None:
    covariates, auxiliary = _columns()
    constant = np.ones(200)
    constant[:20] = np.nan
    filled = impute(covariates | {"constant": constant}, auxiliary, PLAN)
    assert all((t["constant"] == 1).all() for t in filled)
    assert list(filled[0]) == [*covariates, "constant"]
    only = impute({"z": covariates["z"], "constant": constant}, {}, PLAN)
    assert all((t["constant"] == 1).all() for t in only)


def test_collinear_columns_do_not_disturb() -> None:
    covariates, auxiliary = _columns(n=400)
    hidden = np.isnan(covariates["x-ray"])
    twice = covariates | {"z in other units": 10 * covariates["z"] + 3}
    filled = np.mean([t["x-ray"][hidden] for t in impute(twice, auxiliary, PLAN)], axis=0)
    assert np.corrcoef(filled, covariates["z"][hidden])[0, 1] > 0.8


def test_nelson_aalen_by_hand() -> None:
    found = survival_predictors([5, 2, 2, 9, 5], [1, 1, 0, 0, 1])
    at_2 = Fraction(1, 5)
    at_5 = at_2 + Fraction(2, 3)
    assert found["cumulative_hazard"] == pytest.approx(
        [float(h) for h in (at_5, at_2, at_2, at_5, at_5)]
    )
    assert found["event"].tolist() == [1, 1, 0, 0, 1]


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_nelson_aalen_of_r(cohort) -> None:
    """Sums of events over numbers at risk of R's Kaplan-Meier, within a category."""
    data = table(cohort)
    part = data[data["cac_category"] == ">400"]
    curve = answer(cohort, "kaplan_meier", "cac_category", ">400")
    steps = np.cumsum(np.array(curve["n_event"]) / np.array(curve["n_risk"]))
    at = np.searchsorted(curve["time"], part["mace_days"], side="right")
    found = survival_predictors(part["mace_days"], part["mace_event"])
    wanted = np.concatenate([[0], steps])[at]
    assert found["cumulative_hazard"] == pytest.approx(wanted, rel=1e-12)


def test_pooling_by_hand() -> None:
    """Estimates 1, 2, 3 with variance 1: W = 1, B = 1, T = 7/3, lambda = 4/7."""
    pooled = pool([[1.0], [2.0], [3.0]], [[[1.0]]] * 3)
    assert pooled.coefficients == pytest.approx([2])
    assert pooled.covariance == pytest.approx(np.array([[7 / 3]]))
    assert pooled.missing_share == pytest.approx([4 / 7])
    assert pooled.df == pytest.approx([2 / (4 / 7) ** 2])
    # Barnard and Rubin with ten degrees of freedom in the complete data.
    observed = Fraction(11, 13) * 10 * Fraction(3, 7)
    old = 2 * Fraction(49, 16)
    small = pool([[1.0], [2.0], [3.0]], [[[1.0]]] * 3, complete_df=10)
    assert small.df == pytest.approx([float(old * observed / (old + observed))])
    assert small.ci_high[0] - small.ci_low[0] > pooled.ci_high[0] - pooled.ci_low[0]


def test_pooling_of_several_coefficients_is_that_of_each() -> None:
    rng = np.random.default_rng(1)
    estimates = rng.normal(size=(6, 3))
    roots = rng.normal(size=(6, 3, 3))
    covariances = roots @ roots.transpose(0, 2, 1) + np.eye(3)
    whole = pool(list(estimates), list(covariances), complete_df=40)
    for at in range(3):
        one = pool(estimates[:, [at]], covariances[:, [at]][:, :, [at]], complete_df=40)
        for name in ("coefficients", "standard_errors", "df", "ci_low", "p_values"):
            assert getattr(whole, name)[at] == pytest.approx(getattr(one, name)[0])
    # A linear combination of the coefficients has the variance that pooling it gives.
    weights = np.array([1.0, -2.0, 0.5])
    combined = pool(
        (estimates @ weights)[:, None], [[[weights @ c @ weights]] for c in covariances]
    )
    assert weights @ whole.covariance @ weights == pytest.approx(combined.covariance[0, 0])


def test_refuses_to_pool_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="two or more"):
        pool([[1.0]], [[[1.0]]])
    with pytest.raises(ValueError, match="covariances"):
        pool([[1.0, 2.0]] * 2, [[[1.0]]] * 2)


def _ordinary_least_squares(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inverse = np.linalg.inv(design.T @ design)
    slope = inverse @ design.T @ y
    residual = y - design @ slope
    return slope, inverse * (residual @ residual) / (len(y) - design.shape[1])


@pytest.mark.slow
def test_intervals_cover_where_complete_cases_do_not() -> None:
    """A covariate is missing the more often the higher the outcome: a quarter of 300, 250 times.

    Intervals of 95 % cover 90 to 95 % (matching draws from few donors, so that some of the
    uncertainty is lost); the complete cases' cover the intercept in little more than half.
    """
    rng = np.random.default_rng(3)
    truth, n, repeats = np.array([0.0, 1.0, 1.0]), 300, 250
    pooled_inside, complete_inside, mean = np.zeros(3), np.zeros(3), np.zeros(3)
    for repeat in range(repeats):
        z = rng.normal(size=n)
        x = 0.5 * z + rng.normal(size=n)
        y = x + z + 1.5 * rng.normal(size=n)
        holes = rng.random(n) < expit(-1.2 + 0.8 * (y - y.mean()) / y.std())
        plan = ImputationPlan(imputations=10, cycles=1, donors=5, seed=repeat)
        fits = [
            _ordinary_least_squares(np.column_stack([np.ones(n), t["x"], z]), y)
            for t in impute({"x": np.where(holes, np.nan, x)}, {"z": z, "y": y}, plan)
        ]
        pooled = pool([f[0] for f in fits], [f[1] for f in fits], complete_df=n - 3)
        pooled_inside += (pooled.ci_low <= truth) & (truth <= pooled.ci_high)
        mean += pooled.coefficients / repeats
        design = np.column_stack([np.ones(n), x, z])[~holes]
        slope, covariance = _ordinary_least_squares(design, y[~holes])
        complete_inside += np.abs(slope - truth) <= 1.97 * np.sqrt(np.diag(covariance))
    assert pooled_inside.min() / repeats > 0.87
    assert complete_inside.min() / repeats < 0.65
    assert mean == pytest.approx(truth, abs=0.05)


def test_pooled_intervals_cover_with_proper_imputations() -> None:
    """Rubin's rules alone: imputations drawn from the true posterior of a normal mean.

    30 of 60 values missing, known variance: T is the complete-data variance plus what the missing
    half adds, so 95 % of 2000 intervals hold the mean, within 3.5 standard errors.
    """
    rng = np.random.default_rng(8)
    inside, repeats, m = 0, 2000, 20
    for _ in range(repeats):
        known = rng.normal(size=30)
        centres = known.mean() + rng.normal(size=m) / math.sqrt(30)
        filled = centres[:, None] + rng.normal(size=(m, 30))
        means = (known.sum() + filled.sum(axis=1)) / 60
        pooled = pool(means[:, None], [[[1 / 60]]] * m)
        inside += bool(pooled.ci_low[0] <= 0 <= pooled.ci_high[0])
    assert inside / repeats == pytest.approx(0.95, abs=3.5 * math.sqrt(0.05 * 0.95 / repeats))
