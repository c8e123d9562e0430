"""Gray's test and the model of Fine and Gray, against R's cmprsk."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from cac_core.errors import NotEstimableError
from cac_core.stats.competing import fit_fine_gray, gray_test
from cac_core.stats.cox import fit_cox
from cac_core.stats.survival import log_rank
from tests.builders.cohorts import GOLDEN
from tests.builders.golden import table

CASES = (("paper", "mi"), ("paper", "revascularisation"), ("nasty", "revascularisation"))
CAC = ("0", "1-100", "101-400", ">400")


@cache
def _answers() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / "competing.json").read_text(encoding="utf-8"))
    return found


@cache
def _cohort(cohort: str, component: str) -> tuple[np.ndarray, ...]:
    """Days, causes, category (-1 where unknown) and covariates, as R's script has them."""
    frame = table(cohort).iloc[: 900 if cohort == "paper" else 300]
    mine = frame[f"{component}_first_days"].fillna(np.inf).to_numpy()
    death = frame["death_first_days"].fillna(np.inf).to_numpy()
    end = frame["follow_up_days"].to_numpy(float)
    cause = np.where(mine <= np.minimum(death, end), 1, np.where(death <= end, 2, 0))
    level = np.array([CAC.index(one) if one in CAC else -1 for one in frame["cac_category"]])
    male = (frame["sex"] == "M").to_numpy(float)
    more = np.column_stack([frame["age_years"] / 10, np.where(frame["sex"].notna(), male, np.nan)])
    return np.minimum(np.minimum(mine, death), end), cause, level, more


@pytest.mark.parametrize(("cohort", "component"), CASES)
def test_gray_equals_cmprsk(cohort: str, component: str) -> None:
    days, cause, level, _ = _cohort(cohort, component)
    known = level >= 0
    found = gray_test(days[known], cause[known], level[known])
    expected = _answers()[cohort][component]["gray"]
    assert found.chi2 == pytest.approx(expected["chi2"], rel=1e-10) and found.df == expected["df"]
    assert found.p_value == pytest.approx(expected["p"], rel=1e-6)


@pytest.mark.parametrize(("cohort", "component"), CASES)
def test_fine_and_gray_equals_crr(cohort: str, component: str) -> None:
    days, cause, level, more = _cohort(cohort, component)
    known = (level >= 0) & np.isfinite(more).all(axis=1)
    expected = _answers()[cohort][component]["crr"]
    columns = {"low": level == 1, "middle": level == 2, "high": level == 3}
    columns |= {"age": more[:, 0], "male": more[:, 1]}
    design = np.column_stack([columns[name] for name in expected["names"]]).astype(float)
    fit = fit_fine_gray(design[known], days[known], cause[known])
    assert fit.coefficients == pytest.approx(np.array(expected["coef"]), abs=1e-9)
    assert fit.standard_errors == pytest.approx(np.array(expected["se"]), rel=1e-9)
    assert fit.log_likelihood == pytest.approx(expected["loglik"], abs=1e-8)
    assert fit.log_likelihood_null == pytest.approx(expected["loglik_null"], abs=1e-8)


def test_without_competing_events_the_model_is_that_of_cox() -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=(120, 2))
    days = random.permutation(120) + 1.0
    cause = (random.random(120) < 0.5).astype(int)
    ours, cox = fit_fine_gray(x, days, cause), fit_cox(x, days, cause)
    assert ours.coefficients == pytest.approx(cox.coefficients, abs=1e-8)


def test_without_competing_events_the_scores_are_those_of_the_log_rank_test() -> None:
    random = np.random.default_rng(5)
    days, group = random.permutation(200) + 1.0, random.integers(0, 3, 200)
    cause = (random.random(200) < 0.3).astype(int)
    rank = log_rank(days, cause, group, [0, 1, 2]).overall()
    assert gray_test(days, cause, group).chi2 == pytest.approx(rank.chi2, rel=0.05)


def test_a_level_without_events_is_the_limit_of_a_low_coefficient() -> None:
    days, cause, level, more = _cohort("nasty", "revascularisation")
    known = (level >= 0) & np.isfinite(more).all(axis=1)
    days, cause, level, more = days[known], cause[known], level[known], more[known]
    assert not (cause[level == 1] == 1).any()
    x = np.column_stack([level == 2, level == 3, more]).astype(float)
    fit = fit_fine_gray(x, days, cause, kept=level != 1)

    # The same likelihood by brute force: their weights are 0 in every risk set.
    def value(beta: np.ndarray) -> float:
        risk = np.exp(x @ beta) * (level != 1)
        times = np.unique(days)
        g = {}
        still = 1.0
        for t in times:
            g[t] = still
            still *= 1 - ((days == t) & (cause == 0)).sum() / (days >= t).sum()
        total = 0.0
        for i in np.flatnonzero(cause == 1):
            t = days[i]
            late = (days < t) & (cause == 2)
            weight = (days >= t) + late * np.array([g[t] / g[d] for d in days])
            total += float(x[i] @ beta) - np.log((weight * risk).sum())
        return total

    best = value(fit.coefficients)
    assert best == pytest.approx(fit.log_likelihood, abs=1e-8)
    for at in range(4):
        for step in (-0.01, 0.01):
            assert value(fit.coefficients + step * np.eye(4)[at]) < best


def test_nobody_with_the_cause_or_one_group_is_reported() -> None:
    days, none = np.arange(1.0, 6), np.array([0, 2, 0, 2, 0])
    with pytest.raises(NotEstimableError, match="no events"):
        gray_test(days, none, [0, 1, 0, 1, 0])
    with pytest.raises(NotEstimableError, match="no events"):
        fit_fine_gray(np.arange(5.0)[:, None], days, none)
    with pytest.raises(NotEstimableError, match="two groups"):
        gray_test(days, [1, 0, 2, 1, 0], [3, 3, 3, 3, 3])
