"""Codes and types of extracts that no rule knows: they cannot become events, so check them.

These are diagnoses and procedures not in the form of their coding system, and diagnosis types that
no component of the definition names. Where a whole column can give no event, a warning says what to
write in the mapping.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow.parquet as pq

from cac_core.cohort.code_words import TYPE_MEANINGS
from cac_core.cohort.disclosure import value_shape
from cac_core.cohort.extract_parts import Part
from cac_core.cohort.mapping import Source
from cac_core.cohort.outcomes import OutcomeDefinition

_ICD_10 = r"[A-TV-Z][0-9][0-9A-Z][0-9A-Z]{0,4}|U[0-9]{2}[0-9A-Z]{0,4}"
_ICD_9 = r"[0-9]{3,5}|V[0-9]{2,4}|E[0-9]{3,4}"
_PCS, _CCI, _OPCS = r"[0-9A-HJ-NP-Z]{7}", r"[1-8][A-Z]{2}[0-9]{2}[A-Z0-9]{0,6}", r"[A-Z][0-9]{2,3}"
_CPT, _OPS = r"[0-9]{4}[0-9A-Z]", r"[1-9][0-9]{2}[0-9A-Z]{1,4}"
#: Forms of the codes of a system. Where the mapping states none, any of these systems will do.
_FORMS = {
    ("diagnosis", None): _ICD_10,
    ("diagnosis", "ICD-10"): _ICD_10,
    ("diagnosis", "ICD-9-CM"): _ICD_9,
    ("procedure", None): "|".join(
        (_CCI, _PCS, _OPCS, r"[0-9]{5}", r"[1-9][0-9]{3,4}[A-Z0-9]{0,2}")
    ),
    ("procedure", "CCI"): _CCI,
    ("procedure", "ICD-10-PCS"): _PCS,
    ("procedure", "OPCS-4"): _OPCS,
    ("procedure", "OPS"): _OPS,
    ("procedure", "NOMESCO"): r"[A-Z0-9]{4,8}",
    ("procedure", "ICD-9-CM"): r"[0-9]{3,4}",
    ("procedure", "CPT"): _CPT,
}
#: Values shown as they are; any other could identify a person, and only its shape is shown.
_SAFE = re.compile(r"(?=.*[0-9])(?!.*[0-9]{6})(?!.*[A-Z]{4})[A-Z0-9]{1,10}|[A-Z0-9]{1,2}")
#: From so many records with a component's code on, the absence of its types is no chance.
_ENOUGH = 20
_SHOWN_TYPES = 6


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
    types = _types(outcomes)
    counted: Counter[tuple[str, str, str]] = Counter()
    with _coded_rows(parts, outcomes) as connection:
        for source, kind, system, value, rows in connection.sql(
            "SELECT source, kind, system, code, sum(n) FROM coded WHERE code IS NOT NULL "
            "GROUP BY ALL"
        ).fetchall():
            form = _FORMS.get((kind, system))
            if form is not None and not re.fullmatch(form, value):
                counted[source, f"{kind}_code", _shown(value)] += rows
        for source, value, rows in connection.sql(
            "SELECT source, type, sum(n) FROM coded WHERE type IS NOT NULL GROUP BY ALL"
        ).fetchall():
            if types and value not in types:
                counted[source, "diagnosis_type", _shown(value)] += rows
    found = [UnknownCode(*key, rows) for key, rows in counted.items()]
    return sorted(found, key=lambda u: (u.source, u.kind, -u.rows, u.value))


def code_warnings(parts: Sequence[Part], outcomes: OutcomeDefinition) -> list[str]:
    """Columns of codes and types that can give no event, with what to write in the mapping."""
    sources = {
        part.extract.source.name: part.extract.source
        for part in parts
        if part.extract.source.table == "encounters"
    }
    warnings = [
        f"source {source.name}: `{name}` of `[source.columns]` has no effect, for a group of "
        "`[[source.repeated]]` gives it too; make it a group of its own with count = 1"
        for source in sources.values()
        for name in source.unused
    ]
    with _coded_rows(parts, outcomes) as connection:
        for source in sources.values():
            warnings += _type_warnings(connection, source, outcomes)
            warnings += _system_warnings(connection, source, outcomes)
    return warnings


def _types(outcomes: OutcomeDefinition) -> set[str]:
    return {name.upper() for item in outcomes.component.values() for name in item.types}


def _shown(value: str) -> str:
    return value if _SAFE.fullmatch(value) else value_shape(value)


@contextmanager
def _coded_rows(
    parts: Sequence[Part], outcomes: OutcomeDefinition
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with `coded`, the codes of all sources with their counts, and `components`."""
    names = ["diagnosis_code", "diagnosis_system", "diagnosis_type"]
    names += ["procedure_code", "procedure_system"]
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE coded (source VARCHAR, kind VARCHAR, code VARCHAR, system VARCHAR, "
            "type VARCHAR, n BIGINT)"
        )
        for part in parts:
            if part.extract.source.table != "encounters":
                continue
            connection.register("rows", pq.ParquetFile(part.rows).read(names))
            for kind, role in (("diagnosis", "diagnosis_type"), ("procedure", "NULL")):
                connection.execute(
                    f"INSERT INTO coded SELECT $1, '{kind}', {kind}_code, {kind}_system, {role}, "
                    "count(*) FROM rows GROUP BY ALL",
                    [part.extract.source.name],
                )
            connection.unregister("rows")
        connection.register("components", outcomes.component_table())
        yield connection


def _type_warnings(
    connection: duckdb.DuckDBPyConnection, source: Source, outcomes: OutcomeDefinition
) -> list[str]:
    """Warnings about diagnosis types that no component, or not the component of a code, names."""
    types = _types(outcomes)
    found = _counts(connection, source, "SELECT type, sum(n) FROM coded WHERE type IS NOT NULL")
    if not types or not found:
        return []
    if not types & found.keys():
        return [
            f"source {source.name}: no outcome uses any of its diagnosis types ({_most(found)}): "
            f"ALL of its {found.total()} typed diagnoses are lost as events. Write in the mapping, "
            f"at `diagnosis_type`: {_recoding(found)} (M: main diagnosis of the stay, 1: other "
            "diagnosis of it), or name the types in the outcome definition (`types`)"
        ]
    warnings = []
    for name, item in outcomes.component.items():
        if not item.types:
            continue
        coded = _counts(connection, source, _OF_COMPONENT.format(component=name))
        wanted = {one.upper() for one in item.types}
        if coded.total() >= _ENOUGH and not wanted & coded.keys():
            warnings.append(
                f"source {source.name}: {coded.total()} diagnoses have a code of `{name}`, but "
                f"none a type that it names ({', '.join(item.types)}); found: {_most(coded)}. If "
                'these mean something else here, write e.g. codes = { X = "M" } at '
                "`diagnosis_type` in the mapping (M: main diagnosis, 1: other diagnosis)"
            )
    return warnings


#: Types of the diagnoses that have a code of a component, as `sql/link_events.sql` compares them.
_OF_COMPONENT = (
    "SELECT type, sum(n) FROM coded WHERE type IS NOT NULL AND EXISTS (FROM components AS c "
    "WHERE c.kind = coded.kind AND c.component = '{component}' AND starts_with(coded.code, c.code) "
    "AND coalesce(c.system = coded.system, c.system IS NULL OR c.if_unstated))"
)
#: Codes of one kind that belong to a component under the system that their rows state, or would
#: belong to one if they stated another.
_BY_SYSTEM = (
    "SELECT coalesce(c.system, ''), sum(n) FROM (SELECT code, sum(n) AS n FROM coded "
    "WHERE kind = '{kind}' AND system IS NOT DISTINCT FROM {system} AND source = $1 GROUP BY code) "
    "AS coded JOIN (SELECT DISTINCT kind, system, code FROM components) AS c "
    "ON c.kind = '{kind}' AND starts_with(coded.code, c.code)"
)


def _system_warnings(
    connection: duckdb.DuckDBPyConnection, source: Source, outcomes: OutcomeDefinition
) -> list[str]:
    """Warnings about codes of systems that the mapping does not state, or no outcome knows."""
    warnings = []
    for kind in ("diagnosis", "procedure"):
        lists = {s for item in outcomes.component.values() if item.kind == kind
                 for s, codes in item.lists if codes}  # fmt: skip
        stated = _counts(
            connection,
            source,
            "SELECT coalesce(system, ''), sum(n) FROM coded WHERE code IS NOT NULL "
            f"AND kind = '{kind}'",
        )
        for system in sorted(stated.keys() - {""}):
            if lists and not {system, None} & lists:
                warnings.append(
                    f"source {source.name}: {stated[system]} {kind} codes are of {system}, for "
                    "which the outcome definition has no list; add one to a copy of it "
                    "(docs/linkage.md)"
                )
        if stated[""]:
            warnings += _unstated(connection, source, kind)
    return warnings


def _unstated(connection: duckdb.DuckDBPyConnection, source: Source, kind: str) -> list[str]:
    """A warning if codes without a stated system fit the lists of one that must be stated."""
    fits = _counts(connection, source, _BY_SYSTEM.format(kind=kind, system="NULL"))
    tried = connection.sql(
        f"SELECT DISTINCT system FROM components WHERE kind = '{kind}' AND if_unstated"
    ).fetchall()
    counted = sum(fits[system or ""] for (system,) in tried)
    others = Counter({s: n for s, n in fits.items() if (s,) not in tried and s})
    if not others or others.most_common(1)[0][1] <= counted:
        return []
    system, n = others.most_common(1)[0]
    return [
        f"source {source.name}: {n} {kind} codes are in the outcomes' lists of {system}, only "
        f"{counted} in those that hold without a stated system; if the codes are {system}, write "
        f'in the mapping: {kind}_system = {{ constant = "{system}" }}'
    ]


def _counts(connection: duckdb.DuckDBPyConnection, source: Source, query: str) -> Counter[str]:
    """Counts of a query's groups, for one source."""
    where = "" if "$1" in query else " AND source = $1"
    rows = connection.execute(f"{query}{where} GROUP BY 1", [source.name]).fetchall()
    return Counter({value: int(n) for value, n in rows})


def _most(found: Counter[str]) -> str:
    shown: Counter[str] = Counter()
    for value, n in found.items():
        shown[_shown(value)] += n
    listed = [value for value, _ in shown.most_common(_SHOWN_TYPES)]
    return ", ".join(listed) + (", ..." if len(shown) > _SHOWN_TYPES else "")


def _recoding(found: Mapping[str, int]) -> str:
    """`codes` of a mapping for the types of a source."""
    known = {
        value: TYPE_MEANINGS[value.lower()] for value in found if value.lower() in TYPE_MEANINGS
    }
    if not known:
        return 'codes = { X = "M", Y = "1" }'
    pairs = ", ".join(f'"{value}" = "{meaning}"' for value, meaning in sorted(known.items()))
    return f"codes = {{ {pairs} }}"
