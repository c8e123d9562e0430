"""From one file of an extract to rows of a canonical table, and rows in quarantine.

Recoding is SQL (`sql/canonical_<table>.sql` over the view `raw`, whose columns are ours and text);
what comes out is checked by pandera, batch by batch. A part is named after the digest of everything
it depends on, so an unchanged file is never read twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cac_core.cohort.dates import set_date_formats
from cac_core.cohort.extracts import Extract, load_rows
from cac_core.cohort.mapping import AUXILIARY, UNITS, ColumnMapping, SiteMapping, Source
from cac_core.errors import CacError
from cac_core.scratch import scratch_folder
from schemas.codes import RowReason
from schemas.linkage import QUARANTINE
from schemas.registry import AUXILIARY_RANGES, REGISTRY_TABLES, stored_table
from schemas.table import ColumnSpec, TableSpec

#: Part of every part's name; raised when the same file would become other rows.
CANONICAL_VERSION = 3
_TABLES = {table.name: table for table in REGISTRY_TABLES}
_BATCH_ROWS = 1 << 20
#: Columns whose values point at a person: not even their shape is kept.
_IDENTIFYING = ("patient_id", "accession_number", "birth_date")
#: Key in the metadata of a part's rows: lines of the file after its header.
_LINES = b"lines"
#: Whether a row of `typed` is used, be cells of it set aside or not.
_IS_KEPT = "len(list_filter(problems, lambda p: p.costs_row)) = 0"
_REASON_OF_CHECK = {
    "isin": RowReason.UNMAPPED_CODE,
    "not_nullable": RowReason.MISSING_VALUE,
}


@dataclass(frozen=True, slots=True)
class Resources:
    """What DuckDB may use: memory, threads, and a folder for what does not fit."""

    memory_limit: str = "2GB"
    threads: int = 2
    scratch: Path | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Canonical rows of one file, and its rows in quarantine; Parquet files under its digest.

    `n_lines` counts the lines of the file after its header (rows, where it has no lines),
    `n_unusable` those of them that are set aside, with blank ones (`n_blank`). `faults` has the
    reasons per column (a row can have several); `cells` those of cells that are set aside while
    their row is used. `newest` is the last date of an encounter or death.
    """

    extract: Extract
    digest: str
    rows: Path
    quarantine: Path
    n_rows: int
    n_lines: int
    n_unusable: int
    n_blank: int
    faults: Mapping[tuple[str | None, str], int]
    cells: Mapping[tuple[str | None, str], int]
    newest: dt.date | None
    reused: bool


@dataclass(frozen=True, slots=True)
class PartStore:
    """Parts in `registry/` and `quarantine/` of a warehouse folder.

    New parts wait in `staging`, with the same folders, until `publish`: tables stay as they are
    while a run can still fail.
    """

    root: Path
    staging: Path

    def find(self, table: str, digest: str) -> tuple[Path, Path] | None:
        """Both files of a part, published or waiting; None if it was not made yet."""
        for folder in (self.root, self.staging):
            rows, bad = self._paths(folder, table, digest)
            if rows.exists() and bad.exists():
                return rows, bad
        return None

    def new(self, table: str, digest: str) -> tuple[Path, Path]:
        """Where both files of a new part are to be written."""
        return self._paths(self.staging, table, digest)

    def publish(self, parts: Sequence[Part]) -> None:
        """Make these the only parts; what other extracts or mappings had given is removed.

        Raises
        ------
        CacError
            If the warehouse cannot be written.
        """
        keep = set()
        try:
            for part in parts:
                targets = self._paths(self.root, part.extract.source.table, part.digest)
                for path, target in zip((part.rows, part.quarantine), targets, strict=True):
                    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    path.replace(target)
                    keep.add(target)
            for pattern in ("registry/*/*.parquet", "quarantine/*-*.parquet"):
                for path in self.root.glob(pattern):
                    if path not in keep:
                        path.unlink()
            shutil.rmtree(self.staging, ignore_errors=True)
        except OSError as error:
            raise _unwritable(self.root, error) from None

    @staticmethod
    def _paths(folder: Path, table: str, digest: str) -> tuple[Path, Path]:
        rows = folder / "registry" / table / f"{digest}.parquet"
        return rows, folder / "quarantine" / f"{table}-{digest}.parquet"


@contextmanager
def database(resources: Resources) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A DuckDB database in a folder of its own, which is removed at the end.

    It may hold identifiers while it lives: the folder is readable by its owner only, and what a
    killed process left is removed by the next.
    """
    with scratch_folder("cac-linkage-", resources.scratch) as scratch:
        folder = str(scratch)
        # DuckDB takes what follows a question mark in the path of a database for options.
        place = ":memory:" if "?" in folder else str(scratch / "work.duckdb")
        with duckdb.connect(place) as connection:
            connection.execute("SET temp_directory = $1", [folder])
            connection.execute(f"SET memory_limit = '{resources.memory_limit}'")
            connection.execute(f"SET threads = {resources.threads}")
            connection.execute("SET enable_progress_bar = false")
            yield connection, scratch


def sql_text(name: str) -> str:
    """The text of `cac_core/cohort/sql/<name>.sql`."""
    return files("cac_core.cohort").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def part_digest(extract: Extract, mapping: SiteMapping) -> str:
    """SHA-256 over all that the rows of a part depend on."""
    coverage = [str(mapping.coverage.begin), str(mapping.coverage.end)]
    parts = [extract.digest, extract.label, extract.source.digest, *coverage]
    text = json.dumps([CANONICAL_VERSION, mapping.site, *parts])
    return hashlib.sha256(text.encode()).hexdigest()


def make_part(
    extract: Extract, mapping: SiteMapping, store: PartStore, resources: Resources
) -> Part:
    """Canonical rows of one file of an extract; what was made before is used again.

    Raises
    ------
    UsageError
        If the file as a whole cannot be used; see `extracts.load_rows`.
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
            raise _unwritable(store.root, error) from None
    return _told_part(extract, digest, rows, bad, reused=found is not None)


def _told_part(extract: Extract, digest: str, rows: Path, bad: Path, *, reused: bool) -> Part:
    """A part with the counts that its files hold."""
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


def _unwritable(folder: Path, error: OSError) -> CacError:
    return CacError(
        f"The warehouse {folder} cannot be written ({error.strerror}).",
        "Free space and permissions there.",
    )


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
        _set_variables(connection, extract.source, table, mapping)
        cells = "line, text_of(COLUMNS(* EXCLUDE line))"
        renamed = _renamed(extract.source, table, "file_rows")
        connection.execute(f"CREATE VIEW raw AS SELECT {cells} FROM ({renamed})")
        set_date_formats(connection, extract, _dated(extract.source, table))
        connection.execute(f"CREATE TABLE typed AS {sql_text(f'canonical_{table.name}')}")
        bad = [_problem_rows(connection)]
        with _aside(rows) as aside:
            bad += _write_checked(connection, extract, table, aside, lines)
        with _aside(quarantine) as aside:
            pq.write_table(_quarantined(extract, bad), aside, compression="zstd")


def _dated(source: Source, table: TableSpec) -> list[str]:
    """Columns of dates of a table that a source gives."""
    given = set(source.columns).union(*(group.columns for group in source.repeated))
    dated = [c.name for c in table.columns if c.type == pa.date32()]
    return [name for name in [*dated, "birth_date"] if name in given]


def _set_variables(
    connection: duckdb.DuckDBPyConnection, source: Source, table: TableSpec, mapping: SiteMapping
) -> None:
    codes = {name: item.codes for name, item in source.columns.items() if item.codes}
    factors = {name: UNITS[item.unit] for name, item in source.columns.items() if item.unit}
    values = {
        "missing": list(source.missing),
        "decimal": source.decimal,
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
    """Codes in small letters, where all spellings of one mean the same."""
    meanings: dict[str, set[str]] = {}
    for code, meaning in codes.items():
        meanings.setdefault(code.strip().lower(), set()).add(meaning)
    return {code: meant.pop() for code, meant in meanings.items() if len(meant) == 1}


def _as_map(values: Mapping[str, object]) -> dict[str, list[object]]:
    """A dictionary in the form that DuckDB takes for a MAP."""
    return {"key": list(values), "value": list(values.values())}


def _renamed(source: Source, table: TableSpec, rows: str) -> str:
    """A query that gives the source's columns under our names; a row per repeated group."""
    names = [c.name for c in table.columns] + list(AUXILIARY.get(table.name, ()))
    plain = {name: _expression(source.columns[name]) for name in names if name in source.columns}
    groups = {name for group in source.repeated for name in group.columns}
    listed = [f"{plain.get(name, 'NULL::VARCHAR')} AS {name}" for name in names]
    if not groups:
        return f"SELECT line, {', '.join(listed)} FROM {rows}"
    items = []
    for group in source.repeated:
        for n in range(1, group.count + 1):
            given = {c: _identifier(t.replace("{n}", str(n))) for c, t in group.columns.items()}
            fields = [f"{c}: {given.get(c, 'NULL::VARCHAR')}" for c in sorted(groups)]
            present = " OR ".join(
                f"text_of({expression}) IS NOT NULL" for expression in given.values()
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
        return "'" + mapped.constant.replace("'", "''") + "'"
    return _identifier(str(mapped.column))


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _problem_rows(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Lines that could not be split, and what could not be read of the rows."""
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
    """Write the rows that pass the checks of their table; gives the others."""
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
    """A name beside `path` to write to; renamed to it when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield aside
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
