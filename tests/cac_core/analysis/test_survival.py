"""Survival curves as rows: complete, thinned where long, and R's numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cac_core.analysis.survival import CURVE_POINTS
from tests.builders.analyses import analysed, found, golden_estimates, one, plan
from tests.builders.golden import answer, numbers, table


@pytest.mark.parametrize("level", ["0", "1-100", "101-400", ">400"])
def test_a_curve_begins_at_one_and_has_every_step_of_r(level: str) -> None:
    expected = answer("paper", "kaplan_meier", "cac_category", level)
    rows = found(
        golden_estimates("paper"), analysis="kaplan_meier", outcome="mace", model="dl", level=level
    )
    curve = found(rows, statistic="survival").set_index("at")
    assert curve.index.is_monotonic_increasing and curve["value"].iloc[0] == 1
    steps = curve.loc[numbers(expected["time"])]
    assert steps["value"].to_numpy() == pytest.approx(numbers(expected["surv"]), abs=1e-9)
    assert steps["ci_low"].to_numpy() == pytest.approx(numbers(expected["lower_loglog"]), abs=1e-9)
    assert steps["ci_high"].to_numpy() == pytest.approx(numbers(expected["upper_loglog"]), abs=1e-9)
    assert steps["n"].tolist() == expected["n_risk"]
    at_risk = found(rows, statistic="at_risk").set_index("at")["value"]
    days = numbers(expected["year_days"])
    assert at_risk.reindex(days).tolist() == expected["year_at_risk"]


def test_kinds_of_interval_follow_the_plan() -> None:
    expected = answer("paper", "kaplan_meier", "cac_category", ">400")
    for kind, key in (("log", "log"), ("plain", "plain")):
        wanted = plan(interval=kind, outcomes=["mace"], components=[])
        rows = found(
            analysed(table("paper"), wanted), analysis="kaplan_meier", model="dl", level=">400",
            statistic="survival",
        ).set_index("at")  # fmt: skip
        steps = rows.loc[numbers(expected["time"])]
        assert steps["ci_low"].to_numpy() == pytest.approx(
            numbers(expected[f"lower_{key}"]), abs=1e-9
        )
        assert steps["method"].str.contains(f"{kind} limits").all()


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    frame = pd.concat([table("paper")] * 3, ignore_index=True)
    frame["patient_key"] = [f"{number:032x}" for number in range(len(frame))]
    frame["cac_category"] = ">400"
    rng = np.random.default_rng(1)
    frame["mace_days"] = frame["mace_days"] + rng.integers(0, 2000, len(frame))
    rows = found(analysed(frame, plan(outcomes=["mace"], components=[])), analysis="kaplan_meier")
    rows = found(rows, model="dl", level=">400", statistic="survival")
    events = frame.loc[frame["mace_event"] == 1, "mace_days"].nunique()
    assert events > CURVE_POINTS and len(rows) <= CURVE_POINTS + 2
    assert rows["at"].max() == frame["mace_days"].max()
    assert rows["n_events"].max() == frame["mace_event"].sum()


def test_incidences_equal_those_of_r() -> None:
    expected = answer("paper", "competing", "mi", ">400")
    rows = found(
        golden_estimates("paper"), analysis="cumulative_incidence", statistic="incidence",
        outcome="mi", model="dl", level=">400",
    ).set_index("at")["value"]  # fmt: skip
    state = pd.Series(numbers(expected["pstate"]["mi"]), numbers(expected["time"]))
    assert rows[rows.index > 0].to_numpy() == pytest.approx(
        state.reindex(rows.index[rows.index > 0], method="ffill").to_numpy(), abs=1e-9
    )


def test_patients_at_risk_of_a_component_have_had_no_competing_event_either() -> None:
    frame = table("paper")
    mine = frame[frame["cac_category"] == ">400"]
    until = mine[["mi_first_days", "death_first_days", "follow_up_days"]].min(axis=1)
    rows = found(
        golden_estimates("paper"), analysis="cumulative_incidence", statistic="at_risk",
        outcome="mi", model="dl", level=">400",
    )  # fmt: skip
    assert len(rows) > 3
    for day, count in zip(rows["at"], rows["value"], strict=True):
        assert count == (until >= day).sum()


def test_log_rank_rows_equal_those_of_r() -> None:
    expected = answer("paper", "log_rank", "cac_category")
    rows = found(golden_estimates("paper"), analysis="log_rank", outcome="mace", model="dl")
    overall, trend = one(rows, level=None), one(rows, level="trend")
    assert overall["value"] == pytest.approx(expected["chisq"], rel=1e-9)
    assert trend["value"] == pytest.approx(expected["trend_chisq"], rel=1e-9)
    for pair in expected["pairs"]:
        row = one(rows, level=f"{pair['first']} vs {pair['second']}")
        assert row["value"] == pytest.approx(pair["chisq"], rel=1e-9)
        assert row["p_value"] == pytest.approx(pair["p"], rel=1e-9)


def test_follow_up_and_rates_equal_those_of_r() -> None:
    estimates = golden_estimates("paper")
    expected = answer("paper", "follow_up")
    rows = found(estimates, analysis="follow_up", outcome="mace").set_index("statistic")["value"]
    names = ("q1", "median", "q3")
    years = numbers(expected["reverse_km"]) / 365.25
    assert [rows[name] for name in names] == pytest.approx(years.tolist(), abs=1e-9)
    observed = numbers(expected["observed"]) / 365.25
    assert [rows[f"observed_{n}"] for n in names] == pytest.approx(observed.tolist(), abs=1e-9)
    for level in ("0", ">400"):
        rate = answer("paper", "rates", level)
        row = one(
            estimates, analysis="event_rate", outcome="mace", model="dl", level=level,
            statistic="per_100_person_years",
        )  # fmt: skip
        want = [rate[name] for name in ("rate", "lower", "upper")]
        assert row[["value", "ci_low", "ci_high"]].tolist() == pytest.approx(want, rel=1e-9)


def test_the_rate_of_all_patients_has_all_events_and_years() -> None:
    frame = table("paper")
    rows = found(golden_estimates("paper"), analysis="event_rate", outcome="mace", model=None)
    rate, years = (one(rows, statistic=name) for name in ("per_100_person_years", "person_years"))
    days = frame["mace_days"].sum()
    assert years["value"] == pytest.approx(days / 365.25)
    assert rate["value"] == pytest.approx(100 * frame["mace_event"].sum() / (days / 365.25))
    assert rate["n"] == len(frame)


def test_cumulative_incidence_at_times_that_are_compared() -> None:
    frame, estimates = table("paper"), golden_estimates("paper")
    rows = found(estimates, analysis="kaplan_meier", outcome="mace", model="dl")
    there = found(rows, statistic="cumulative_incidence", level=">400").set_index("at")
    common = frame.groupby("cac_category")["mace_days"].max().min()
    assert set(there.index) == {365.25, 3 * 365.25, 5 * 365.25, common}
    free = found(rows, statistic="event_free", level=">400").set_index("at")
    for day in there.index.intersection(free.index):
        assert there["value"][day] == pytest.approx(1 - free["value"][day])
        assert there["ci_low"][day] == pytest.approx(1 - free["ci_high"][day])
    mine = frame[frame["cac_category"] == ">400"]
    at_risk = found(rows, statistic="at_risk_then", level=">400").set_index("at")["value"]
    for day, count in at_risk.items():
        assert count == (mine["mace_days"] >= day).sum()
    whole = found(
        estimates, analysis="kaplan_meier", outcome="mace", model=None,
        statistic="cumulative_incidence",
    )  # fmt: skip
    assert whole["at"].max() == frame["mace_days"].max()
    assert whole["n_events"].max() == frame["mace_event"].sum()
