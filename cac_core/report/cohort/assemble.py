"""The whole report: sections in order, the page, and the files beside it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from cac_core.analysis.key_estimates import key_quantities
from cac_core.csv_text import csv_bytes
from cac_core.report.cohort import (
    added_value,
    agreement,
    architecture,
    certainty,
    checklists,
    description,
    hazard_ratios,
    methods,
    population,
    provenance,
    survival,
)
from cac_core.report.cohort.file_links import file_links
from cac_core.report.cohort.in_print import TABLE_DOCUMENTS, PrintedFigures, table_files
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.search_words import SYNONYMS
from cac_core.report.cohort.sections import ReportSection, cell_text
from cac_core.report.cohort.shown_estimates import Row
from cac_core.report.page import DataTable, Page, Section, render
from cac_core.report.pdf import to_pdf

_NO_FONT = (
    "Labels of {} figures have characters that no installed font has: their PNG shows a "
    "replacement sign. Install a font of that script, such as Noto Sans CJK, and report again."
)
ABBREVIATIONS = (
    "Abbreviations: AUC, area under the receiver operating characteristic curve; BMI, body mass "
    "index; CAC, coronary artery calcium; CI, confidence interval; CTAC, CT scan for attenuation "
    "correction; DL, deep learning; HR, hazard ratio; HU, Hounsfield units; ICC, intraclass "
    "correlation coefficient; IQR, interquartile range; KVP, peak kilovoltage of the X-ray tube; "
    "LR, likelihood ratio; LVEF, left ventricular ejection fraction; MACE, major adverse cardiac "
    "events; MI, myocardial infarction; NRI, net reclassification improvement; SD, standard "
    "deviation; TPD, total perfusion deficit."
)
Builder = Callable[[Report], ReportSection]
#: In the order of the page.
BUILDERS: tuple[Builder, ...] = (
    population.flow_section,
    description.table_1,
    description.outcome_table,
    description.training_table,
    agreement.concordance_section,
    agreement.scatter_section,
    agreement.visual_section,
    agreement.discrepancy_section,
    certainty.certainty_section,
    survival.follow_up_section,
    survival.survival_section,
    survival.incidence_section,
    hazard_ratios.hazard_section,
    hazard_ratios.secondary_section,
    hazard_ratios.sensitivity_section,
    hazard_ratios.assumptions_section,
    added_value.reclassification_section,
    added_value.calibration_section,
    population.acquisition_section,
    methods.methods_section,
    architecture.architecture_section,
    checklists.checklists_section,
    provenance.dictionary_section,
    provenance.provenance_section,
)


@dataclass(frozen=True)
class Assembled:
    """A finished report: content by file name, and what is missing by section.

    `warnings` are of the machine that made it.
    """

    files: Mapping[str, bytes]
    gaps: Mapping[str, Sequence[str]]
    tables: int
    figures: int
    warnings: Sequence[str] = ()


def assemble(report: Report, more: Sequence[Builder] = ()) -> Assembled:
    """All sections, the page, its PDF, and the files of tables and figures.

    The same report gives the same bytes.

    Parameters
    ----------
    more : builders of sections that need more than the tables of the analysis; they come last.
    """
    builders = (*BUILDERS, *more)
    built: dict[Builder, ReportSection] = {}
    # Checklists are built last, since they refer to sections with gaps.
    for builder in sorted(builders, key=lambda one: one is checklists.checklists_section):
        report.numbers.place = builder.__name__
        report.incomplete = [one.identifier for one in built.values() if one.gaps]
        section = builder(report)
        for shown in report.numbers.shown:
            if shown["in"] == builder.__name__:
                shown["in"] = section.identifier
        built[builder] = section
    sections = [built[builder] for builder in builders]
    report.numbers.place = "summary"
    gaps = {section.title: section.gaps for section in sections if section.gaps}
    values = {"sections": sections, "gaps": gaps, "tiles": tiles_of(report), "report": report,
              "table_documents": TABLE_DOCUMENTS, "synonyms": SYNONYMS,
              "abbreviations": ABBREVIATIONS}  # fmt: skip
    page = _page(report, sections)
    files = dict(_tables(report))
    files |= table_files(report, sections, page.title)
    for name, (svg, png) in report.figures.items():
        files[f"figures/{name}.svg"], files[f"figures/{name}.png"] = svg, png
    in_print = PrintedFigures(report)
    files |= in_print.files()
    links = file_links(files)
    screen = {"links": links, "narrow": in_print.slim}
    text = render("cohort.html.j2", page, printed=False, **screen, **values)
    files["index.html"] = text.encode()
    drawings = in_print.inline(sections)
    printed = render("cohort.html.j2", page, printed=True, drawings=drawings, **values)
    files["report.pdf"] = to_pdf(printed, page.title)
    files["numbers.json"] = _numbers(report)
    warnings = [_NO_FONT.format(len(report.without_font))] if report.without_font else []
    return Assembled(files, gaps, len(report.tables), len(report.figures), warnings)


def _page(report: Report, sections: Sequence[ReportSection]) -> Page:
    linked = [Section(section.identifier, section.title) for section in sections]
    return Page(
        "Coronary calcium and outcomes",
        "Cohort report",
        report.facts.subtitle,
        (Section("missing", "What is missing"), *linked),
    )


def tiles_of(report: Report) -> list[tuple[str, Markup]]:
    """Patients, events and the key estimates."""
    numbers, plan = report.numbers, report.plan
    population = report.populations[0]
    follow_up = numbers.one("follow_up", "median", population=population, outcome=plan.primary)
    patients = numbers.one("population", "count", population=population)
    outcome = report.outcome(plan.primary)
    tiles = [
        ("patients in the analysis", numbers.text(patients, "count")),
        (f"with {outcome}", numbers.text(follow_up, "count", "n_events")),
    ]
    for quantity in key_quantities(plan):
        row = numbers.one(quantity.analysis, quantity.statistic, **quantity.columns)
        # A model that could not be fitted has one row, with the reason, for all its numbers.
        row = row or numbers.why_not(quantity.analysis, **quantity.columns)
        style = {1: "one", 2: "two", 3: "three"}[quantity.decimals]
        text, marks, name = numbers.with_interval(row, style), "", quantity.name
        if quantity.analysis == "follow_up":
            text, name = _with_quartiles(report, row), f"{name} (IQR)"
        elif "outcome" in quantity.columns:
            name = f"{name}, for {outcome}"
        if quantity.statistic == "hazard_ratio":
            marks = hazard_ratios.ratio_marks(report, row)
        note = hazard_ratios.marks_note(report, marks)
        tiles.append((f"{name}.{note}" if note else name, text + marks))
    return tiles


def _with_quartiles(report: Report, median: Row | None) -> Markup:
    """Median follow-up with its quartiles."""
    if median is None or median.value is None:
        return report.numbers.text(median, "two")
    wanted = {"population": median.population, "outcome": median.outcome}
    ends = (report.numbers.one("follow_up", name, **wanted) for name in ("q1", "q3"))
    return Markup("{} ({} to {})").format(
        report.numbers.text(median, "two"), *(report.numbers.text(end, "two") for end in ends)
    )


def _tables(report: Report) -> Iterator[tuple[str, bytes]]:
    """Each table as it is shown, and the estimates in full precision."""
    for name, table in report.tables.items():
        yield from _both(name, _as_arrow(table))
    rows = pa.array(range(report.numbers.table.num_rows), pa.int64())
    yield from _both("estimates", report.numbers.table.add_column(0, "row", rows))


def _as_arrow(table: DataTable) -> pa.Table:
    names: list[str] = []
    for at, column in enumerate(table.columns):
        name = cell_text(column.title)
        # A second column of p values is named by the column before it.
        names.append(
            name if name not in names else f"{name} ({cell_text(table.columns[at - 1].title)})"
        )
    cells = [[cell_text(item).strip("\N{EM SPACE}") for item in row] for row in table.rows]
    columns = [[row[at] for row in cells] for at in range(len(names))]
    return pa.table([pa.array(column, pa.string()) for column in columns], names=names)


def _both(name: str, table: pa.Table) -> Iterator[tuple[str, bytes]]:
    parquet = io.BytesIO()
    pq.write_table(table, parquet, compression="zstd")
    yield f"tables/{name}.csv", csv_bytes(table)
    yield f"tables/{name}.parquet", parquet.getvalue()


def _numbers(report: Report) -> bytes:
    """Every number that is shown, with its row of `estimates`."""
    digest = hashlib.sha256()
    for batch in report.numbers.table.to_batches():
        digest.update(json.dumps(batch.to_pylist(), sort_keys=True).encode())
    listed = []
    for shown in report.numbers.shown:
        row = report.numbers.row(shown["row"])
        listed.append(shown | {"of": _identity(row), "number": getattr(row, shown["column"])})
    value: dict[str, Any] = {
        "estimates": {"rows": report.numbers.table.num_rows, "sha256": digest.hexdigest()},
        "numbers": listed,
    }
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _identity(row: Row) -> dict[str, Any]:
    names = ("analysis", "population", "outcome", "model", "term", "level", "statistic", "at")
    return {name: getattr(row, name) for name in names if getattr(row, name) is not None}
