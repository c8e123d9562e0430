"""Comparison of two runs: scores by study, estimates by row, and recorded reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from schemas.codes import CAC_CATEGORIES, Status

#: A row of `scores` or `estimates`; the schema names columns and types.
Row = Mapping[str, Any]
#: Columns that identify a row of `estimates`.
KEY = ("analysis", "population", "outcome", "model", "term", "level", "statistic", "at")
#: Columns of a score row that explain a different score, in words.
REASONS = {
    "model_digest": "another model",
    "protocol_digest": "another protocol",
    "core_version": "another version of the program",
    "instances_digest": "other files of the series",
}
UNEXPLAINED = "no recorded reason"


@dataclass(frozen=True)
class Run:
    """One side of a comparison.

    Parameters
    ----------
    scores : rows of `scores`; the newest of each study counts.
    flow : patients by step of the cohort flow.
    settings : digests, versions and settings by name.
    """

    name: str
    scores: pa.Table
    estimates: pa.Table | None = None
    flow: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreShift:
    """A study whose score changed, a row of `shifts.csv`.

    `difference` is None if only one run has a score; `categories` counts categories upwards.
    """

    study_key: str
    old: str
    new: str
    old_agatston: float | None
    new_agatston: float | None
    difference: float | None
    categories: int
    old_reason: str | None
    new_reason: str | None
    why: str


@dataclass(frozen=True)
class EstimatePair:
    """An estimate of both runs, a row of `estimates.csv`.

    `difference` is None if only one run has a value; `intervals` is `overlap`, `apart`, or empty
    without both intervals.
    """

    analysis: str
    population: str | None
    outcome: str | None
    model: str | None
    term: str | None
    level: str | None
    statistic: str
    at: float | None
    old_value: float | None
    old_ci_low: float | None
    old_ci_high: float | None
    new_value: float | None
    new_ci_low: float | None
    new_ci_high: float | None
    difference: float | None
    intervals: str


@dataclass(frozen=True)
class CountPair:
    """Patients of both runs at a step of the cohort flow, a row of `flow.csv`."""

    name: str
    old: int | None
    new: int | None


@dataclass(frozen=True)
class SettingPair:
    """A setting or version that differs, a row of `settings.csv`."""

    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Comparison:
    """Two runs compared.

    Parameters
    ----------
    matrix : studies of both runs by old and new category, or status without a score.
    pairs : old and new score of the studies that both runs scored.
    gone, added : number of studies in the old or new run only.
    unmatched : rows of `estimates` in one run only, by analysis and run (`old` or `new`).
    gaps : why scores or estimates could not be compared.
    """

    old: str
    new: str
    matrix: dict[tuple[str, str], int]
    shifts: list[ScoreShift]
    pairs: list[tuple[float, float]]
    gone: int
    added: int
    estimates: list[EstimatePair]
    unmatched: dict[tuple[str, str], int]
    flow: list[CountPair]
    settings: list[SettingPair]
    gaps: dict[str, str]


@dataclass(frozen=True)
class ComparisonSummary:
    """Counts of a comparison (`cac report --compare`); `docs/report.md` lists the fields."""

    old: str
    new: str
    studies_in_both: int
    studies_gone: int
    studies_added: int
    category_changed: int
    score_changed: int
    reasons: dict[str, int]
    estimates_in_both: int
    estimates_changed: int
    estimates_apart: int
    estimates_unmatched: int
    gaps: dict[str, str]
    page: str


def compare_runs(old: Run, new: Run) -> Comparison:
    """Compare two runs; studies are matched by `study_key`, estimates by the columns of `KEY`."""
    before, after = _by_study(old.scores), _by_study(new.scores)
    both = [key for key in before if key in after]
    gaps = {}
    if not both:
        gaps["scores"] = "The runs have no study in common."
    matrix = Counter((_state(before[key]), _state(after[key])) for key in both)
    shifts = [_shift(before[key], after[key]) for key in both if _changed(before[key], after[key])]
    shifts.sort(key=_by_size)
    scored = [k for k in both if _scored(before[k]) and _scored(after[k])]
    matched: list[EstimatePair] = []
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
        [CountPair(n, old.flow.get(n), new.flow.get(n)) for n in {**old.flow, **new.flow}],
        [
            SettingPair(n, old.settings.get(n), new.settings.get(n))
            for n in {**old.settings, **new.settings}
            if old.settings.get(n) != new.settings.get(n)
        ],
        gaps,
    )


def summarise(found: Comparison, page: str = "") -> ComparisonSummary:
    """The counts of a comparison; `page` is the path of its page."""
    return ComparisonSummary(
        old=found.old,
        new=found.new,
        studies_in_both=sum(found.matrix.values()),
        studies_gone=found.gone,
        studies_added=found.added,
        category_changed=sum(count for (a, b), count in found.matrix.items() if a != b),
        score_changed=len(found.shifts),
        reasons=dict(Counter(row.why for row in found.shifts)),
        estimates_in_both=len(found.estimates),
        estimates_changed=sum(row.difference != 0 for row in found.estimates),
        estimates_apart=sum(row.intervals == "apart" for row in found.estimates),
        estimates_unmatched=sum(found.unmatched.values()),
        gaps=dict(found.gaps),
        page=page,
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


def _by_size(shift: ScoreShift) -> tuple[bool, int, float, str]:
    """Scores gained or lost first, then the largest changes."""
    size = abs(shift.difference or 0.0)
    return shift.difference is not None, -abs(shift.categories), -size, shift.study_key


def _shift(old: Row, new: Row) -> ScoreShift:
    why = [words for name, words in REASONS.items() if old[name] != new[name]]
    order = [str(name) for name in CAC_CATEGORIES]
    both = _scored(old) and _scored(new)
    return ScoreShift(
        study_key=old["study_key"],
        old=_state(old),
        new=_state(new),
        old_agatston=old["agatston"],
        new_agatston=new["agatston"],
        difference=new["agatston"] - old["agatston"] if both else None,
        categories=order.index(_state(new)) - order.index(_state(old)) if both else 0,
        old_reason=old["reason"],
        new_reason=new["reason"],
        why=", ".join(why) or UNEXPLAINED,
    )


def _estimates(old: pa.Table, new: pa.Table) -> tuple[list[EstimatePair], Counter[tuple[str, str]]]:
    sides = [{tuple(row[n] for n in KEY): row for row in side.to_pylist()} for side in (old, new)]
    matched = []
    for key, row in sides[1].items():
        before = sides[0].get(key)
        if before is not None:
            matched.append(_pair(before, row))
    unmatched: Counter[tuple[str, str]] = Counter()
    for name, side, other in (("old", sides[0], sides[1]), ("new", sides[1], sides[0])):
        unmatched.update((str(key[0]), name) for key in side if key not in other)
    return matched, unmatched


def _pair(old: Row, new: Row) -> EstimatePair:
    same = old["value"] is None and new["value"] is None
    numbers = old["value"] is not None and new["value"] is not None
    intervals = ""
    if None not in (old["ci_low"], old["ci_high"], new["ci_low"], new["ci_high"]):
        overlap = old["ci_low"] <= new["ci_high"] and new["ci_low"] <= old["ci_high"]
        intervals = "overlap" if overlap else "apart"
    return EstimatePair(
        **{name: new[name] for name in KEY},
        **{f"old_{name}": old[name] for name in ("value", "ci_low", "ci_high")},
        **{f"new_{name}": new[name] for name in ("value", "ci_low", "ci_high")},
        difference=new["value"] - old["value"] if numbers else (0.0 if same else None),
        intervals=intervals,
    )
