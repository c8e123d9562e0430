"""Tables of who was scanned, as rows, against R and the numbers the cohort was made with."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cac_core.phantom.registry.patients import YES_BY_DL
from tests.builders.analyses import analysed, found, golden_estimates, one, plan
from tests.builders.golden import answer, table

LEVELS = ("0", "1-100", "101-400", ">400")
CONTINUOUS = ("age_years", "bmi_kg_m2", "rest_tpd_pct", "stress_lvef_pct", "agatston")


@pytest.mark.parametrize("column", CONTINUOUS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_number_is_described_in_its_own_unit(column: str, level: str) -> None:
    frame = table("paper")
    values = frame.loc[frame["cac_category"] == level, column]
    rows = found(
        golden_estimates("paper"),
        analysis="description",
        model="cac_category",
        population=f"all & cac_category={level}",
        term=column,
    ).set_index("statistic")["value"]
    want = dict(zip(("q1", "median", "q3"), np.quantile(values, (0.25, 0.5, 0.75)), strict=True))
    want |= {"mean": values.mean(), "sd": values.std(), "missing": 0}
    assert len(rows) in (3, 4)  # mean and SD, or median and quartiles; and what is missing
    for statistic, value in rows.items():
        assert value == pytest.approx(want[statistic], abs=1e-9)


@pytest.mark.parametrize("column", [name for name in YES_BY_DL if name != "male"])
def test_histories_are_counted_as_the_paper_counts_them(column: str) -> None:
    for level, count in zip(LEVELS, YES_BY_DL[column], strict=True):
        key = {
            "analysis": "description",
            "model": "cac_category",
            "population": f"all & cac_category={level}",
            "term": column,
        }
        row = one(golden_estimates("paper"), **key, statistic="count")
        assert row["value"] == count
        share = one(golden_estimates("paper"), **key, statistic="share")
        assert share["value"] == pytest.approx(count / row["n"])


def test_missing_values_are_counted_in_every_group() -> None:
    frame = table("nasty")
    for level in LEVELS:
        row = one(
            golden_estimates("nasty"), analysis="description", model="cac_category",
            population=f"all & cac_category={level}", term="bmi_kg_m2", statistic="missing",
        )  # fmt: skip
        mine = frame["cac_category"] == level
        assert row["value"] == frame.loc[mine, "bmi_kg_m2"].isna().sum()


@pytest.mark.parametrize("column", ["hypertension", "diabetes", "dyslipidemia", "smoking"])
def test_one_p_value_per_variable_is_that_of_r(column: str) -> None:
    expected = answer("paper", "description", "cac_category", "categorical", column)
    row = one(
        golden_estimates("paper"), analysis="description_test", model="cac_category", term=column
    )
    assert row["value"] == pytest.approx(expected["chisq"], rel=1e-9)
    assert row["p_value"] == pytest.approx(expected["p"], rel=1e-9)


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_a_variable_has_one_summary_in_every_table(cohort: str) -> None:
    rows = found(golden_estimates(cohort), analysis="description")
    rows = rows[rows["statistic"].isin(["mean", "median"])]
    kinds = rows.groupby("term")["statistic"].agg(set)
    assert len(kinds) >= 6 and (kinds.map(len) == 1).all()
    tests = found(golden_estimates(cohort), analysis="description_test")
    means = tests["method"].str.contains("ANOVA|Student")
    for term, kind in kinds.items():
        assert means[tests["term"] == term].all() == (kind == {"mean"})


def test_the_whole_cohort_decides_for_its_subgroups_too() -> None:
    random = np.random.default_rng(2)
    frame = table("nasty")
    # Normal in all patients, not so in women: the tail of it.
    frame = frame.assign(bmi_kg_m2=random.permutation(stats.norm.ppf(np.arange(0.5, 300) / 300)))
    frame["sex"] = np.where(frame["bmi_kg_m2"] > 0.5, "F", "M")
    women = {"description": "", "where": [{"column": "sex", "equals": "F"}]}
    everybody = {"description": "", "where": []}
    wanted = plan(populations={"women": women, "all": everybody}, outcomes=["mace"], components=[])
    rows = found(analysed(frame, wanted), analysis="description", term="bmi_kg_m2")
    assert set(rows["statistic"]) == {"mean", "sd", "missing"}
