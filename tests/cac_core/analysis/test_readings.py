"""Reviewed scores in an analysis, and what is estimated about readings."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cac_core.analysis.plan import load_plan
from cac_core.analysis.reading_estimates import reading_estimates
from cac_core.analysis.reviewed_scores import plan_for, with_reviewed_scores
from cac_core.reading.readings import grouped
from tests.builders.readings import reading_row
from tests.builders.rows import key

LINKED = pa.table(
    {
        "study_key": [key(1), key(2)],
        "agatston": [12.5, 300.0],
        "cac_category": ["1-100", "101-400"],
    }
)


def test_a_reading_replaces_the_score_of_the_model() -> None:
    final = grouped([reading_row(2, agatston=0.0, cac_category="0")]).final()
    found = with_reviewed_scores(LINKED, final)
    assert found["reviewed_agatston"].to_pylist() == [12.5, 0.0]
    assert found["reviewed_cac_category"].to_pylist() == ["1-100", "0"]
    assert found["agatston"].to_pylist() == [12.5, 300.0]


def test_the_plan_for_each_choice_of_scores() -> None:
    plan = load_plan(None)
    assert plan_for(plan, "model") is plan
    reviewed = plan_for(plan, "reviewed")
    assert list(reviewed.sources) == list(plan.sources) and reviewed.compare == plan.compare
    assert reviewed.sources["dl"].score == "reviewed_agatston"
    assert reviewed.sources["dl"].term.source == "reviewed_cac_category"
    assert reviewed.digest != plan.digest
    both = plan_for(plan, "both")
    assert both.sources["dl"] == plan.sources["dl"]
    assert both.sources["dl_reviewed"].score == "reviewed_agatston"
    assert ("dl_reviewed", "expert") in both.compare and ("dl_reviewed", "dl") in both.compare


def test_no_row_without_a_reading() -> None:
    assert reading_estimates(grouped([])) == []


def test_numbers_of_readings() -> None:
    wrong = {"changed": True, "agatston": 0.0, "cac_category": "0", "agatston_lad": 0.0}
    rows = [
        reading_row(1, seconds_active=120),
        reading_row(2, seconds_active=300, cause="noise", **wrong),
        reading_row(3, seconds_active=240, cause="noise", **wrong),
        reading_row(4, cause="valve", **wrong),
        reading_row(1, "B", 1),
        reading_row(2, "B", 1),
        reading_row(2, "C", 2, kind="adjudication", cause="noise", **wrong),
        reading_row(1, "A", 3, kind="repeat"),
        reading_row(3, "A", 3, kind="repeat", **wrong),
    ]
    found = {
        (row.statistic, row.term, row.level, row.model): row
        for row in reading_estimates(grouped(rows))
    }

    def value(statistic: str, term: str | None = None, level=None, model=None) -> float | None:
        return found[statistic, term, level, model].value

    assert value("count", "studies") == 4 and value("count", "readings") == 9
    assert value("share", "score_changed") == value("share", "category_changed") == 0.75
    assert value("share", "agatston_lad") == 0.25 and value("median", "agatston_lad") == 12.5
    assert value("count", "cause", "noise") == 2
    assert value("share", "cause", "noise") == pytest.approx(2 / 3)
    assert value("median", "minutes") == 3.0
    assert found["kappa_linear", None, None, "readers"].n == 2
    assert value("kappa_linear", model="same_reader") == 1.0
    assert value("same_category", model="readers") == 0.5
    assert value("same_category", model="model_reviewed") == 0.25
