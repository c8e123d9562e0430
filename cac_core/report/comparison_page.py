"""The page of a comparison of two runs, and the files beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import pyarrow as pa

from cac_core.csv_text import csv_bytes
from cac_core.report.comparison import (
    Comparison,
    CountPair,
    EstimatePair,
    ScoreShift,
    SettingPair,
    summarise,
)
from cac_core.report.figures import ratios_figure, scores_figure
from cac_core.report.page import (
    Cell,
    DataTable,
    FigureView,
    Links,
    Part,
    columns,
    number,
    render_parts,
)
from cac_core.report.svg import drawn
from schemas.codes import CAC_CATEGORIES, Status

#: Rows shown on the page; the CSV files have all.
_SHOWN = 500
_DRAWN_RATIOS = 20


def comparison_files(found: Comparison) -> dict[str, bytes]:
    """The page, `comparison.json` and the tables as CSV, by file name; same input, same bytes."""
    summary = asdict(summarise(found))
    del summary["page"]  # where the files are is not part of them
    files = {
        "index.html": comparison_page(found).encode(),
        "comparison.json": (json.dumps(summary, indent=1, sort_keys=True) + "\n").encode(),
    }
    tables: tuple[tuple[str, Sequence[ScoreShift | EstimatePair | CountPair | SettingPair]], ...]
    tables = (
        ("shifts", found.shifts),
        ("estimates", found.estimates),
        ("flow", found.flow),
        ("settings", found.settings),
    )
    for name, rows in tables:
        if rows:
            table = pa.Table.from_pylist([asdict(row) for row in rows])
            files[f"tables/{name}.csv"] = csv_bytes(table)
    return files


def comparison_page(found: Comparison) -> str:
    """The page as HTML, one self-contained file."""
    summary = summarise(found)
    tiles = [
        ("studies in both runs", f"{summary.studies_in_both:,}"),
        ("with another category or status", f"{summary.category_changed:,}"),
        ("gone, new", f"{found.gone:,}, {found.added:,}"),
        ("estimates that differ", f"{summary.estimates_changed:,}"),
        ("intervals that do not overlap", f"{summary.estimates_apart:,}"),
    ]
    parts = (_score_part(found), _estimate_part(found), _flow_part(found), _setting_part(found))
    return render_parts(
        "What changed between two runs",
        "Coronary calcium",
        f"old: {found.old}; new: {found.new}",
        parts,
        tiles,
        "Studies are identified by keys; the CSV tables beside this page have every row.",
        partial(_files, found),
    )


def _files(found: Comparison, identifier: str) -> Links:
    """The CSV file behind a table of the page, if it has rows."""
    name, rows = {
        "shifts": ("shifts", found.shifts),
        "estimates-table": ("estimates", found.estimates),
        "flow-table": ("flow", found.flow),
        "facts": ("settings", found.settings),
    }.get(identifier, ("", ()))
    return (("CSV", f"tables/{name}.csv"),) if rows else ()


def _score_part(found: Comparison) -> Part:
    if "scores" in found.gaps:
        return Part("scores", "Scores", missing=found.gaps["scores"])
    states = [*map(str, CAC_CATEGORIES), Status.REJECTED.value, Status.FAILED.value]
    used = [s for s in states if any(s in pair for pair in found.matrix)]
    matrix = DataTable(
        "matrix",
        "Studies by old (rows) and new category (columns)",
        columns(("old",), used),
        [[one, *(number(found.matrix.get((one, other), 0)) for other in used)] for one in used],
        sortable=False,
    )
    figure = None
    if found.pairs:
        figure = drawn(
            "scores",
            "Each point is a study that both runs scored; dotted lines are category limits.",
            f"{len(found.pairs)} studies, new score against old; points on the line are unchanged.",
            scores_figure(found.pairs),
        )
    return Part("scores", "Scores", figure=figure, tables=(matrix, _shift_table(found)))


def _shift_table(found: Comparison) -> DataTable:
    return DataTable(
        "shifts",
        "Studies whose score changed: gained or lost first, then the largest changes",
        columns(("study", "old", "new", "why"), ("old score", "new score", "difference")),
        [
            [
                Cell(row.study_key),
                _with_reason(row.old, row.old_reason),
                _with_reason(row.new, row.new_reason),
                row.why,
                number(row.old_agatston, 1),
                number(row.new_agatston, 1),
                number(row.difference, 1),
            ]
            for row in found.shifts[:_SHOWN]
        ],
        filterable=True,
        note=_note(len(found.shifts), "tables/shifts.csv"),
        empty="No score changed.",
    )


def _with_reason(state: str, reason: str | None) -> str:
    return f"{state}: {_words(reason)}" if reason else state


def _words(name: str | None) -> str:
    """A name of a column or code with spaces; the CSV tables have it as it is."""
    return (name or "").replace("_", " ")


def _note(rows: int, file: str) -> str:
    return f"The first {_SHOWN} of {rows:,}; all are in {file}." if rows > _SHOWN else ""


def _estimate_part(found: Comparison) -> Part:
    if "estimates" in found.gaps:
        return Part("estimates", "Estimates", missing=found.gaps["estimates"])
    only = DataTable(
        "unmatched",
        "Rows that only one run has",
        columns(("analysis", "run"), ("rows",)),
        [
            [_words(name), side, number(count)]
            for (name, side), count in sorted(found.unmatched.items())
        ],
    )
    figure = _ratio_figure(found.estimates)
    return Part("estimates", "Estimates", figure=figure, tables=(_estimate_table(found), only))


def _estimate_table(found: Comparison) -> DataTable:
    differing = [row for row in found.estimates if row.difference != 0]
    differing.sort(key=lambda row: row.intervals != "apart")
    names = ("analysis", "population", "outcome", "model", "term", "level", "statistic")
    return DataTable(
        "estimates-table",
        "Estimates that differ, those whose intervals do not overlap first",
        columns((*names, "intervals"), ("at", "old", "new", "difference")),
        [
            [
                *(_words(getattr(row, name)) for name in names),
                row.intervals,
                number(row.at, 1),
                number(row.old_value, 3),
                number(row.new_value, 3),
                number(row.difference, 3),
            ]
            for row in differing[:_SHOWN]
        ],
        filterable=True,
        note=_note(len(differing), "tables/estimates.csv"),
        empty="All estimates are the same.",
    )


def _ratio_figure(estimates: Sequence[EstimatePair]) -> FigureView | None:
    """Adjusted hazard ratios of the first population and outcome in both runs."""
    ratios = [
        row
        for row in estimates
        if row.analysis == "cox_multivariable"
        and row.statistic == "hazard_ratio"
        and row.intervals
        and row.model == "dl"
    ]
    if not ratios:
        return None
    first = ratios[0]
    pairs = [
        (
            " ".join(filter(None, (_words(row.term), row.level))),
            _ratio(row.old_value, row.old_ci_low, row.old_ci_high),
            _ratio(row.new_value, row.new_ci_low, row.new_ci_high),
        )
        for row in ratios
        if (row.population, row.outcome) == (first.population, first.outcome)
    ][:_DRAWN_RATIOS]
    return drawn(
        "ratios",
        f"Adjusted hazard ratios for {_words(first.outcome)}, with DL CAC, in both runs.",
        f"{len(pairs)} hazard ratios with intervals, old and new; the table has the numbers.",
        ratios_figure(pairs),
    )


def _ratio(*parts: float | None) -> tuple[float, float, float]:
    value, low, high = (float("nan") if part is None else part for part in parts)
    return value, low, high


def _flow_part(found: Comparison) -> Part:
    if not found.flow:
        return Part("flow", "Cohort flow", missing="Neither run is linked with a registry.")
    table = DataTable(
        "flow-table",
        "Patients at each step",
        columns(("step",), ("old", "new")),
        [[row.name, number(row.old), number(row.new)] for row in found.flow],
        sortable=False,
    )
    return Part("flow", "Cohort flow", tables=(table,))


def _setting_part(found: Comparison) -> Part:
    table = DataTable(
        "facts",
        "Settings and versions that differ",
        columns(("what", "old", "new")),
        [[row.name, row.old or "", row.new or ""] for row in found.settings],
        empty="None differ.",
    )
    return Part("settings", "Settings and versions", tables=(table,))
