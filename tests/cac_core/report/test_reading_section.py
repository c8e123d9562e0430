"""The section of signed readings, and causes found by readers among the discrepant cases."""

from __future__ import annotations

import pyarrow as pa

from cac_core.analysis.archive_estimates import discrepancy_causes
from cac_core.analysis.plan import load_plan
from cac_core.analysis.reading_estimates import reading_estimates
from cac_core.analysis.run import estimates_table
from cac_core.reading.readings import grouped
from cac_core.report.cohort.agreement import discrepancy_section
from cac_core.report.cohort.readings import has_readings, reading_section
from cac_core.report.cohort.report import Report, ReportFacts
from cac_core.report.cohort.sections import cell_text
from cac_core.report.cohort.shown_estimates import ShownEstimates
from schemas.results import DISCREPANCIES
from schemas.score import SCORES
from tests.builders.readings import reading_row
from tests.builders.rows import key, score_row


def shown(rows: list) -> Report:
    """A report of these estimates."""
    numbers = ShownEstimates(estimates_table(rows))
    return Report(numbers, load_plan(None), ReportFacts(linked=pa.table({"study_key": [key(1)]})))


def text_of(report: Report, name: str) -> list[list[str]]:
    return [[cell_text(cell) for cell in row] for row in report.tables[name].rows]


def test_the_section_of_readings() -> None:
    wrong = {"changed": True, "agatston": 0.0, "cac_category": "0", "cause": "noise"}
    rows = [reading_row(n, **(wrong if n == 1 else {})) for n in range(4)]
    rows += [reading_row(n, "B", 1) for n in (2, 3)]
    report = shown(reading_estimates(grouped(rows)))
    assert has_readings(report)
    reading_section(report)
    summary = dict(text_of(report, "readings-summary"))
    assert summary["Studies read"] == "4" and summary["Readers"] == "2"
    assert summary["Score changed by the review, % of settled"].startswith("25.0 %")
    assert summary["Minutes per reading, median (quartiles)"] == "3.0 (3.0, 3.0)"
    assert text_of(report, "readings-causes") == [["image noise", "1 (100.0 %)"]]
    assert text_of(report, "readings-agreement")[0][1] == "2"


def test_causes_of_readers_take_the_place_of_candidates() -> None:
    cases = [
        {
            "study_key": key(n),
            "compared": "dl",
            "reference": "expert",
            "compared_category": "1-100",
            "reference_category": "0",
            "compared_agatston": 12.5,
            "reference_agatston": 0.0,
            "categories_apart": 1,
        }
        for n in range(3)
    ]
    scores = SCORES.from_rows([score_row(n, quality_flags="high_noise") for n in range(3)])
    reviews = pa.table({"study_key": [key(0), key(1)], "cause": ["noise", "valve"]})
    table = DISCREPANCIES.from_rows(cases)
    without = shown(discrepancy_causes(table, scores))
    discrepancy_section(without)
    assert any("Quality flag" in row[1] for row in text_of(without, "discrepancy-causes"))
    report = shown(discrepancy_causes(table, scores, reviews))
    discrepancy_section(report)
    found = {row[1]: row[2] for row in text_of(report, "discrepancy-causes")}
    assert found["All"] == "3"
    assert found["reviewed: noise"] == "1 (50.0 %)"
    assert not any("Quality flag" in name for name in found)
