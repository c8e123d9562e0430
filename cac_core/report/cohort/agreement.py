"""Sections of agreement: concordance, scatter, visual estimates, discrepant cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, Points, ReportSection, slug
from cac_core.report.cohort.shown_estimates import Row, plain
from cac_core.report.figures.concordance import Matrix, matrix_figure, scatter_figure
from cac_core.report.page import Cell, Column, DataTable, FigureView, number
from schemas.codes import QualityFlag, ReviewReason

#: Most points of a scatter plot; more are thinned evenly along the study keys.
MOST_POINTS = 4000
#: Discrepant cases on the page, those furthest apart; the table has all.
MOST_CASES = 300
_AGREEMENT = (
    ("kappa_linear", "Weighted kappa, linear weights", "three"),
    ("kappa_quadratic", "Weighted kappa, quadratic weights", "three"),
    ("kappa_unweighted", "Unweighted kappa", "three"),
    ("same_category", "Same category", "percent"),
    ("presence_kappa", "Any calcium: kappa", "three"),
    ("presence_sensitivity", "Any calcium: sensitivity", "percent"),
    ("presence_specificity", "Any calcium: specificity", "percent"),
    ("r2", "r2 of the scores", "three"),
    ("r2_log", "r2 of log(1 + Agatston)", "three"),
    ("spearman", "Spearman's correlation", "three"),
    ("icc_log", "ICC(2,1) of log(1 + Agatston)", "three"),
)
#: Scales of the limits of agreement: ending of the statistics, title, and format.
_SCALES = (
    ("", "Difference, Agatston", "one"),
    ("_ratio", "Ratio of 1 + Agatston", "three"),
    ("_log", "Difference of log(1 + Agatston)", "three"),
)
_LIMITS_NOTE = (
    "Between the limits of agreement lie 19 of 20 differences, if they are normal. Differences "
    "of Agatston scores grow with the score, so their limits are too wide for low scores and too "
    "narrow for high ones; the logarithm, and the ratio that it gives, avoid this. Intervals: "
    "Student's t for the mean, exact for the limits (Bland and Altman 1999, Carkeet 2015)."
)
_KINDS = {
    "absent_present": "{first} without calcium, {second} with",
    "present_absent": "{first} with calcium, {second} without",
    "apart": "both with calcium, two categories apart or more",
}
_FLAGS = {flag.value: flag.description for flag in QualityFlag}
_REVIEWS = {reason.value: reason.description for reason in ReviewReason}
_KINDS_OF_CODES = {
    "flag": ("Quality flag", _FLAGS),
    "review": ("Reason for review", _REVIEWS),
}
_CANDIDATES = (
    "Candidates come from the score row of a study: noise in the highest quarter of the scored "
    "studies, calcium outside the coronaries, quality flags. They are not a review. Causes from a "
    "manual review come from `cac report --reviews FILE`, a CSV with the columns `study_key` and "
    "`cause`, one line per cause, and from signed readings (`cac review`); they are marked as "
    "reviewed, with their share of the reviewed cases, and take the place of the candidates."
)


def concordance_section(report: Report) -> ReportSection:
    """Sources with the same categories: concordance and agreement."""
    section = ReportSection("figure-3", "Concordance of the readings (Figure 3)")
    for population in report.populations:
        for pair in report.plan.compare:
            if not _graded(report, pair):
                section.blocks.append(_concordance(report, population, pair))
    return _or_gap(section, "the plan compares no two sources of the same categories")


def visual_section(report: Report) -> ReportSection:
    """Sources with different categories: the visual estimate against both scores."""
    section = ReportSection("table-s3", "Visual estimate against the scores (Supplemental Table 3)")
    for population in report.populations:
        for pair in report.plan.compare:
            if _graded(report, pair):
                section.blocks.append(_concordance(report, population, pair))
    return _or_gap(section, "the plan compares no visual estimate with a score")


def scatter_section(report: Report) -> ReportSection:
    """Scores of both readings by patient."""
    section = ReportSection(
        "figure-s1", "Scores of both readings: scatter and Bland-Altman (Supplemental Figure 1)"
    )
    for first, second in report.plan.compare:
        columns = [report.plan.sources[name].score for name in (first, second)]
        if None in columns:
            continue
        block = Block(f"{report.label(first)} and {report.label(second)}", report.populations[0])
        section.blocks.append(block)
        _scatter(report, block, first, second)
    return _or_gap(section, "the plan compares no two sources with scores")


def discrepancy_section(report: Report) -> ReportSection:
    """Cases whose readings differ in the presence of calcium or by two categories or more."""
    section = ReportSection("discrepant", "Discrepant cases (Supplemental Results)", aside=True)
    for first, second in report.plan.compare[:1]:
        block = Block(f"{report.label(first)} and {report.label(second)}", report.populations[0])
        section.blocks.append(block)
        _discrepant(report, block, first, second)
    return _or_gap(section, "the plan compares no two sources")


def _concordance(report: Report, population: str, pair: tuple[str, str]) -> Block:
    """Matrix of categories as figure and table, and the measures of agreement."""
    first, second = pair
    numbers, model = report.numbers, f"{first}:{second}"
    block = Block(f"{report.label(first)} and {report.label(second)}", population)
    counts = _cells(report, "count", population, pair)
    if counts[0][0] is None:
        why = report.reasons(
            numbers.rows("concordance", "count", population=population, model=model)
        )
        block.missing(why or [f"{block.title}: no concordance was estimated"])
        return block
    shares = _cells(report, "share", population, pair)
    rows, columns = (
        [report.source_level(name, level) for level in report.plan.sources[name].term.levels]
        for name in pair
    )
    linear = numbers.one("agreement", "kappa_linear", population=population, model=model)
    table = DataTable(
        slug("concordance", first, second, report.population_suffix(population)),
        f"Patients by {report.label(first)} (rows) and {report.label(second)} (columns), n (%)",
        (Column(report.label(first)), *(Column(name, True) for name in columns)),
        [
            [name, *(numbers.share_cell(*cells) for cells in zip(line, parts, strict=True))]
            for name, line, parts in zip(rows, counts, shares, strict=True)
        ],
        sortable=False,
    )
    matrix = Matrix(
        rows,
        columns,
        [[(cell.value or 0.0) if cell else 0.0 for cell in line] for line in shares],
        [[plain(numbers.text(cell, "count")) for cell in line] for line in counts],
        report.label(first),
        report.label(second),
        f"linear-weighted kappa {plain(numbers.with_interval(linear, 'three'))}",
    )
    block.draw(_matrix_view(report, population, matrix, pair, table), half=True)
    block.add(report.keep_table(_agreement(report, population, first, second)))
    return block


def _cells(
    report: Report, statistic: str, population: str, pair: tuple[str, str]
) -> list[list[Row | None]]:
    """Counts or shares of each pair of categories, rows by the first source."""
    rows, columns = (report.plan.sources[name].term.levels for name in pair)
    wanted = {"population": population, "model": f"{pair[0]}:{pair[1]}"}
    return [
        [
            report.numbers.one("concordance", statistic, **wanted, term=row, level=column)
            for column in columns
        ]
        for row in rows
    ]


def _matrix_view(
    report: Report, population: str, matrix: Matrix, pair: tuple[str, str], table: DataTable
) -> FigureView:
    names = f"{matrix.row_title} and {matrix.column_title}"
    return report.keep_figure(
        slug("figure-concordance", *pair, report.population_suffix(population)),
        matrix_figure(matrix),
        f"Concordance of {names}: patients in each pair of categories.",
        f"Concordance matrix of {names}: {matrix.note}. {_lines_in_words(matrix)}",
        table,
    )


def _lines_in_words(matrix: Matrix) -> str:
    """The counts of each row of a matrix, for its text alternative."""
    lines = [
        f"{matrix.row_title} {name}: "
        + ", ".join(f"{n} {column}" for n, column in zip(texts, matrix.columns, strict=True))
        for name, texts in zip(matrix.rows, matrix.texts, strict=True)
    ]
    return f"{'; '.join(lines)}."


def _grades_note(report: Report, pair: tuple[str, str]) -> str:
    """How readings of different categories are compared; empty for those of the same."""
    if not _graded(report, pair):
        return ""
    said = []
    for name in pair:
        source = report.plan.sources[name]
        if source.grades:
            levels: dict[str, list[str]] = {}
            for level, grade in source.grades.items():
                levels.setdefault(grade, []).append(report.source_level(name, level))
            graded = "; ".join(f"{' and '.join(names)} {to}" for to, names in levels.items())
            said.append(f"For kappa, categories of {source.label} are graded: {graded}.")
        merged = [f"{a} counts as {b}" for a, b in source.term.merge.items()]
        if merged:
            said.append(f"In {source.label}, {'; '.join(merged)}.")
    return " ".join(said)


def _agreement(report: Report, population: str, first: str, second: str) -> DataTable:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for statistic, label, style in _AGREEMENT:
        row = numbers.one("agreement", statistic, population=population, model=f"{first}:{second}")
        if row is not None:
            text = label if statistic != "same_category" else f"{label}, %"
            rows.append([text, numbers.interval_cell(row, style), numbers.cell(row, "count", "n"),
                         report.words(row.method)])  # fmt: skip
    return DataTable(
        slug("agreement", first, second, report.population_suffix(population)),
        f"Agreement of {report.label(first)} with {report.label(second)}",
        (
            Column("Measure"),
            Column(f"Value ({report.ci})", True),
            Column("n", True),
            Column("Method"),
        ),
        rows,
        note=_grades_note(report, (first, second)),
        sortable=False,
    )


def _scatter(report: Report, block: Block, first: str, second: str) -> None:
    numbers, model, population = report.numbers, f"{first}:{second}", report.populations[0]
    _limits(report, block, first, second)
    if report.hidden:
        block.missing(["points of single patients are not shown, since small counts are hidden"])
        return
    found = {
        name: numbers.one("agreement", name, population=population, model=model)
        for name in ("r2", "r2_log", "bias_log", "limit_low_log", "limit_high_log")
    }
    a, b, keys, total = _scores(report, first, second)
    if not len(keys) or found["r2"] is None:
        block.missing(report.reasons(numbers.rows("agreement", "r2", model=model))
                      or ["no patient has both scores"])  # fmt: skip
        return
    bias, low, high = (
        None if row is None else row.value
        for row in (found["bias_log"], found["limit_low_log"], found["limit_high_log"])
    )
    r2, *limits = (
        plain(numbers.text(found[name], "three"))
        for name in ("r2_log", "bias_log", "limit_low_log", "limit_high_log")
    )
    notes = f"r2 of log(1 + Agatston) {r2}", "difference {}, limits {} to {}".format(*limits)
    titles = report.label(first), report.label(second)
    drawing, left, right = scatter_figure(
        np.log1p(a), np.log1p(b), titles, (bias, low, high), notes
    )
    view = report.keep_figure(
        slug("figure-scatter", first, second),
        drawing,
        f"{titles[0]} against {titles[1]} on a logarithmic scale with the line of equality, and "
        "their differences with mean and limits of agreement. Point at a patient, or use the "
        f"arrow keys, to see the study key.{_thinned(len(keys), total)}",
        f"Scatter and Bland-Altman plot of {titles[0]} and {titles[1]} in {total} patients: "
        f"{'; '.join(notes)}.",
        None,
    )
    labels = [f"{key}: {x:,.1f} and {y:,.1f}" for key, x, y in zip(keys, a, b, strict=True)]
    block.draw(view, Points([*left, *right], [*labels, *labels]))


def _limits(report: Report, block: Block, first: str, second: str) -> None:
    """Mean difference and limits of agreement with intervals, a row per scale."""
    rows: list[list[Cell | str]] = []
    for ending, title, style in _SCALES:
        found = [
            report.numbers.one("agreement", f"{name}{ending}", model=f"{first}:{second}",
                               population=report.populations[0])
            for name in ("bias", "limit_low", "limit_high")
        ]  # fmt: skip
        if found[0] is not None:
            cells = [report.numbers.interval_cell(row, style) for row in found]
            rows.append([title, *cells, report.numbers.cell(found[0], "count", "n")])
    if rows:
        names = f"{report.label(first)}, {report.label(second)}"
        titles = (f"{name} ({report.ci})" for name in ("Mean", "Lower limit", "Upper limit"))
        table = DataTable(
            slug("limits", first, second),
            f"Limits of agreement of {names}: the first less, or over, the second",
            (Column("Scale"), *(Column(title, True) for title in titles), Column("n", True)),
            rows,
            note=_LIMITS_NOTE,
            sortable=False,
        )
        block.add(report.keep_table(table))


def _thinned(drawn: int, total: int) -> str:
    if drawn == total:
        return ""
    return (
        f" Every {-(-total // MOST_POINTS)}th patient with both scores is drawn, in the order of "
        "their keys; the numbers are of all."
    )


def _scores(
    report: Report, first: str, second: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str], int]:
    """Both scores and study keys of patients with both, thinned; and their number."""
    names = [str(report.plan.sources[name].score) for name in (first, second)]
    if any(name not in report.facts.linked.column_names for name in names):
        return np.zeros(0), np.zeros(0), [], 0
    both = pc.and_(*(pc.is_valid(report.facts.linked[name]) for name in names))
    table = report.facts.linked.filter(both).sort_by("study_key")
    step = max(1, -(-table.num_rows // MOST_POINTS))
    kept = table.take(pa.array(range(0, table.num_rows, step), pa.int64()))
    a, b = (kept[name].to_numpy() for name in names)
    return a, b, kept["study_key"].to_pylist(), table.num_rows


def _discrepant(report: Report, block: Block, first: str, second: str) -> None:
    numbers, model = report.numbers, f"{first}:{second}"
    named = {"first": report.label(first), "second": report.label(second)}
    rows: list[list[Cell | str]] = []
    for kind, text in _KINDS.items():
        counted = _counted(numbers.rows("discrepancy", "count", model=model, term=kind))
        for row in counted:
            what = "All" if row.level is None else _candidate(row.level)
            wanted = {"model": model, "term": kind, "level": row.level}
            share = numbers.one("discrepancy", "share", **wanted)
            rows.append([text.format(**named), what, numbers.share_cell(row, share)])
    if not rows:
        block.missing(
            report.reasons(numbers.rows("discrepancy", "count", model=model))
            or ["discrepant cases were not counted"]
        )
        return
    block.add(
        report.keep_table(
            DataTable(
                "discrepancy-causes",
                "Discrepant cases and possible causes",
                (Column("Cases"), Column("Candidate or cause"), Column("Patients", True)),
                rows,
                note=_CANDIDATES,
            )
        )
    )  # fmt: skip
    if report.hidden:
        block.say("Single cases are not listed, since small counts are hidden.")
        return
    _cases(report, block, first, second)


def _by_person(row: Row) -> bool:
    """Whether a cause was found by a person."""
    return (row.level or "").startswith("reviewed: ")


def _counted(rows: Sequence[Row]) -> list[Row]:
    """Rows of a kind of case: the causes that people found, or candidates where nobody looked."""
    found = [row for row in rows if row.level is None or _by_person(row)]
    return found if any(map(_by_person, found)) else list(rows)


def _candidate(level: str) -> str:
    """A candidate or cause with the description of its code, if it has one."""
    kind, _, code = level.partition(": ")
    name, codes = _KINDS_OF_CODES.get(kind, (kind, {}))
    return f"{name}: {codes[code]}" if code in codes else level


def _cases(report: Report, block: Block, first: str, second: str) -> None:
    if report.facts.discrepancies is None:
        return
    mine = [
        row
        for row in report.facts.discrepancies.to_pylist()
        if (row["compared"], row["reference"]) == (first, second)
    ]
    pages = report.facts.pages
    rows: list[Sequence[Cell | str]] = [
        [
            Cell(row["study_key"], href=pages.get(row["study_key"])),
            report.source_level(first, row["compared_category"]),
            report.source_level(second, row["reference_category"]),
            number(row["compared_agatston"], 1),
            number(row["reference_agatston"], 1),
        ]
        for row in mine[:MOST_CASES]
    ]
    if not rows:
        return
    more = (
        f" The {MOST_CASES} furthest apart are shown; all are in the table `discrepancies` of the "
        "warehouse."
        if len(mine) > MOST_CASES
        else ""
    )
    table = DataTable(
        "discrepant-cases",
        f"Single cases by {report.label(first)} and {report.label(second)}",
        (Column("Study key"), Column(f"{report.label(first)} category"),
         Column(f"{report.label(second)} category"), Column(f"{report.label(first)} score", True),
         Column(f"{report.label(second)} score", True)),
        rows,
        filterable=True,
        note=f"Rows of the table `discrepancies`. A key with a study page is a link.{more}",
    )  # fmt: skip
    block.add(report.keep_table(table), "Show single cases")


def _graded(report: Report, pair: tuple[str, str]) -> bool:
    first, second = (report.plan.sources[name].term.levels for name in pair)
    return first != second


def _or_gap(section: ReportSection, reason: str) -> ReportSection:
    if not section.blocks:
        section.blocks.append(Block(gaps=[reason]))
    return section
