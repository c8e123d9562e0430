"""Suppression of small counts in estimates that leave the institution: 1 to 4 are hidden."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from cac_core.cohort.disclosure import SMALL
from schemas.results import ESTIMATES

#: Method of a hidden row.
HIDDEN = f"hidden: a count from 1 to {SMALL - 1}, or one from which it could be found"
_COUNTS = ("count", "at_risk", "at_risk_then", "missing", "n_up", "n_down", "patients", "events")
_NUMBERS = ("value", "ci_low", "ci_high", "p_value")

#: Small counts within the text of a method, and their replacement.
_IN_TEXT = (
    (re.compile(rf"(?<=the )[1-{SMALL - 1}](?= patients\b)"), "few"),
    (re.compile(rf"\b[1-{SMALL - 1}](?= (?:patients|values|missing|negative|codes)\b)"), "a few"),
    (re.compile(rf"(?<=events \()[1-{SMALL - 1}](?=\))"), "a few"),
)
_FEW_EVENTS = re.compile(r"only [\d.]+ (?=events per parameter)")

Record = dict[str, Any]


def hide_small(estimates: pa.Table) -> pa.Table:
    """The table `estimates` without small counts.

    Hidden are counts from 1 to 4 with their shares, everything that is estimated in 1 to 4
    patients, and numbers of patients and events from 1 to 4 in every row and in its text. If one
    count of a family is hidden, the smallest other count is hidden too, since the total of the
    family is known (complementary suppression). Families are the levels of a term, and one level
    in the groups of a population. Patients who remain after a step of the cohort flow are hidden
    where the difference of two of them is a hidden step.
    """
    rows: list[Record] = estimates.to_pylist()
    counts = [row for row in rows if row["statistic"] in _COUNTS and row["value"] is not None]
    for row in counts:
        if _small(row["value"]) or _complement_small(row):
            _hide(row)
    for family in (_levels, _groups):
        _hide_complements(counts, family)
    _hide_remaining(rows)
    hidden = {_identity(row) for row in counts if row["value"] is None}
    for row in rows:
        if (row["statistic"] == "share" and _identity(row) in hidden) or _small(row["n"]):
            _hide(row)
        _hide_in_text(row)
        row.update({name: None for name in ("n", "n_events") if _small(row[name])})
    return ESTIMATES.from_rows(rows)


def _hide_complements(counts: Sequence[Record], family: Callable[[Record], object]) -> None:
    members: dict[object, list[Record]] = defaultdict(list)
    for row in counts:
        if (key := family(row)) is not None:
            members[key].append(row)
    for found in members.values():
        _hide_second(found)


def _hide_remaining(rows: Sequence[Record]) -> None:
    """Hide who remains from the first hidden step of the cohort flow until the last one."""
    flow = [row for row in rows if row["analysis"] == "cohort_flow"]
    hidden = [
        at for at, row in enumerate(flow) if row["statistic"] == "count" and row["method"] == HIDDEN
    ]
    for row in flow[hidden[0] : hidden[-1]] if hidden else ():
        if row["statistic"] == "remaining":
            _hide(row)


def _hide_in_text(row: Record) -> None:
    """Replace small counts in the text of a row, and values that reveal small event counts."""
    method = str(row["method"] or "")
    for pattern, instead in _IN_TEXT:
        method = pattern.sub(instead, method)
    if _small(row["n_events"]):
        method = _FEW_EVENTS.sub("too few ", method)
        if row["statistic"] == "events_per_parameter":
            row.update(dict.fromkeys(_NUMBERS))
            method = HIDDEN
    row["method"] = method or None


def _small(count: float | None) -> bool:
    return count is not None and 0 < count < SMALL


def _complement_small(row: Record) -> bool:
    """Whether few patients do not have a binary characteristic."""
    alone = row["analysis"] == "description" and row["level"] is None
    counted = alone and row["statistic"] == "count" and row["n"] is not None
    return counted and _small(row["n"] - row["value"])


def _levels(row: Record) -> object:
    """Key of rows that differ in their level only, or in the step of the cohort flow."""
    if row["analysis"] == "cohort_flow":
        return row["analysis"]
    if row["level"] is None:
        return None
    return tuple(row[name] for name in _NAMES if name != "level")


def _groups(row: Record) -> object:
    """Key of rows of the groups of one population."""
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
