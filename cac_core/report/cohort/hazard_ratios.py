"""Sections of Cox models: hazard ratios, other outcomes, sensitivity, proportional hazards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from cac_core.analysis.term_models import EVENTS_PER_PARAMETER
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection, cell_text, slug
from cac_core.report.cohort.shown_estimates import Row, plain
from cac_core.report.figures.survival import ForestRow, forest_figure
from cac_core.report.page import Cell, Column, DataTable

_REFERENCE = "reference"
_FEW_EVENTS, _CHANGING = "\N{DOUBLE DAGGER}", "\N{DAGGER}"
_FREEDOM = ", df "


def hazard_section(report: Report) -> ReportSection:
    """Hazard ratios, unadjusted and adjusted, as a table and a forest plot."""
    section = ReportSection("table-2", "Hazard ratios (Table 2)")
    for population in report.populations:
        for outcome in report.plan.outcomes:
            block = Block(report.outcome(outcome), population, outcome)
            section.blocks.append(block)
            for number, source in enumerate(report.plan.sources):
                _hazards(report, block, source, closed=number > 0)
            _whole_models(report, block)
    return section


def secondary_section(report: Report) -> ReportSection:
    """Adjusted hazard ratios of calcium for the other outcomes, side by side."""
    section = ReportSection(
        "table-s5", "Secondary outcomes, early revascularisation excluded (Supplemental Table 5)"
    )
    others = [name for name in report.plan.outcomes if name != report.plan.primary]
    for population in report.populations:
        block = Block("", population)
        section.blocks.append(block)
        if not others:
            block.missing(["the plan has one outcome only"])
            continue
        rows = _secondary_rows(report, block, others)
        columns = [Column("Reading"), Column("Category")]
        for outcome in others:
            columns += [
                Column(f"{report.outcome(outcome)}, HR ({report.ci})", True),
                Column("p", True),
            ]
        table = DataTable(
            slug("table-s5-outcomes", report.population_suffix(population)),
            "Adjusted hazard ratios of calcium for other outcomes",
            tuple(columns),
            rows,
            note=f"Adjusted for all covariates of the plan.{_marks_note(report, rows)}",
            sortable=False,
        )
        block.add(report.keep_table(table))
    return section


def _secondary_rows(
    report: Report, block: Block, outcomes: Sequence[str]
) -> list[list[Cell | str]]:
    """A row per source and category, with ratio and p value for each outcome."""
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    seen: list[Row | None] = []
    for name, source in report.plan.sources.items():
        for outcome in outcomes:
            whole = _ratio(report, "cox_multivariable", block.population, outcome, name, None, None)
            block.missing([f"{report.outcome(outcome)}: {why}" for why in report.reasons([whole])])
        for level in source.term.levels:
            line: list[Cell | str] = [source.label, report.level(source.term, level)]
            for outcome in outcomes:
                row = _ratio(report, "cox_multivariable", block.population, outcome, name,
                             source.term.name, level)  # fmt: skip
                seen.append(row)
                line += [_ratio_cell(report, row), numbers.p_cell(row)]
            rows.append(line)
    block.missing(report.reasons(seen))
    return rows


def sensitivity_section(report: Report) -> ReportSection:
    """Landmark, interaction, cause-specific hazards and curvature."""
    section = ReportSection("sensitivity", "Sensitivity analyses", aside=True)
    for population in report.populations:
        block = Block("", population)
        section.blocks.append(block)
        days, competing = report.plan.landmark_days, report.outcome(report.plan.competing)
        if days is not None:
            _calcium_table(
                report, block, "landmark", [report.plan.primary],
                f"Hazard ratios for {report.outcome(report.plan.primary)} from day {days} on, in "
                "those without an event before",
            )  # fmt: skip
        _calcium_table(
            report, block, "cause_specific", report.plan.components,
            f"Cause-specific hazard ratios of the components, {competing} censors",
        )  # fmt: skip
        _calcium_table(
            report, block, "fine_gray", report.plan.components,
            "Subdistribution hazard ratios of the components (Fine and Gray), "
            f"{competing} competing",
        )  # fmt: skip
        _test_table(report, block, "interaction", "lr_chi2", "Interaction of calcium")
        _test_table(report, block, "spline", "lr_chi2", "Curvature of continuous covariates")
    return section


def assumptions_section(report: Report) -> ReportSection:
    """Tests of proportional hazards."""
    section = ReportSection("proportional", "Proportional hazards", aside=True)
    for population in report.populations:
        block = Block("", population)
        section.blocks.append(block)
        _test_table(report, block, "proportional_hazards", "chi2",
                    "Score tests of proportional hazards in the multivariable models")  # fmt: skip
        if not block.parts and not block.gaps:
            block.missing(["no test of proportional hazards was estimated"])
    return section


def _hazards(report: Report, block: Block, source: str, closed: bool) -> None:
    """Table and forest plot of the model with a source; `closed` puts the table under the plot."""
    label, outcome = report.label(source), report.outcome(str(block.outcome))
    rows, forest, seen = _hazard_rows(report, block, source)
    whole = _ratio(report, "cox_multivariable", block.population, block.outcome, source, None, None)
    block.missing([f"{label}: {why}" for why in report.reasons([whole, *seen])])
    known = [row for row in seen if row is not None and row.value is not None]
    if not any(row.method != _REFERENCE for row in known):
        return
    name = slug(block.outcome, source, report.population_suffix(str(block.population)))
    table = DataTable(
        f"table-2-{name}",
        f"Hazard ratios for {outcome}, model with {label}",
        (Column("Covariate"), Column(f"Unadjusted HR ({report.ci})", True), Column("p", True),
         Column(f"Adjusted HR ({report.ci})", True), Column("p", True)),
        rows,
        note="Cox models with Efron's handling of ties. Adjusted: all covariates of the table."
        + _marks_note(report, rows)
        + _assumption_note(report, block, source),
        sortable=False,
    )  # fmt: skip
    view = report.keep_figure(
        f"figure-forest-{name}",
        forest_figure(
            forest, ("unadjusted", "adjusted"), f"Hazard ratio ({report.ci})", "adjusted"
        ),
        f"Hazard ratios for {outcome}, model with {label}; the axis is logarithmic."
        + _marks_note(report, [[row.text] for row in forest]),
        f"Forest plot of hazard ratios for {outcome}, model with {label}. "
        f"{_in_words(report, block, source)}",
        table if closed else None,
    )
    if not closed:
        block.add(report.keep_table(table))
    block.draw(view)


def _hazard_rows(
    report: Report, block: Block, source: str
) -> tuple[list[list[Cell | str]], list[ForestRow], list[Row | None]]:
    """Lines of the table and of the forest plot, and the estimates behind them."""
    numbers, plan = report.numbers, report.plan
    rows: list[list[Cell | str]] = []
    forest: list[ForestRow] = []
    seen: list[Row | None] = []
    for term in (plan.sources[source].term, *plan.covariates):
        alone = source if term is plan.sources[source].term else "base"
        if term.levels:
            rows.append([report.term_label(term), "", "", "", ""])
            forest.append(ForestRow(report.term_label(term)))
        for level in term.levels or (None,):
            pair = [
                _ratio(report, analysis, block.population, block.outcome, model, term.name, level)
                for analysis, model in (("cox_univariable", alone), ("cox_multivariable", source))
            ]
            seen += pair
            shown = None if level is None else report.level(term, level)
            label = report.term_label(term) if shown is None else f"\N{EM SPACE}{shown}"
            line: list[Cell | str] = [label]
            for row in pair:
                line += [_ratio_cell(report, row), numbers.p_cell(row)]
            rows.append(line)
            marks = [_mark(row) for row in pair]
            forest.append(ForestRow(label, marks, _ratio_text(report, pair[1])))
    return rows, forest, seen


def _whole_models(report: Report, block: Block) -> None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for model in ("base", *report.plan.sources):
        found = {
            name: numbers.one(
                "cox_multivariable", name, population=block.population, outcome=block.outcome,
                model=model, term=None,
            )
            for name in ("lr_chi2", "events_per_parameter", "concordance")
        }  # fmt: skip
        whole = found["lr_chi2"]
        if whole is not None:
            rows.append([report.label(model), numbers.cell(whole, "count", "n"),
                         numbers.cell(whole, "count", "n_events"), numbers.cell(whole, "one"),
                         numbers.p_cell(whole), numbers.cell(found["events_per_parameter"], "one"),
                         numbers.interval_cell(found["concordance"], "three")])  # fmt: skip
    if rows:
        table = DataTable(
            slug("models", block.outcome, report.population_suffix(str(block.population))),
            f"Multivariable models of {report.outcome(str(block.outcome))} as a whole",
            (Column("Model"), Column("Patients", True), Column("Events", True),
             Column("LR chi-square", True), Column("p", True),
             Column("Events per parameter", True), Column(f"Harrell's c ({report.ci})", True)),
            rows,
        )  # fmt: skip
        block.add(report.keep_table(table))


def _calcium_table(
    report: Report, block: Block, analysis: str, outcomes: Sequence[str], caption: str
) -> None:
    """Hazard ratios of the calcium of every source in models of an analysis."""
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    seen: list[Row | None] = []
    for outcome in outcomes:
        for source, reading in report.plan.sources.items():
            wanted = {"population": block.population, "outcome": outcome, "model": source}
            whole = numbers.one(analysis, "hazard_ratio", **wanted, term=None)
            if whole is not None and whole.reason:
                block.missing(
                    [f"{caption}: {report.outcome(outcome)}: {report.words(whole.reason)}"]
                )
                continue
            for level in reading.term.levels:
                row = _ratio(report, analysis, block.population, outcome, source,
                             reading.term.name, level)  # fmt: skip
                seen.append(row)
                if row is not None:
                    sizes = _sizes(report, row, level)
                    rows.append([report.outcome(outcome), reading.label,
                                 report.level(reading.term, level), *sizes,
                                 _ratio_cell(report, row), numbers.p_cell(row)])  # fmt: skip
    block.missing([f"{caption}: {why}" for why in report.reasons(seen)])
    if rows:
        table = DataTable(
            slug(analysis, report.population_suffix(str(block.population))),
            caption,
            (Column("Outcome"), Column("Reading"), Column("Category"), Column("Patients", True),
             Column("Events", True), Column(f"Adjusted HR ({report.ci})", True),
             Column("p", True)),
            rows,
            note=f"Patients and events are those of the category.{_marks_note(report, rows)}",
        )  # fmt: skip
        block.add(report.keep_table(table))


def _sizes(report: Report, row: Row, level: str) -> list[Cell]:
    """Patients and events in a category of the model of a hazard ratio."""
    numbers = report.numbers
    found = (
        numbers.one(row.analysis, name, population=row.population, outcome=row.outcome,
                    model=row.model, term=row.term, level=level)
        for name in ("patients", "events")
    )  # fmt: skip
    return [numbers.cell(one, "count") for one in found]


def _test_table(report: Report, block: Block, analysis: str, statistic: str, caption: str) -> None:
    numbers = report.numbers
    found = numbers.rows(analysis, statistic, population=block.population)
    block.missing([f"{caption}: {why}" for why in report.reasons(found)])
    good = [row for row in found if row.value is not None]
    shared, title, own = _methods([report.words(row.method) for row in good])
    note = f"Method: {shared}." if shared else ""
    rows: list[list[Cell | str]] = [
        [report.outcome(str(row.outcome)), report.label(str(row.model)), _term(report, row),
         numbers.cell(row, "two"), numbers.p_cell(row), *([text] if title else [])]
        for row, text in zip(good, own, strict=True)
    ]  # fmt: skip
    if rows:
        table = DataTable(
            slug(analysis, report.population_suffix(str(block.population))),
            caption,
            (Column("Outcome"), Column("Model"), Column("Term"), Column("Chi-square", True),
             Column("p", True), *([Column(title)] if title else [])),
            rows,
            note=note,
            outcomes=_chosen(report, good),
        )  # fmt: skip
        block.add(report.keep_table(table))


def _methods(methods: Sequence[str]) -> tuple[str, str, list[str]]:
    """What all rows share of their method, to be said once; title and texts of what is left.

    Degrees of freedom stand at the end of a method.
    """
    if len(set(methods)) == 1:
        return methods[0], "", [""] * len(methods)
    parts = [method.partition(_FREEDOM) for method in methods]
    if len({head for head, _, _ in parts}) == 1 and all(freedom for _, _, freedom in parts):
        return parts[0][0], "df", [freedom for _, _, freedom in parts]
    return "", "Method", list(methods)


def _chosen(report: Report, rows: Sequence[Row]) -> tuple[str, ...]:
    """The outcome of each row, if all that can be chosen have some; else empty."""
    of = tuple(str(row.outcome) for row in rows)
    return of if set(of) == set(report.plan.outcomes) else ()


def _in_words(report: Report, block: Block, source: str) -> str:
    """Patients, events and adjusted ratios of calcium, for the text alternative of a figure."""
    numbers, term = report.numbers, report.plan.sources[source].term
    wanted = {"population": block.population, "outcome": block.outcome, "model": source}
    whole = numbers.one("cox_multivariable", "lr_chi2", **wanted, term=None)
    said = []
    for level in term.levels:
        row = _ratio(report, "cox_multivariable", block.population, block.outcome, source,
                     term.name, level)  # fmt: skip
        said.append(f"{report.level(term, level)}: {_ratio_text(report, row)}")
    patients, events = (plain(numbers.text(whole, "count", name)) for name in ("n", "n_events"))
    return (
        f"{patients} patients, {events} events. Adjusted, by category of calcium: "
        f"{'; '.join(said)}."
    )


def _term(report: Report, row: Row) -> str:
    parts = str(row.term).split(" x ")
    return " x ".join("all together" if part == "global" else report.term(part) for part in parts)


def _ratio(
    report: Report, analysis: str, population: str | None, outcome: str | None, model: str,
    term: str | None, level: str | None,
) -> Row | None:  # fmt: skip
    return report.numbers.one(analysis, "hazard_ratio", population=population, outcome=outcome,
                              model=model, term=term, level=level)  # fmt: skip


def _is_reference(row: Row | None) -> bool:
    return row is not None and row.method.startswith(_REFERENCE)


def _ratio_cell(report: Report, row: Row | None) -> Cell:
    if _is_reference(row):
        return Cell("Reference", 1.0)
    cell = report.numbers.interval_cell(row, "two")
    return replace(cell, text=Markup("{}{}").format(cell.text, ratio_marks(report, row)))


def _ratio_text(report: Report, row: Row | None) -> str:
    if _is_reference(row):
        return "Reference"
    return plain(report.numbers.with_interval(row, "two")) + ratio_marks(report, row)


def ratio_marks(report: Report, row: Row | None) -> str:
    """Signs behind a hazard ratio that violates an assumption of its model."""
    if row is None or row.value is None:
        return ""
    changing = row.analysis == "cox_multivariable" and row.term in _changing(
        report, row.population, row.outcome, row.model
    )
    few = "events per parameter" in row.method
    marks = (_CHANGING if changing else "") + (_FEW_EVENTS if few else "")
    return f" {marks}" if marks else ""


def _marks_note(report: Report, rows: Sequence[Sequence[Cell | str]]) -> str:
    """Legend of the signs in these rows; begins with a space, empty without signs."""
    return marks_note(report, "".join(cell_text(item) for row in rows for item in row))


def marks_note(report: Report, text: str) -> str:
    """Legend of the signs in a text; begins with a space, empty without signs."""
    note = ""
    if _CHANGING in text:
        note += (
            f" {_CHANGING} The test of proportional hazards rejects for this term at "
            f"{_level(report):g}: its ratio changes with time and is an average over follow-up."
        )
    if _FEW_EVENTS in text:
        note += (
            f" {_FEW_EVENTS} Fewer than {EVENTS_PER_PARAMETER} events per parameter of the model: "
            "the estimate is unstable."
        )
    return note


def _assumption_note(report: Report, block: Block, source: str) -> str:
    """Events per parameter, and the test of proportional hazards of the adjusted model."""
    wanted = {"population": block.population, "outcome": block.outcome, "model": source}
    numbers, note = report.numbers, ""
    events = numbers.one("cox_multivariable", "events_per_parameter", **wanted)
    if events is not None and events.value is not None:
        note += f" Events per parameter of the adjusted model: {events.value:.1f}."
    whole = numbers.one("proportional_hazards", "chi2", **wanted, term="global")
    if whole is None or whole.p_value is None:
        return note
    rejects = whole.p_value < _level(report)
    p = "below 0.001" if whole.p_value < 0.001 else f"{whole.p_value:.3f}"
    return (
        f"{note} Proportional hazards, all terms together: p {p}{', rejected' if rejects else ''}."
    )


def _changing(
    report: Report, population: str | None, outcome: str | None, model: str | None
) -> set[str | None]:
    """Terms whose hazards are not proportional in a multivariable model."""
    rows = report.numbers.rows(
        "proportional_hazards", "chi2", population=population, outcome=outcome, model=model
    )
    return {row.term for row in rows if row.p_value is not None and row.p_value < _level(report)}


def _level(report: Report) -> float:
    return round(1 - report.plan.confidence, 10)


def _mark(row: Row | None) -> tuple[float, float | None, float | None] | None:
    if row is None or row.value is None:
        return None
    return row.value, row.ci_low, row.ci_high
