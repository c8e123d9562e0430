"""Sections that describe the population: Table 1, Supplemental Tables 1 and 4."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cac_core.analysis.plan import Term
from cac_core.report.cohort.plain_words import squared
from cac_core.report.cohort.population import MEASURES, quartiles
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection, cell_text, slug
from cac_core.report.cohort.shown_estimates import Row
from cac_core.report.page import Cell, Column, DataTable
from schemas.linked import LINKED

#: A column of a table of descriptions: its title, and the population it describes.
Group = tuple[Markup, str]
#: A line of it: label, a cell per population, whether the line has the test of the variable.
Line = tuple[str, list[Cell | str], bool]
#: Units that are not shown: of plain numbers.
_NO_UNITS = ("", "1", "0/1")
#: Abbreviation of each test by the begin of its method.
_TESTS = {
    "Pearson chi-square": "chi2",
    "Kruskal-Wallis": "KW",
    "Mann-Whitney": "MW",
    "one-way ANOVA": "F",
    "Student t": "t",
}
_NOTE = (
    "Mean (SD) of a variable that does not depart from normal in the whole cohort, else median "
    "(IQR), the same in every table; counts with their share of the known values. One p value per "
    "variable, over all groups, by the test beside it. Missing: patients without a value, who are "
    "in no count, share, mean or test of that variable."
)
_UNITS = {column.name: column.unit for column in LINKED.columns}


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
    primary = report.plan.primary
    section = ReportSection(
        "table-s4",
        "Population by outcome (Supplemental Table 4)",
        only=report.outcome(primary),
    )
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
    for term in _by_column([*report.plan.covariates, *report.plan.described]):
        for label, text, _ in _variable(report, term, model, [population]):
            rows.append([label, unknown if text[0] else "", text[0]])
    for term_name, label, style in MEASURES[1:5]:
        shown = quartiles(numbers, "all", term_name, style)
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
        block.missing([report.words(whole.reason)])
        return
    rows, tests = _described_rows(report, model, [population, *(name for _, name in groups)])
    if not rows:
        block.missing([f"{caption}: no description was estimated"])
        return
    columns = [Column("Characteristic"),
               Column(Markup("All (n = {})").format(numbers.text(everybody, "count")), True),
               *(Column(title, True) for title, _ in groups), Column("Missing", True),
               Column("p", True), Column("Test")]  # fmt: skip
    table = DataTable(
        identifier,
        caption,
        tuple(columns),
        rows,
        note=_NOTE + _tests_note(rows),
        sortable=False,
    )
    block.add(report.keep_table(table), f"Show: {caption}" if closed else "")
    block.missing([f"no test of a difference: {why}" for why in report.reasons(tests)])


def _described_rows(
    report: Report, model: str, populations: Sequence[str]
) -> tuple[list[list[Cell | str]], list[Row | None]]:
    """A line per variable and level, and the tests of difference between the groups."""
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    tests: list[Row | None] = []
    for term in _by_column(report.terms):
        if term.name == model:
            continue
        test = numbers.one("description_test", "test", population=populations[0], model=model,
                           term=term.name)  # fmt: skip
        tests.append(test)
        for label, cells, tested in _variable(report, term, model, populations):
            ending: list[Cell | str] = ["", "", ""]
            if tested:
                absent = numbers.one("description", "missing", population=populations[0],
                                     model=model, term=term.name)  # fmt: skip
                ending = [numbers.cell(absent, "count"), numbers.p_cell(test), _test(test)]
            rows.append([label, *cells, *ending])
    return rows, tests


def _by_column(terms: Sequence[Term]) -> list[Term]:
    """Terms in their order, those of one column together."""
    columns = list(dict.fromkeys(term.source for term in terms))
    return sorted(terms, key=lambda term: columns.index(term.source))


def _variable(report: Report, term: Term, model: str, populations: Sequence[str]) -> list[Line]:
    """Lines of one variable."""
    numbers = report.numbers

    def row(statistic: str, population: str, level: str | None = None) -> Row | None:
        return numbers.one("description", statistic, population=population, model=model,
                           term=term.name, level=level)  # fmt: skip

    lines: list[Line] = []
    if term.kind == "numeric":
        label = _with_unit(term)
        normal = row("mean", populations[0]) is not None
        first, others = ("mean", ("sd",)) if normal else ("median", ("q1", "q3"))
        cells: list[Cell | str] = []
        for population in populations:
            spread = [row(name, population) for name in others]
            cells.append(numbers.spread_cell(row(first, population), *spread))
        kind = "mean (SD)" if normal else "median (IQR)"
        lines.append((f"{label}, {kind}", cells, True))
    elif term.kind == "binary":
        cells = [numbers.share_cell(row("count", p), row("share", p)) for p in populations]
        lines.append((f"{term.label}, n (%)", cells, True))
    else:
        lines.append((f"{term.label}, n (%)", [""] * len(populations), True))
        for level in term.levels:
            cells = [
                numbers.share_cell(row("count", p, level), row("share", p, level))
                for p in populations
            ]
            lines.append((f"\N{EM SPACE}{report.level(term, level)}", cells, False))
    absent = [row("missing", population) for population in populations]
    if any(one is not None and (one.value or one.reason) for one in absent):
        cells = [numbers.cell(one, "count") for one in absent]
        lines.append(("\N{EM SPACE}missing, n", cells, False))
    return lines


def _with_unit(term: Term) -> str:
    """Title of a numeric variable with its unit: that of the plan, else of its column."""
    unit = squared(term.unit or _UNITS.get(term.source, ""))
    shown = unit in _NO_UNITS or term.title.endswith((f", {unit}", f"({unit})"))
    return term.title if shown else f"{term.title}, {unit}"


def _test(row: Row | None) -> str:
    """Abbreviation of a test, from its method; empty without a test."""
    if row is None or row.value is None:
        return ""
    return next((short for name, short in _TESTS.items() if row.method.startswith(name)), "other")


def _tests_note(rows: Sequence[Sequence[Cell | str]]) -> str:
    """The tests of a table and their abbreviations; begins with a space, empty without tests."""
    used = {cell_text(row[-1]) for row in rows}
    named = [f"{short}: {name}" for name, short in _TESTS.items() if short in used]
    return f" Tests: {'; '.join(named)}." if named else ""
