"""From one extract file to the rows of a canonical table, and rows in quarantine.

SQL recodes the values (`sql/canonical_<table>.sql` over the view `raw`, which has canonical column
names and text values); pandera checks the result batch by batch. A part is named after the digest
of everything it depends on, so an unchanged file is never read twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cac_core.cohort.canonical_query import raw_rows, set_variables
from cac_core.cohort.database import Resources, database, sql_text
from cac_core.cohort.dates import set_date_formats
from cac_core.cohort.extract_parts import Part, PartStore, unwritable
from cac_core.cohort.extract_rows import load_rows
from cac_core.cohort.extracts import Extract
from cac_core.cohort.forgotten import Forgotten
from cac_core.cohort.mapping import SiteMapping, Source
from schemas.codes import RowReason
from schemas.linkage import QUARANTINE
from schemas.registry import REGISTRY_TABLES, stored_table
from schemas.table import TableSpec

#: Enters every part's digest; raised when the same file would give other rows.
CANONICAL_VERSION = 4
_TABLES = {table.name: table for table in REGISTRY_TABLES}
_BATCH_ROWS = 1 << 20
#: Columns that identify a person: not even the shape of their values is kept.
_IDENTIFYING = ("patient_id", "accession_number", "birth_date")
#: Metadata key of a part's rows: number of lines of the file after its header.
_LINES = b"lines"
#: Whether a row of `typed` is used, even if some of its cells are in quarantine.
_IS_KEPT = "len(list_filter(problems, lambda p: p.costs_row)) = 0"
_REASON_OF_CHECK = {
    "isin": RowReason.UNMAPPED_CODE,
    "not_nullable": RowReason.MISSING_VALUE,
}


def part_digest(extract: Extract, mapping: SiteMapping) -> str:
    """SHA-256 over everything that the rows of a part depend on."""
    coverage = [str(mapping.coverage.begin), str(mapping.coverage.end)]
    parts = [extract.digest, extract.label, extract.source.digest, *coverage]
    text = json.dumps([CANONICAL_VERSION, mapping.site, *parts])
    return hashlib.sha256(text.encode()).hexdigest()


def make_part(
    extract: Extract, mapping: SiteMapping, store: PartStore, resources: Resources
) -> Part:
    """Canonical rows of one extract file; an existing part with the same digest is reused.

    Raises
    ------
    UsageError
        If the file as a whole cannot be used; see `extract_rows.load_rows`.
    CacError
        If the warehouse cannot be written.
    """
    digest = part_digest(extract, mapping)
    table = _TABLES[extract.source.table]
    found = store.find(table.name, digest)
    rows, bad = found or store.new(table.name, digest)
    if found is None:
        try:
            _write_part(extract, mapping, table, rows, bad, resources)
        except OSError as error:
            raise unwritable(store.root, error) from None
    return _part(extract, digest, rows, bad, reused=found is not None)


def without_forgotten(part: Part, forgotten: Forgotten) -> Part:
    """Remove the rows of withdrawn patients from the file of a part, and cells in quarantine.

    Lines in quarantine stay: they name no patient.

    Raises
    ------
    CacError
        If the file cannot be written.
    """
    ids = pq.ParquetFile(part.rows).read(["patient_id", "source_line"])
    mask = forgotten.mask(ids)
    if not pc.any(mask).as_py():
        return part
    lines = ids["source_line"].filter(mask).combine_chunks()
    bad = pq.ParquetFile(part.quarantine).read()
    kept = bad.filter(pc.invert(pc.is_in(bad["source_line"], lines)))
    try:
        # The rows last: they tell which lines are the patient's.
        _replace(part.quarantine, kept)
        _replace(part.rows, pq.ParquetFile(part.rows).read().filter(pc.invert(mask)))
    except OSError as error:
        raise unwritable(part.rows.parent, error) from None
    return _part(part.extract, part.digest, part.rows, part.quarantine, reused=part.reused)


def _replace(path: Path, table: pa.Table) -> None:
    aside = path.with_name(f".{uuid.uuid4().hex}")
    pq.write_table(table, aside, compression="zstd")
    aside.replace(path)


def _part(extract: Extract, digest: str, rows: Path, bad: Path, *, reused: bool) -> Part:
    """A part with the counts stored in its files."""
    quarantined = pq.ParquetFile(bad).read(["source_line", "column", "reason", "row_kept"])
    kept = quarantined.filter(pc.equal(quarantined["row_kept"], True))
    lost = quarantined.filter(pc.equal(quarantined["row_kept"], False))
    stored = pq.read_metadata(rows)
    faults = _counts(lost)
    return Part(
        extract,
        digest,
        rows,
        bad,
        n_rows=stored.num_rows,
        n_lines=int(stored.metadata[_LINES]),
        n_unusable=pc.count_distinct(lost["source_line"], mode="all").as_py(),
        n_blank=faults.get((None, RowReason.BLANK_LINE.value), 0),
        faults=faults,
        cells=_counts(kept),
        newest=_newest(rows, _TABLES[extract.source.table]),
        reused=reused,
    )


def _counts(quarantined: pa.Table) -> dict[tuple[str | None, str], int]:
    counted = quarantined.group_by(["column", "reason"]).aggregate([([], "count_all")])
    return {(r["column"], r["reason"]): r["count_all"] for r in counted.to_pylist()}


def _newest(rows: Path, table: TableSpec) -> dt.date | None:
    dated = {"encounters": "admit_date", "deaths": "death_date"}
    if table.name not in dated:
        return None
    newest: dt.date | None = pc.max(pq.ParquetFile(rows).read([dated[table.name]])[0]).as_py()
    return newest


def _write_part(
    extract: Extract,
    mapping: SiteMapping,
    table: TableSpec,
    rows: Path,
    quarantine: Path,
    resources: Resources,
) -> None:
    with database(resources) as (connection, scratch):
        lines = load_rows(connection, extract, scratch)
        connection.execute(sql_text("reading_macros"))
        set_variables(connection, extract.source, table, mapping)
        connection.execute(f"CREATE VIEW raw AS {raw_rows(extract.source, table, 'file_rows')}")
        set_date_formats(connection, extract, _dated(extract.source, table))
        connection.execute(f"CREATE TABLE typed AS {sql_text(f'canonical_{table.name}')}")
        bad = [_problem_rows(connection)]
        with _aside(rows) as aside:
            bad += _write_checked(connection, extract, table, aside, lines)
        with _aside(quarantine) as aside:
            pq.write_table(_quarantined(extract, bad), aside, compression="zstd")


def _dated(source: Source, table: TableSpec) -> list[str]:
    """Date columns of a table that a source has."""
    given = {name for name, _ in source.mapped}
    dated = [c.name for c in table.columns if c.type == pa.date32()]
    return [name for name in [*dated, "birth_date"] if name in given]


def _problem_rows(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Lines that could not be split, and cells that could not be read."""
    return connection.sql(
        'SELECT line AS source_line, NULL::VARCHAR AS "column", reason, '
        "NULL::VARCHAR AS value_shape, false AS row_kept FROM unreadable UNION ALL "
        'SELECT DISTINCT source_line, p."column", p.reason, p.shape, row_kept FROM (SELECT '
        f"source_line, unnest(problems) AS p, {_IS_KEPT} AS row_kept FROM typed)"
    ).to_arrow_table()


def _write_checked(
    connection: duckdb.DuckDBPyConnection,
    extract: Extract,
    table: TableSpec,
    path: Path,
    n_lines: int,
) -> list[pa.Table]:
    """Write the rows that pass the checks of their table and return the others."""
    stored = stored_table(table)
    columns = ", ".join(column.name for column in table.columns)
    reader = connection.sql(
        f"SELECT {columns}, source_line FROM typed WHERE {_IS_KEPT}"
    ).to_arrow_reader(_BATCH_ROWS)
    bad = []
    schema = stored.arrow_schema
    schema = schema.with_metadata({**schema.metadata, _LINES: str(n_lines).encode()})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in reader:
            rows = pa.Table.from_batches([batch])
            name = pa.array([extract.label] * rows.num_rows, pa.string())
            rows = rows.append_column("source_file", name).select(stored.arrow_schema.names)
            failures = stored.failures(rows)
            if failures:
                bad.append(_failed(rows, failures))
                good = pc.invert(
                    pc.is_in(
                        pa.array(range(rows.num_rows), pa.int64()),
                        pa.array({index for index, _, _ in failures}, pa.int64()),
                    )
                )
                rows = rows.filter(good)
            writer.write_table(rows.cast(schema))
    return bad


def _failed(rows: pa.Table, failures: list[tuple[int, str, str]]) -> pa.Table:
    lines = rows["source_line"].take(pa.array([index for index, _, _ in failures], pa.int64()))
    reasons = [
        _REASON_OF_CHECK.get(check.split("(")[0], RowReason.OUT_OF_RANGE).value
        for _, _, check in failures
    ]
    return pa.table(
        {
            "source_line": lines,
            "column": pa.array([column for _, column, _ in failures], pa.string()),
            "reason": pa.array(reasons, pa.string()),
            "value_shape": pa.nulls(len(failures), pa.string()),
            "row_kept": pa.repeat(False, len(failures)),
        }
    )


def _quarantined(extract: Extract, bad: list[pa.Table]) -> pa.Table:
    rows = pa.concat_tables([item.unify_dictionaries() for item in bad])
    identifying = pc.is_in(rows["column"], pa.array(_IDENTIFYING))
    shapes = pc.if_else(identifying, pa.scalar(None, pa.string()), rows["value_shape"])
    n = rows.num_rows
    table = pa.table(
        {
            "table": pa.array([extract.source.table] * n, pa.string()),
            "source": pa.array([extract.source.name] * n, pa.string()),
            "source_file": pa.array([extract.label] * n, pa.string()),
            "source_line": rows["source_line"],
            "column": rows["column"],
            "reason": rows["reason"],
            "value_shape": shapes,
            "row_kept": rows["row_kept"],
        }
    )
    return QUARANTINE.validate(table.sort_by([("source_line", "ascending")]))


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield aside
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
