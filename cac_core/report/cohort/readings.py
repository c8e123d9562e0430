"""Section of signed readings: changes, time, vessels, causes, agreement of the readers."""

from __future__ import annotations

from cac_core.analysis.reading_estimates import ANALYSIS
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection
from cac_core.report.page import Cell, Column, DataTable
from schemas.codes import DiscrepancyCause
from schemas.reading import VESSEL_SCORES

_PAIRS = {
    "readers": "Two readers, neither with sight of the other",
    "same_reader": "The same reader twice",
    "model_reviewed": "Model and review",
}
_VESSELS = dict(zip(VESSEL_SCORES, ("LM", "LAD", "LCX", "RCA"), strict=True))
_CAUSES = {cause.value: cause.description for cause in DiscrepancyCause}
_NOTE = (
    "Signed readings of `cac review`. A study is settled by its adjudication, by its only reading, "
    "or by two readings of one category. Time is that with the study in view; in the paper an "
    "expert took 2.5 to 5 minutes."
)


def has_readings(report: Report) -> bool:
    """Whether anything was read."""
    return bool(report.numbers.rows(ANALYSIS, "count"))


def reading_section(report: Report) -> ReportSection:
    """What readers found and changed, and how far they agree."""
    block = Block()
    section = ReportSection("readings", "Review by readers", [block], aside=True)
    block.add(report.keep_table(_summary(report)))
    block.add(report.keep_table(_vessels(report)))
    block.add(report.keep_table(_agreement(report)))
    causes = _causes(report)
    if causes.rows:
        block.add(report.keep_table(causes))
    return section


def _summary(report: Report) -> DataTable:
    numbers = report.numbers
    names = {
        "studies": "Studies read",
        "settled": "Studies settled",
        "readings": "Signed readings",
        "readers": "Readers",
    }
    rows: list[list[Cell | str]] = [
        [title, numbers.cell(numbers.one(ANALYSIS, "count", term=term, level=None), "count")]
        for term, title in names.items()
    ]
    for term, title in (
        ("score_changed", "Score changed by the review"),
        ("category_changed", "Category changed by the review"),
    ):
        share = numbers.one(ANALYSIS, "share", term=term)
        rows.append([f"{title}, % of settled", numbers.interval_cell(share, "percent")])
    median, low, high = (
        numbers.one(ANALYSIS, name, term="minutes") for name in ("median", "q1", "q3")
    )
    rows.append(["Minutes per reading, median (quartiles)", numbers.spread_cell(median, low, high)])
    heads = (Column("Measure"), Column("Value", True))
    return DataTable("readings-summary", "Signed readings", heads, rows, note=_NOTE)


def _vessels(report: Report) -> DataTable:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for term, title in (*_VESSELS.items(), ("agatston_unassigned", "Vessel not named")):
        share = numbers.one(ANALYSIS, "share", term=term)
        spread = [numbers.one(ANALYSIS, name, term=term) for name in ("median", "q1", "q3")]
        rows.append([title, numbers.interval_cell(share, "percent"), numbers.spread_cell(*spread)])
    heads = (
        Column("Vessel"),
        Column("With calcium, %", True),
        Column("Agatston where present, median (quartiles)", True),
    )
    return DataTable("readings-vessels", "Calcium by vessel after review", heads, rows)


def _agreement(report: Report) -> DataTable:
    numbers = report.numbers
    measures = (
        ("kappa_linear", "three"), ("icc_log", "three"), ("same_category", "percent"),
        ("bias", "one"),
    )  # fmt: skip
    rows: list[list[Cell | str]] = []
    for model, title in _PAIRS.items():
        found = [numbers.one(ANALYSIS, name, model=model) for name, _ in measures]
        line: list[Cell | str] = [title, numbers.cell(found[0], "count", "n")]
        styles = [style for _, style in measures]
        line += [
            numbers.interval_cell(row, style) for row, style in zip(found, styles, strict=True)
        ]
        rows.append(line)
    heads = (
        Column("Pair"),
        Column("Studies", True),
        Column("Weighted kappa, linear weights", True),
        Column("ICC(2,1) of log(1 + Agatston)", True),
        Column("Same category, %", True),
        Column("Mean difference, Agatston", True),
    )
    return DataTable("readings-agreement", "Agreement of readings", heads, rows)


def _causes(report: Report) -> DataTable:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for row in numbers.rows(ANALYSIS, "count", term="cause"):
        share = numbers.one(ANALYSIS, "share", term="cause", level=row.level)
        cause = _CAUSES.get(row.level or "", str(row.level))
        rows.append([cause, numbers.share_cell(row, share)])
    heads = (Column("Cause"), Column("Studies (% of those with a cause)", True))
    return DataTable("readings-causes", "Why the model was wrong, by the readers", heads, rows)
