"""Sections of the added value of calcium: reclassification, discrimination, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection, slug
from cac_core.report.cohort.shown_estimates import Row, plain
from cac_core.report.figures.performance import (
    Moves,
    Series,
    calibration_figure,
    decision_figure,
    reclassification_figure,
)
from cac_core.report.page import Cell, Column, DataTable

_GAINS = (
    ("lr_chi2_gain", "Increase in LR chi-square", "one"),
    ("auc_base", "AUC over all follow-up, without CAC", "three"),
    ("auc_full", "AUC over all follow-up, with CAC", "three"),
    ("auc_gain", "Increase in AUC over all follow-up", "three"),
    ("auc_time_gain", "Increase in AUC at the horizon, weighted for censoring", "three"),
    ("harrell_c_gain", "Increase in Harrell's c", "three"),
    ("uno_c_gain", "Increase in Uno's c", "three"),
    ("nri_event", "Event NRI", "three"),
    ("nri_nonevent", "Non-event NRI", "three"),
    ("nri", "Overall NRI", "three"),
    ("idi", "Integrated discrimination improvement", "three"),
)
_CORRECTED = (
    *(one for one in _GAINS if one[0].startswith(("auc", "nri"))),
    *((f"harrell_c_{part}", f"Harrell's c {word}", "three")
      for part, word in (("base", "without CAC"), ("full", "with CAC"), ("gain", "increase"))),
    ("uno_c_gain", "Increase in Uno's c", "three"),
)  # fmt: skip
_AUC_NOTE = (
    "AUC over all follow-up, as in the paper: event or none by the end of each patient's "
    "follow-up, without regard to its length, intervals by DeLong. AUC at the horizon: event by "
    "then, weighted for censoring, intervals by resampling."
)
_FORMS = (
    ("", "Kaplan-Meier form, category-free"),
    ("_fixed", "the same; interval from models that are not fitted again in each resample"),
    ("_ipw", "weighted for censoring, category-free"),
    ("_count", "counts over all follow-up, category-free"),
    ("_categorical", "Kaplan-Meier form, {}"),
)
_PARTS = (("nri_event", "Event"), ("nri_nonevent", "Non-event"), ("nri", "Overall"))
_PITFALLS = (
    "The p value of an added marker is that of the likelihood-ratio test. An interval of the net "
    "reclassification that excludes zero is not a test: for a marker of pure noise it does so in "
    "about a quarter of cohorts, because its value is above zero on average.",
    "Event and non-event components are net fractions, not shares of patients who are classified "
    "correctly (Kerr 2014, Leening 2014); their sum has no unit. A miscalibration of a few percent "
    "changes the split between the components, not their sum.",
    "Absolute risks at the horizon are compared, in the patients the models were fitted in; models "
    "are refitted in each resample. The paper does not state its horizon.",
)


def reclassification_section(report: Report) -> ReportSection:
    """Gains by the calcium of each source, and differences between sources."""
    section = ReportSection(
        "figure-5",
        "What CAC adds to the model (Figure 5, Supplemental Table 6)",
        only=report.outcome(report.plan.primary),
    )
    for population in report.populations:
        block = Block(report.outcome(report.plan.primary), population)
        section.blocks.append(block)
        _moves(report, block)
        _gain_table(report, block)
        _corrected_table(report, block)
        _form_table(report, block)
        _move_table(report, block)
        _difference_table(report, block)
        for text in _PITFALLS:
            block.say("{}", text)
    return section


def calibration_section(report: Report) -> ReportSection:
    """Calibration at the horizon and decision curves."""
    section = ReportSection(
        "calibration",
        "Calibration and decision curves",
        only=report.outcome(report.plan.primary),
    )
    for population in report.populations:
        block = Block(report.outcome(report.plan.primary), population)
        section.blocks.append(block)
        _calibration(report, block)
        _decisions(report, block)
    return section


def _row(report: Report, block: Block, source: str, statistic: str) -> Row | None:
    return report.numbers.one(
        "added_value", statistic, population=block.population, outcome=report.plan.primary,
        model=source,
    )  # fmt: skip


def _moves(report: Report, block: Block) -> None:
    moves = []
    for source in report.plan.sources:
        shares = [
            _row(report, block, source, f"p_{way}_{who}")
            for who in ("event", "nonevent")
            for way in ("up", "down")
        ]
        net = [_row(report, block, source, statistic) for statistic, _ in _PARTS]
        values = [row.value for row in shares if row is not None and row.value is not None]
        nets = [
            (row.value, row.ci_low, row.ci_high)
            for row in net
            if row is not None and row.value is not None
        ]
        if len(values) < len(shares) or len(nets) < len(net):
            why = report.reasons([_row(report, block, source, "lr_chi2_gain"), *net])
            block.missing([f"{report.label(source)}: {one}" for one in why]
                          or [f"{report.label(source)}: nothing was estimated"])  # fmt: skip
            continue
        up, down, up_without, down_without = values
        moves.append(Moves(report.label(source), up, down, up_without, down_without, nets))
    if moves:
        view = report.keep_figure(
            slug("figure-reclassification", report.population_suffix(str(block.population))),
            reclassification_figure(moves),
            f"Patients whose predicted {report.plan.horizon_years:g}-year risk rises or falls when "
            "CAC is added to the model, and the net reclassification with its interval.",
            f"Reclassification of patients with and without {report.outcome(report.plan.primary)} "
            f"by each reading of CAC. {_net_in_words(report, block)}",
            None,
        )
        block.draw(view)


def _gain_table(report: Report, block: Block) -> None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for source in report.plan.sources:
        for statistic, label, style in _GAINS:
            row = _row(report, block, source, statistic)
            if row is not None and (row.value is not None or not row.reason):
                tested = statistic == "lr_chi2_gain"
                rows.append([report.label(source), label, numbers.interval_cell(row, style),
                             numbers.p_cell(row) if tested else ""])  # fmt: skip
    _keep(
        report, block, "table-s6", "Gains by adding CAC to the covariates",
        (Column("Reading"), Column("Measure"), Column(f"Value ({report.ci})", True),
         Column("p", True)),
        rows, note=_AUC_NOTE,
    )  # fmt: skip


def _corrected_table(report: Report, block: Block) -> None:
    """Apparent values and those corrected for optimism, if the plan asks for them."""
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for source in report.plan.sources:
        for statistic, label, style in _CORRECTED:
            fixed = _row(report, block, source, f"{statistic}_corrected")
            if fixed is not None:
                apparent = _row(report, block, source, statistic)
                rows.append([report.label(source), label, numbers.cell(apparent, style),
                             numbers.cell(fixed, style)])  # fmt: skip
    _keep(
        report, block, "optimism", "Discrimination and reclassification corrected for optimism",
        (Column("Reading"), Column("Measure"), Column("Apparent", True),
         Column("Corrected (bootstrap, Harrell)", True)),
        rows,
    )  # fmt: skip


def _form_table(report: Report, block: Block) -> None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for source in report.plan.sources:
        for suffix, label in _FORMS:
            cells = [
                numbers.interval_cell(_row(report, block, source, f"{name}{suffix}"), "three")
                for name, _ in _PARTS
            ]
            if any(cell.sort != "" for cell in cells):
                form = label.format(_risk_categories(report))
                rows.append([report.label(source), form, *cells])
    _keep(
        report, block, "nri-forms", "Net reclassification in each of its forms",
        (Column("Reading"), Column("Form"), *(Column(name, True) for _, name in _PARTS)), rows,
        "Show all forms of the net reclassification",
    )  # fmt: skip


def _risk_categories(report: Report) -> str:
    """The categories of risk of the plan, with their limits."""
    cuts = [f"{100 * cut:g} %" for cut in report.plan.risk_cuts]
    if not cuts:
        return "categories of risk"
    between = [f"{low} to below {high}" for low, high in pairwise(cuts)]
    parts = [f"below {cuts[0]}", *between, f"{cuts[-1]} and above"]
    return f"categories of {report.plan.horizon_years:g}-year risk: {', '.join(parts)}"


def _move_table(report: Report, block: Block) -> None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for source in report.plan.sources:
        for way, word in (("up", "rises"), ("down", "falls")):
            count = _row(report, block, source, f"n_{way}")
            if count is None:
                continue
            rows.append([report.label(source), word, numbers.cell(count, "count"),
                         numbers.cell(count, "count", "n_events"),
                         *(numbers.cell(_row(report, block, source, f"p_{way}_{who}"), "percent")
                           for who in ("event", "nonevent"))])  # fmt: skip
    _keep(
        report, block, "reclassified", "Patients whose predicted risk rises or falls with CAC",
        (Column("Reading"), Column("Risk"), Column("Patients", True), Column("with event", True),
         Column("of those with event, %", True), Column("of those without, %", True)),
        rows,
        note=f"Counts are over all follow-up. Shares are of patients with and without the event by "
        f"{report.plan.horizon_years:g} years, estimated by Kaplan-Meier (Pencina 2011), and so "
        "are not ratios of the counts.",
    )  # fmt: skip


def _difference_table(report: Report, block: Block) -> None:
    numbers = report.numbers
    rows: list[list[Cell | str]] = []
    for first, second in report.plan.compare:
        for statistic, label, style in _GAINS:
            row = numbers.one(
                "added_value_difference", statistic, population=block.population,
                outcome=report.plan.primary, model=f"{first}:{second}",
            )  # fmt: skip
            if row is not None and row.value is not None:
                rows.append([f"{report.label(first)} less {report.label(second)}", label,
                             numbers.interval_cell(row, style)])  # fmt: skip
    _keep(
        report, block, "gain-differences", "Differences between readings, paired resamples",
        (Column("Readings"), Column("Measure"), Column(f"Difference ({report.ci})", True)), rows,
        "Show differences between readings",
    )  # fmt: skip


def _keep(
    report: Report, block: Block, name: str, caption: str, columns: tuple[Column, ...],
    rows: Sequence[Sequence[Cell | str]], summary: str = "", note: str = "",
) -> None:  # fmt: skip
    if rows:
        identifier = slug(name, report.population_suffix(str(block.population)))
        table = DataTable(identifier, caption, columns, rows, note=note)
        block.add(report.keep_table(table), summary)


def _models(report: Report) -> tuple[str, ...]:
    return ("base", *report.plan.sources)


def _calibration(report: Report, block: Block) -> None:
    years, suffix = report.plan.horizon_years, report.population_suffix(str(block.population))
    series: list[Series] = []
    groups: list[list[Cell | str]] = []
    whole: list[list[Cell | str]] = []
    for model in _models(report):
        good = _groups_of_risk(report, block, model)
        if good:
            series.append(_with_limits(report.label(model), good))
        groups += [_group_line(report, row) for row in good]
        whole += _whole_line(report, block, model)
    if not series:
        return
    table = DataTable(
        slug("calibration-groups", suffix),
        f"Predicted and observed {years:g}-year risk in groups of predicted risk, %",
        (Column("Model"), Column("Group"), Column("Patients", True),
         Column(f"Events by {years:g} years", True), Column("Predicted", True),
         Column(f"Observed ({report.ci})", True)),
        groups,
    )  # fmt: skip
    figure = report.keep_figure(
        slug("figure-calibration", suffix),
        calibration_figure(series, years),
        f"Observed against predicted {years:g}-year risk in groups of patients; the line is "
        "perfect calibration. Apparent: in the patients the models were fitted in.",
        f"Calibration of the {years:g}-year risk of {report.outcome(report.plan.primary)}. "
        f"{_ratios_in_words(report, block)}",
        table,
    )
    block.draw(figure)
    _keep(
        report, block, "calibration-whole", "Calibration as a whole",
        (Column("Model"), Column(f"Observed / expected ({report.ci})", True),
         Column(f"Brier score ({report.ci})", True), Column("Scaled Brier score, %", True)),
        whole,
    )  # fmt: skip


def _net_in_words(report: Report, block: Block) -> str:
    """Patients, events and net reclassification of each reading, for a text alternative."""
    numbers, said = report.numbers, []
    for source in report.plan.sources:
        row = _row(report, block, source, "nri")
        if row is not None and row.value is not None:
            n, events = (plain(numbers.text(row, "count", name)) for name in ("n", "n_events"))
            net = plain(numbers.with_interval(row, "three"))
            said.append(f"{report.label(source)}, {n} patients, {events} events: overall {net}")
    return f"{'; '.join(said)}." if said else ""


def _ratios_in_words(report: Report, block: Block) -> str:
    """Observed over expected risk of each model, for a text alternative."""
    numbers, said = report.numbers, []
    for model in _models(report):
        row = numbers.one(
            "calibration", "observed_expected", population=block.population, model=model
        )
        if row is not None and row.value is not None:
            n, events = (plain(numbers.text(row, "count", name)) for name in ("n", "n_events"))
            ratio = plain(numbers.with_interval(row, "two"))
            said.append(
                f"{report.label(model)}, {n} patients, {events} events: observed over expected "
                f"{ratio}"
            )
    return f"{'; '.join(said)}." if said else ""


def _groups_of_risk(report: Report, block: Block, model: str) -> list[Row]:
    """Groups of predicted risk with an observed risk; reasons of the others become gaps."""
    rows = report.numbers.rows(
        "calibration", "observed_risk", population=block.population, model=model
    )
    block.missing([f"{report.label(model)}: {why}" for why in report.reasons(rows)])
    return [row for row in rows if row.value is not None and row.at is not None]


def _group_line(report: Report, row: Row) -> list[Cell | str]:
    numbers = report.numbers
    return [report.label(str(row.model)), str(row.level), numbers.cell(row, "count", "n"),
            numbers.cell(row, "count", "n_events"), numbers.cell(row, "percent", "at"),
            numbers.interval_cell(row, "percent")]  # fmt: skip


def _whole_line(report: Report, block: Block, model: str) -> list[list[Cell | str]]:
    """Observed over expected and Brier score of a model; empty without them."""
    numbers = report.numbers
    ratio, brier, scaled = (
        numbers.one("calibration", name, population=block.population, model=model)
        for name in ("observed_expected", "brier", "brier_scaled")
    )
    if not (ratio or brier or scaled):
        return []
    return [[report.label(model), numbers.interval_cell(ratio, "two"),
             numbers.interval_cell(brier, "three"), numbers.cell(scaled, "percent")]]  # fmt: skip


def _with_limits(label: str, rows: Sequence[Row]) -> Series:
    """Values over `at`; limits equal the value where it has none."""
    values = [row.value or 0.0 for row in rows]
    low, high = (
        [value if limit is None else limit for value, limit in zip(values, limits, strict=True)]
        for limits in ([row.ci_low for row in rows], [row.ci_high for row in rows])
    )
    return Series(label, [row.at or 0.0 for row in rows], values, low, high)


def _decisions(report: Report, block: Block) -> None:
    numbers, years = report.numbers, report.plan.horizon_years
    series = []
    cells: list[list[Cell | str]] = []
    names = {"all": "Treat all", "none": "Treat none"}
    for model in (*_models(report), "all", "none"):
        rows = numbers.rows(
            "decision_curve", "net_benefit", population=block.population, model=model
        )
        block.missing(
            [f"decision curve, {report.label(model)}: {why}" for why in report.reasons(rows)]
        )
        good = [row for row in rows if row.value is not None and row.at is not None]
        label = names.get(model) or report.label(model)
        if good:
            series.append(
                Series(label, [row.at or 0.0 for row in good], [row.value or 0.0 for row in good])
            )
        cells += [
            [label, numbers.cell(row, "percent", "at"), numbers.cell(row, "four")] for row in good
        ]
    if not series:
        return
    table = DataTable(
        slug("decision-table", report.population_suffix(str(block.population))),
        f"Net benefit by threshold of {years:g}-year risk",
        (Column("Model"), Column("Threshold, %", True), Column("Net benefit", True)),
        cells,
    )
    named = ", ".join(one.label for one in series)
    view = report.keep_figure(
        slug("figure-decision", report.population_suffix(str(block.population))),
        decision_figure(series, years),
        f"Decision curves: net benefit of treating above a threshold of {years:g}-year risk, "
        "allowing for censoring (Vickers 2008).",
        f"Decision curves for {report.outcome(report.plan.primary)}: {named}; net benefit by "
        f"threshold of {years:g}-year risk.",
        table,
    )
    block.draw(view)
