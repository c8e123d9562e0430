"""What changed between two runs: scores study by study, estimates row by row, and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cac_core.csv_text import csv_bytes
from cac_core.report.figures import ratios_figure, scores_figure
from cac_core.report.page import (
    Cell,
    DataTable,
    Part,
    columns,
    number,
    render_parts,
)
from cac_core.report.svg import drawn
from schemas.codes import CAC_CATEGORIES, Status

Row = Mapping[str, Any]
#: What makes a row of `estimates` one row.
KEY = ("analysis", "population", "outcome", "model", "term", "level", "statistic", "at")
#: Columns of a score row that explain another score, with the words for it.
REASONS = {
    "model_digest": "another model",
    "protocol_digest": "another protocol",
    "core_version": "another version of the program",
    "instances_digest": "other files of the series",
}
UNEXPLAINED = "no recorded reason"
#: Rows of the page; the tables beside it hold all.
_SHOWN = 500
_DRAWN_RATIOS = 20


@dataclass(frozen=True)
class Run:
    """One side: its scores (latest row per study), estimates, flow, and what made them."""

    name: str
    scores: pa.Table
    estimates: pa.Table | None = None
    flow: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """What differs; rows are plain dictionaries, ready for print, CSV and JSON.

    `matrix` counts studies by old and new category (or status where there is no score); `gone` and
    `added` count studies that only one run has. `estimates` holds every row that both have;
    `unmatched` counts the others by analysis and side.
    """

    old: str
    new: str
    matrix: dict[tuple[str, str], int]
    shifts: list[dict[str, Any]]
    pairs: list[tuple[float, float]]
    gone: int
    added: int
    estimates: list[dict[str, Any]]
    unmatched: dict[tuple[str, str], int]
    flow: list[dict[str, Any]]
    facts: list[dict[str, Any]]
    gaps: dict[str, str]


def compare_runs(old: Run, new: Run) -> Comparison:
    """Compare two runs; studies are matched by `study_key`, estimates by their whole identity."""
    before, after = _by_study(old.scores), _by_study(new.scores)
    both = [key for key in before if key in after]
    gaps = {}
    if not both:
        gaps["scores"] = "The runs have no study in common."
    matrix = Counter((_state(before[key]), _state(after[key])) for key in both)
    shifts = [_shift(before[key], after[key]) for key in both if _changed(before[key], after[key])]
    shifts.sort(key=_by_size)
    scored = [k for k in both if _scored(before[k]) and _scored(after[k])]
    matched: list[dict[str, Any]] = []
    unmatched: Counter[tuple[str, str]] = Counter()
    if old.estimates is None or new.estimates is None:
        lacking = [run.name for run in (old, new) if run.estimates is None]
        gaps["estimates"] = f"No estimates of {' and '.join(lacking)}: run cac analyse there."
    else:
        matched, unmatched = _estimates(old.estimates, new.estimates)
    return Comparison(
        old.name,
        new.name,
        dict(matrix),
        shifts,
        [(before[k]["agatston"], after[k]["agatston"]) for k in scored],
        len(before) - len(both),
        len(after) - len(both),
        matched,
        dict(unmatched),
        _side_by_side(old.flow, new.flow),
        [row for row in _side_by_side(old.facts, new.facts) if row["old"] != row["new"]],
        gaps,
    )


def comparison_files(found: Comparison) -> dict[str, bytes]:
    """The page, `comparison.json` and the tables as CSV, by file name; same input, same bytes."""
    summary = summarise(found)
    files = {
        "index.html": comparison_page(found).encode(),
        "comparison.json": (json.dumps(summary, indent=1, sort_keys=True) + "\n").encode(),
    }
    for name, rows in (
        ("shifts", found.shifts),
        ("estimates", found.estimates),
        ("flow", found.flow),
        ("settings", found.facts),
    ):
        if rows:
            files[f"tables/{name}.csv"] = csv_bytes(pa.Table.from_pylist(rows))
    return files


def summarise(found: Comparison) -> dict[str, Any]:
    """The counts of a comparison, for programs."""
    moved = sum(count for (a, b), count in found.matrix.items() if a != b)
    return {
        "old": found.old,
        "new": found.new,
        "studies_in_both": sum(found.matrix.values()),
        "studies_gone": found.gone,
        "studies_added": found.added,
        "category_changed": moved,
        "score_changed": len(found.shifts),
        "reasons": dict(Counter(row["why"] for row in found.shifts)),
        "estimates_in_both": len(found.estimates),
        "estimates_changed": sum(row["difference"] != 0 for row in found.estimates),
        "estimates_apart": sum(row["intervals"] == "apart" for row in found.estimates),
        "estimates_unmatched": sum(found.unmatched.values()),
        "gaps": dict(found.gaps),
    }


def comparison_page(found: Comparison) -> str:
    """The page as HTML, one self-contained file."""
    told = summarise(found)
    tiles = [
        ("studies in both runs", f"{told['studies_in_both']:,}"),
        ("in another category, or scored or not now", f"{told['category_changed']:,}"),
        ("gone, new", f"{found.gone:,}, {found.added:,}"),
        ("estimates that differ", f"{told['estimates_changed']:,}"),
        ("intervals that do not overlap", f"{told['estimates_apart']:,}"),
    ]
    parts = (_score_part(found), _estimate_part(found), _flow_part(found), _fact_part(found))
    return render_parts(
        "What changed between two runs",
        "Coronary calcium",
        f"old: {found.old}; new: {found.new}",
        parts,
        tiles,
        "Studies appear under their keys; the tables beside this page hold every row.",
    )


def _by_study(scores: pa.Table) -> dict[str, Row]:
    """The newest row of each study, in the order of their keys."""
    rows = sorted(scores.to_pylist(), key=lambda r: (r["study_key"], r["scored_at"]))
    return {row["study_key"]: row for row in rows}


def _scored(row: Row) -> bool:
    return bool(row["status"] == Status.SCORED.value)


def _state(row: Row) -> str:
    """Category of a scored study, else its status."""
    return str(row["cac_category"] if _scored(row) else row["status"])


def _changed(old: Row, new: Row) -> bool:
    return any(old[n] != new[n] for n in ("status", "reason", "agatston", "cac_category"))


def _by_size(shift: Row) -> tuple[bool, int, float, str]:
    """Scores gained or lost first, then the largest steps."""
    gained_or_lost = shift["difference"] is None
    size = abs(shift["difference"] or 0.0)
    return not gained_or_lost, -abs(shift["categories"]), -size, shift["study_key"]


def _shift(old: Row, new: Row) -> dict[str, Any]:
    why = [words for name, words in REASONS.items() if old[name] != new[name]]
    order = [str(name) for name in CAC_CATEGORIES]
    both = _scored(old) and _scored(new)
    return {
        "study_key": old["study_key"],
        "old": _state(old),
        "new": _state(new),
        "old_agatston": old["agatston"],
        "new_agatston": new["agatston"],
        # A score gained or lost is a change that has no size, and comes first.
        "difference": new["agatston"] - old["agatston"] if both else None,
        "categories": order.index(_state(new)) - order.index(_state(old)) if both else 0,
        "old_reason": old["reason"],
        "new_reason": new["reason"],
        "why": ", ".join(why) or UNEXPLAINED,
    }


def _estimates(
    old: pa.Table, new: pa.Table
) -> tuple[list[dict[str, Any]], Counter[tuple[str, str]]]:
    sides = [{tuple(row[n] for n in KEY): row for row in side.to_pylist()} for side in (old, new)]
    matched = []
    for key, row in sides[1].items():
        before = sides[0].get(key)
        if before is not None:
            matched.append(dict(zip(KEY, key, strict=True)) | _values(before, row))
    unmatched: Counter[tuple[str, str]] = Counter()
    for name, side, other in (("old", sides[0], sides[1]), ("new", sides[1], sides[0])):
        unmatched.update((str(key[0]), name) for key in side if key not in other)
    return matched, unmatched


def _values(old: Row, new: Row) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for side, row in (("old", old), ("new", new)):
        out |= {f"{side}_{n}": row[n] for n in ("value", "ci_low", "ci_high")}
    same = old["value"] is None and new["value"] is None
    numbers = old["value"] is not None and new["value"] is not None
    # A number on one side alone is a difference that has no size.
    out["difference"] = new["value"] - old["value"] if numbers else (0.0 if same else None)
    limits = (old["ci_low"], old["ci_high"], new["ci_low"], new["ci_high"])
    out["intervals"] = ""
    if None not in limits:
        overlap = old["ci_low"] <= new["ci_high"] and new["ci_low"] <= old["ci_high"]
        out["intervals"] = "overlap" if overlap else "apart"
    return out


def _side_by_side(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = [*old, *(name for name in new if name not in old)]
    return [{"name": name, "old": old.get(name), "new": new.get(name)} for name in names]


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
    heads = columns(("study", "old", "new", "why"), ("old score", "new score", "difference"))
    shifts = DataTable(
        "shifts",
        "Studies whose score changed: gained or lost first, then the largest steps",
        heads,
        [
            [
                Cell(row["study_key"]),
                _with_reason(row["old"], row["old_reason"]),
                _with_reason(row["new"], row["new_reason"]),
                row["why"],
                number(row["old_agatston"], 1),
                number(row["new_agatston"], 1),
                number(row["difference"], 1),
            ]
            for row in found.shifts[:_SHOWN]
        ],
        filterable=True,
        note=_note(len(found.shifts), "tables/shifts.csv"),
        empty="No score changed.",
    )
    figure = None
    if found.pairs:
        figure = drawn(
            "scores",
            "Each point is a study that both runs scored; dotted lines are the categories' limits.",
            f"{len(found.pairs)} studies, new score against old; on the line nothing changed.",
            scores_figure(found.pairs),
        )
    return Part("scores", "Scores", figure=figure, tables=(matrix, shifts))


def _with_reason(state: str, reason: str | None) -> str:
    return f"{state}: {reason}" if reason else state


def _note(rows: int, file: str) -> str:
    return f"The first {_SHOWN} of {rows:,}; all are in {file}." if rows > _SHOWN else ""


def _estimate_part(found: Comparison) -> Part:
    if "estimates" in found.gaps:
        return Part("estimates", "Estimates", missing=found.gaps["estimates"])
    differing = [row for row in found.estimates if row["difference"] != 0]
    differing.sort(key=lambda row: row["intervals"] != "apart")
    names = ("analysis", "population", "outcome", "model", "term", "level", "statistic")
    table = DataTable(
        "estimates-table",
        "Estimates that differ, those whose intervals do not overlap first",
        columns((*names, "intervals"), ("at", "old", "new", "difference")),
        [
            [
                *(str(row[name] or "") for name in names),
                row["intervals"],
                number(row["at"], 1),
                number(row["old_value"], 3),
                number(row["new_value"], 3),
                number(row["difference"], 3),
            ]
            for row in differing[:_SHOWN]
        ],
        filterable=True,
        note=_note(len(differing), "tables/estimates.csv"),
        empty="Every estimate is the same.",
    )
    only = DataTable(
        "unmatched",
        "Rows that only one run has",
        columns(("analysis", "run"), ("rows",)),
        [[name, side, number(count)] for (name, side), count in sorted(found.unmatched.items())],
    )
    ratios = [
        row
        for row in found.estimates
        if row["analysis"] == "cox_multivariable"
        and row["statistic"] == "hazard_ratio"
        and row["intervals"]
        and row["model"] == "dl"
    ]
    figure = None
    if ratios:
        first = ratios[0]
        mine = [r for r in ratios if all(r[n] == first[n] for n in ("population", "outcome"))]
        pairs = [
            (
                " ".join(filter(None, (row["term"], row["level"]))),
                (row["old_value"], row["old_ci_low"], row["old_ci_high"]),
                (row["new_value"], row["new_ci_low"], row["new_ci_high"]),
            )
            for row in mine[:_DRAWN_RATIOS]
        ]
        figure = drawn(
            "ratios",
            f"Adjusted hazard ratios for {first['outcome']}, with DL CAC, in both runs.",
            f"{len(pairs)} hazard ratios with intervals, old and new; the table has the numbers.",
            ratios_figure(pairs),
        )
    return Part("estimates", "Estimates", figure=figure, tables=(table, only))


def _flow_part(found: Comparison) -> Part:
    if not found.flow:
        return Part("flow", "Cohort flow", missing="Neither run is linked with a registry.")
    table = DataTable(
        "flow-table",
        "Patients at each step",
        columns(("step",), ("old", "new")),
        [[row["name"], number(row["old"]), number(row["new"])] for row in found.flow],
        sortable=False,
    )
    return Part("flow", "Cohort flow", tables=(table,))


def _fact_part(found: Comparison) -> Part:
    table = DataTable(
        "facts",
        "What was set or installed otherwise",
        columns(("what", "old", "new")),
        [[row["name"], row["old"] or "", row["new"] or ""] for row in found.facts],
        empty="Nothing.",
    )
    return Part("settings", "Settings and versions", tables=(table,))
