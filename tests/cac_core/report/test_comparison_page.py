"""Two runs side by side, on tables made by hand."""

from __future__ import annotations

import json

import pyarrow as pa

from cac_core.report.comparison import UNEXPLAINED, Run, SettingPair, compare_runs, summarise
from cac_core.report.comparison_page import comparison_files, comparison_page
from schemas.results import ESTIMATES
from schemas.score import SCORES
from tests.builders.rows import digest, key, score_row


def _scores(*rows: dict[str, object]) -> pa.Table:
    return SCORES.from_rows(rows)


def _estimates(*rows: dict[str, object]) -> pa.Table:
    return ESTIMATES.from_rows(
        {"analysis": "cox_multivariable", "statistic": "hazard_ratio"} | row for row in rows
    )


OLD = Run(
    "old",
    _scores(
        score_row("same", agatston=50.0, cac_category="1-100"),
        score_row("up", agatston=50.0, cac_category="1-100"),
        score_row("down", agatston=500.0, cac_category=">400"),
        score_row("gone"),
        score_row("mended", status="failed", reason="timeout", agatston=None, cac_category=None),
    ),
    _estimates(
        {"term": "a", "value": 2.0, "ci_low": 1.5, "ci_high": 2.6},
        {"term": "b", "value": 2.0, "ci_low": 1.5, "ci_high": 2.6},
        {"term": "c", "value": 1.0},
        {"term": "d", "method": "not estimable: no events"},
    ),
    {"included": 10},
    {"model": "s3", "scoring: numpy": "2.4.6"},
)
NEW = Run(
    "new",
    _scores(
        score_row("same", agatston=50.0, cac_category="1-100"),
        score_row("up", agatston=150.0, cac_category="101-400", model_digest=digest("other")),
        score_row("down", agatston=0.0, cac_category="0"),
        score_row("mended", agatston=0.0, cac_category="0", instances_digest=digest("files")),
        score_row("born"),
    ),
    _estimates(
        {"term": "a", "value": 2.1, "ci_low": 1.6, "ci_high": 2.7},
        {"term": "b", "value": 4.0, "ci_low": 3.0, "ci_high": 5.0},
        {"term": "d", "value": 1.3},
        {"term": "e", "value": 1.0},
    ),
    {"included": 12, "no_score": 1},
    {"model": "s4", "scoring: numpy": "2.4.6"},
)


def test_studies_are_matched_and_every_change_has_its_reason() -> None:
    found = compare_runs(OLD, NEW)
    assert (found.gone, found.added) == (1, 1)
    assert found.matrix == {
        ("1-100", "1-100"): 1,
        ("1-100", "101-400"): 1,
        (">400", "0"): 1,
        ("failed", "0"): 1,
    }
    why = {row.study_key: row.why for row in found.shifts}
    assert why == {
        key("up"): "another model",
        key("down"): UNEXPLAINED,
        key("mended"): "other files of the series",
    }
    # A score gained or lost first, then the largest step.
    assert [row.study_key for row in found.shifts] == [key("mended"), key("down"), key("up")]
    assert found.shifts[0].difference is None and found.shifts[1].categories == -3
    assert sorted(found.pairs) == [(50.0, 50.0), (50.0, 150.0), (500.0, 0.0)]


def test_estimates_are_matched_by_all_that_names_them() -> None:
    rows = {row.term: row for row in compare_runs(OLD, NEW).estimates}
    assert set(rows) == {"a", "b", "d"}
    assert rows["a"].intervals == "overlap" and rows["b"].intervals == "apart"
    assert rows["b"].difference == 2.0
    # A number where there was none is a difference without a size.
    assert rows["d"].difference is None
    assert compare_runs(OLD, NEW).unmatched == {
        ("cox_multivariable", "old"): 1,
        ("cox_multivariable", "new"): 1,
    }


def test_a_run_beside_itself_shows_no_change() -> None:
    summary = summarise(compare_runs(OLD, OLD))
    assert summary.studies_in_both == 5 and summary.estimates_in_both == 4
    changes = ("category_changed", "score_changed", "estimates_changed", "studies_gone")
    assert not any(getattr(summary, name) for name in changes)
    assert compare_runs(OLD, OLD).settings == []


def test_only_settings_that_differ_are_listed() -> None:
    assert compare_runs(OLD, NEW).settings == [SettingPair("model", "s3", "s4")]


def test_what_is_missing_is_said() -> None:
    stranger = Run("stranger", _scores(score_row("other")))
    found = compare_runs(OLD, stranger)
    assert found.gaps["scores"] == "The runs have no study in common."
    assert "No estimates of stranger" in found.gaps["estimates"]
    page = comparison_page(found)
    assert all(reason in page for reason in found.gaps.values())


def test_the_newest_row_of_a_study_counts() -> None:
    early = score_row("up", agatston=1.0, protocol_digest="0" * 16)
    late = score_row("up", agatston=50.0, cac_category="1-100")
    early["scored_at"] = late["scored_at"].replace(year=2001)  # type: ignore[attr-defined]
    run = Run("two protocols", _scores(late, early))  # whatever their order
    (pair,) = compare_runs(run, run).pairs
    assert pair == (50.0, 50.0)


def test_files_are_the_same_each_time_and_hold_every_row() -> None:
    files = comparison_files(compare_runs(OLD, NEW))
    assert files == comparison_files(compare_runs(OLD, NEW))
    assert set(files) == {
        "index.html", "comparison.json", "tables/shifts.csv", "tables/estimates.csv",
        "tables/flow.csv", "tables/settings.csv",
    }  # fmt: skip
    assert json.loads(files["comparison.json"])["score_changed"] == 3
    assert files["tables/shifts.csv"].count(b"\n") == 4
    page = files["index.html"].decode()
    assert "https:" not in page and "src=" not in page.replace(
        "script-src", ""
    )  # nothing is fetched
    assert key("up") in page and "no recorded reason" in page
