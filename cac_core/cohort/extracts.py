"""Files of an extract as rows of text in DuckDB, whatever way they are written.

Nothing is interpreted here: every cell is text, every row has the line it came from, and lines
that cannot be split into the header's fields are listed apart.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, cast

import duckdb
import fsspec
import pyarrow as pa

from cac_core.cohort.mapping import Source
from cac_core.errors import UsageError

#: What DuckDB reads as it is; everything else is unpacked beside it first.
_NATIVE = ("", ".gz", ".zst")
_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Extract:
    """One file of a source; `digest` is the SHA-256 of its bytes."""

    source: Source
    path: Path
    digest: str


def find_extracts(source: Source, base: Path) -> list[Extract]:
    """The files of a source, in order of their names.

    Raises
    ------
    UsageError
        If there are none, or one cannot be read.
    """
    pattern = Path(source.files)
    root = Path(pattern.anchor) if pattern.is_absolute() else base
    relative = str(pattern.relative_to(pattern.anchor)) if pattern.is_absolute() else source.files
    paths = sorted(path for path in root.glob(relative) if path.is_file())
    if not paths:
        raise UsageError(
            f"Source {source.name}: no file fits `{source.files}` in {root}.",
            "Correct `files` in the mapping, or fetch the extract.",
        )
    return [Extract(source, path, _digest(source, path)) for path in paths]


def load_rows(connection: duckdb.DuckDBPyConnection, extract: Extract, scratch: Path) -> None:
    """Fill the tables `file_rows` and `unreadable` of a connection from one file.

    `file_rows` has the column `line` and the columns that the mapping wants, all text, empty text
    as null; `unreadable` has the lines that could not be split.

    Parameters
    ----------
    scratch : folder of its own for what must be unpacked or decoded; the caller removes it.

    Raises
    ------
    UsageError
        If the file is cut short, is not of the stated format, or lacks a column.
    """
    source = extract.source
    connection.execute("CREATE OR REPLACE TABLE unreadable (line BIGINT)")
    with _telling(extract):
        if source.format == "parquet":
            _load_parquet(connection, extract)
        elif source.format == "excel":
            _load_excel(connection, extract)
        else:
            _load_delimited(connection, extract, scratch)


def check_header(extract: Extract) -> None:
    """Read the header of a file alone, so that a wrong mapping costs no time.

    Raises
    ------
    UsageError
        If the file cannot be opened as its format, or lacks a column of the mapping.
    """
    with _telling(extract):
        header = read_header(extract.source, extract.path)
    _require_columns(extract, header)


@contextmanager
def _telling(extract: Extract) -> Iterator[None]:
    """Tell what is wrong with a file in words for the person who fetched it."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise _fault(extract, f"is cut short or no archive ({type(error).__name__})") from None
    except (OSError, duckdb.Error, pa.ArrowInvalid) as error:
        cause = getattr(error, "strerror", None) or type(error).__name__
        raise _fault(extract, f"cannot be read as {extract.source.format} ({cause})") from None


def read_header(source: Source, path: Path) -> list[str]:
    """Names of the columns of a file, as it gives them."""
    if source.format == "parquet":
        import pyarrow.parquet as pq

        return [str(name) for name in pq.read_schema(path).names]
    if source.format == "excel":
        return [str(cell) for cell in _sheet(source, path)[0]]
    with (
        open_packed(path) as stream,
        io.TextIOWrapper(stream, _text_encoding(source), errors="replace", newline="") as text,
    ):
        return next(csv.reader(text, delimiter=_delimiter(source)), [])


def _load_delimited(connection: duckdb.DuckDBPyConnection, extract: Extract, scratch: Path) -> None:
    source, path = extract.source, extract.path
    header = read_header(source, path)
    _require_columns(extract, header)
    readable = path
    if path.suffix not in (*_NATIVE, ".csv", ".tsv", ".txt") or not _is_utf8(source, path):
        readable = scratch / "decoded.csv"
        _decode(source, path, readable)
    unique = _distinct(header)
    options = {
        "delim": _delimiter(source),
        "quote": '"',
        "escape": '"',
        "header": True,
        "auto_detect": False,
        "columns": dict.fromkeys(unique, "VARCHAR"),
        "store_rejects": True,
        "rejects_table": "rejected",
        "rejects_scan": "rejected_scans",
        "strict_mode": True,
    }
    listed = ", ".join(f"{name} = {_literal(value)}" for name, value in options.items())
    for name in ("rejected", "rejected_scans"):
        connection.execute(f"DROP TABLE IF EXISTS {name}")
    connection.execute(
        f"CREATE OR REPLACE TABLE file_rows AS SELECT row_number() OVER () AS line, "
        f"{_columns(source, header, unique)} FROM read_csv({_literal(str(readable))}, {listed})"
    )
    connection.execute("INSERT INTO unreadable SELECT DISTINCT line FROM rejected ORDER BY line")


def _load_parquet(connection: duckdb.DuckDBPyConnection, extract: Extract) -> None:
    header = read_header(extract.source, extract.path)
    _require_columns(extract, header)
    connection.execute(
        "CREATE OR REPLACE TABLE file_rows AS SELECT row_number() OVER () AS line, "
        f"{_columns(extract.source, header, header)} "
        f"FROM read_parquet({_literal(str(extract.path))})"
    )


def _load_excel(connection: duckdb.DuckDBPyConnection, extract: Extract) -> None:
    header, *rows = _sheet(extract.source, extract.path)
    _require_columns(extract, header)
    unique = _distinct(header)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(unique)
    sheet = pa.table({n: pa.array(c, pa.string()) for n, c in zip(unique, columns, strict=True)})
    connection.register("sheet", sheet)
    connection.execute(
        "CREATE OR REPLACE TABLE file_rows AS SELECT row_number() OVER () AS line, "
        f"{_columns(extract.source, header, unique)} FROM sheet"
    )
    connection.unregister("sheet")


def _sheet(source: Source, path: Path) -> list[list[str]]:
    """Rows of text of a worksheet, the header first; dates in ISO form."""
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        book = CalamineWorkbook.from_path(str(path))
        sheet = book.get_sheet_by_name(source.sheet or book.sheet_names[0])
    except (CalamineError, IndexError) as error:
        raise OSError(5, f"no such sheet or no workbook: {type(error).__name__}") from None
    rows = [[_cell(value) for value in row] for row in sheet.to_python()]
    if not rows:
        raise OSError(5, "the sheet is empty")
    return rows


def _cell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).removesuffix(" 00:00:00")


def _columns(source: Source, header: list[str], unique: list[str]) -> str:
    """The wanted columns out of a header, as text; the first of two columns of one name."""
    at = {name: unique[header.index(name)] for name in source.wanted}
    return ", ".join(
        f"nullif(trim(CAST({_quoted(at[name])} AS VARCHAR)), '') AS {_quoted(name)}"
        for name in source.wanted
    )


def _require_columns(extract: Extract, header: list[str]) -> None:
    missing = [name for name in extract.source.wanted if name not in header]
    if not missing:
        return
    close = {name.strip().lower(): name for name in header}
    hints = [f"`{close[n.lower()]}`" for n in missing if n.lower() in close]
    found = f"{len(header)} columns" if len(header) > 1 else "one column"
    advice = (
        f"The file has {', '.join(hints)}; correct the mapping."
        if hints
        else "Correct `columns` in the mapping; `cac link --propose FILE` shows the file's header."
    )
    if len(header) <= 1 and extract.source.format in ("csv", "tsv"):
        advice = f"Is `delimiter` = {_delimiter(extract.source)!r} right? " + advice
    raise _fault(extract, f"has no column {', '.join(missing)} ({found} in line 1)", advice)


def _fault(extract: Extract, what: str, hint: str = "") -> UsageError:
    return UsageError(
        f"Source {extract.source.name}: the file {extract.path.name} {what}.",
        hint or "Ask for the file again, or correct `format` and `encoding` in the mapping.",
    )


def open_packed(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where the end of its name says that it is packed."""
    if path.suffix == ".zst":
        return cast(IO[bytes], pa.input_stream(str(path), compression="zstd"))
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
        if len(members) != 1:
            raise zipfile.BadZipFile(f"{len(members)} files in it")
    return cast(IO[bytes], fsspec.open(str(path), "rb", compression="infer").open())


def _digest(source: Source, path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"Source {source.name}: the file {path.name} cannot be read ({error.strerror}).",
            "Check its permissions.",
        ) from None


def _is_utf8(source: Source, path: Path) -> bool:
    """Whether DuckDB can read the file as it is."""
    if codecs.lookup(source.encoding).name not in ("utf-8", "utf-8-sig", "ascii"):
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_packed(path) as stream:
        try:
            while chunk := stream.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _decode(source: Source, path: Path, out: Path) -> None:
    """Write the file as UTF-8; a line that is not in its encoding is read in the fallback."""
    with open_packed(path) as stream, out.open("wb") as written:
        for line in _lines(source, stream):
            written.write(line.encode("utf-8", "replace"))


def _lines(source: Source, stream: IO[bytes]) -> Iterator[str]:
    encoding = _text_encoding(source)
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):  # a line feed is no byte
        with io.TextIOWrapper(stream, encoding, errors="replace", newline="") as text:
            yield from text
        return
    first = stream.readline().removeprefix(codecs.BOM_UTF8)
    for line in chain([first], stream):
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError:
            yield line.decode(source.fallback_encoding, "replace")


def _text_encoding(source: Source) -> str:
    return "utf-8-sig" if codecs.lookup(source.encoding).name == "utf-8" else source.encoding


def _delimiter(source: Source) -> str:
    return "\t" if source.format == "tsv" else source.delimiter


def _distinct(header: list[str]) -> list[str]:
    """The header with a number after names that come again, or differ only in case."""
    seen: dict[str, int] = {}
    names = []
    for name in header:
        count = seen[name.lower()] = seen.get(name.lower(), 0) + 1
        names.append(name if count == 1 else f"{name}#{count}")
    return names


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: object) -> str:
    """A value as a literal of SQL; options of readers cannot be parameters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    return "'" + str(value).replace("'", "''") + "'"
