"""Sections of the population: cohort flow, Table 1, Supplemental Tables 1 and 4, acquisition."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cac_core.analysis.plan import Term
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection, slug
from cac_core.report.cohort.shown_estimates import Row, ShownEstimates, plain, reasons
from cac_core.report.figures.performance import flow_figure
from cac_core.report.page import Cell, Column, DataTable
from schemas.codes import FlowStep, QualityFlag, ReviewReason, Status, StudyReason

#: A column of a table of descriptions: its title, and the population it describes.
Group = tuple[Markup, str]
#: A line of it: label, a cell per population, whether the line has the p value.
Line = tuple[str, list[Cell | str], bool]
_MEASURES = (
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
    "needs_review": {"True": "yes", "False": "no"},
    "review_reason": {code.value: code.description for code in ReviewReason},
}


def flow_section(report: Report) -> ReportSection:
    """Patients in the archive, patients who left at each step, patients in the analysis."""
    section, block = ReportSection("flow", "Cohort flow"), Block()
    section.blocks.append(block)
    numbers = report.numbers
    rows = {step: numbers.one("cohort_flow", "count", term=step.value) for step in FlowStep}
    end = rows[FlowStep.INCLUDED]
    if end is None or not end.n:
        block.missing(["the table `flow` has no patients: run `cac link`"])
        return section
    if report.facts.empty_because:
        block.missing([f"the cohort is empty: {'; '.join(report.facts.empty_because)}"])
    shown: list[list[Cell | str]] = []
    steps = []
    for step, row in rows.items():
        if row is None or step is FlowStep.INCLUDED:
            continue
        shown.append([step.description.capitalize(), numbers.cell(row, "count")])
        if row.value or row.reason:
            steps.append(f"{_capital(step.description)}: {_count(numbers, row)}")
    shown.append(["In the analysis", numbers.cell(end, "count")])
    shown.insert(0, ["In the archive or the clinical table", numbers.cell(end, "count", "n")])
    table = DataTable(
        "cohort-flow",
        "Patients by the step at which they left the cohort",
        (Column("Step"), Column("Patients", True)),
        shown,
        sortable=False,
    )
    drawing = flow_figure(
        f"Patients in the archive\nor the clinical table: {plain(numbers.text(end, 'count', 'n'))}",
        steps,
        f"Patients in the analysis: {_count(numbers, end)}",
    )
    caption = "Cohort flow: patients who left the cohort, by step and reason."
    alternative = "Flow diagram of the cohort; its numbers are in the table below it."
    block.draw(report.keep_figure("figure-cohort-flow", drawing, caption, alternative, table))
    return section


def table_1(report: Report) -> ReportSection:
    """Population by category of calcium, for each source."""
    section = ReportSection("table-1", "Population by CAC category (Table 1)")
    for population in report.populations:
        for number, (name, source) in enumerate(report.plan.sources.items()):
            block = Block(f"By {source.label}", population)
            section.blocks.append(block)
            term = source.term
            groups = []
            for level in term.levels:
                row = report.numbers.one(
                    "description", "count", population=population, model=None, term=term.name,
                    level=level,
                )  # fmt: skip
                title = Markup("{} (n = {})").format(
                    report.level(term, level), report.numbers.text(row, "count")
                )
                groups.append((title, f"{population} & {term.name}={level}"))
            _described(
                report,
                block,
                slug("table-1", name, report.population_suffix(population)),
                f"Patients by category of {source.label}",
                term.name,
                groups,
                closed=number > 0,
            )
    return section


def outcome_table(report: Report) -> ReportSection:
    """Population by the primary outcome."""
    section = ReportSection("table-s4", "Population by outcome (Supplemental Table 4)")
    primary = report.plan.primary
    column = f"{primary}_event"
    for population in report.populations:
        block = Block("", population)
        section.blocks.append(block)
        groups = []
        for code, word in (("0", "No"), ("1", "")):
            row = report.numbers.one(
                "description", "count", population=population, model=None, term=column, level=code
            )
            title = Markup("{} (n = {})").format(
                f"{word} {report.outcome(primary)}".strip(), report.numbers.text(row, "count")
            )
            groups.append((title, f"{population} & {column}={code}"))
        _described(
            report,
            block,
            slug("table-s4-patients", report.population_suffix(population)),
            f"Patients with and without {report.outcome(primary)}",
            column,
            groups,
        )
    return section


def training_table(report: Report) -> ReportSection:
    """Training data of the networks against the cohort they are applied to."""
    section = ReportSection(
        "table-s1", "Training population against this cohort (Supplemental Table 1)"
    )
    block, numbers = Block(), report.numbers
    section.blocks.append(block)
    population = report.populations[0]
    trained = numbers.rows("training", "count")
    rows: list[list[Cell | str]] = []
    for row in trained:
        rows.append([str(row.level), numbers.cell(row, "count"), ""])
    included = numbers.one("population", "count", population=population)
    rows.append(["Patients in the analysis", "", numbers.cell(included, "count")])
    model = report.plan.sources[next(iter(report.plan.sources))].term.name
    unknown = Cell("not known")
    for term in (*report.plan.covariates, *report.plan.described):
        for label, text, _ in _variable(report, term, model, [population]):
            rows.append([label, unknown if text[0] else "", text[0]])
    for term_name, label, style in _MEASURES[1:5]:
        shown = _quartiles(numbers, "all", term_name, style)
        if shown is not None:
            rows.append([f"{label}, median (IQR)", unknown, shown])
    if not trained:
        block.missing(["the manifest of the weights has no record of their training"])
    block.say(
        "Training: as recorded in the manifest of the weights. What it does not record is unknown "
        "here; a site that trains on its own scans has it in its table of annotations.",
    )
    table = DataTable(
        "table-s1-populations",
        "Training scans of the networks, and this cohort",
        (Column("Characteristic"), Column("Training", True), Column("This cohort", True)),
        rows,
        sortable=False,
    )
    block.add(report.keep_table(table))
    return section


def acquisition_section(report: Report) -> ReportSection:
    """Scanners, settings, noise, failures and time of all studies."""
    section = ReportSection("acquisition", "Acquisition and quality")
    block, numbers = Block(), report.numbers
    section.blocks.append(block)
    studies = numbers.one("acquisition", "count", population="archive", term="studies")
    if studies is None or not studies.value:
        block.missing(["the table `scores` has no study of the linked model"])
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
    for name, label, style in _MEASURES:
        cells: list[Cell | str] = [label]
        for population in ("archive", "all"):
            middle = numbers.one("acquisition", "median", population=population, term=name)
            cells += [
                _quartiles(numbers, population, name, style) or Cell(numbers.text(middle, style)),
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
    for row in numbers.rows("acquisition", "count", population="archive", term=name):
        share = numbers.one(
            "acquisition", "share", population="archive", term=name, level=row.level
        )
        meaning = _CODES.get(name, {}).get(str(row.level))
        line: list[Cell | str] = [str(row.level)]
        if name in _CODES:
            line.append(meaning or "")
        rows.append([*line, numbers.cell(row, "count"), numbers.cell(share, "percent")])
    if not rows:
        return None
    meant = (Column("Meaning"),) if name in _CODES else ()
    return DataTable(
        slug("acquisition", name),
        f"{label}, studies of the archive",
        (Column(label), *meant, Column("Studies", True), Column("%", True)),
        rows,
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
        rows.append([middle.model, _spread(numbers, middle, low, high),
                     numbers.cell(middle, "count", "n")])  # fmt: skip
    if rows:
        columns = (Column("Scanner"), Column("Noise, HU, median (IQR)", True),
                   Column("Studies", True))  # fmt: skip
        block.add(report.keep_table(DataTable("noise-by-scanner", "Noise in the heart by scanner",
                  columns, rows)))  # fmt: skip


def _described(
    report: Report,
    block: Block,
    identifier: str,
    caption: str,
    model: str,
    groups: Sequence[Group],
    *,
    closed: bool = False,
) -> None:
    """Table of all variables of the block's population by groups of a column (`model`)."""
    numbers, population = report.numbers, str(block.population)
    everybody = numbers.one("population", "count", population=population)
    whole = numbers.one("description_test", "test", population=population, model=model, term=None)
    if whole is not None and whole.reason:
        block.missing([whole.reason])
        return
    rows, tests = _described_rows(report, model, [population, *(name for _, name in groups)])
    if not rows:
        block.missing([f"no description by `{model}` was estimated"])
        return
    columns = [Column("Characteristic"),
               Column(Markup("All (n = {})").format(numbers.text(everybody, "count")), True),
               *(Column(title, True) for title, _ in groups), Column("p", True)]  # fmt: skip
    table = DataTable(
        identifier,
        caption,
        tuple(columns),
        rows,
        note="Mean (SD) of a variable that does not depart from normal in the whole cohort, else "
        "median (IQR), the same in every table; counts with their share of the known values. One "
        "p value per variable, over all groups.",
        sortable=False,
    )
    block.add(report.keep_table(table), f"Show: {caption}" if closed else "")
    block.missing([f"no test of a difference: {why}" for why in reasons(tests)])


def _described_rows(
    report: Report, model: str, populations: Sequence[str]
) -> tuple[list[list[Cell | str]], list[Row | None]]:
    """A line per variable and level, and the tests of difference between the groups."""
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    tests: list[Row | None] = []
    for term in report.terms:
        if term.name == model:
            continue
        test = numbers.one("description_test", "test", population=populations[0], model=model,
                           term=term.name)  # fmt: skip
        tests.append(test)
        for label, cells, tested in _variable(report, term, model, populations):
            rows.append([label, *cells, numbers.p_cell(test) if tested else ""])
    return rows, tests


def _variable(report: Report, term: Term, model: str, populations: Sequence[str]) -> list[Line]:
    """Lines of one variable."""
    numbers = report.numbers

    def row(statistic: str, population: str, level: str | None = None) -> Row | None:
        return numbers.one("description", statistic, population=population, model=model,
                           term=term.name, level=level)  # fmt: skip

    lines: list[Line] = []
    if term.kind == "numeric":
        label = term.label.split(", per ")[0]
        normal = row("mean", populations[0]) is not None
        first, others = ("mean", ("sd",)) if normal else ("median", ("q1", "q3"))
        cells: list[Cell | str] = []
        for population in populations:
            spread = [row(name, population) for name in others]
            cells.append(_spread(numbers, row(first, population), *spread))
        kind = "mean (SD)" if normal else "median (IQR)"
        lines.append((f"{label}, {kind}", cells, True))
    elif term.kind == "binary":
        cells = [numbers_share(numbers, row("count", p), row("share", p)) for p in populations]
        lines.append((f"{term.label}, n (%)", cells, True))
    else:
        lines.append((f"{term.label}, n (%)", [""] * len(populations), True))
        for level in term.levels:
            cells = [
                numbers_share(numbers, row("count", p, level), row("share", p, level))
                for p in populations
            ]
            lines.append((f"\N{EM SPACE}{report.level(term, level)}", cells, False))
    absent = [row("missing", population) for population in populations]
    if any(one is not None and (one.value or one.reason) for one in absent):
        cells = [numbers.cell(one, "count") for one in absent]
        lines.append(("\N{EM SPACE}missing, n", cells, False))
    return lines


def numbers_share(numbers: ShownEstimates, count: Row | None, share: Row | None) -> Cell:
    """Count and share as one cell, sorted by the count."""
    value = None if count is None else count.value
    return Cell(numbers.count_share(count, share), "" if value is None else value)


def _spread(
    numbers: ShownEstimates, middle: Row | None, *others: Row | None, style: str = "one"
) -> Cell:
    if middle is None or middle.value is None:
        return Cell(numbers.text(middle, style), "")
    inside = Markup(", ").join(numbers.text(other, style) for other in others)
    return Cell(Markup("{} ({})").format(numbers.text(middle, style), inside), middle.value)


def _quartiles(numbers: ShownEstimates, population: str, term: str, style: str) -> Cell | None:
    found = [
        numbers.one("acquisition", part, population=population, term=term, model=None)
        for part in ("median", "q1", "q3")
    ]
    if found[0] is None or found[0].value is None:
        return None
    return _spread(numbers, *found, style=style)


def _count(numbers: ShownEstimates, row: Row | None) -> str:
    return plain(numbers.text(row, "count"))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
