"""Hazard ratios as rows, against R's models and the paper's own counts."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tests.builders.analyses import analysed, found, golden_estimates, one, plan
from tests.builders.golden import answer, numbers, table

#: R's names of columns, and those of the shipped plan.
NAMES = {"age_10": "age_years", "male": "sex"}
AGE = {"name": "age_years", "label": "Age, per 10 years", "per": 10}
TPD = {"1-<5": "1 to <5", "5-<10": "5 to <10", ">=10": ">=10"}


def _named(column: str) -> tuple[str, str | None]:
    term, _, level = column.partition("=")
    term = {"visual_level": "visual_grade"}.get(term, NAMES.get(term, term))
    return term, (TPD.get(level, level) or None)


def _assert_rows_equal(rows: pd.DataFrame, expected: dict, tolerance: float = 1e-7) -> None:
    """Every column that R estimated has its row; levels without events have none there."""
    names = np.atleast_1d(expected["terms"])
    values = {
        name: np.atleast_1d(numbers(expected[name])) for name in ("hr", "lower", "upper", "p")
    }
    errors = np.atleast_1d(numbers(expected["se"]))
    for at, column in enumerate(names):
        term, level = _named(column)
        row = one(rows, statistic="hazard_ratio", term=term, level=level)
        if errors[at] > 1000:
            assert np.isnan(row["value"])
            continue
        want = [values[name][at] for name in ("hr", "lower", "upper", "p")]
        got = row[["value", "ci_low", "ci_high", "p_value"]].tolist()
        assert got == pytest.approx(want, rel=tolerance, abs=tolerance), column


def _rows(cohort: str, analysis: str, model: str, outcome: str = "mace") -> pd.DataFrame:
    return found(golden_estimates(cohort), analysis=analysis, model=model, outcome=outcome)


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_table_2_equals_the_models_of_r(cohort: str) -> None:
    rows = _rows(cohort, "cox_multivariable", "dl")
    expected = answer(cohort, "cox", "full", "fit")
    _assert_rows_equal(rows, expected)
    chi2 = one(rows, statistic="lr_chi2")
    # Of the infinite coefficient too: its likelihood has the limit that R runs to.
    assert chi2["value"] == pytest.approx(expected["lr"], rel=1e-8)
    assert chi2["p_value"] == pytest.approx(expected["lr_p"], rel=1e-6)
    assert f"df {expected['df']}" in chi2["method"]
    assert set(rows["n"]) == {expected["n"]} and set(rows["n_events"]) == {expected["n_events"]}


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
@pytest.mark.parametrize("source", ["expert", "visual"])
def test_models_of_the_other_readings_equal_those_of_r(cohort: str, source: str) -> None:
    rows = _rows(cohort, "cox_multivariable", source)
    _assert_rows_equal(rows, answer(cohort, "cox", source, "full"))


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_univariable_models_equal_those_of_r(cohort: str) -> None:
    estimates = found(golden_estimates(cohort), analysis="cox_univariable", outcome="mace")
    for term, expected in answer(cohort, "cox", "univariable").items():
        model = {"cac_category": "dl", "expert_cac_category": "expert", "visual_level": "visual"}
        _assert_rows_equal(found(estimates, model=model.get(term, "base")), expected)


@pytest.mark.parametrize("outcome", ["death_mi", "death", "mace_no_early_revascularisation"])
def test_secondary_outcomes_equal_those_of_r(outcome: str) -> None:
    rows = _rows("paper", "cox_multivariable", "dl", outcome)
    _assert_rows_equal(rows, answer("paper", "cox", "outcomes", outcome))


def test_the_landmark_equals_that_of_r() -> None:
    # R counts days from the scan and takes those beyond day 90: the same risk sets.
    rows = _rows("paper", "landmark", "dl")
    _assert_rows_equal(rows, answer("paper", "cox", "landmark_90"))
    assert set(rows["at"]) == {90}
    counts = rows["statistic"].isin(["patients", "events"])
    assert rows["method"][~counts].dropna().str.endswith("from day 90 on").all()


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_the_interaction_equals_that_of_r(cohort: str) -> None:
    row = one(golden_estimates(cohort), analysis="interaction", outcome="mace", model="dl")
    expected = answer(cohort, "cox", "interaction")
    assert row["value"] == pytest.approx(expected["lr"], rel=1e-6)
    if cohort == "paper":
        assert row["p_value"] == pytest.approx(expected["p"], abs=1e-6)
        assert "df 9" in row["method"]
    else:  # R counts the three products of a level without events, which are not estimable
        assert "df 6" in row["method"]


def test_an_interaction_with_a_number_is_its_product() -> None:
    wanted = plan().model_dump(mode="json")
    wanted["sources"] = {"dl": wanted["sources"]["dl"]}
    straight = {"name": "stress_tpd_pct", "label": "Stress TPD"}
    keep = [term for term in wanted["covariates"] if term["name"] in ("age_years", "sex")]
    changed = plan(
        sources=wanted["sources"], covariates=[*keep, straight], interaction="stress_tpd_pct",
        compare=[], outcomes=["mace"], components=[],
    )  # fmt: skip
    row = one(analysed(table("paper"), changed), analysis="interaction")
    assert "df 3" in row["method"] and 0 < row["p_value"] < 1


def test_proportional_hazards_rows_equal_cox_zph() -> None:
    expected = answer("paper", "cox", "full", "zph", "km_terms")
    rows = _rows("paper", "proportional_hazards", "dl")
    for at, term in enumerate(expected["terms"]):
        name = "global" if term == "GLOBAL" else _named(term.rstrip("="))[0]
        row = one(rows, term=name)
        assert row["value"] == pytest.approx(expected["chisq"][at], rel=1e-6)
        assert row["p_value"] == pytest.approx(expected["p"][at], abs=1e-6)
        assert f"df {expected['df'][at]}" in row["method"]


def test_events_all_on_one_day_cannot_tell_of_change_and_stop_nothing() -> None:
    frame = table("nasty")
    frame["mace_days"] = frame["mace_days"].where(frame["mace_event"] == 0, 30)
    estimates = analysed(frame, plan(outcomes=["mace"], components=[]))
    rows = found(estimates, analysis="proportional_hazards", model="expert")
    assert len(rows) == 13 and rows["value"].isna().all() and rows["p_value"].isna().all()
    assert (rows["method"] == "not estimable: events at too few times to see a change").all()
    assert found(estimates, analysis="cox_multivariable", model="expert")["value"].notna().any()


def test_cause_specific_models_censor_the_other_causes() -> None:
    frame = table("paper")
    rows = found(golden_estimates("paper"), analysis="cause_specific", outcome="mi", model="dl")
    assert set(rows["n_events"]) == {frame["mi_first_days"].notna().sum()}
    # Death as the cause, first of four components: R's model of it, through the same functions.
    first = frame["first_component"] == "death"
    renamed = frame.assign(death_event=first.astype(int), death_days=frame["mace_days"])
    estimates = analysed(renamed, plan(outcomes=["death"], primary="death", components=[]))
    expected = answer("paper", "cox", "first_component_death")
    rows = found(estimates, analysis="cox_multivariable", model="dl", outcome="death")
    _assert_rows_equal(rows, expected)


@pytest.mark.parametrize(("column", "key"), [("age_years", "spline_age")])
def test_curvature_is_the_likelihood_of_the_spline_against_the_line(column: str, key: str) -> None:
    expected = answer("paper", "cox", key)
    wanted = plan().model_dump(mode="json")
    term = {"name": column, "label": column, "knots": 4}
    only = [other for other in wanted["covariates"] if other["name"] == column]
    changed = plan(
        splines=[term], covariates=only, interaction=None, outcomes=["mace"], components=[]
    )
    row = one(analysed(table("paper"), changed), analysis="spline", term=column)
    gain = 2 * (expected["alone"]["loglik"] - expected["linear"]["loglik"])
    assert row["value"] == pytest.approx(gain, rel=1e-6, abs=1e-7)
    assert "df 2; 4 knots" in row["method"]


# -- the paper's printed intervals from its counts ------------------------------------------------

#: Hazard ratio and interval of Table 2, events with and without (Supplemental Table 4).
PUBLISHED = {
    "DL CAC 1-100": (2.20, 1.54, 3.14, 72, 52),
    "DL CAC 101-400": (4.58, 3.23, 6.48, 81, 52),
    "DL CAC >400": (5.92, 4.27, 8.22, 115, 52),
    "male": (1.75, 1.39, 2.19, 201, 119),
    "hypertension": (1.22, 0.98, 1.53, 194, 126),
    "diabetes": (1.60, 1.26, 2.02, 101, 219),
    "dyslipidemia": (1.34, 1.08, 1.67, 161, 159),
    "family history": (0.82, 0.65, 1.02, 140, 180),
    "smoking": (1.18, 0.81, 1.72, 30, 290),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_intervals_follow_from_the_counts_of_events(name: str) -> None:
    ratio, low, high, with_it, without = PUBLISHED[name]
    error = math.sqrt(1 / with_it + 1 / without)
    # Some ratio that is printed as the paper prints it gives both limits as it prints them.
    candidates = ratio + np.linspace(-0.005, 0.005, 201)
    limits = np.exp(np.log(candidates)[:, None] + np.array([-1.96, 1.96]) * error)
    as_printed = np.abs(limits - [low, high]) <= 0.005 + 1e-9
    assert as_printed.all(axis=1).any(), limits[100]


def test_an_event_on_the_landmark_day_is_before_it() -> None:
    frame = table("nasty")
    later = int((frame["mace_days"] > 90).sum())
    on_the_day = int((frame["mace_days"] == 90).sum())
    assert on_the_day > 0
    wanted = plan(outcomes=["mace"], components=[], covariates=[AGE], interaction=None)
    rows = found(analysed(frame, wanted), analysis="landmark", model="dl")
    assert set(rows["n"]) == {later}
