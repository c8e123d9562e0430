"""Estimates for readers outside the house: counts from 1 to 4 are hidden."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pyarrow as pa

from cac_core.cohort.disclosure import SMALL
from schemas.results import ESTIMATES

#: What the method of a hidden row says.
HIDDEN = f"hidden: a count from 1 to {SMALL - 1}, or one from which it could be found"
_COUNTS = ("count", "at_risk", "missing", "n_up", "n_down")
_NUMBERS = ("value", "ci_low", "ci_high", "p_value")

#: Where the words of a method tell a small count, and what stands there instead.
_TOLD = (
    (re.compile(rf"(?<=the )[1-{SMALL - 1}](?= patients\b)"), "few"),
    (re.compile(rf"\b[1-{SMALL - 1}](?= (?:patients|values|missing|negative|codes)\b)"), "a few"),
    (re.compile(rf"(?<=events \()[1-{SMALL - 1}](?=\))"), "a few"),
)
_FEW_EVENTS = re.compile(r"only [\d.]+ (?=events per parameter)")

Record = dict[str, Any]


def hide_small(estimates: pa.Table) -> pa.Table:
    """The table `estimates` without small counts.

    A count from 1 to 4 goes, and with it its share. Where a single count of a family is hidden, the
    smallest of the others goes too, since the family's total is known: the levels of a term, and
    one level in the groups of a population. Whatever is estimated in 1 to 4 patients goes, and
    numbers of patients and events from 1 to 4 go from every row, from its words too.
    """
    rows: list[Record] = estimates.to_pylist()
    counts = [row for row in rows if row["statistic"] in _COUNTS and row["value"] is not None]
    for row in counts:
        if _small(row["value"]) or _complement_small(row):
            _hide(row)
    for family in (_levels, _groups):
        members: dict[object, list[Record]] = defaultdict(list)
        for row in counts:
            if (key := family(row)) is not None:
                members[key].append(row)
        for found in members.values():
            _hide_second(found)
    gone = {_identity(row) for row in counts if row["value"] is None}
    for row in rows:
        if (row["statistic"] == "share" and _identity(row) in gone) or _small(row["n"]):
            _hide(row)
        _without_events(row)
        for name in ("n", "n_events"):
            if _small(row[name]):
                row[name] = None
    return ESTIMATES.from_rows(rows)


def _without_events(row: Record) -> None:
    """Take small counts out of the words of a row, and what their number of events follows from."""
    told = str(row["method"] or "")
    for pattern, instead in _TOLD:
        told = pattern.sub(instead, told)
    if _small(row["n_events"]):
        told = _FEW_EVENTS.sub("too few ", told)
        if row["statistic"] == "events_per_parameter":
            row.update(dict.fromkeys(_NUMBERS))
            told = HIDDEN
    row["method"] = told or None


def _small(count: float | None) -> bool:
    return count is not None and 0 < count < SMALL


def _complement_small(row: Record) -> bool:
    """Whether those of a yes-or-no variable who have it not are few."""
    alone = row["analysis"] == "description" and row["level"] is None
    counted = alone and row["statistic"] == "count" and row["n"] is not None
    return counted and _small(row["n"] - row["value"])


def _levels(row: Record) -> object:
    """Rows that differ in nothing but their level; steps of the flow differ in their term."""
    if row["analysis"] == "cohort_flow":
        return row["analysis"]
    if row["level"] is None:
        return None
    return tuple(row[name] for name in _NAMES if name != "level")


def _groups(row: Record) -> object:
    """Rows of the groups of one population."""
    if row["analysis"] != "description" or " & " not in str(row["population"]):
        return None
    return tuple(row[name] for name in _NAMES if name != "population")


_NAMES = ("analysis", "population", "outcome", "model", "term", "level", "statistic", "at")


def _hide_second(family: list[Record]) -> None:
    hidden = [row for row in family if row["value"] is None]
    others = [row for row in family if row["value"]]
    if len(hidden) == 1 and others:
        _hide(min(others, key=lambda row: float(row["value"])))


def _identity(row: Record) -> tuple[object, ...]:
    return tuple(row[name] for name in _NAMES if name != "statistic")


def _hide(row: Record) -> None:
    row.update(dict.fromkeys(_NUMBERS), method=HIDDEN)
