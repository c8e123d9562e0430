"""A whole plan: complete, reproducible, and never stopped by what cannot be done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cac_core.analysis.run import analyse, steps
from schemas.linkage import FLOW
from schemas.results import ESTIMATES
from tests.builders.analyses import (
    KEY,
    analysed,
    found,
    golden_estimates,
    linked_events,
    one,
    plan,
)
from tests.builders.golden import answer, table

ANALYSES = {
    "added_value", "added_value_difference", "agreement", "calibration", "cause_specific",
    "cohort_flow", "concordance", "cox_multivariable", "cox_univariable", "cumulative_incidence",
    "decision_curve", "description", "description_test", "event_rate", "follow_up", "influence",
    "fine_gray", "gray_test", "interaction",
    "kaplan_meier", "landmark", "log_rank", "population", "proportional_hazards",
}  # fmt: skip


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_every_analysis_gives_rows_and_no_row_comes_twice(cohort: str) -> None:
    estimates = golden_estimates(cohort)
    assert set(estimates["analysis"]) == ANALYSES
    assert not estimates.duplicated(KEY).any()
    without = estimates[estimates["value"].isna()]
    assert without["method"].str.contains("not estimable: ").all()


def test_every_number_of_the_paper_like_cohort_is_estimable() -> None:
    assert golden_estimates("paper")["value"].notna().all()


def _backwards(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Work done in another order, results in the right one."""
    numbers = list(items)
    done = {item: function(item) for item in reversed(numbers)}
    return iter([done[item] for item in numbers])


def test_rows_in_any_order_and_work_spread_in_any_way_give_the_same_bytes() -> None:
    wanted = plan(resamples=12)
    linked, events = linked_events(table("nasty"))
    flow = FLOW.empty()
    first = analyse(linked, events, flow, wanted)
    shuffled = np.random.default_rng(5).permutation(linked.num_rows)
    with ThreadPoolExecutor(2) as pool:
        again = linked.take(shuffled), events.take(np.arange(len(events))[::-1])
        threaded = analyse(*again, flow, wanted, pool.map)
    assert first.equals(analyse(linked, events, flow, wanted, _backwards))
    assert first.equals(threaded)
    # And another seed gives other intervals, of the same estimates.
    other = analyse(linked, events, flow, plan(resamples=12, seed=1)).to_pandas()
    nri = {"analysis": "added_value", "model": "expert", "statistic": "nri"}
    a, b = one(first.to_pandas(), **nri), one(other, **nri)
    assert a["value"] == b["value"] and a["ci_low"] != b["ci_low"]


def test_nothing_is_computed_before_a_step_runs() -> None:
    linked, events = linked_events(table("nasty"))
    names = [step.name for step in steps(linked, events, FLOW.empty(), plan())]
    assert names[0] == "cohort flow" and "all: mace, added value, 0 resamples" in names


def test_a_population_is_chosen_by_its_conditions() -> None:
    frame = table("nasty")
    wanted = plan(
        populations={
            "women": {"description": "women", "where": [{"column": "sex", "equals": "F"}]},
            "older, no diabetes": {
                "description": "",
                "where": [
                    {"column": "age_years", "at_least": 65.0},
                    {"column": "age_years", "below": 80.0},
                    {"column": "diabetes", "equals": 0},
                ],
            },
            "graded": {
                "description": "",
                "where": [{"column": "visual_grade", "among": ["present", "extensive"]}],
            },
            "unknown": {"description": "", "where": [{"column": "shoe_size", "below": 40}]},
        },
        outcomes=["mace"],
        components=[],
    )
    estimates = analysed(frame, wanted)
    sizes = found(estimates, analysis="population").set_index("population")["value"]
    age, diabetes = frame["age_years"], frame["diabetes"]
    assert sizes["women"] == (frame["sex"] == "F").sum()
    assert sizes["older, no diabetes"] == ((age >= 65) & (age < 80) & (diabetes == 0)).sum()
    assert sizes["graded"] == frame["visual_grade"].isin(["present", "extensive"]).sum()
    row = one(estimates, population="unknown")
    assert (
        np.isnan(row["value"]) and row["method"] == "not estimable: there is no column `shoe_size`"
    )


BAD = {
    "no events": (
        lambda frame: frame.assign(mace_event=0),
        "cox_multivariable",
        r"no events in \d+ patients",
    ),
    "nobody": (lambda frame: frame.iloc[:0], "kaplan_meier", "is missing in all patients"),
    "one patient": (lambda frame: frame.iloc[:1], "log_rank", "no events|fewer than two groups"),
    "negative times": (
        lambda frame: frame.assign(mace_days=frame["mace_days"] - 400),
        "event_rate",
        r"\d+ negative times in `mace_days`",
    ),
    "missing times": (
        lambda frame: frame.assign(mace_days=frame["mace_days"].where(frame["mace_days"] > 90)),
        "kaplan_meier",
        r"\d+ missing times in `mace_days`",
    ),
    "other codes": (
        lambda frame: frame.assign(mace_event=frame["mace_event"] * 2),
        "cox_univariable",
        r"\d+ codes other than 0 and 1 in `mace_event`",
    ),
    "an unseen level": (
        lambda frame: frame.assign(cac_category=frame["cac_category"].replace("0", "none")),
        "kaplan_meier",
        r"column `cac_category` holds \d+ values that are none of its levels",
    ),
    "an infinite reading": (
        lambda frame: frame.assign(age_years=frame["age_years"].mask(frame.index == 7, np.inf)),
        "cox_multivariable",
        "column `age_years` holds 1 values that are infinite or beyond",
    ),
    "a reading beyond all bounds": (
        lambda frame: frame.assign(bmi_kg_m2=frame["bmi_kg_m2"].mask(frame.index == 7, 1e300)),
        "description_test",
        "column `bmi_kg_m2` holds 1 values that are infinite or beyond",
    ),
    "an infinite score": (
        lambda frame: frame.assign(agatston=frame["agatston"].mask(frame.index == 7, np.inf)),
        "description_test",
        "column `agatston` holds 1 values",
    ),
    "no readings": (
        lambda frame: frame.assign(expert_cac_category=None, expert_agatston=np.nan),
        "concordance",
        "no patient has both readings",
    ),
    "no outcome": (
        lambda frame: frame.drop(columns=["mace_event", "mace_days"]),
        "follow_up",
        "the outcome `mace` is not linked",
    ),
    "a short follow-up": (
        lambda frame: frame.assign(mace_days=frame["mace_days"].clip(upper=700)),
        "added_value",
        r"nobody is followed to the horizon of 3 years; the longest follow-up is 1\.9",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_row_with_a_reason_and_stops_nothing_else(case: str) -> None:
    spoil, analysis, reason = BAD[case]
    estimates = analysed(spoil(table("nasty")))
    rows = found(estimates, analysis=analysis)
    rows = rows[rows["outcome"].isna() | (rows["outcome"] == "mace")]
    shown = rows.loc[rows["value"].isna(), "method"]
    assert shown.str.contains(reason).any(), shown.tolist()
    assert set(estimates["analysis"]) >= {"population", "follow_up", "description_test"}
    if case not in ("nobody", "one patient") and "reading" not in case.removeprefix("no "):
        assert (
            found(estimates, analysis="cox_multivariable", outcome="death")["value"].notna().any()
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"smoking": 0}, "constant: every patient has 0"),
        ({"smoking": np.nan}, "column `smoking` is missing in all 300 patients"),
        ({"bmi_kg_m2": 27.0}, "constant in these patients"),
        ({"rest_tpd_pct": lambda frame: frame["age_years"] * 2 + 1}, "collinear with"),
    ],
)
def test_a_covariate_that_tells_nothing_is_named_and_left_out(
    change: dict[str, object], reason: str
) -> None:
    (column,) = change
    estimates = analysed(table("nasty").assign(**change))
    row = one(estimates, analysis="cox_multivariable", outcome="mace", model="dl", term=column)
    assert np.isnan(row["value"]) and reason in row["method"]
    rows = found(estimates, analysis="cox_multivariable", outcome="mace", model="dl")
    assert found(rows, term="age_years")["value"].notna().all()
    gain = one(estimates, analysis="added_value", model="dl", statistic="lr_chi2_gain")
    assert np.isfinite(gain["value"]) and f"without {column}" in gain["method"]


def test_estimates_pass_their_schema() -> None:
    linked, events = linked_events(table("nasty"))
    estimates = analyse(linked, events, FLOW.empty(), plan())
    assert estimates.schema.equals(ESTIMATES.arrow_schema)


def test_few_events_per_parameter_are_flagged() -> None:
    rows = found(
        golden_estimates("nasty"), analysis="cox_multivariable", outcome="mace", model="dl"
    )
    assert rows.loc[rows["statistic"] == "events_per_parameter", "value"].item() < 10
    ratios = rows[(rows["statistic"] == "hazard_ratio") & rows["ci_low"].notna()]
    assert ratios["method"].str.contains(r"only \d\.\d events per parameter").all()


def test_a_level_without_events_has_no_ratio_but_the_p_of_its_term() -> None:
    rows = found(
        golden_estimates("nasty"), analysis="cox_multivariable", outcome="mace", model="dl"
    )
    row = one(rows, term="cac_category", level="1-100")
    assert np.isnan(row["value"]) and 0 < row["p_value"] < 1
    assert "no events in the 58 patients of this level" in row["method"]
    assert "likelihood ratio, df 3" in row["method"]


def _difference(frame: pd.DataFrame, statistic: str) -> float:
    values = [
        one(frame, analysis="added_value", model=name, statistic=statistic)["value"]
        for name in ("dl", "expert")
    ]
    return float(values[0] - values[1])


def test_differences_of_markers_are_those_of_their_values_where_all_are_read() -> None:
    estimates = golden_estimates("paper")
    for statistic in ("nri", "nri_event", "auc_gain", "idi", "uno_c_gain"):
        row = one(
            estimates, analysis="added_value_difference", model="dl:expert", statistic=statistic
        )
        assert row["value"] == pytest.approx(_difference(estimates, statistic), abs=1e-12)


def test_influence_is_the_largest_dfbetas_of_r() -> None:
    expected = answer("paper", "cox", "full", "residuals", "dfbetas_max")
    rows = found(
        golden_estimates("paper"), analysis="influence", model="dl", statistic="dfbetas_max"
    )
    assert rows["value"].to_numpy() == pytest.approx(np.array(expected), abs=1e-6)


SPARSE = {
    "one event": lambda frame: frame.assign(mace_event=(np.arange(300) == 40).astype(int)),
    "two events": lambda frame: frame.assign(
        mace_event=frame["mace_event"].where(frame["mace_event"].cumsum() <= 2, 0)
    ),
    "only events": lambda frame: frame.assign(mace_event=1),
    "events on one day": lambda frame: frame.assign(
        mace_days=frame["mace_days"].where(frame["mace_event"] == 0, 30)
    ),
    "all followed for no time": lambda frame: frame.assign(mace_days=0),
    "nobody in the reference": lambda frame: frame[frame["cac_category"] != "0"],
    "no events in the reference": lambda frame: frame.assign(
        mace_event=frame["mace_event"].where(frame["cac_category"] != "0", 0)
    ),
    "one level of perfusion": lambda frame: frame.assign(stress_tpd_pct=0.2),
}


@pytest.mark.parametrize("case", SPARSE)
def test_no_row_lacks_its_number_in_silence(case: str) -> None:
    frame = SPARSE[case](table("nasty")).reset_index(drop=True)
    spline = {"name": "age_years", "label": "Age", "knots": 4}
    wanted = plan(outcomes=["mace"], components=["mi"], resamples=5, splines=[spline])
    estimates = analysed(frame, wanted)
    without = estimates[estimates["value"].isna()]
    assert without["method"].str.startswith("not estimable: ").all()
    assert set(estimates["analysis"]) == ANALYSES | {"spline"}
