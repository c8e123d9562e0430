"""Levels without events in every section, against R: one likelihood, one number of parameters."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.builders.analyses import analysed, found, one, plan
from tests.builders.cohorts import GOLDEN
from tests.builders.golden import table

CASES = ("reference", "both", "level")
COVARIATES = ("age_years", "sex", "bmi_kg_m2", "diabetes", "stress_tpd_category")


@cache
def _answers() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / "event_free.json").read_text(encoding="utf-8"))
    return found


@cache
def _estimates(case: str) -> pd.DataFrame:
    frame = table("paper").iloc[:900]
    none = frame["cac_category"] == ("1-100" if case == "level" else "0")
    if case == "both":
        none |= frame["stress_tpd_pct"] < 1
    shipped = plan().model_dump(mode="json")
    wanted = plan(
        sources={"dl": shipped["sources"]["dl"]},
        covariates=[term for term in shipped["covariates"] if term["name"] in COVARIATES],
        compare=[], outcomes=["mace"], components=[],
    )  # fmt: skip
    return analysed(frame.assign(mace_event=frame["mace_event"].where(~none, 0)), wanted)


def _degrees(row: pd.Series) -> int:
    return int(row["method"].split(", df ")[1].split(";")[0].split(",")[0])


def _assert_test(row: pd.Series, expected: dict[str, float]) -> None:
    assert _degrees(row) == expected["df"]
    assert row["value"] == pytest.approx(expected["chi2"], rel=1e-7)
    assert row["p_value"] == pytest.approx(expected["p"], rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_model_as_a_whole_has_the_degrees_of_freedom_of_r(case: str) -> None:
    estimates, expected = _estimates(case), _answers()[case]
    rows = found(estimates, analysis="cox_multivariable", model="dl")
    _assert_test(one(rows, statistic="lr_chi2"), expected["whole"])
    alone = found(estimates, analysis="cox_univariable", model="dl")
    _assert_test(one(alone, statistic="lr_chi2"), expected["univariable"])
    parameters = expected["n_events"] / expected["whole"]["df"]
    assert one(rows, statistic="events_per_parameter")["value"] == pytest.approx(parameters)


@pytest.mark.parametrize("case", CASES)
def test_both_sections_test_calcium_alike(case: str) -> None:
    estimates, expected = _estimates(case), _answers()[case]["term"]
    gain = one(estimates, analysis="added_value", model="dl", statistic="lr_chi2_gain")
    _assert_test(gain, expected)
    ratios = found(estimates, analysis="cox_multivariable", model="dl", term="cac_category")
    shown = ratios[ratios["value"].isna()]
    assert len(shown) == (1 if case == "level" else 3)
    assert {_degrees(row) for _, row in shown.iterrows()} == {3}
    assert shown["p_value"].to_numpy() == pytest.approx(gain["p_value"], rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_patients_without_hazard_are_the_last_in_the_order_of_risk(case: str) -> None:
    estimates, expected = _estimates(case), _answers()[case]
    for analysis, model, key in (
        ("cox_multivariable", "dl", "concordance"),
        ("cox_multivariable", "base", "concordance_base"),
        ("cox_univariable", "dl", "concordance_alone"),
    ):
        row = one(estimates, analysis=analysis, model=model, statistic="concordance")
        assert row["value"] == pytest.approx(expected[key], abs=1e-9), key
    gain = one(estimates, analysis="added_value", model="dl", statistic="harrell_c_full")
    assert gain["value"] == pytest.approx(expected["concordance"], abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_proportional_hazards_are_tested_as_cox_zph_does_with_every_level(case: str) -> None:
    rows = found(_estimates(case), analysis="proportional_hazards", model="dl")
    expected = _answers()[case]["zph"]
    ours = {"male": "sex", "age_10": "age_years", "GLOBAL": "global"}
    for at, name in enumerate(expected["terms"]):
        row = one(rows, term=ours.get(name, name))
        assert _degrees(row) == expected["df"][at]
        assert row["value"] == pytest.approx(expected["chisq"][at], rel=1e-5)
        assert row["p_value"] == pytest.approx(expected["p"][at], rel=1e-5)
    assert "1 of them of levels without events" in one(rows, term="cac_category")["method"]


@pytest.mark.parametrize("case", CASES)
def test_who_has_no_risk_under_either_model_does_not_move(case: str) -> None:
    rows = found(_estimates(case), analysis="added_value", model="dl")
    expected = _answers()[case]["nri"]
    assert one(rows, statistic="n_up")["value"] == expected["n_up"]
    assert one(rows, statistic="n_down")["value"] == expected["n_down"]
    for part in ("event", "nonevent"):
        got = one(rows, statistic=f"nri_{part}")["value"]
        assert got == pytest.approx(expected[part], abs=1e-9), part


def test_calibration_puts_patients_without_risk_into_one_group() -> None:
    rows = found(_estimates("both"), analysis="calibration", model="dl", statistic="observed_risk")
    none = rows[rows["at"] == 0]
    assert len(none) == 1 and none["value"].item() == 0
    frame = table("paper").iloc[:900]
    without = (frame["cac_category"] == "0") | (frame["stress_tpd_pct"] < 1)
    assert none["n"].item() == without.sum()
    assert np.all(np.diff(rows["at"]) > 0)
