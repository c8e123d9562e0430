"""Section on certainty: whether scores are as sure as they say, against the expert readings."""

from __future__ import annotations

from collections.abc import Sequence

from cac_core.analysis.archive_estimates import CERTAINTY_PAIR
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection
from cac_core.report.cohort.shown_estimates import Row, plain
from cac_core.report.figures.certainty import certainty_figure
from cac_core.report.page import Cell, Column, DataTable

_ANALYSIS = "certainty"
_NOTE = (
    "The Brier score is the mean squared difference between the chances of the categories and what "
    "the expert found, 0 to 2; lower is better. The interval is that of the true score. Scores "
    "that need review are those that the scoring marked so; the last line replaces them by the "
    "reading of the expert."
)
_TITLE = "Chances of categories, and how often they were right"
_HEADS = ("Mean chance, %", "Right, %", "Patients x categories")
_CAPTION = (
    "Left: categories of all patients by their chance, and how often the expert found them; on the "
    "line, chances are what they say. Right: agreement if the most doubtful scores are replaced by "
    "the expert's, by their share."
)


def certainty_section(report: Report) -> ReportSection:
    """Reliability of the chances, coverage of the interval, and what reviews are worth."""
    block = Block()
    section = ReportSection("certainty", "How sure the scores are", [block], aside=True)
    numbers = report.numbers
    brier = _one(report, "brier")
    if brier is None:
        block.say(
            "No expert reading and no score that says how sure it is belong to the same patient, "
            "so certainty cannot be checked."
        )
        return section
    coverage = _one(report, "coverage")
    lines: list[list[Cell | str]] = [
        ["Brier score of the categories", numbers.cell(brier, "three")],
        ["Expert score in the 90 % interval", numbers.interval_cell(coverage, "percent")],
        ["Scores that need review", numbers.cell(_one(report, "count", "needs_review"), "count")],
        [
            "Linear-weighted kappa, all scores",
            numbers.cell(_one(report, "kappa_linear", "reviewed"), "three"),
        ],
        [
            "Linear-weighted kappa, once those that need review are read",
            numbers.cell(_one(report, "kappa_linear", "needs_review"), "three"),
        ],
    ]
    block.add(
        report.keep_table(
            DataTable(
                "certainty-measures",
                "Scores and expert readings of the same patients",
                (Column("Measure"), Column("Value", True)),
                lines,
                note=_NOTE,
            )
        )
    )
    _draw(report, block, brier, coverage)
    return section


def _one(report: Report, statistic: str, term: str | None = None) -> Row | None:
    return report.numbers.one(_ANALYSIS, statistic, model=CERTAINTY_PAIR, term=term)


def _draw(report: Report, block: Block, brier: Row, coverage: Row | None) -> None:
    """Reliability diagram and curve of reviews, with their numbers; hidden ones are left out."""
    numbers = report.numbers
    reliability = numbers.rows(_ANALYSIS, "reliability", model=CERTAINTY_PAIR)
    if brier.value is None or coverage is None or coverage.value is None:
        block.missing(["too few patients to show how sure the scores are"])
        return
    drawing = certainty_figure(_drawn(report, brier, coverage, reliability))
    rows: list[list[Cell | str]] = [
        [
            str(row.level),
            numbers.cell(row, "percent", "at"),
            numbers.interval_cell(row, "percent"),
            numbers.cell(row, "count", "n"),
        ]
        for row in reliability
    ]
    heads = (Column("Chance"), *(Column(name, True) for name in _HEADS))
    table = DataTable("certainty-reliability", _TITLE, heads, rows)
    description = (
        f"Reliability diagram of the categories of {plain(numbers.text(brier, 'count', 'n'))} "
        f"patients, Brier score {plain(numbers.text(brier, 'three'))}, "
        f"{plain(numbers.with_interval(coverage, 'percent'))} in the interval; and kappa by the "
        "share of studies reviewed."
    )
    view = report.keep_figure("figure-certainty", drawing, _CAPTION, description, table)
    block.draw(view)


def _drawn(
    report: Report, brier: Row, coverage: Row, reliability: Sequence[Row]
) -> dict[str, object]:
    """Numbers of the figure, by the names of `cac_core.evaluation.results.Certainty`."""
    reviewed = report.numbers.rows(_ANALYSIS, "kappa_linear", model=CERTAINTY_PAIR, term="reviewed")
    needed, after = (_one(report, name, "needs_review") for name in ("count", "kappa_linear"))
    count = None if needed is None else needed.value
    return {
        "n": brier.n,
        "brier": brier.value,
        "coverage": coverage.value,
        "interval": coverage.at,
        "reliability": [
            {"mean_chance": row.at, "share": row.value, "ci": (row.ci_low, row.ci_high)}
            for row in reliability
            if row.value is not None
        ],
        "kappa_by_reviewed": [{"share": row.at, "kappa_linear": row.value} for row in reviewed],
        "needs_review": count,
        "kappa_after_needed_reviews": None if count is None or after is None else after.value,
    }
