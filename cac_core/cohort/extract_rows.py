"""Rows of an extract file as text in DuckDB, from delimited text, Parquet or Excel.

Values are not interpreted here: every cell is text, every row has its line number, and lines that
cannot be split into the fields of the header are listed separately.
"""

from __future__ import annotations

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cac_core.cohort.cell_text import as_text, sheet_rows, text_field
from cac_core.cohort.database import create_table, sql_identifier, sql_literal, sql_path
from cac_core.cohort.delimited import Account, TextFile, check_lines, clean_lines, header_of
from cac_core.cohort.extracts import OPENERS, Extract, extract_fault, open_packed
from cac_core.cohort.header_columns import column_positions
from cac_core.cohort.mapping import Source
from cac_core.errors import CacError

#: Compressions that DuckDB reads; files with others are decompressed first.
_NATIVE = (".gz", ".zst")
_BATCH_ROWS = 1 << 16
#: `shifts` gives the number of lines before a row that are not rows (header, lines in quarantine,
#: line ends inside quotes), from `first_row` on.
_NUMBERED = """
CREATE OR REPLACE VIEW file_rows AS
SELECT read_rows.* EXCLUDE (row_number), read_rows.row_number + shifts.shift AS line
FROM read_rows
ASOF JOIN shifts ON read_rows.row_number >= shifts.first_row
"""


def load_rows(connection: duckdb.DuckDBPyConnection, extract: Extract, scratch: Path) -> int:
    """Fill the tables `file_rows` and `unreadable` of a connection from one file.

    `file_rows` has the column `line` and the columns of the mapping, as text with null for empty
    cells; `unreadable` has the lines that cannot be split or are blank, with the reason.

    Parameters
    ----------
    scratch : empty folder for decompressed or decoded copies; the caller removes it.

    Returns
    -------
    Number of lines after the header; rows, for formats without lines.

    Raises
    ------
    UsageError
        If the file is truncated, not in the stated format, or lacks a column.
    """
    source = extract.source
    connection.execute("CREATE OR REPLACE TABLE unreadable (line BIGINT, reason VARCHAR)")
    with _faults_of(extract):
        if source.format == "parquet":
            return _load_parquet(connection, extract)
        if source.format == "excel":
            return _load_excel(connection, extract)
        return _load_delimited(connection, extract, scratch)


def head_of(extract: Extract, scratch: Path, rows: int) -> Extract:
    """The extract with only its first rows, as a file in `scratch`; short or wide ones as they are.

    Text in UTF-16 and workbooks are not cut.
    """
    source, path = extract.source, extract.path
    with _faults_of(extract):
        if source.format == "parquet":
            with path.open("rb") as stream:
                file = pq.ParquetFile(stream)
                if file.metadata.num_rows <= rows:
                    return extract
                batch = next(file.iter_batches(rows))
            head = scratch / "head.parquet"
            pq.write_table(pa.Table.from_batches([batch]), head)
            return replace(extract, path=head)
        if source.format == "excel" or source.encoding.lower().startswith(("utf-16", "utf-32")):
            return extract
        head = scratch / "head.csv"
        with open_packed(path) as stream, head.open("wb") as out:
            out.writelines(islice(stream, rows + 1))
            cut = bool(stream.read(1))
    return replace(extract, path=head) if cut else extract


def check_header(extract: Extract) -> None:
    """Read only the header of a file, to find a wrong mapping early.

    Raises
    ------
    UsageError
        If the file is not in the stated format, or lacks a column of the mapping.
    """
    with _faults_of(extract):
        header = read_header(extract.source, extract.path)
    column_positions(extract, header)


@contextmanager
def _faults_of(extract: Extract) -> Iterator[None]:
    """Turn errors of the readers into messages about the extract file."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        what = f"is truncated or not a valid archive ({type(error).__name__})"
        raise extract_fault(extract, what) from None
    except UnicodeError:
        what = f"is not in the encoding {extract.source.encoding}"
        raise extract_fault(extract, what, "Correct `encoding` in the mapping.") from None
    except (OSError, duckdb.Error, pa.ArrowException, NotImplementedError) as error:
        cause = getattr(error, "strerror", None) or type(error).__name__
        what = f"cannot be read as {extract.source.format} ({cause})"
        raise extract_fault(extract, what) from None


def read_header(source: Source, path: Path) -> list[str]:
    """Column names of a file, as written there."""
    if source.format == "parquet":
        with path.open("rb") as stream:
            return [str(name) for name in pq.ParquetFile(stream).schema_arrow.names]
    if source.format == "excel":
        return sheet_rows(source, path)[0]
    return header_of(_text(source, path), source.field_delimiter)[0]


def _text(source: Source, path: Path) -> TextFile:
    return TextFile(lambda: open_packed(path), source.encoding, source.fallback_encoding)


def _load_delimited(connection: duckdb.DuckDBPyConnection, extract: Extract, scratch: Path) -> int:
    source, path = extract.source, extract.path
    text, delimiter = _text(source, path), source.field_delimiter
    header, n_header = header_of(text, delimiter)
    positions = column_positions(extract, header)
    account = check_lines(text, delimiter, len(header))
    packed = path.suffix.lower()
    if account is not None and (packed in _NATIVE or packed not in (*OPENERS, ".zip")):
        readable = scratch / f"extract.csv{packed if packed in _NATIVE else ''}"
        readable.symlink_to(path.absolute())
    else:
        readable = scratch / "clean.csv"
        with readable.open("wb") as out:
            account = clean_lines(text, delimiter, len(header), n_header, out)
    options = {
        "delim": delimiter,
        "quote": '"',
        "escape": '"',
        "header": readable.name != "clean.csv",
        "auto_detect": False,
        "columns": {f"c{n}": "VARCHAR" for n in range(len(header))},
        "hive_partitioning": False,
        # No `new_line`: with it DuckDB reads no rows from a file with CR LF in this mode.
        "strict_mode": True,
    }
    listed = ", ".join(f"{name} = {sql_literal(value)}" for name, value in options.items())
    connection.execute(
        "CREATE OR REPLACE TABLE read_rows AS SELECT row_number() OVER () AS row_number, "
        f"{_columns({name: f'c{n}' for name, n in positions.items()})} "
        f"FROM read_csv({sql_path(readable)}, {listed})"
    )
    _number_rows(connection, extract, account)
    return account.lines - account.header


def _number_rows(connection: duckdb.DuckDBPyConnection, extract: Extract, account: Account) -> None:
    """Number the rows by their lines, and list the lines that are not rows."""
    counted = connection.sql("SELECT count(*) FROM read_rows").fetchall()[0][0]
    if counted != account.rows:
        raise CacError(
            f"Source {extract.source.name}: {counted} rows were read from the file "
            f"{extract.path.name}, which has {account.rows}. The published tables are unchanged.",
            "This is a bug; please report it.",
        )
    shifts = account.shifts or [(1, account.header)]
    first_rows, counts = zip(*shifts, strict=True)
    table = {"first_row": pa.array(first_rows, pa.int64()), "shift": pa.array(counts, pa.int64())}
    create_table(connection, "shifts", pa.table(table))
    connection.execute(_NUMBERED)
    _list_unreadable(connection, account.unreadable, "unreadable_line")
    _list_unreadable(connection, account.blank, "blank_line")


def _list_unreadable(connection: duckdb.DuckDBPyConnection, lines: list[int], reason: str) -> None:
    query = "INSERT INTO unreadable SELECT unnest($1::BIGINT[]), $2"
    connection.execute(query, [lines, reason])


def _load_parquet(connection: duckdb.DuckDBPyConnection, extract: Extract) -> int:
    # Opened here and passed as batches: DuckDB would expand patterns in the path, and read folders
    # as columns.
    with extract.path.open("rb") as stream:
        file = pq.ParquetFile(stream)
        positions = column_positions(extract, [str(name) for name in file.schema_arrow.names])
        schema = pa.schema(
            [pa.field("line", pa.int64())]
            + [text_field(file.schema_arrow.field(n), name) for name, n in positions.items()]
        )
        reader = pa.RecordBatchReader.from_batches(
            schema, _text_batches(extract.source, file, list(positions.values()), schema)
        )
        _store_rows(connection, reader, positions)
        return int(file.metadata.num_rows)


def _text_batches(
    source: Source, file: pq.ParquetFile, positions: list[int], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Batches of the columns at `positions`, as text, with a column `line`."""
    # By position rather than by name: two columns may have the same name.
    seen = 0
    for batch in file.iter_batches(_BATCH_ROWS):
        lines = pa.array(range(seen + 1, seen + batch.num_rows + 1), pa.int64())
        seen += batch.num_rows
        columns = [as_text(batch.column(n), source.decimal) for n in positions]
        yield pa.RecordBatch.from_arrays([lines, *columns], schema=schema)


def _load_excel(connection: duckdb.DuckDBPyConnection, extract: Extract) -> int:
    header, *rows = sheet_rows(extract.source, extract.path)
    positions = column_positions(extract, header)
    numbered = [(line, row) for line, row in enumerate(rows, start=2) if any(row)]
    columns = {
        name: pa.array([row[n] for _, row in numbered], pa.string())
        for name, n in positions.items()
    }
    lines = pa.array([line for line, _ in numbered], pa.int64())
    _store_rows(connection, pa.table({"line": lines, **columns}), positions)
    blank = [line for line, row in enumerate(rows, start=2) if not any(row)]
    _list_unreadable(connection, blank, "blank_line")
    return len(rows)


def _store_rows(
    connection: duckdb.DuckDBPyConnection,
    rows: pa.Table | pa.RecordBatchReader,
    names: Iterable[str],
) -> None:
    connection.register("arriving", rows)
    columns = _columns({name: name for name in names})
    connection.execute(f"CREATE OR REPLACE TABLE file_rows AS SELECT line, {columns} FROM arriving")
    connection.unregister("arriving")


def _columns(columns: Mapping[str, str]) -> str:
    """SQL that selects columns as text; `columns` maps the names to those of the reader."""
    return ", ".join(
        f"nullif(trim(CAST({sql_identifier(given)} AS VARCHAR)), '') AS {sql_identifier(name)}"
        for name, given in columns.items()
    )
