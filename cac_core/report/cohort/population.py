"""Sections of the archive: cohort flow, acquisition and quality."""

from __future__ import annotations

import json
from collections.abc import Mapping

from markupsafe import Markup

from cac_core.report.cohort.plain_words import listed, word
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection, slug
from cac_core.report.cohort.shown_estimates import Row, ShownEstimates, plain
from cac_core.report.cohort.small_cells import HIDDEN
from cac_core.report.figures.performance import flow_figure
from cac_core.report.page import Cell, Column, DataTable
from schemas.codes import FlowStep, QualityFlag, ReviewReason, Status, StudyReason

#: Measures of a study: column of `scores`, title, and format.
MEASURES = (
    ("noise_hu", "Noise in the heart, HU", "one"),
    ("slice_thickness_mm", "Slice thickness, mm", "two"),
    ("slice_increment_mm", "Slice increment, mm", "two"),
    ("KVP", "Tube voltage, kV", "one"),
    ("XRayTubeCurrent", "Tube current, mA", "one"),
    ("heart_volume_ml", "Volume of the heart, ml", "one"),
    ("seconds_read", "Reading, seconds", "two"),
    ("seconds_model", "Networks, seconds", "two"),
    ("seconds_score", "Scoring, seconds", "two"),
)
_COUNTED = (
    ("scanner", "Scanner"),
    ("KVP_level", "Tube voltage, kV"),
    ("slice_thickness_level", "Slice thickness, mm"),
    ("ctac_role", "Acquisition"),
    ("quality_flag", "Quality flag"),
    ("needs_review", "Score needs review"),
    ("review_reason", "Why it needs review"),
    ("status", "What became of the study"),
    ("reason", "Why not scored"),
)
_CODES = {
    "status": {code.value: code.description for code in Status},
    "reason": {code.value: code.description for code in StudyReason},
    "quality_flag": {code.value: code.description for code in QualityFlag},
    "review_reason": {code.value: code.description for code in ReviewReason},
}


#: Of how many studies the shares are, where that is not the sum of the counts.
_OF = {
    "quality_flag": "Of {} studies, scored or not; a study can have several flags, or none.",
    "needs_review": "Of {} scored studies whose score says how sure it is.",
    "review_reason": "Of {} scored studies whose score says how sure it is; a study can have "
    "several reasons, or none.",
    "reason": "Of {} studies, scored or not.",
}
_YES_NO = {"True": "yes", "False": "no"}


def flow_section(report: Report) -> ReportSection:
    """Patients in the archive, who left at each step and who remained, and in the analysis."""
    section, block = ReportSection("flow", "Cohort flow"), Block()
    section.blocks.append(block)
    numbers = report.numbers
    rows, remaining = (
        {step: numbers.one("cohort_flow", name, term=step.value) for step in FlowStep}
        for name in ("count", "remaining")
    )
    end = rows[FlowStep.INCLUDED]
    if end is None or not end.n:
        block.missing(["no patients are linked: run `cac link`"])
        return section
    if report.facts.empty_because:
        block.missing([f"the cohort is empty: {'; '.join(report.facts.empty_because)}"])
    table, steps = _flow_steps(report, rows, remaining)
    drawing = flow_figure(
        f"Patients in the archive\nor the clinical table: {plain(numbers.text(end, 'count', 'n'))}",
        steps,
        f"Patients in the analysis: {_count(numbers, end)}",
    )
    caption = "Cohort flow: patients excluded at each step and why (right), and who remains (left)."
    left = "; ".join(f"{out}, {rest}" if rest else out for out, rest in steps)
    alternative = (
        f"Flow diagram of the cohort. {_count(numbers, end, 'n')} patients in the archive or the "
        f"clinical table. Excluded: {left or 'nobody'}. In the analysis: {_count(numbers, end)}."
    )
    block.draw(report.keep_figure("figure-cohort-flow", drawing, caption, alternative, table))
    return section


def step_in_words(report: Report, step: FlowStep) -> str:
    """A step of the flow, with the names of the covariates that the site requires."""
    run = report.facts.linkage_run
    if step is not FlowStep.MISSING_COVARIATE or not run:
        return step.description
    required = json.loads(run["mapping"])["rules"]["required"]
    names = listed((word(name) for name in required), "or")
    return f"{step.description} ({names})" if names else step.description


def _flow_steps(
    report: Report,
    rows: Mapping[FlowStep, Row | None],
    remaining: Mapping[FlowStep, Row | None],
) -> tuple[DataTable, list[tuple[str, str]]]:
    """Table of the flow, and texts of each step that patients left at for the drawing."""
    numbers, end = report.numbers, rows[FlowStep.INCLUDED]
    shown: list[list[Cell | str]] = [
        ["In the archive or the clinical table", "", numbers.cell(end, "count", "n")]
    ]
    steps = []
    for step, row in rows.items():
        if row is None or step is FlowStep.INCLUDED:
            continue
        name, left = _capital(step_in_words(report, step)), remaining[step]
        shown.append([name, numbers.cell(row, "count"), numbers.cell(left, "count")])
        if row.value or row.method == HIDDEN:
            excluded = f"{name}: {_count(numbers, row)}"
            steps.append((excluded, f"{_count(numbers, left)} remain"))
    # The last step leaves those in the analysis, who have their own box.
    steps[-1:] = [(excluded, "") for excluded, _ in steps[-1:]]
    shown.append(["In the analysis", "", numbers.cell(end, "count")])
    table = DataTable(
        "cohort-flow",
        "Patients who left the cohort at each step, and who remained after it",
        (Column("Step"), Column("Excluded", True), Column("Remaining", True)),
        shown,
        sortable=False,
    )
    return table, steps


def acquisition_section(report: Report) -> ReportSection:
    """Scanners, settings, noise, failures and time of all studies."""
    section = ReportSection("acquisition", "Acquisition and quality", aside=True)
    block, numbers = Block(), report.numbers
    section.blocks.append(block)
    studies = numbers.one("acquisition", "count", population="archive", term="studies")
    if studies is None or not studies.value:
        block.missing(["the archive has no study scored by the linked model"])
        return section
    block.say(
        "{} studies of the archive; {} of them belong to patients in the analysis.",
        numbers.text(studies, "count"),
        numbers.text(
            numbers.one("acquisition", "count", population="all", term="studies"), "count"
        ),
    )
    columns = (Column("Measure"), Column("Archive, median (IQR)", True),
               Column("Studies", True), Column("Analysis, median (IQR)", True),
               Column("Studies", True))  # fmt: skip
    rows: list[list[Cell | str]] = []
    for name, label, style in MEASURES:
        cells: list[Cell | str] = [label]
        for population in ("archive", "all"):
            middle = numbers.one("acquisition", "median", population=population, term=name)
            cells += [
                quartiles(numbers, population, name, style) or Cell(numbers.text(middle, style)),
                numbers.cell(middle, "count", "n"),
            ]
        rows.append(cells)
    block.add(report.keep_table(DataTable("acquisition-measures", "Acquisition and time per study",
              columns, rows)))  # fmt: skip
    for name, label in _COUNTED:
        table = _levels(report, name, label)
        if table is not None:
            block.add(report.keep_table(table))
    _by_scanner(report, block)
    return section


def _levels(report: Report, name: str, label: str) -> DataTable | None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    whole = numbers.one("acquisition", "count", population="archive", term=name)
    for row in numbers.rows("acquisition", "count", population="archive", term=name):
        share = numbers.one(
            "acquisition", "share", population="archive", term=name, level=row.level
        )
        level = str(row.level)
        line: list[Cell | str] = [_YES_NO.get(level, level)]
        if name in _CODES:
            line = [_capital(_CODES[name].get(level, level)), f"`{level}`"]
        rows.append([*line, numbers.cell(row, "count"), numbers.cell(share, "percent")])
    if not rows:
        return None
    coded = (Column("Code"),) if name in _CODES else ()
    return DataTable(
        slug("acquisition", name),
        f"{label}, studies of the archive",
        (Column(label), *coded, Column("Studies", True), Column("%", True)),
        rows,
        note=Markup(_OF.get(name, "")).format(numbers.text(whole, "count", "n")),
    )


def _by_scanner(report: Report, block: Block) -> None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for middle in numbers.rows("acquisition", "median", population="archive", term="noise_hu"):
        if middle.model is None:
            continue
        low, high = (
            numbers.one("acquisition", part, population="archive", term="noise_hu",
                        model=middle.model)
            for part in ("q1", "q3")
        )  # fmt: skip
        rows.append([middle.model, numbers.spread_cell(middle, low, high),
                     numbers.cell(middle, "count", "n")])  # fmt: skip
    if rows:
        columns = (Column("Scanner"), Column("Noise, HU, median (IQR)", True),
                   Column("Studies", True))  # fmt: skip
        block.add(report.keep_table(DataTable("noise-by-scanner", "Noise in the heart by scanner",
                  columns, rows)))  # fmt: skip


def quartiles(numbers: ShownEstimates, population: str, term: str, style: str) -> Cell | None:
    """Median and quartiles of a measure of the studies of a population; None without a value."""
    found = [
        numbers.one("acquisition", part, population=population, term=term, model=None)
        for part in ("median", "q1", "q3")
    ]
    if found[0] is None or found[0].value is None:
        return None
    return numbers.spread_cell(*found, style=style)


def _count(numbers: ShownEstimates, row: Row | None, column: str = "value") -> str:
    return plain(numbers.text(row, "count", column))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
