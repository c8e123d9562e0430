"""Notes of hazard ratios, and of tables with categories of the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cac_core.report.cohort import report as module
from cac_core.report.cohort.added_value import reclassification_section
from cac_core.report.cohort.assemble import tiles_of
from cac_core.report.cohort.hazard_ratios import (
    assumptions_section,
    hazard_section,
    sensitivity_section,
)
from cac_core.report.cohort.report import CATEGORIES_NOTE, Report, ReportFacts
from cac_core.report.cohort.sections import cell_text
from cac_core.report.cohort.shown_estimates import ShownEstimates
from cac_core.report.cohort.survival import follow_up_section, survival_section
from cac_core.report.page import Column, DataTable
from schemas.results import ESTIMATES
from tests.builders.analyses import plan


def _report(*rows: dict[str, Any]) -> Report:
    shipped = plan().model_dump(mode="json")
    wanted = plan(
        outcomes=["mace"], components=["mi"], compare=[], interaction=None,
        sources={"dl": shipped["sources"]["dl"]},
        covariates=[t for t in shipped["covariates"] if t["name"] in ("age_years", "sex")],
    )  # fmt: skip
    everything = {"population": "all", "outcome": "mace", "model": "dl"}
    return Report(
        ShownEstimates(ESTIMATES.from_rows(everything | row for row in rows)),
        wanted,
        ReportFacts(pa.table({})),
    )


def _ratio(term: str, method: str = "Cox, Efron ties", **more: Any) -> dict[str, Any]:
    numbers = {"value": 2.0, "ci_low": 1.0, "ci_high": 4.0, "p_value": 0.05}
    named = {"analysis": "cox_multivariable", "statistic": "hazard_ratio", "term": term}
    return named | numbers | {"method": method} | more


def _zph(term: str, p_value: float) -> dict[str, Any]:
    return {"analysis": "proportional_hazards", "statistic": "chi2", "term": term, "value": 5.0,
            "p_value": p_value, "method": "score test"}  # fmt: skip


def _cells(table: DataTable) -> dict[str, str]:
    """Label of each row, and its adjusted ratio."""
    return {cell_text(row[0]).strip(): cell_text(row[3]) for row in table.rows}


def test_a_term_whose_hazards_are_not_proportional_is_marked_where_its_ratio_stands() -> None:
    steady = {"analysis": "cox_multivariable", "statistic": "events_per_parameter", "value": 14.2}
    report = _report(_ratio("age_years"), _ratio("sex"), _zph("age_years", 0.012),
                     _zph("sex", 0.2), _zph("global", 0.03), steady)  # fmt: skip
    hazard_section(report)
    table = next(one for name, one in report.tables.items() if name.startswith("table-2"))
    cells = _cells(table)
    assert cells["Age, per 10 years"] == "2.00 (1.00 to 4.00) \N{DAGGER}"
    assert cells["Male"] == "2.00 (1.00 to 4.00)"
    assert "\N{DAGGER} The test of proportional hazards rejects for this term at 0.05" in table.note
    assert "Events per parameter of the adjusted model: 14.2." in table.note
    assert "all terms together: p 0.030, rejected" in table.note


def test_few_events_per_parameter_are_marked_in_every_table_of_ratios() -> None:
    few = "Cox, Efron ties; only 3.1 events per parameter"
    landmark = {"analysis": "landmark", "level": ">400", "at": 90.0}
    report = _report(_ratio("sex", few), _ratio("age_years"),
                     _ratio("cac_category", few) | landmark)  # fmt: skip
    hazard_section(report)
    table = next(one for name, one in report.tables.items() if name.startswith("table-2"))
    cells = _cells(table)
    assert cells["Male"].endswith(" \N{DOUBLE DAGGER}") and cells["Age, per 10 years"][-1] == ")"
    assert "\N{DOUBLE DAGGER} Fewer than 10 events per parameter" in table.note
    sensitivity_section(report)
    assert "Fewer than 10 events per parameter" in report.tables["landmark"].note


def test_without_flaws_there_are_no_marks() -> None:
    report = _report(_ratio("age_years"), _zph("age_years", 0.4), _zph("global", 0.4))
    hazard_section(report)
    table = next(one for name, one in report.tables.items() if name.startswith("table-2"))
    assert "\N{DAGGER}" not in table.note and "\N{DOUBLE DAGGER}" not in table.note
    assert table.note.endswith("Proportional hazards, all terms together: p 0.400. "
                               + CATEGORIES_NOTE)  # fmt: skip


def test_tests_of_proportional_hazards_name_their_outcome() -> None:
    report = _report(_zph("age_years", 0.4))
    assumptions_section(report)
    assert cell_text(report.tables["proportional-hazards"].rows[0][0]) == "MACE"


@pytest.mark.parametrize("titled", [True, False])
def test_limits_of_the_categories_stand_under_each_table_that_has_them(titled: bool) -> None:
    report = _report()
    columns = (Column("Category"), Column("101-400 (n = 5)" if titled else "n"))
    table = DataTable("t", "", columns, [["<1" if titled else "101-400", "7"]], note="A note.")
    assert report.keep_table(table).note == f"A note. {CATEGORIES_NOTE}"
    assert report.keep_table(DataTable("u", "", columns[:1], [["yes"]])).note == ""
    assert "<1 is below 1" in CATEGORIES_NOTE and "100.5 lies in 101-400" in CATEGORIES_NOTE


def test_the_first_category_is_shown_as_the_paper_prints_it() -> None:
    report = _report(_ratio("cac_category", "reference", level="0"),
                     _ratio("cac_category", level=">400"))  # fmt: skip
    hazard_section(report)
    table = next(one for name, one in report.tables.items() if name.startswith("table-2"))
    assert _cells(table)["<1"] == "Reference" and "0" not in _cells(table)
    assert report.source_level("dl", "0 vs >400") == "<1 vs >400"
    other = report.plan.sources["dl"].term.model_copy(update={"levels": ("0", "1", "2")})
    assert report.level(other, "0") == "0"


def test_follow_up_names_its_method_where_it_is_printed() -> None:
    report = _report()
    follow_up_section(report)
    titles = [str(column.title) for column in report.tables["follow-up-table"].columns]
    assert "Follow-up by reverse Kaplan-Meier, years, median (IQR)" in titles


def test_headings_say_what_intervals_cover() -> None:
    rows = (_ratio("age_years"), _ratio("sex"), _zph("age_years", 0.4))
    report = _report(*rows)
    report.plan = report.plan.model_copy(update={"confidence": 0.9})
    for section in (hazard_section, follow_up_section, survival_section, reclassification_section):
        section(report)
    titles = [cell_text(c.title) for table in report.tables.values() for c in table.columns]
    assert "Adjusted HR (90 % CI)" in titles
    assert not any("95 %" in title for title in titles)
    assert not any(b"95 % CI" in svg for svg, _ in report.figures.values())
    hazard_section(same := _report(*rows))
    table = next(one for name, one in same.tables.items() if name.startswith("table-2"))
    assert "Adjusted HR (95 % CI)" in [str(column.title) for column in table.columns]


def test_no_heading_of_the_report_has_a_level_of_its_own() -> None:
    written = Path(module.__file__).parent
    assert not [p.name for p in written.glob("*.py") if "95 %" in p.read_text(encoding="utf-8")]


def test_the_ratio_that_is_reported_first_has_its_marks_too() -> None:
    few = "Cox, Efron ties; only 3.1 events per parameter"
    report = _report(_ratio("cac_category", few, level=">400"), _zph("cac_category", 0.01))
    tile = next((name, text) for name, text in tiles_of(report) if "hazard ratio" in name)
    assert cell_text(tile[1]).endswith(" \N{DAGGER}\N{DOUBLE DAGGER}")
    assert "Fewer than 10 events per parameter" in tile[0]
    assert "test of proportional hazards rejects" in tile[0]
    steady = _report(_ratio("cac_category", level=">400"))
    tile = next((name, text) for name, text in tiles_of(steady) if "hazard ratio" in name)
    assert tile[0] == "adjusted hazard ratio, DL CAC >400, for MACE"
    assert cell_text(tile[1])[-1] == ")"


def test_tables_of_one_name_are_both_kept() -> None:
    report = _report()
    table = DataTable("t", "", (Column("a"),), [["b"]])
    assert [report.keep_table(table).identifier for _ in range(3)] == ["t", "t-2", "t-3"]
    assert set(report.tables) == {"t", "t-2", "t-3"}
