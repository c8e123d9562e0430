"""SQL that brings the rows of an extract under canonical column names, and its parameters."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from cac_core.cohort.code_words import CODE_WORDS
from cac_core.cohort.database import sql_identifier, sql_literal
from cac_core.cohort.mapping import AUXILIARY, UNITS, ColumnMapping, SiteMapping, Source
from schemas.registry import AUXILIARY_RANGES
from schemas.table import ColumnSpec, TableSpec


def set_variables(
    connection: duckdb.DuckDBPyConnection, source: Source, table: TableSpec, mapping: SiteMapping
) -> None:
    """Set the variables of `sql/reading_macros.sql` and `sql/canonical_<table>.sql`."""
    codes = source.codes
    factors = {name: UNITS[item.unit] for name, item in source.mapped if item.unit}
    values = {
        "missing": list(source.missing),
        "decimal": source.decimal,
        "code_words": sorted(CODE_WORDS),
        "coverage_begin": mapping.coverage.begin,
        "coverage_end": mapping.coverage.end,
    }
    for name, value in values.items():
        connection.execute(f"SET VARIABLE {name} = $1", [value])
    coded = "MAP(VARCHAR, MAP(VARCHAR, VARCHAR))"
    ranged = [c for c in (*table.columns, *AUXILIARY_RANGES) if pa.types.is_floating(c.type)]
    maps: dict[str, tuple[str, Mapping[str, object]]] = {
        "codes": (coded, {name: _as_map(given) for name, given in codes.items()}),
        "folded": (coded, {name: _as_map(_folded(given)) for name, given in codes.items()}),
        "factors": ("MAP(VARCHAR, DOUBLE)", factors),
        "ranges": ("MAP(VARCHAR, DOUBLE[])", {c.name: [c.ge, c.le] for c in ranged}),
        "allowed": ("MAP(VARCHAR, VARCHAR[])", {c.name: _allowed(c) for c in table.columns}),
    }
    for name, (kind, given) in maps.items():
        connection.execute(f"SET VARIABLE {name} = CAST($1 AS {kind})", [_as_map(given)])


def _allowed(column: ColumnSpec) -> list[str]:
    return ["0", "1"] if column.unit == "0/1" else list(column.allowed)


def _folded(codes: Mapping[str, str]) -> dict[str, str]:
    """Codes in lower case, where all spellings of one have the same meaning."""
    meanings: dict[str, set[str]] = {}
    for code, meaning in codes.items():
        meanings.setdefault(code.strip().lower(), set()).add(meaning)
    return {code: meant.pop() for code, meant in meanings.items() if len(meant) == 1}


def _as_map(values: Mapping[str, object]) -> dict[str, list[object]]:
    """A dictionary in the form that DuckDB accepts for a MAP."""
    return {"key": list(values), "value": list(values.values())}


def raw_rows(source: Source, table: TableSpec, rows: str) -> str:
    """Query for the rows of a source under canonical names, as text with null for no value."""
    renamed = renamed_rows(source, table, rows)
    query = f"SELECT line, text_of(COLUMNS(* EXCLUDE line)) FROM ({renamed})"
    if not source.rows_with:
        return query
    present = " AND ".join(f"{name} IS NOT NULL" for name in source.rows_with)
    return f"SELECT * FROM ({query}) WHERE {present}"


def renamed_rows(source: Source, table: TableSpec, rows: str) -> str:
    """Query for the source's columns under canonical names, with a row per repeated group."""
    names = [c.name for c in table.columns] + list(AUXILIARY.get(table.name, ()))
    plain = {name: _expression(source.columns[name]) for name in names if name in source.columns}
    groups = {name for group in source.repeated for name in group.columns}
    listed = [f"{plain.get(name, 'NULL::VARCHAR')} AS {name}" for name in names]
    if not groups:
        return f"SELECT line, {', '.join(listed)} FROM {rows}"
    items = []
    for group in source.repeated:
        for n in range(1, group.count + 1):
            columns = group.numbered(n)
            given = {name: _expression(item) for name, item in columns.items()}
            fields = [f"{c}: {given.get(c, 'NULL::VARCHAR')}" for c in sorted(groups)]
            present = " OR ".join(
                f"text_of({given[name]}) IS NOT NULL"
                for name, item in columns.items()
                if item.column is not None
            )
            items.append(f"CASE WHEN {present} THEN {{{', '.join(fields)}}} END")
    outer = [f"item.{name} AS {name}" if name in groups else f"{name}" for name in names]
    empty = "{" + ", ".join(f"{c}: NULL::VARCHAR" for c in sorted(groups)) + "}"
    inner = [
        f"{plain.get(name, 'NULL::VARCHAR')} AS {name}" for name in names if name not in groups
    ]
    return (
        f"SELECT line, {', '.join(outer)} FROM (SELECT line, {', '.join(inner)}, "
        f"unnest(CASE WHEN len(list_filter(items, lambda i: i IS NOT NULL)) = 0 THEN [{empty}] "
        f"ELSE list_filter(items, lambda i: i IS NOT NULL) END) AS item "
        f"FROM (SELECT *, [{', '.join(items)}] AS items FROM {rows}))"
    )


def _expression(mapped: ColumnMapping) -> str:
    if mapped.constant is not None:
        return sql_literal(mapped.constant)
    return sql_identifier(str(mapped.column))
