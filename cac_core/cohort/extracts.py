"""Files of an extract as rows of text in DuckDB, whatever way they are written.

Nothing is interpreted here: every cell is text, every row has the line it came from, and lines
that cannot be split into the header's fields are listed apart. A file is read under its own name
and no other: no name of a file or folder is a pattern or a column to any library.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cac_core.cohort.delimited import Account, TextFile, check_lines, clean_lines, header_of
from cac_core.cohort.mapping import Source
from cac_core.errors import CacError, UsageError

#: What DuckDB reads as it is; everything else is unpacked beside it first.
_NATIVE = (".gz", ".zst")
_OPENERS: Mapping[str, Callable[[Path], object]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
}
_BATCH_ROWS = 1 << 16
#: Up to here a float holds every whole number of an identifier exactly.
_WHOLE_BELOW = 1e15
#: `shifts`: from which row on how many lines before a row are no rows (the header, lines set aside,
#: line ends inside quotes).
_NUMBERED = """
CREATE OR REPLACE VIEW file_rows AS
SELECT read_rows.* EXCLUDE (row_number), read_rows.row_number + shifts.shift AS line
FROM read_rows
ASOF JOIN shifts ON read_rows.row_number >= shifts.first_row
"""


@dataclass(frozen=True, slots=True)
class Extract:
    """One file of a source; `digest` is the SHA-256 of its bytes, `number` its place among them."""

    source: Source
    path: Path
    digest: str
    number: int = 1

    @property
    def label(self) -> str:
        """What tables call the file: names of files may hold names of people."""
        return f"{self.source.name}/{self.number}"


def find_extracts(source: Source, base: Path) -> list[Extract]:
    """The files of a source, in order of their names.

    What exists under the very name that the mapping gives is that file or folder; only what is
    left of the path is a pattern.

    Raises
    ------
    UsageError
        If there are none, or one cannot be read.
    """
    pattern = Path(source.files)
    root = Path(pattern.anchor) if pattern.is_absolute() else base
    parts = list(pattern.relative_to(pattern.anchor).parts)
    while parts and (root / parts[0]).exists():
        root /= parts.pop(0)
    found = root.glob(str(Path(*parts))) if parts else [root]
    paths = sorted(path for path in found if path.is_file())
    if not paths:
        raise UsageError(
            f"Source {source.name}: no file fits `{source.files}` in {base}.",
            "Correct `files` in the mapping, or fetch the extract.",
        )
    numbered = enumerate(paths, start=1)
    return [Extract(source, path, _digest(source, path), number) for number, path in numbered]


def load_rows(connection: duckdb.DuckDBPyConnection, extract: Extract, scratch: Path) -> int:
    """Fill the tables `file_rows` and `unreadable` of a connection from one file.

    `file_rows` has the column `line` and the columns that the mapping wants, all text, empty text
    as null; `unreadable` has the lines that could not be split or are blank, with the reason.

    Parameters
    ----------
    scratch : folder of its own for what must be unpacked or decoded; the caller removes it.

    Returns
    -------
    Lines of the file after its header; rows, where it has no lines.

    Raises
    ------
    UsageError
        If the file is cut short, is not of the stated format, or lacks a column.
    """
    source = extract.source
    connection.execute("CREATE OR REPLACE TABLE unreadable (line BIGINT, reason VARCHAR)")
    with _telling(extract):
        if source.format == "parquet":
            return _load_parquet(connection, extract)
        if source.format == "excel":
            return _load_excel(connection, extract)
        return _load_delimited(connection, extract, scratch)


def check_header(extract: Extract) -> None:
    """Read the header of a file alone, so that a wrong mapping costs no time.

    Raises
    ------
    UsageError
        If the file cannot be opened as its format, or lacks a column of the mapping.
    """
    with _telling(extract):
        header = read_header(extract.source, extract.path)
    _places(extract, header)


@contextmanager
def _telling(extract: Extract) -> Iterator[None]:
    """Tell what is wrong with a file in words for the person who fetched it."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise _fault(extract, f"is cut short or no archive ({type(error).__name__})") from None
    except UnicodeError:
        what = f"is not in the encoding {extract.source.encoding}"
        raise _fault(extract, what, "Correct `encoding` in the mapping.") from None
    except (OSError, duckdb.Error, pa.ArrowException, NotImplementedError) as error:
        cause = getattr(error, "strerror", None) or type(error).__name__
        raise _fault(extract, f"cannot be read as {extract.source.format} ({cause})") from None


def read_header(source: Source, path: Path) -> list[str]:
    """Names of the columns of a file, as it gives them."""
    if source.format == "parquet":
        with path.open("rb") as stream:
            return [str(name) for name in pq.ParquetFile(stream).schema_arrow.names]
    if source.format == "excel":
        return _sheet(source, path)[0]
    return header_of(_text(source, path), _delimiter(source))[0]


def _text(source: Source, path: Path) -> TextFile:
    return TextFile(lambda: open_packed(path), source.encoding, source.fallback_encoding)


def _load_delimited(connection: duckdb.DuckDBPyConnection, extract: Extract, scratch: Path) -> int:
    source, path = extract.source, extract.path
    text, delimiter = _text(source, path), _delimiter(source)
    header, n_header = header_of(text, delimiter)
    places = _places(extract, header)
    account = check_lines(text, delimiter, len(header))
    packed = path.suffix.lower()
    if account is not None and (packed in _NATIVE or packed not in (*_OPENERS, ".zip")):
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
        # No `new_line`: with it DuckDB reads no row of a file with CR LF in this mode.
        "strict_mode": True,
    }
    listed = ", ".join(f"{name} = {_literal(value)}" for name, value in options.items())
    connection.execute(
        "CREATE OR REPLACE TABLE read_rows AS SELECT row_number() OVER () AS row_number, "
        f"{_columns({name: f'c{n}' for name, n in places.items()})} "
        f"FROM read_csv({sql_path(readable)}, {listed})"
    )
    _number_rows(connection, extract, account)
    return account.lines - account.header


def _number_rows(connection: duckdb.DuckDBPyConnection, extract: Extract, account: Account) -> None:
    """Put the rows under the numbers of their lines, and list the lines that are no rows."""
    counted = connection.sql("SELECT count(*) FROM read_rows").fetchall()[0][0]
    if counted != account.rows:
        raise CacError(
            f"Source {extract.source.name}: {counted} rows were read from the file "
            f"{extract.path.name}, which has {account.rows}. The tables stay as they were.",
            "This is a fault of the program; please report it.",
        )
    shifts = account.shifts or [(1, account.header)]
    connection.register(
        "arriving",
        pa.table(
            {
                "first_row": pa.array([row for row, _ in shifts], pa.int64()),
                "shift": pa.array([shift for _, shift in shifts], pa.int64()),
            }
        ),
    )
    connection.execute("CREATE OR REPLACE TABLE shifts AS FROM arriving")
    connection.unregister("arriving")
    connection.execute(_NUMBERED)
    _list_unreadable(connection, account.unreadable, "unreadable_line")
    _list_unreadable(connection, account.blank, "blank_line")


def _list_unreadable(connection: duckdb.DuckDBPyConnection, lines: list[int], reason: str) -> None:
    query = "INSERT INTO unreadable SELECT unnest($1::BIGINT[]), $2"
    connection.execute(query, [lines, reason])


def _load_parquet(connection: duckdb.DuckDBPyConnection, extract: Extract) -> int:
    # Opened here and handed over as batches: a path would be taken for a pattern, and its folders
    # for columns.
    with extract.path.open("rb") as stream:
        file = pq.ParquetFile(stream)
        places = _places(extract, [str(name) for name in file.schema_arrow.names])
        schema = pa.schema(
            [pa.field("line", pa.int64())]
            + [_text_field(file.schema_arrow.field(n), name) for name, n in places.items()]
        )
        reader = pa.RecordBatchReader.from_batches(
            schema, _text_batches(extract.source, file, list(places.values()), schema)
        )
        connection.register("arriving", reader)
        names = {name: name for name in places}
        connection.execute(
            f"CREATE OR REPLACE TABLE file_rows AS SELECT line, {_columns(names)} FROM arriving"
        )
        connection.unregister("arriving")
        return int(file.metadata.num_rows)


def _text_field(found: pa.Field, name: str) -> pa.Field:
    """A column as DuckDB gets it: numbers and times as text, what it casts itself as it is."""
    kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    tests = (pa.types.is_floating, pa.types.is_decimal, pa.types.is_timestamp)
    special = any(test(kind) for test in tests)
    return pa.field(name, pa.string() if special else kind)


def _text_batches(
    source: Source, file: pq.ParquetFile, places: list[int], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Batches with a column `line`; a time is text as its own zone writes it."""
    # Row groups rather than a selection by name: two columns may have the same.
    seen = 0
    for batch in file.iter_batches(_BATCH_ROWS):
        lines = pa.array(range(seen + 1, seen + batch.num_rows + 1), pa.int64())
        seen += batch.num_rows
        columns = [_as_text(source, batch.column(n)) for n in places]
        yield pa.RecordBatch.from_arrays([lines, *columns], schema=schema)


def _as_text(source: Source, values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(values.type):
        if values.type.tz is not None:
            values = pc.local_timestamp(values)
        return values.cast(pa.string())
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        # A whole number in a column with gaps is no fraction: identifiers must not end in `.0`.
        texts = pc.replace_substring_regex(values.cast(pa.string()), r"\.0+$", "")
        if pa.types.is_floating(values.type):  # nor be shortened to 1.2e+10
            whole = values.cast(pa.float64())
            is_whole = pc.and_(
                pc.equal(pc.trunc(whole), whole), pc.less(pc.abs(whole), _WHOLE_BELOW)
            )
            numbers = pc.if_else(is_whole, whole, None).cast(pa.int64()).cast(pa.string())
            texts = pc.coalesce(numbers, texts)
        return pc.replace_substring(texts, ".", source.decimal)
    return values


def _number_text(value: float) -> str:
    whole = value.is_integer() and abs(value) < _WHOLE_BELOW
    return str(int(value)) if whole else str(value)


def _load_excel(connection: duckdb.DuckDBPyConnection, extract: Extract) -> int:
    header, *rows = _sheet(extract.source, extract.path)
    places = _places(extract, header)
    numbered = [(line, row) for line, row in enumerate(rows, start=2) if any(row)]
    columns = {
        name: pa.array([row[n] for _, row in numbered], pa.string()) for name, n in places.items()
    }
    lines = pa.array([line for line, _ in numbered], pa.int64())
    connection.register("arriving", pa.table({"line": lines, **columns}))
    names = {name: name for name in places}
    connection.execute(
        f"CREATE OR REPLACE TABLE file_rows AS SELECT line, {_columns(names)} FROM arriving"
    )
    connection.unregister("arriving")
    blank = [line for line, row in enumerate(rows, start=2) if not any(row)]
    _list_unreadable(connection, blank, "blank_line")
    return len(rows)


def _sheet(source: Source, path: Path) -> list[list[str]]:
    """Rows of text of a worksheet, the header first; dates in ISO form."""
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        book = CalamineWorkbook.from_path(str(path))
        sheet = book.get_sheet_by_name(source.sheet or book.sheet_names[0])
    except (CalamineError, IndexError) as error:
        raise OSError(5, f"no such sheet or no workbook: {type(error).__name__}") from None
    rows = [[_cell(value, source.decimal) for value in row] for row in sheet.to_python()]
    if not rows:
        raise OSError(5, "the sheet is empty")
    return rows


def _cell(value: object, decimal: str) -> str:
    if isinstance(value, float):
        return _number_text(value).replace(".", decimal)
    return str(value).removesuffix(" 00:00:00")


def _columns(columns: Mapping[str, str]) -> str:
    """The wanted columns as text, out of what a reader calls them."""
    return ", ".join(
        f"nullif(trim(CAST({_quoted(given)} AS VARCHAR)), '') AS {_quoted(name)}"
        for name, given in columns.items()
    )


def _places(extract: Extract, header: list[str]) -> dict[str, int]:
    """Where the wanted columns stand in a header.

    Raises
    ------
    UsageError
        If one is not there, or is there twice and the mapping does not say which is meant.
    """
    found, missing = {}, []
    for name in extract.source.wanted:
        if header.count(name) == 0:
            place = _numbered_place(name, header)
            if place is None:
                missing.append(name)
            else:
                found[name] = place
            continue
        same = [n for n, other in enumerate(header) if _folded(other) == _folded(name)]
        if len(same) > 1:
            raise _fault(
                extract,
                f"has {len(same)} columns `{name}` (columns {', '.join(str(n + 1) for n in same)}; "
                "small letters and blanks make no difference)",
                f"Say in the mapping which is meant: `{name}#1` is the first, `{name}#2` the next.",
            )
        found[name] = same[0]
    if missing:
        raise _missing(extract, header, missing)
    return found


def _numbered_place(name: str, header: list[str]) -> int | None:
    """Place of `NAME#2`: the second of the columns of that name."""
    numbered = re.fullmatch(r"(.*)#([1-9][0-9]?)", name, re.DOTALL)
    if numbered is None:
        return None
    same = [n for n, other in enumerate(header) if _folded(other) == _folded(numbered[1])]
    at = int(numbered[2]) - 1
    return same[at] if at < len(same) else None


def _folded(name: str) -> str:
    return "".join(name.split()).casefold()


def _missing(extract: Extract, header: list[str], missing: list[str]) -> UsageError:
    close = {_folded(name): name for name in header}
    hints = [f"`{close[_folded(n)]}`" for n in missing if _folded(n) in close]
    found = f"{len(header)} columns" if len(header) > 1 else "one column"
    advice = (
        f"The file has {', '.join(hints)}; correct the mapping."
        if hints
        else "Correct `columns` in the mapping; `cac link --propose FILE` shows the file's header."
    )
    if len(header) <= 1 and extract.source.format in ("csv", "tsv"):
        advice = f"Is `delimiter` = {_delimiter(extract.source)!r} right? " + advice
    return _fault(extract, f"has no column {', '.join(missing)} ({found} in line 1)", advice)


def _fault(extract: Extract, what: str, hint: str = "") -> UsageError:
    return UsageError(
        f"Source {extract.source.name}: the file {extract.path.name} {what}.",
        hint or "Ask for the file again, or correct `format` and `encoding` in the mapping.",
    )


def open_packed(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where the end of its name says that it is packed."""
    packed = path.suffix.lower()
    if packed == ".zst":
        return cast(IO[bytes], pa.input_stream(path.open("rb"), compression="zstd"))
    if packed == ".zip":
        archive = zipfile.ZipFile(path)
        # macOS puts a file of its own beside each one.
        members = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX/")
        ]
        if len(members) != 1:
            raise zipfile.BadZipFile(f"{len(members)} files in it")
        if archive.getinfo(members[0]).flag_bits & 1:
            raise zipfile.BadZipFile("encrypted")
        return archive.open(members[0])
    return cast(IO[bytes], _OPENERS[packed](path) if packed in _OPENERS else path.open("rb"))


def _digest(source: Source, path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"Source {source.name}: the file {path.name} cannot be read ({error.strerror}).",
            "Check its permissions.",
        ) from None


def _delimiter(source: Source) -> str:
    return "\t" if source.format == "tsv" else source.delimiter


def sql_path(path: Path) -> str:
    """A path as a literal of SQL, without the signs that DuckDB takes for a pattern."""
    return _literal(re.sub(r"([*?[])", r"[\1]", str(path)))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: object) -> str:
    """A value as a literal of SQL; options of readers cannot be parameters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    return "'" + str(value).replace("'", "''") + "'"
