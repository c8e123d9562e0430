"""What to change in the mapping, for rows and cells of an extract that were set aside."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cac_core.cohort.code_words import MEANINGS, yes_no_codes
from cac_core.cohort.column_content import spec_of
from cac_core.cohort.date_advice import date_advice
from cac_core.cohort.set_aside import SetAside
from schemas.codes import RowReason

_EXAMPLES = 5
#: Units that a column may have instead, by column.
_UNITS = {
    "weight_kg": "lb or g",
    "height_cm": "m or in",
    "age_years": "months or days",
    "stress_lvef_pct": "share",
    "stress_tpd_pct": "share",
    "rest_tpd_pct": "share",
}
_REGISTRY = "the records contradict each other: ask the registry; nothing in the mapping helps"
_FIXED = {
    RowReason.BLANK_LINE: "nothing: the line is empty",
    RowReason.UNREADABLE_LINE: "`delimiter` and `encoding`, if most lines are affected; otherwise "
    "the line is damaged: ask for the file again",
    RowReason.DATE_ORDER: "`dates`, if day and month are exchanged; otherwise " + _REGISTRY,
    RowReason.AFTER_COVERAGE: "`coverage.end`, if the registry is complete to a later day; "
    "otherwise nothing",
    RowReason.BEFORE_COVERAGE: "`coverage.begin`, if the registry begins earlier; else nothing",
    RowReason.SHARED_ACCESSION: "the column of `accession_number`, if it holds something else",
    RowReason.SEX_DIFFERS: "`codes` of `sex`, if most rows are affected; otherwise " + _REGISTRY,
}


def set_aside(
    quarantine: pa.Table, dates: Mapping[str, Sequence[str]] | None = None
) -> list[SetAside]:
    """Rows of the table `quarantine` by file, column and reason, most frequent first.

    Parameters
    ----------
    dates : date formats of the mapping, by source; of others they are not known.
    """
    keys = ["source", "source_file", "table", "column", "reason", "row_kept"]
    grouped = quarantine.group_by([*keys, "value_shape"]).aggregate([([], "count_all")])
    counted: dict[tuple[Any, ...], Counter[str | None]] = {}
    for row in grouped.to_pylist():
        shapes = counted.setdefault(tuple(row[name] for name in keys), Counter())
        shapes[row["value_shape"]] += row["count_all"]
    found = []
    for (source, file, table, column, code, kept), shapes in counted.items():
        examples = [shape for shape, _ in shapes.most_common() if shape is not None][:_EXAMPLES]
        reason = RowReason(code)
        found.append(
            SetAside(
                source=source,
                file=file,
                table=table,
                column=column,
                reason=code,
                meaning=reason.description,
                rows=shapes.total(),
                row_kept=bool(kept),
                examples=examples,
                change=what_to_change(column, reason, examples, (dates or {}).get(source)),
            )
        )
    return sorted(found, key=lambda i: (i.source, i.file, -i.rows, str(i.column), i.reason))


def what_to_change(
    column: str | None,
    reason: RowReason,
    examples: Sequence[str],
    dates: Sequence[str] | None = None,
) -> str:
    """What to change in the mapping, as text that names the key.

    Parameters
    ----------
    examples : shapes of the values, or code words.
    dates : date formats of the mapping, if they are known.
    """
    if reason in _FIXED:
        return _FIXED[reason]
    if reason is RowReason.UNPARSED_DATE:
        return date_advice(examples, dates)
    if reason is RowReason.UNPARSED_NUMBER:
        for mark in (",", "."):
            if any(re.fullmatch(rf"[+-]?9+\{mark}9+", shape) for shape in examples):
                return f'`decimal = "{mark}"`'
        return "`decimal`, or list words for an unknown value in `missing`"
    if reason is RowReason.UNMAPPED_CODE and column is not None:
        return _codes(column, examples)
    if reason is RowReason.OUT_OF_RANGE and column is not None:
        units = _UNITS.get(column)
        range_of = "`cac schema` shows the range"
        return f"`unit` of `{column}` ({units}); {range_of}" if units else range_of
    if reason is RowReason.MISSING_VALUE:
        return (
            f"the source column of `{column}`, if it is the wrong one; or `rows_with`, if rows "
            "without it are no rows of this table"
        )
    return _REGISTRY


def _codes(column: str, examples: Sequence[str]) -> str:
    """Codes to add for a column: those of known words are written out."""
    spec = spec_of(column)
    if spec is None:
        return f"`codes` of `{column}`"
    if spec.unit == "0/1":
        meant = {v: m for v, m in yes_no_codes(list(examples)).items() if v in examples}
        allowed: Sequence[str] = ("0", "1")
    else:
        known = MEANINGS.get(column, {})
        meant = {v: known[v.lower()] for v in examples if v.lower() in known}
        allowed = spec.allowed
    pairs = ", ".join(f'"{value}" = "{code}"' for value, code in sorted(meant.items()))
    others = [v for v in examples if v not in meant]
    parts = [f"`codes` of `{column}`: add {pairs}"] if pairs else []
    if others:
        add = "`missing`, if the value means that nothing is known"
        parts.append(f"for {', '.join(others)}: `codes` ({', '.join(allowed)}) or {add}")
    return "; ".join(parts) or f"`codes` of `{column}` ({', '.join(allowed)}), or `missing`"
