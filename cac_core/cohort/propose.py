"""Draft of a mapping for new extracts, from their headers and values.

A person must check the draft: names of columns are compared with those that registries commonly
use, and tables, date formats and codes are guessed from the first rows. No identifier is printed.
"""

from __future__ import annotations

import csv
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from cac_core.cohort.column_content import Column, read_columns
from cac_core.cohort.extract_rows import read_header
from cac_core.cohort.extracts import open_packed
from cac_core.cohort.mapping import Source
from cac_core.cohort.source_draft import newest_date, source_lines
from cac_core.cohort.table_choice import TableFit, is_header, tables_of
from cac_core.errors import UsageError
from schemas.registry import CLINICAL, REGISTRY_TABLES

_FORMATS = {".parquet": "parquet", ".xlsx": "excel", ".xls": "excel", ".ods": "excel"}
_TEXTS = (".csv", ".tsv", ".txt")
#: Tables whose newest date hints at the end of coverage.
_RECORDS = ("encounters", "deaths")


@dataclass(frozen=True, slots=True)
class _File:
    """An extract file, how to read it, its columns and the tables that it holds."""

    path: Path
    source: Source
    columns: tuple[Column, ...]
    tables: tuple[TableFit, ...]

    @property
    def form(self) -> tuple[object, ...]:
        """What files of one source have in common."""
        source, names = self.source, tuple(column.name for column in self.columns)
        return (source.format, source.delimiter, source.encoding, names)


class _NoTableError(UsageError):
    """A file that holds no table of a registry."""


def propose_mapping(
    paths: Sequence[Path],
    base: Path | None = None,
    on_skipped: Callable[[str], None] = lambda text: None,
) -> str:
    """Draft the mapping of a site with these extracts.

    Parameters
    ----------
    paths : files, or folders with files; files with the same columns become one source.
    base : folder of the mapping, where relative paths start; default: the current folder.
    on_skipped : receives a line for each file that is left out: one that holds no table, or one
        of a folder that cannot be read.

    Returns
    -------
    TOML, with comments where a person must decide. It has no end of coverage: only the registry
    knows it.

    Raises
    ------
    UsageError
        If a named file cannot be read, or nothing is recognised in any.
    """
    files = _tables(paths, on_skipped)
    groups: dict[tuple[object, ...], list[_File]] = {}
    for file in files:
        groups.setdefault(file.form, []).append(file)
    base = Path.cwd() if base is None else base
    drafts: list[tuple[int, str, list[str]]] = []
    names: dict[str, int] = {}
    for group in groups.values():
        for pattern, members in _patterns(group, base):
            for n, fit in enumerate(members[0].tables):
                name = _free_name(fit.table.name, names)
                unused = _unused(members[0]) if n == 0 else []
                lines = source_lines(name, pattern, members[0].source, fit, unused, beside=n > 0)
                drafts.append((REGISTRY_TABLES.index(fit.table), name, lines))
    drafts.sort(key=lambda draft: draft[0])
    lines = _head(files)
    for _, _, source in drafts:
        lines += ["", *source]
    return "\n".join(lines) + "\n"


def _tables(paths: Sequence[Path], on_skipped: Callable[[str], None]) -> list[_File]:
    """The files that hold tables."""
    files: list[_File] = []
    faults: list[UsageError] = []
    for path in _files_of(paths):
        try:
            files.append(_examined(path))
        except UsageError as error:
            if path in paths and not isinstance(error, _NoTableError):
                raise
            faults.append(error)
    if not files and len(faults) == 1:
        raise faults[0]
    if not files:
        raise UsageError(
            f"None of the {len(faults)} files holds a known table. "
            + " ".join(fault.what for fault in faults),
            faults[0].hint,
        )
    for fault in faults:
        on_skipped(f"skipped: {fault.what}")
    return files


def _head(files: Sequence[_File]) -> list[str]:
    newest = {
        fit.table.name: day
        for file in files
        for fit in file.tables
        if fit.table.name in _RECORDS and (day := newest_date(fit)) is not None
    }
    hints = ", ".join(f"{table} {day:%Y-%m}" for table, day in newest.items())
    lines = [
        "# A draft; check every line before use. docs/linkage.md explains the file.",
        'site = "site"  # a short name for this site',
        "",
        "[coverage]",
        "# REQUIRED: the last day with complete registry data. Ask the registry, do not guess:",
        "# later events count as absent.",
        "# end = YYYY-MM-DD",
    ]
    if hints:
        lines.append(f"# Newest months in the first rows of the files: {hints}.")
    if not any(fit.table == CLINICAL for file in files for fit in file.tables):
        lines.append("# A source for the table `clinical` is missing: every mapping needs one.")
    return lines


def _files_of(paths: Sequence[Path]) -> list[Path]:
    """The files, and the extracts in the folders, in order."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and _is_extract(p))
            if not inside:
                raise UsageError(f"The folder {path} has no extract.", "Name the files.")
            found += inside
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _is_extract(path: Path) -> bool:
    return bool({suffix.lower() for suffix in path.suffixes} & {*_FORMATS, *_TEXTS})


def _examined(path: Path) -> _File:
    if path.is_file() and not path.stat().st_size:
        raise _NoTableError(f"{path.name} is empty (0 bytes).", "Request the file again.")
    source = _guessed_format(path)
    header = _header(source, path)
    # The names are printed, so they must not be the first patient of a file without a header.
    is_named = is_header(header)
    columns = tuple(read_columns(source, path, header).values()) if is_named else ()
    tables = tables_of(path.name.split(".")[0], columns) if is_named else []
    if not tables:
        known = ", ".join(c.name for c in CLINICAL.columns)
        raise _NoTableError(
            f"Nothing in {path.name} looks like a known column ({len(header)} names in line 1).",
            f"Is the first line the header? The clinical table, for example, has {known}.",
        )
    return _File(path, source, columns, tuple(tables))


def _unused(file: _File) -> list[str]:
    used = set().union(*(fit.used for fit in file.tables))
    return [column.name for column in file.columns if column.name not in used]


def _free_name(table: str, names: dict[str, int]) -> str:
    names[table] = names.get(table, 0) + 1
    return table if names[table] == 1 else f"{table}-{names[table]}"


def _patterns(group: list[_File], base: Path) -> list[tuple[str, list[_File]]]:
    """Files of one form as one source, if a pattern matches these and no others beside them."""
    alone = [(_relative(file.path, base), [file]) for file in group]
    folders = {file.path.resolve().parent for file in group}
    if len(group) == 1 or len(folders) > 1:
        return alone
    names = sorted(file.path.name for file in group)
    begin = _common_start(names)
    end = _common_start([name[len(begin) :][::-1] for name in names])[::-1]
    pattern = f"{begin}*{end}"
    beside = [p.name for p in next(iter(folders)).iterdir() if fnmatchcase(p.name, pattern)]
    if not begin or sorted(beside) != names:
        return alone
    return [(_relative(group[0].path.parent / pattern, base), group)]


def _common_start(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    same = [a == b for a, b in zip(first, last, strict=False)]
    return first[: same.index(False) if False in same else len(same)]


def _relative(path: Path, base: Path) -> str:
    """The path as the mapping names it: from its own folder, if the file is below or near it."""
    return Path(os.path.relpath(path.absolute(), base.absolute())).as_posix()


def _guessed_format(path: Path) -> Source:
    """A source with guessed format, delimiter and encoding."""
    suffixes = [s.lower() for s in path.suffixes if s.lower() in (*_FORMATS, *_TEXTS)]
    given = _FORMATS.get(suffixes[-1] if suffixes else "", "csv")
    draft = Source.model_construct(name="draft", table="clinical", files=path.name, columns={})
    if given != "csv":
        return draft.model_copy(update={"format": given})
    try:
        with open_packed(path) as stream:
            start = stream.read(1 << 16)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"The extract {path} cannot be read ({type(error).__name__}).",
            "Check the name and the permissions.",
        ) from None
    encoding = _guessed_encoding(start)
    first = start.decode(encoding, "replace").splitlines()[:1]
    delimiter = _guessed_delimiter("".join(first))
    form = {"format": "tsv"} if delimiter == "\t" else {"format": "csv", "delimiter": delimiter}
    return draft.model_copy(update={**form, "encoding": encoding})


def _guessed_delimiter(header: str) -> str:
    counts = {mark: header.count(mark) for mark in ";\t|,"}
    mark, n = max(counts.items(), key=lambda item: item[1])
    if n and sum(counts.values()) == n:
        return mark
    try:
        return csv.Sniffer().sniff(header, ",;\t|").delimiter
    except csv.Error:
        return mark if n else ","


def _guessed_encoding(start: bytes) -> str:
    """UTF-8 if most non-ASCII lines are valid; the mapping has a fallback for the others."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    lines = [line for line in start.split(b"\n")[:-1] if not line.isascii()]
    fitting = sum(_is_utf8(line) for line in lines)
    return "utf-8" if 2 * fitting >= len(lines) else "cp1252"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _header(source: Source, path: Path) -> list[str]:
    """Names of the columns; the second of two that are the same is `NAME#2`, as in a mapping."""
    try:
        header = read_header(source, path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The extract {path} cannot be read as {source.format} ({type(error).__name__}).",
            "Check the file.",
        ) from None
    seen: dict[str, int] = {}
    alike = ["".join(name.split()).casefold() for name in header]
    names = []
    for name, key in zip(header, alike, strict=True):
        seen[key] = seen.get(key, 0) + 1
        names.append(f"{name}#{seen[key]}" if alike.count(key) > 1 else name)
    return [name for name in names if not re.fullmatch(r"\s*(#\d+)?", name)]
