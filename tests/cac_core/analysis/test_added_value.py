"""What calcium adds, as rows, against R."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders.analyses import analysed, found, golden_estimates, one, plan
from tests.builders.golden import answer, numbers, table

SOURCES = ("dl", "expert", "visual")


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
@pytest.mark.parametrize("source", SOURCES)
def test_gains_equal_those_of_r(cohort: str, source: str) -> None:
    expected = answer(cohort, "added_value", source)
    rows = found(golden_estimates(cohort), analysis="added_value", model=source)
    value = rows.set_index("statistic")["value"]
    assert value["lr_chi2_gain"] == pytest.approx(expected["lr"], rel=1e-6)
    p = one(rows, statistic="lr_chi2_gain")["p_value"]
    assert p == pytest.approx(expected["lr_p"], rel=1e-5, abs=1e-6)
    for key, form in (("nri_km", ""), ("nri_ipw", "_ipw")):
        for part in ("event", "nonevent"):
            assert value[f"nri_{part}{form}"] == pytest.approx(
                expected[key][f"nri_{part}"], abs=1e-6
            )
        assert value[f"nri{form}"] == pytest.approx(expected[key]["nri"], abs=1e-6)
    for name in ("p_up_event", "p_down_event", "p_up_nonevent", "p_down_nonevent"):
        assert value[name] == pytest.approx(expected["nri_km"][name], abs=1e-6)
    assert value["n_up"] == expected["nri_km"]["n_up"]
    assert value["n_down"] == expected["nri_km"]["n_down"]
    hmisc = expected["improve_prob"]
    assert value["nri_event_count"] == pytest.approx(hmisc["nri.ev"], abs=1e-6)
    assert value["nri_nonevent_count"] == pytest.approx(hmisc["nri.ne"], abs=1e-6)
    assert value["idi"] == pytest.approx(hmisc["idi"], abs=1e-6)
    for model in ("base", "full"):
        assert value[f"harrell_c_{model}"] == pytest.approx(expected[f"harrell_{model}"], abs=1e-6)
        assert value[f"uno_c_{model}"] == pytest.approx(expected[f"uno_{model}"], abs=1e-6)


@pytest.mark.parametrize("source", SOURCES)
def test_gain_in_auc_and_its_interval_are_those_of_proc(source: str) -> None:
    expected = answer("paper", "added_value", source)["auc"]
    rows = found(golden_estimates("paper"), analysis="added_value", model=source)
    for model in ("base", "full"):
        row = one(rows, statistic=f"auc_{model}")
        want = [expected[model][name] for name in ("auc", "lower", "upper")]
        assert row[["value", "ci_low", "ci_high"]].tolist() == pytest.approx(want, abs=1e-8)
    row = one(rows, statistic="auc_gain")
    want = [expected[name] for name in ("gain", "gain_lower", "gain_upper")]
    assert row[["value", "ci_low", "ci_high"]].tolist() == pytest.approx(want, abs=1e-8)
    assert np.isnan(row["p_value"])  # nested models: the likelihood ratio is the test


def test_categorical_reclassification_with_the_cuts_of_the_golden_file() -> None:
    expected = answer("paper", "added_value", "dl")
    wanted = plan(risk_cuts=expected["cuts"], outcomes=["mace"], components=[], compare=[])
    rows = found(analysed(table("paper"), wanted), analysis="added_value", model="dl")
    for part in ("event", "nonevent"):
        row = one(rows, statistic=f"nri_{part}_categorical")
        assert row["value"] == pytest.approx(
            expected["nri_km_categorical"][f"nri_{part}"], abs=1e-6
        )
        cuts = ", ".join(f"{100 * cut:g} %" for cut in expected["cuts"])
        assert f"cut at {cuts}" in row["method"]


def test_calibration_and_decision_curve_equal_those_of_r() -> None:
    expected = answer("paper", "added_value", "dl")
    estimates = golden_estimates("paper")
    groups = found(estimates, analysis="calibration", model="dl", statistic="observed_risk")
    # R's script puts a risk at a cut above it, we below: groups differ by a patient, not the sum.
    assert groups["n"].sum() == 2271 and set(groups["n"]) <= {227, 228}
    mean = (groups["at"] * groups["n"]).sum() / 2271
    assert mean == pytest.approx(expected["calibration_full"]["mean_predicted"], abs=1e-6)
    ratio = one(estimates, analysis="calibration", model="dl", statistic="observed_expected")
    assert ratio["value"] * mean == pytest.approx(
        expected["calibration_full"]["observed_all"], abs=1e-6
    )
    for model, key in (("base", "base"), ("dl", "full"), ("all", "all")):
        curve = found(estimates, analysis="decision_curve", model=model).set_index("at")["value"]
        thresholds = numbers(expected["decision"][key]["threshold"])
        want = numbers(expected["decision"][key]["net_benefit"])
        got = [curve[round(float(at), 2)] for at in thresholds]
        assert got == pytest.approx(want.tolist(), abs=1e-6)
    assert (found(estimates, analysis="decision_curve", model="none")["value"] == 0).all()


def test_sources_are_compared_in_the_patients_who_have_both() -> None:
    frame = table("nasty")
    covariates = ["sex", "bmi_kg_m2", "hypertension", "stress_lvef_pct"]
    complete = frame[covariates].notna().all(axis=1)
    estimates = golden_estimates("nasty")
    sizes = {
        "dl": complete,
        "expert": complete & frame["expert_cac_category"].notna(),
        "visual": complete & frame["visual_grade"].notna(),
    }
    for source, mask in sizes.items():
        rows = found(estimates, analysis="added_value", model=source)
        assert set(rows["n"]) == {mask.sum()}
    pair = found(estimates, analysis="added_value_difference", model="visual:expert")
    assert set(pair["n"]) == {(sizes["expert"] & sizes["visual"]).sum()}


def test_without_resamples_there_is_no_interval_and_the_row_says_so() -> None:
    row = one(golden_estimates("paper"), analysis="added_value", model="dl", statistic="nri")
    assert np.isnan(row["ci_low"]) and "no resamples, no interval" in row["method"]


def test_intervals_come_from_resamples_with_their_seed_in_the_row() -> None:
    wanted = plan(resamples=40, seed=9, outcomes=["mace"], components=[])
    estimates = analysed(table("nasty"), wanted)
    row = one(estimates, analysis="added_value", model="dl", statistic="nri")
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert "percentiles of 40 resamples of patients, refitted, seed 9" in row["method"]
    fixed = one(estimates, analysis="added_value", model="dl", statistic="nri_fixed")
    assert fixed["value"] == row["value"]
    assert "risks kept as they are" in fixed["method"]


def test_fewer_events_than_coefficients_give_no_gain() -> None:
    frame = table("nasty")
    frame["mace_event"] = frame["mace_event"].where(frame["mace_event"].cumsum() <= 12, 0)
    rows = found(analysed(frame, plan(outcomes=["mace"], components=[])), analysis="added_value")
    assert rows["value"].isna().all()
    assert rows["method"].str.contains(r"too few events \(\d+\) for 1[56] coefficients").all()
