"""Names of columns in Stata and SAS."""

from __future__ import annotations

import pytest

from cac_core.cohort.column_names import cut_names, short_names
from schemas.linked import LINKED


def test_names_that_fit_stay() -> None:
    assert short_names(["mace_event", "age"], 32) == ["mace_event", "age"]


def test_long_names_stay_readable() -> None:
    names = ["mace_no_early_revascularisation_event", "mace_no_early_revascularisation_days"]
    assert short_names(names, 32) == ["mace_no_early_revasc_event", "mace_no_early_revasc_days"]
    assert short_names(["hypertension", "p_category_101_400"], 8) == ["htn", "pcac101"]


@pytest.mark.parametrize("length", [8, 32])
def test_all_columns_have_distinct_names_that_fit(length: int) -> None:
    columns = [column.name for column in LINKED.columns]
    short = short_names([*columns, "stroke_or_death_at_home_event", "x" * 40, "x" * 41], length)
    assert len({name.lower() for name in short}) == len(short)
    assert all(0 < len(name) <= length for name in short)


def test_cut_names_are_distinct_beginnings() -> None:
    assert cut_names(["mace_event", "mace_events", "MACE_EVENTS"], 8) == [
        "mace_eve",
        "mace_ev2",
        "MACE_EV3",
    ]
