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

from cac_core.analysis.headline import asked_first
from cac_core.csv_text import csv_bytes
from cac_core.report.cohort import (
    added_value,
    agreement,
    architecture,
    checklists,
    methods,
    models,
    outcomes,
    population,
    reference,
)
from cac_core.report.cohort.blocks import Report, ReportSection, cell_text
from cac_core.report.cohort.numbers import Row
from cac_core.report.page import DataTable, Page, Section, render
from cac_core.report.pdf import to_pdf

Builder = Callable[[Report], ReportSection]
#: In the order of the page.
BUILDERS: tuple[Builder, ...] = (
    population.flow_section,
    population.table_1,
    population.outcome_table,
    population.training_table,
    agreement.concordance_section,
    agreement.scatter_section,
    agreement.visual_section,
    agreement.discrepancy_section,
    outcomes.follow_up_section,
    outcomes.survival_section,
    outcomes.incidence_section,
    models.hazard_section,
    models.secondary_section,
    models.sensitivity_section,
    models.assumptions_section,
    added_value.reclassification_section,
    added_value.calibration_section,
    population.acquisition_section,
    methods.methods_section,
    architecture.architecture_section,
    checklists.checklists_section,
    reference.dictionary_section,
    reference.provenance_section,
)


@dataclass(frozen=True)
class Assembled:
    """A finished report: file name to content, and what is missing in it by section."""

    files: Mapping[str, bytes]
    gaps: Mapping[str, Sequence[str]]
    tables: int
    figures: int


def assemble(report: Report, more: Sequence[Builder] = ()) -> Assembled:
    """Every section, the page, its PDF, and the folder of tables and figures.

    The same report gives the same bytes.

    Parameters
    ----------
    more : builders of sections that need more than the tables of the analysis; they come last.
    """
    builders = (*BUILDERS, *more)
    built: dict[Builder, ReportSection] = {}
    # The checklists come after all else: they say of an answer that its section has gaps.
    for builder in sorted(builders, key=lambda one: one is checklists.checklists_section):
        report.numbers.place = builder.__name__
        report.facts["incomplete"] = [one.identifier for one in built.values() if one.gaps]
        section = builder(report)
        for shown in report.numbers.shown:
            if shown["in"] == builder.__name__:
                shown["in"] = section.identifier
        built[builder] = section
    sections = [built[builder] for builder in builders]
    report.numbers.place = "summary"
    gaps = {section.title: section.gaps for section in sections if section.gaps}
    values = {"sections": sections, "gaps": gaps, "tiles": _tiles(report), "report": report}
    page = _page(report, sections)
    files = dict(_tables(report))
    for name, (svg, png) in report.figures.items():
        files[f"figures/{name}.svg"], files[f"figures/{name}.png"] = svg, png
    files["index.html"] = render("cohort.html.j2", page, printed=False, **values).encode()
    printed = render("cohort.html.j2", page, printed=True, **values)
    files["report.pdf"] = to_pdf(printed, page.title)
    files["numbers.json"] = _numbers(report)
    return Assembled(files, gaps, len(report.tables), len(report.figures))


def _page(report: Report, sections: Sequence[ReportSection]) -> Page:
    linked = [Section(section.identifier, section.title) for section in sections]
    return Page(
        "Coronary calcium and outcomes",
        "Cohort report",
        str(report.facts.get("subtitle", "")),
        (Section("missing", "What is missing"), *linked),
    )


def _tiles(report: Report) -> list[tuple[str, Markup]]:
    """Who is in it, and the numbers asked first."""
    numbers, plan = report.numbers, report.plan
    population = report.populations[0]
    follow_up = numbers.one("follow_up", "median", population=population, outcome=plan.primary)
    patients = numbers.one("population", "count", population=population)
    tiles = [
        ("patients in the analysis", numbers.text(patients, "count")),
        (f"with {report.outcome(plan.primary)}", numbers.text(follow_up, "count", "n_events")),
    ]
    for asked in asked_first(plan):
        row = numbers.one(asked.analysis, asked.statistic, **asked.columns)
        # What a model could not be fitted for has one row for all that was asked of it.
        row = row or numbers.why_not(asked.analysis, **asked.columns)
        style = "one" if asked.statistic == "lr_chi2_gain" else "two"
        text = numbers.with_interval(row, style)
        marks = models.ratio_marks(report, row) if asked.statistic == "hazard_ratio" else ""
        told = models.marks_told(report, marks)
        tiles.append((f"{asked.name}.{told}" if told else asked.name, text + marks))
    return tiles


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
        # Two columns of p values are told apart by what stands before them.
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
    """Every number that is shown, with the row it comes from."""
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
