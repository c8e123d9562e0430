"""Codes and types of extracts that no rule knows: they cannot become events, so check them.

These are diagnoses not in the form of ICD-10, procedures not in the form of a system that outcome
definitions use (CCI, ICD-10-PCS, OPCS-4, CPT, OPS), and diagnosis types that no component of the
definition names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow.parquet as pq

from cac_core.cohort.disclosure import value_shape
from cac_core.cohort.extract_parts import Part
from cac_core.cohort.outcomes import OutcomeDefinition

_DIAGNOSIS = r"[A-TV-Z][0-9][0-9A-Z][0-9A-Z]{0,4}|U[0-9]{2}[0-9A-Z]{0,4}"
#: In this order: CCI, ICD-10-PCS, OPCS-4, CPT, OPS operations.
_PROCEDURE = r"[1-8][A-Z]{2}[0-9]{2}[A-Z0-9]{0,6}|[0-9A-HJ-NP-Z]{7}|[A-Z][0-9]{2,3}|[0-9]{5}|[1-9][0-9]{3,4}[A-Z0-9]{0,2}"  # noqa: E501
#: Values shown as they are; any other could identify a person, and only its shape is shown.
_SAFE = re.compile(r"(?=.*[0-9])(?!.*[0-9]{6})(?!.*[A-Z]{4})[A-Z0-9]{1,10}|[A-Z0-9]{1,2}")


@dataclass(frozen=True, slots=True)
class UnknownCode:
    """A code of a source, or its shape, and the number of rows that have it."""

    source: str
    kind: str
    value: str
    rows: int


def unknown_codes(parts: Sequence[Part], outcomes: OutcomeDefinition) -> list[UnknownCode]:
    """Codes and types that no rule knows, by source and kind, most frequent first.

    `kind` is `diagnosis_code`, `procedure_code` or `diagnosis_type`. Types are listed only if a
    component of the definition names types.
    """
    types = {name.upper() for item in outcomes.component.values() for name in item.types}
    counted: dict[tuple[str, str, str], int] = {}
    with duckdb.connect() as connection:
        for part in parts:
            if part.extract.source.table != "encounters":
                continue
            for kind, value, rows in _unknown(connection, part, sorted(types)):
                shown = value if _SAFE.fullmatch(value) else value_shape(value)
                key = (part.extract.source.name, kind, shown)
                counted[key] = counted.get(key, 0) + rows
    found = [UnknownCode(*key, rows) for key, rows in counted.items()]
    return sorted(found, key=lambda u: (u.source, u.kind, -u.rows, u.value))


def _unknown(
    connection: duckdb.DuckDBPyConnection, part: Part, types: list[str]
) -> list[tuple[str, str, int]]:
    names = ["diagnosis_code", "diagnosis_type", "procedure_code"]
    connection.register("rows", pq.ParquetFile(part.rows).read(names))
    found = connection.execute(
        "FROM (SELECT 'diagnosis_code' AS kind, diagnosis_code AS value, count(*) FROM rows "
        "GROUP BY ALL) WHERE NOT regexp_full_match(value, $1) UNION ALL "
        "FROM (SELECT 'procedure_code', procedure_code AS value, count(*) FROM rows "
        "GROUP BY ALL) WHERE NOT regexp_full_match(value, $2) UNION ALL "
        "FROM (SELECT 'diagnosis_type', diagnosis_type AS value, count(*) FROM rows "
        "GROUP BY ALL) WHERE len($3::VARCHAR[]) > 0 AND NOT list_contains($3::VARCHAR[], value)",
        [_DIAGNOSIS, _PROCEDURE, types],
    ).fetchall()
    connection.unregister("rows")
    return found
