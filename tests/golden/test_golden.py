"""The tables that R read are those that the builders make."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from tests.builders.cohorts import nasty_cohort, paper_cohort
from tests.builders.golden import COHORTS, answer, table

MAKERS = {"paper": paper_cohort, "nasty": nasty_cohort}


@pytest.mark.parametrize("cohort", COHORTS)
def test_the_builders_make_what_r_read(cohort) -> None:
    text = MAKERS[cohort]().to_csv(index=False)
    words = {name: str for name in ("cac_category", "expert_cac_category")}
    made = pd.read_csv(io.StringIO(text), dtype=words, float_precision="round_trip")
    pd.testing.assert_frame_equal(made, table(cohort))


@pytest.mark.parametrize("cohort", COHORTS)
def test_the_answers_are_of_these_tables(cohort) -> None:
    data = table(cohort)
    rates = answer(cohort, "rates", "all")
    assert rates["events"] == data["mace_event"].sum()
    assert rates["person_years"] == pytest.approx(data["mace_days"].sum() / 365.25)
    assert set(answer(cohort, "versions")) >= {"R", "survival", "Hmisc", "pROC", "psych"}


def test_the_nasty_cohort_is_nasty() -> None:
    data = table("nasty")
    by_category = data.groupby("cac_category")["mace_event"].sum()
    assert by_category["1-100"] == 0 < by_category.drop("1-100").min()
    assert data["mace_days"].nunique() < len(data) / 3
    assert data["bmi_kg_m2"].isna().any()
    assert data["sex"].isna().any()
    assert data["smoking"].sum() == 5
    assert data["prior_pci"].nunique() == 1
