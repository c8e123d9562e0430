"""Links scores and canonical tables to one analysis row per patient, counting every exclusion.

All joins and outcome logic are in `sql/link_*.sql`; this module provides their tables, keys and
parameters, and validates the results.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cac_core.categories import cac_category
from cac_core.cohort.database import Resources, create_table, database, sql_path, sql_text
from cac_core.cohort.extract_parts import Part
from cac_core.cohort.mapping import Rules, SiteMapping
from cac_core.cohort.outcomes import OutcomeDefinition
from cac_core.errors import UsageError
from cac_core.keys import Keyring
from schemas.codes import FlowStep, StudyReason
from schemas.linkage import EVENTS, FLOW, MATCHES, QUARANTINE
from schemas.linked import linked_table
from schemas.registry import CLINICAL, PERFUSION, REGISTRY_TABLES, stored_table
from schemas.score import CERTAINTY_COLUMNS, SCORES
from schemas.table import TableSpec

#: Raised when the same canonical tables would give other rows.
LINK_VERSION = 5
#: Key of each table, by patient instead of the registry's identifier.
_KEYS = {
    "clinical": "patient_key, study_date",
    "perfusion": "patient_key, study_date",
    "deaths": "patient_key",
    "follow_up": "patient_key",
    "readings": "patient_key, study_date, reader, method",
}
_NO_CTAC = (StudyReason.NO_CT_SERIES.value, StudyReason.NO_CTAC_SERIES.value)
#: Ages in whole years, rounded or truncated, put one person's birth up to two years apart.
_BIRTH_YEARS_APART = 2.5
#: Largest plausible age in years.
_OLDEST = 110
#: Largest difference in years between the birth year of a DICOM header and that of the registry.
_BIRTH_YEAR_TOLERANCE = 1


def linkage_digest(
    parts: Sequence[Part],
    scores: pa.Table,
    accessions: pa.Table,
    mapping: SiteMapping,
    outcomes: OutcomeDefinition,
    keyring: Keyring,
) -> str:
    """SHA-256 over everything that a linkage depends on; parameters as for `link`."""
    archive = hashlib.sha256()
    for table in (_studies(scores, accessions), _accession_pairs(accessions)):
        sink = pa.BufferOutputStream()
        # Parquet, because Arrow's own format stores arbitrary bytes under nulls.
        pq.write_table(table, sink)
        archive.update(sink.getvalue())
    inputs = {
        "version": LINK_VERSION,
        "parts": sorted(part.digest for part in parts),
        "studies": archive.hexdigest(),
        "coverage": mapping.coverage.model_dump(mode="json"),
        "rules": mapping.rules.model_dump(mode="json"),
        "outcomes": outcomes.model_dump(mode="json"),
        # Another secret gives other keys; the digest does not reveal it.
        "secret": hmac.digest(keyring.secret, b"linkage-digest", "sha256").hex(),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Linkage:
    """Result of a linkage: published tables, and rows for `quarantine`."""

    linked: pa.Table
    events: pa.Table
    flow: pa.Table
    matches: pa.Table
    quarantine: pa.Table


def link(
    parts: Sequence[Part],
    scores: pa.Table,
    accessions: pa.Table,
    mapping: SiteMapping,
    outcomes: OutcomeDefinition,
    keyring: Keyring,
    resources: Resources,
) -> Linkage:
    """Link scores with canonical tables.

    Parameters
    ----------
    parts : canonical parts of all sources of the mapping.
    scores : table `scores` of one model.
    accessions : as `scores.study_identifiers` gives them: columns `study_key`, `accession_key`
        and, if the index has them, `PatientSex` and `patient_birth_year`.
    keyring : keyring with the secret that `scores` were made with.

    Raises
    ------
    UsageError
        If the mapping requires a covariate that does not exist.
    InvalidTableError
        If a result breaks its schema.
    """
    check_rules(mapping.rules)
    with database(resources) as (connection, scratch):
        _open_tables(connection, parts, scratch)
        create_table(connection, "studies", _studies(scores, accessions))
        create_table(connection, "study_accessions", _accession_pairs(accessions))
        for name, table in _parameters(outcomes).items():
            create_table(connection, name, table)
        _set_variables(connection, mapping)
        _key_patients(connection, keyring)
        _join(connection, mapping.rules)
        return _results(connection, parts, mapping.rules, outcomes, keyring)


def _results(
    connection: duckdb.DuckDBPyConnection,
    parts: Sequence[Part],
    rules: Rules,
    outcomes: OutcomeDefinition,
    keyring: Keyring,
) -> Linkage:
    rows = connection.sql(sql_text("link_rows")).to_arrow_table()
    events = connection.sql(sql_text("link_component_events")).to_arrow_table()
    if rules.shift_dates:
        rows = _shifted(rows, "study_date", keyring)
        events = _shifted(events, "event_date", keyring)
    return Linkage(
        _finished(rows, outcomes),
        EVENTS.validate(events),
        FLOW.validate(connection.table("flow").to_arrow_table()),
        MATCHES.validate(connection.table("matches").to_arrow_table()),
        _quarantine(connection, parts),
    )


def _join(connection: duckdb.DuckDBPyConnection, rules: Rules) -> None:
    """Run the SQL files in their order, from unique rows to outcomes."""
    connection.execute(
        'CREATE TABLE quarantined ("table" VARCHAR, part INTEGER, source_file VARCHAR, '
        'source_line BIGINT, "column" VARCHAR, reason VARCHAR)'
    )
    for table in REGISTRY_TABLES:
        if table.name in _KEYS:
            connection.execute(_unique_rows(table))
    for name in ("link_identity", "link_matches", "link_events"):
        connection.execute(sql_text(name))
    absent = [f"CASE WHEN {n} IS NULL THEN '{n}' END" for n in rules.required]
    connection.execute(sql_text("link_missing").format(absent=", ".join(absent) or "NULL"))
    connection.execute(sql_text("link_flow"))
    connection.execute(sql_text("link_outcomes"))


def check_rules(rules: Rules) -> None:
    """Check that the rules require only existing covariates.

    Raises
    ------
    UsageError
        If a column of `required` is not a nullable covariate.
    """
    known = {c.name for c in (*CLINICAL.columns, *PERFUSION.columns) if c.nullable}
    known -= {"accession_number"}
    unknown = sorted(set(rules.required) - known)
    if unknown:
        raise UsageError(
            f"The mapping's rules require {', '.join(unknown)}, which is not a covariate.",
            f"Covariates are {', '.join(sorted(known))}.",
        )


def _open_tables(
    connection: duckdb.DuckDBPyConnection, parts: Sequence[Part], scratch: Path
) -> None:
    """Create a view of each canonical table over its parts, or an empty table without any.

    The extra column `part` numbers the parts, since file names can repeat. Links in `scratch` give
    the parts plain names: the path of a warehouse may contain pattern characters.
    """
    for number, part in enumerate(parts):
        (scratch / f"part-{number}.parquet").symlink_to(part.rows.absolute())
    for table in REGISTRY_TABLES:
        selects = [
            f"SELECT *, {number}::INTEGER AS part FROM read_parquet("
            f"{sql_path(scratch / f'part-{number}.parquet')}, hive_partitioning = false)"
            for number, part in enumerate(parts)
            if part.extract.source.table == table.name
        ]
        if selects:
            connection.execute(f"CREATE VIEW {table.name} AS {' UNION ALL '.join(selects)}")
        else:
            empty = stored_table(table).empty()
            create_table(
                connection, table.name, empty.append_column("part", pa.array([], pa.int32()))
            )


def _studies(scores: pa.Table, accessions: pa.Table) -> pa.Table:
    """Studies of the archive; null keys and dates stay null.

    Sex and birth year come from the headers, and are null if the headers of a study disagree.
    """
    names = ["study_key", "patient_key", "study_date", "status", "agatston", "cac_category"]
    has_ctac = pc.fill_null(pc.invert(pc.is_in(scores["reason"], pa.array(_NO_CTAC))), True)
    # Scores of earlier versions do not say how sure they are.
    known = SCORES.completed(scores).select([*names, *CERTAINTY_COLUMNS])
    studies = known.append_column("has_ctac", has_ctac)
    headers = {
        name: _agreed(accessions, name)
        for name in ("PatientSex", "patient_birth_year")
        if name in accessions.column_names
    }
    keys = studies["study_key"].to_pylist()
    sexes = [headers.get("PatientSex", {}).get(key) for key in keys]
    years = [headers.get("patient_birth_year", {}).get(key) for key in keys]
    sexes = [sex if sex in ("F", "M") else None for sex in sexes]
    # Archives without birth dates fill the field with an impossible one.
    days = studies["study_date"].to_pylist()
    years = [
        year if isinstance(year, int) and (day is None or 0 <= day.year - year <= _OLDEST) else None
        for year, day in zip(years, days, strict=True)
    ]
    studies = studies.append_column("patient_sex", pa.array(sexes, pa.string()))
    studies = studies.append_column("birth_year", pa.array(years, pa.int32()))
    return studies.sort_by("study_key")


def _agreed(accessions: pa.Table, column: str) -> dict[str, object]:
    """The value of a column by study, for studies whose files agree on it."""
    found = accessions.filter(pc.is_valid(accessions[column])).group_by("study_key")
    counted = found.aggregate([(column, "min"), (column, "max")]).to_pylist()
    low, high = f"{column}_min", f"{column}_max"
    return {row["study_key"]: row[low] for row in counted if row[low] == row[high]}


def _accession_pairs(accessions: pa.Table) -> pa.Table:
    """Every accession number of every study, sorted by key."""
    pairs = accessions.select(["study_key", "accession_key"])
    distinct = pairs.filter(pc.is_valid(pairs["accession_key"])).group_by(pairs.column_names)
    return distinct.aggregate([]).sort_by(
        [("study_key", "ascending"), ("accession_key", "ascending")]
    )


def _parameters(outcomes: OutcomeDefinition) -> dict[str, pa.Table]:
    """The outcome definition and the order of the flow steps as tables."""
    deaths = [name for name, item in outcomes.component.items() if item.kind == "death"]
    steps = [step.value for step in FlowStep]
    return {
        "components": outcomes.component_table(),
        "outcomes": outcomes.outcome_table(),
        "death_components": pa.table({"component": pa.array(deaths, pa.string())}),
        "known_disease": pa.table(
            {"component": pa.array(outcomes.known_cad.components, pa.string())}
        ),
        "steps": pa.table({"step": steps, "step_number": list(range(1, len(steps) + 1))}),
    }


def _set_variables(connection: duckdb.DuckDBPyConnection, mapping: SiteMapping) -> None:
    values = {
        "window_days": mapping.rules.window_days,
        "coverage_end": mapping.coverage.end,
        "site": mapping.site,
        "birth_years_apart": _BIRTH_YEARS_APART,
        "birth_year_tolerance": _BIRTH_YEAR_TOLERANCE,
    }
    for name, value in values.items():
        connection.execute(f"SET VARIABLE {name} = $1", [value])


def _key_patients(connection: duckdb.DuckDBPyConnection, keyring: Keyring) -> None:
    """Create `patient_keys` and `accession_keys`, computing the key of each identifier once."""
    everyone = " UNION ".join(f"SELECT patient_id FROM {t.name}" for t in REGISTRY_TABLES)
    numbers = "SELECT DISTINCT accession_number FROM clinical WHERE accession_number IS NOT NULL"
    for query, column, target, key in (
        (everyone, "patient_id", "patient", keyring.patient_key),
        (numbers, "accession_number", "accession", keyring.accession_key),
    ):
        values = connection.sql(query).to_arrow_table()[column].to_pylist()
        keys = {column: values, f"{target}_key": [key(value) for value in values]}
        table = pa.table({name: pa.array(given, pa.string()) for name, given in keys.items()})
        create_table(connection, f"{target}_keys", table)


def _unique_rows(table: TableSpec) -> str:
    key = _KEYS[table.name]
    names = [column.name for column in table.columns]
    content = [name for name in names if name not in ("patient_id", *key.split(", "))]
    # Without contradiction there is only one value, so the maximum is that value.
    merged = ", ".join(f"max({name}) OVER (PARTITION BY {key}) AS {name}" for name in content)
    differs = " OR ".join(f"count(DISTINCT {name}) > 1" for name in content)
    return sql_text("link_unique_rows").format(
        table=table.name, key=key, merged=merged, differs=differs
    )


def _finished(rows: pa.Table, outcomes: OutcomeDefinition) -> pa.Table:
    """Table `linked`: with the categories of the expert readings, validated."""
    spec = linked_table(tuple(outcomes.outcome))
    scores = rows["expert_agatston"].to_pylist()
    categories = [None if score is None else str(cac_category(score)) for score in scores]
    rows = rows.append_column("expert_cac_category", pa.array(categories, pa.string()))
    for name in spec.arrow_schema.names:
        if name not in rows.column_names:  # no patient is included
            rows = rows.append_column(name, pa.nulls(rows.num_rows))
    return spec.validate(rows.select(spec.arrow_schema.names).cast(_plain(spec)))


def _shifted(rows: pa.Table, column: str, keyring: Keyring) -> pa.Table:
    """Shift the dates of a column by the days of each patient."""
    keys, dates = rows["patient_key"].to_pylist(), rows[column].to_pylist()
    moved = [date + keyring.date_shift(key) for key, date in zip(keys, dates, strict=True)]
    at = rows.column_names.index(column)
    return rows.set_column(at, column, pa.array(moved, pa.date32()))


def _plain(spec: TableSpec) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in spec.columns])


def _quarantine(connection: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> pa.Table:
    """Rows that the joins put into quarantine, with their source."""
    rows = connection.sql(
        'FROM quarantined ORDER BY "table", source_file, source_line, "column", reason, part'
    ).to_arrow_table()
    names = [parts[number].extract.source.name for number in rows["part"].to_pylist()]
    rows = rows.append_column("source", pa.array(names, pa.string()))
    rows = rows.append_column("value_shape", pa.nulls(rows.num_rows, pa.string()))
    rows = rows.append_column("row_kept", pa.repeat(False, rows.num_rows))
    return QUARANTINE.validate(rows.select(QUARANTINE.arrow_schema.names))
