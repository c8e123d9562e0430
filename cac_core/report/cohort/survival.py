"""Sections of outcomes: follow-up, survival, event rates, competing risks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from cac_core.analysis.key_estimates import FOLLOW_UP
from cac_core.analysis.plan import DAYS_PER_YEAR
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection, slug
from cac_core.report.cohort.shown_estimates import Row, plain
from cac_core.report.figures.survival import Curve, Limits, curves_figure, shared_limits
from cac_core.report.page import Cell, Column, DataTable

_EVERYONE = "All patients"


def follow_up_section(report: Report) -> ReportSection:
    """Follow-up, and number of events of each outcome."""
    section = ReportSection("follow-up", "Follow-up and events")
    numbers = report.numbers
    for population in report.populations:
        block = Block("", population)
        section.blocks.append(block)
        rows: list[list[Cell | str]] = []
        for outcome in report.plan.outcomes:
            found = {
                name: numbers.one("follow_up", name, population=population, outcome=outcome)
                for name in ("median", "q1", "q3", "observed_median", "observed_q1", "observed_q3")
            }
            middle = found["median"]
            block.missing([f"{report.outcome(outcome)}: {why}" for why in report.reasons([middle])])
            meaning = report.words(report.facts.outcomes.get(outcome, ""))
            rows.append([report.outcome(outcome), meaning,
                         numbers.cell(middle, "count", "n"),
                         numbers.cell(middle, "count", "n_events"),
                         _quartiles(report, found, ""),
                         _quartiles(report, found, "observed_")])  # fmt: skip
        table = DataTable(
            slug("follow-up-table", report.population_suffix(population)),
            "Follow-up by outcome",
            (Column("Outcome"), Column("What it is"), Column("Patients", True),
             Column("Events", True), Column(f"Follow-up by {FOLLOW_UP}, years, median (IQR)", True),
             Column("To event or censoring, years, median (IQR)", True)),
            rows,
            note="By reverse Kaplan-Meier: follow-up if there were no events. To event or "
            "censoring: as in the paper (Miller et al.), shorter. A dash if half or a quarter of "
            "the patients were not followed long enough.",
        )  # fmt: skip
        block.add(report.keep_table(table))
    return section


def survival_section(report: Report) -> ReportSection:
    """Kaplan-Meier curves by category of each source, with numbers at risk."""
    section = ReportSection(
        "figure-4", "Event-free survival by CAC category (Figure 4, Supplemental Figure 3)"
    )
    for population in report.populations:
        for outcome in report.plan.outcomes:
            block = Block(report.outcome(outcome), population, outcome)
            section.blocks.append(block)
            _survivals(report, block)
            _cumulative(report, block)
            _rates(report, block)
            _tests(report, block)
    return section


def incidence_section(report: Report) -> ReportSection:
    """Cumulative incidence of the components, death competing."""
    section = ReportSection("incidence", "Components with death competing")
    for population in report.populations:
        for component in report.plan.components:
            block = Block(report.outcome(component), population)
            section.blocks.append(block)
            _incidences(report, block, component)
            _gray(report, block, component)
    if not section.blocks:
        section.blocks.append(Block(gaps=["the plan names no components"]))
    return section


def _survivals(report: Report, block: Block) -> None:
    """A figure per source, all with the same axes."""
    curves = {}
    for source in report.plan.sources:
        rows = report.numbers.rows("kaplan_meier", "survival", population=block.population,
                                   outcome=block.outcome, model=source)  # fmt: skip
        block.missing([f"{report.label(source)}: {why}" for why in report.reasons(rows)])
        curves[source] = _curves(report, source, rows)
    limits = shared_limits([*curves.values()])
    for source, mine in curves.items():
        if mine:
            _survival(report, block, source, mine, limits)


def _curves(report: Report, source: str, rows: Sequence[Row]) -> list[Curve]:
    """Curves of the categories of a source, with their numbers at risk."""
    curves = []
    for level, steps in _by_level(rows).items():
        first = steps[0]
        at_risk = report.numbers.rows(
            first.analysis, "at_risk", population=first.population, outcome=first.outcome,
            model=source, level=level,
        )  # fmt: skip
        counts = [
            ((row.at or 0.0) / DAYS_PER_YEAR, plain(report.numbers.text(row, "count")))
            for row in at_risk
            if row.value is not None
        ]
        curves.append(_curve(report.source_level(source, level), steps, counts))
    return curves


def _with_p(report: Report, name: str, test: Row | None) -> str:
    """A test with its p value, for the corner of a figure."""
    p = plain(report.numbers.p(test))
    return f"{name} p {p if p.startswith('<') else f'= {p}'}" if test and test.value else ""


def _from(limits: Limits) -> str:
    """A sentence for captions of figures whose axis does not begin at 0."""
    return f" The axis begins at {100 * limits.bottom:.0f} %." if limits.bottom else ""


def _survival(
    report: Report, block: Block, source: str, curves: Sequence[Curve], limits: Limits
) -> None:
    numbers, label = report.numbers, report.label(source)
    wanted = {"population": block.population, "outcome": block.outcome, "model": source}
    note = _with_p(report, "log-rank", numbers.one("log_rank", "chi2", **wanted, level=None))
    outcome = report.outcome(str(block.outcome))
    view = report.keep_figure(
        slug(
            "figure-survival",
            block.outcome,
            source,
            report.population_suffix(str(block.population)),
        ),
        curves_figure(curves, f"Free of {outcome}, %", note, limits),
        f"Survival free of {outcome} by category of {label}, Kaplan-Meier with "
        f"{report.plan.confidence:.0%} confidence bands; below it the numbers at risk."
        f"{_from(limits)}",
        f"Kaplan-Meier curves of survival free of {outcome} by category of {label}. "
        f"{_in_words(report, 'kaplan_meier', wanted)}{_sentence(note)}",
        _event_free(report, block, source),
    )
    block.draw(view, half=True)


def _event_free(report: Report, block: Block, source: str) -> DataTable:
    """Numbers at risk and event-free share at whole years."""
    numbers = report.numbers
    wanted = {"population": block.population, "outcome": block.outcome, "model": source}
    free = {(r.level, r.at): r for r in numbers.rows("kaplan_meier", "event_free", **wanted)}
    rows: list[list[Cell | str]] = []
    for row in numbers.rows("kaplan_meier", "at_risk", **wanted):
        years = (row.at or 0.0) / DAYS_PER_YEAR
        level = report.source_level(source, str(row.level))
        rows.append([level, Cell(f"{years:.0f}", years), numbers.cell(row, "count"),
                     numbers.interval_cell(free.get((row.level, row.at)), "percent")])  # fmt: skip
    name = slug(
        "event-free", block.outcome, source, report.population_suffix(str(block.population))
    )
    return DataTable(
        name,
        f"Numbers at risk, and share free of {report.outcome(str(block.outcome))} in %",
        (Column(report.label(source)), Column("Year", True), Column("At risk", True),
         Column(f"Event-free ({report.ci})", True)),
        rows,
    )  # fmt: skip


def _in_words(report: Report, analysis: str, wanted: Mapping[str, str | None]) -> str:
    """Patients and events of each category, for the text alternative of a figure."""
    numbers, said = report.numbers, []
    statistic = "survival" if analysis == "kaplan_meier" else "incidence"
    for level, steps in _by_level(numbers.rows(analysis, statistic, **wanted)).items():
        start = numbers.one(analysis, "at_risk", **wanted, level=level, at=0.0)
        patients = plain(numbers.text(start, "count"))
        events = plain(numbers.text(steps[-1], "count", "n_events"))
        name = report.source_level(str(wanted["model"]), level)
        said.append(f"{name}: {patients} patients, {events} events")
    return f"{'; '.join(said)}." if said else ""


def _sentence(note: str) -> str:
    return f" {note[:1].upper()}{note[1:]}." if note else ""


def _cumulative(report: Report, block: Block) -> None:
    """Cumulative incidence at a few times, with the patients at risk then."""
    numbers, wanted = report.numbers, {"population": block.population, "outcome": block.outcome}
    rows: list[list[Cell | str]] = []
    for row in numbers.rows("kaplan_meier", "cumulative_incidence", **wanted):
        if row.reason:
            continue
        years = (row.at or 0.0) / DAYS_PER_YEAR
        at_risk = numbers.one("kaplan_meier", "at_risk_then", **wanted, model=row.model,
                              level=row.level, at=row.at)  # fmt: skip
        named = [_EVERYONE, ""]
        if row.model is not None:
            named = [report.label(row.model), report.source_level(row.model, str(row.level))]
        rows.append([*named, Cell(f"{years:.3g}", years), numbers.cell(at_risk, "count"),
                     numbers.cell(row, "count", "n_events"),
                     numbers.interval_cell(row, "percent")])  # fmt: skip
    if rows:
        outcome = report.outcome(str(block.outcome))
        table = DataTable(
            slug("cumulative", block.outcome, report.population_suffix(str(block.population))),
            f"Cumulative incidence of {outcome} and numbers at risk",
            (Column("Reading"), Column("Category"), Column("Years", True),
             Column("At risk", True), Column("Events until then", True),
             Column(f"Cumulative incidence, % ({report.ci})", True)),
            rows,
            note="1 less Kaplan-Meier, by category and in all patients, at one and five years, at "
            "the horizon of the plan, and at the last time that every category of the reading is "
            "followed to (all patients: the end of follow-up).",
        )  # fmt: skip
        block.add(report.keep_table(table))


def _rates(report: Report, block: Block) -> None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    everyone = {"population": block.population, "outcome": block.outcome, "model": None}
    for row in numbers.rows("event_rate", "per_100_person_years", **everyone):
        years = numbers.one("event_rate", "person_years", **everyone)
        rows.append([_EVERYONE, "", numbers.cell(row, "count", "n"),
                     numbers.cell(row, "count", "n_events"), numbers.cell(years, "count"),
                     numbers.interval_cell(row, "two")])  # fmt: skip
    for source in report.plan.sources:
        wanted = {"population": block.population, "outcome": block.outcome, "model": source}
        for row in numbers.rows("event_rate", "per_100_person_years", **wanted):
            years = numbers.one("event_rate", "person_years", **wanted, level=row.level)
            if row.level is not None:
                level = report.source_level(source, row.level)
                rows.append([report.label(source), level,
                             numbers.cell(row, "count", "n"),
                             numbers.cell(row, "count", "n_events"), numbers.cell(years, "count"),
                             numbers.interval_cell(row, "two")])  # fmt: skip
    if rows:
        name = slug("event-rates", block.outcome, report.population_suffix(str(block.population)))
        table = DataTable(
            name,
            f"Rates of {report.outcome(str(block.outcome))} per 100 person-years (% per year)",
            (Column("Reading"), Column("Category"), Column("Patients", True),
             Column("Events", True), Column("Person-years", True),
             Column(f"Rate ({report.ci})", True)),
            rows,
            note="A rate per 100 person-years is an annual rate in % per year.",
        )  # fmt: skip
        block.add(report.keep_table(table))


def _tests(report: Report, block: Block) -> None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    seen: list[Row] = []
    for source in report.plan.sources:
        wanted = {"population": block.population, "outcome": block.outcome, "model": source}
        for row in numbers.rows("log_rank", "chi2", **wanted):
            seen.append(row)
            level = report.source_level(source, row.level) if row.level else "all categories"
            rows.append([report.label(source), level,
                         numbers.cell(row, "two"), numbers.p_cell(row),
                         report.words(row.method)])  # fmt: skip
    block.missing([f"log-rank: {why}" for why in report.reasons(seen)])
    if rows:
        name = slug("log-rank", block.outcome, report.population_suffix(str(block.population)))
        table = DataTable(
            name,
            f"Log-rank tests, {report.outcome(str(block.outcome))}",
            (Column("Reading"), Column("Categories"), Column("Chi-square", True),
             Column("p", True), Column("Method")),
            rows,
        )  # fmt: skip
        block.add(report.keep_table(table), "Show log-rank tests of all pairs of categories")


def _incidences(report: Report, block: Block, component: str) -> None:
    """A figure per source, all with the same axes."""
    found = {}
    for source in report.plan.sources:
        rows = report.numbers.rows(
            "cumulative_incidence", "incidence", population=block.population, outcome=component,
            model=source,
        )  # fmt: skip
        block.missing([f"{report.label(source)}: {why}" for why in report.reasons(rows)])
        found[source] = rows
    curves = {source: _curves(report, source, rows) for source, rows in found.items()}
    limits = shared_limits([*curves.values()])
    for source, mine in curves.items():
        if mine:
            _incidence(report, block, component, source, mine, limits)


def _incidence_table(report: Report, block: Block, component: str, source: str) -> DataTable:
    """Incidence of each category at the end of follow-up."""
    numbers = report.numbers
    rows = numbers.rows(
        "cumulative_incidence", "incidence", population=block.population, outcome=component,
        model=source,
    )  # fmt: skip
    ends: list[list[Cell | str]] = []
    for level, steps in _by_level(rows).items():
        last = steps[-1]
        ends.append([report.source_level(source, level), numbers.cell(last, "count", "n_events"),
                     Cell(f"{(last.at or 0) / DAYS_PER_YEAR:.1f}"),
                     numbers.interval_cell(last, "percent")])  # fmt: skip
    return DataTable(
        slug("incidence-table", component, source, report.population_suffix(str(block.population))),
        f"Incidence of {report.outcome(component)} at the end of follow-up, %",
        (Column(report.label(source)), Column("Events", True), Column("Years", True),
         Column(f"Incidence ({report.ci})", True)),
        ends,
        sortable=False,
    )  # fmt: skip


def _incidence(
    report: Report,
    block: Block,
    component: str,
    source: str,
    curves: Sequence[Curve],
    limits: Limits,
) -> None:
    numbers, label = report.numbers, report.label(source)
    wanted = {"population": block.population, "outcome": component, "model": source}
    note = _with_p(report, "Gray", numbers.one("gray_test", "chi2", **wanted))
    view = report.keep_figure(
        slug(
            "figure-incidence", component, source, report.population_suffix(str(block.population))
        ),
        curves_figure(curves, f"{report.outcome(component)}, %", note, limits),
        f"Cumulative incidence of {report.outcome(component)} by category of {label}, "
        f"{report.outcome(report.plan.competing)} competing (Aalen-Johansen), with Gray's test "
        "and numbers at risk.",
        f"Cumulative incidence of {report.outcome(component)} by category of {label}. "
        f"{_in_words(report, 'cumulative_incidence', wanted)}{_sentence(note)}",
        _incidence_table(report, block, component, source),
    )
    block.draw(view, half=True)


def _gray(report: Report, block: Block, component: str) -> None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for source in report.plan.sources:
        row = numbers.one("gray_test", "chi2", population=block.population, outcome=component,
                          model=source)  # fmt: skip
        why = report.reasons([row])
        block.missing([f"{report.label(source)}, Gray's test: {one}" for one in why])
        if row is not None and row.value is not None:
            rows.append([report.label(source), numbers.cell(row, "two"), numbers.p_cell(row),
                         report.words(row.method)])  # fmt: skip
    if rows:
        table = DataTable(
            slug("gray", component, report.population_suffix(str(block.population))),
            f"Whether the incidence of {report.outcome(component)} differs by category",
            (Column("Reading"), Column("Chi-square", True), Column("p", True), Column("Method")),
            rows,
        )  # fmt: skip
        block.add(report.keep_table(table))


def _curve(level: str, steps: Sequence[Row], counts: Sequence[tuple[float, str]] = ()) -> Curve:
    values = [row.value or 0.0 for row in steps]
    return Curve(
        level,
        [(row.at or 0.0) / DAYS_PER_YEAR for row in steps],
        values,
        [v if row.ci_low is None else row.ci_low for row, v in zip(steps, values, strict=True)],
        [v if row.ci_high is None else row.ci_high for row, v in zip(steps, values, strict=True)],
        counts,
    )


def _by_level(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows with a value by level, in order of time."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.value is not None and row.at is not None and row.level is not None:
            found[row.level].append(row)
    return {level: sorted(mine, key=lambda row: row.at or 0.0) for level, mine in found.items()}


def _quartiles(report: Report, found: dict[str, Row | None], prefix: str) -> Cell:
    numbers = report.numbers
    middle, low, high = (found[f"{prefix}{name}"] for name in ("median", "q1", "q3"))
    text = Markup("{} ({}, {})").format(*(numbers.text(row, "two") for row in (middle, low, high)))
    value = None if middle is None else middle.value
    return Cell(text, "" if value is None else value)
