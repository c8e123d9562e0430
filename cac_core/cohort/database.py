"""DuckDB: the SQL files of this package, databases in memory or on disk, and literals of SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from cac_core.scratch import scratch_folder

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of DuckDB: memory, threads, and a folder for data that does not fit into memory."""

    memory_limit: str = "2GB"
    threads: int = 2
    scratch: Path | None = None


def sql_text(name: str) -> str:
    """The text of `cac_core/cohort/sql/<name>.sql`."""
    return files("cac_core.cohort").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def run_sql(name: str, parameters: dict[str, object] | None = None, **tables: pa.Table) -> pa.Table:
    """Run the SQL file `cac_core/cohort/sql/<name>.sql` in memory over Arrow tables.

    Parameters
    ----------
    parameters : values of the `$name` placeholders in the file.
    **tables : the tables that the file reads, by name.
    """
    import duckdb  # `cac status` opens a warehouse and runs no SQL

    with duckdb.connect(":memory:") as connection:
        for table_name, table in tables.items():
            connection.register(table_name, table)
        return connection.sql(sql_text(name), params=parameters).to_arrow_table()


def create_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Copy an Arrow table into a new table of the database, or in place of an old one."""
    connection.register("arriving", table)
    connection.execute(f"CREATE OR REPLACE TABLE {name} AS FROM arriving")
    connection.unregister("arriving")


@contextmanager
def database(resources: Resources) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A DuckDB database in a temporary folder, which is removed at the end.

    The database may hold identifiers: only its owner can read the folder, and the next run removes
    what a killed process left.
    """
    import duckdb

    with scratch_folder("cac-linkage-", resources.scratch) as scratch:
        folder = str(scratch)
        # DuckDB parses what follows a question mark in a database path as options.
        place = ":memory:" if "?" in folder else str(scratch / "work.duckdb")
        with duckdb.connect(place) as connection:
            connection.execute("SET temp_directory = $1", [folder])
            connection.execute(f"SET memory_limit = '{resources.memory_limit}'")
            connection.execute(f"SET threads = {resources.threads}")
            connection.execute("SET enable_progress_bar = false")
            yield connection, scratch


def sql_path(path: Path) -> str:
    """A path as a literal of SQL, with the pattern characters of DuckDB escaped."""
    return sql_literal(re.sub(r"([*?[])", r"[\1]", str(path)))


def sql_identifier(name: str) -> str:
    """A name as a quoted identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def sql_literal(value: object) -> str:
    """A value as a literal of SQL, for statements that take no parameters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        fields = ", ".join(f"{sql_literal(k)}: {sql_literal(v)}" for k, v in value.items())
        return f"{{{fields}}}"
    return "'" + str(value).replace("'", "''") + "'"
