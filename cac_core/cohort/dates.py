"""Choice of the date format of a column where the mapping allows several.

`09/04/2020` can be in April or in September. If two formats read a cell as different days, the
other cells of the column decide; if they do not, the run stops.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

import duckdb

from cac_core.cohort.extracts import Extract
from cac_core.errors import UsageError

#: A format that matches no text, for variables that need at least one.
_NO_FORMAT = "(none) %Y"
#: All date columns: a query needs the variables of each.
_ALL = (
    *("study_date", "birth_date", "admit_date", "discharge_date", "procedure_date"),
    *("death_date", "coverage_end", "emigration_date"),
)
_OFFSET = re.compile(r"\s*%[zZ]$")


def set_date_formats(
    connection: duckdb.DuckDBPyConnection, extract: Extract, columns: Sequence[str]
) -> None:
    """Set the variables of the macro `date_of` for the columns of the view `raw`.

    Raises
    ------
    UsageError
        If cells of a column can be read as different days, and its other cells do not decide.
    """
    source = extract.source
    formats = list(dict.fromkeys(source.dates))
    connection.execute("SET VARIABLE iso_dates = true")
    other_order = any(_contradicts_iso(connection, form) for form in formats)
    connection.execute(f"SET VARIABLE iso_dates = {'false' if other_order else 'true'}")
    for column in (*_ALL, *columns):
        _set_formats(connection, column, formats)
    if len(formats) < 2:
        return
    for column in columns:
        _set_formats(connection, column, _unambiguous(connection, extract, column, formats))


def _set_formats(
    connection: duckdb.DuckDBPyConnection, column: str, formats: Sequence[str]
) -> None:
    # `%Y` also accepts a two-digit year, as one of the first century, so `%y` goes first.
    formats = sorted(formats, key=lambda form: "%y" not in form)
    plain = [form for form in formats if not _OFFSET.search(form)]
    zoned = [_OFFSET.sub("", form) for form in formats if _OFFSET.search(form)]
    for name, given in (("dates", plain), ("zoned", zoned)):
        connection.execute(f"SET VARIABLE {name}_{column} = $1", [given or [_NO_FORMAT]])


def _contradicts_iso(connection: duckdb.DuckDBPyConnection, form: str) -> bool:
    """Whether a format reads an ISO date as another day, so that only one of them can apply."""
    _set_formats(connection, "study_date", [form])
    text = "2020-04-09"
    read = connection.execute(f"SELECT {_reading('study_date', form, '$1')}", [text]).fetchall()
    return read[0][0] not in (None, text)


def _reading(column: str, form: str, text: str) -> str:
    """SQL that parses text with one format and gives ISO text."""
    given, literal = text, "'" + _OFFSET.sub("", form).replace("'", "''") + "'"
    if _OFFSET.search(form):
        given = f"without_offset({text})"
    return f"CAST(plausible_date(CAST(try_strptime({given}, {literal}) AS DATE)) AS VARCHAR)"


def _unambiguous(
    connection: duckdb.DuckDBPyConnection, extract: Extract, column: str, formats: Sequence[str]
) -> list[str]:
    """The formats of a column that its cells do not rule out."""
    readings = ", ".join(
        f"{_reading(column, form, column)} AS f{n}" for n, form in enumerate(formats)
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE readings AS SELECT line, {readings} FROM raw")
    left = list(range(len(formats)))
    undecided = []
    for a, b in combinations(range(len(formats)), 2):
        both, only_a, only_b = connection.sql(
            f"SELECT min(line) FILTER (f{a} <> f{b}), "
            f"min(line) FILTER (f{a} IS NOT NULL AND f{b} IS NULL), "
            f"min(line) FILTER (f{b} IS NOT NULL AND f{a} IS NULL) FROM readings"
        ).fetchall()[0]
        if both is None:
            continue
        if (only_a is None) == (only_b is None):
            undecided.append((a, b, both, only_a, only_b))
            continue
        out = b if only_b is None else a
        left = [n for n in left if n != out]
    for a, b, both, only_a, only_b in undecided:  # unless another pair rules one of them out
        if a in left and b in left:
            raise _ambiguous(extract, column, (formats[a], formats[b]), both, only_a, only_b)
    return [formats[n] for n in left]


def _ambiguous(
    extract: Extract,
    column: str,
    formats: tuple[str, str],
    both: int,
    only_a: int | None,
    only_b: int | None,
) -> UsageError:
    a, b = formats
    why = (
        "no other line decides"
        if only_a is None or only_b is None
        else f"line {only_a} fits only `{a}`, but line {only_b} only `{b}`"
    )
    return UsageError(
        f"Source {extract.source.name}: in the file {extract.path.name} the dates of `{column}` "
        f"can be read as different days: line {both} fits `{a}` and `{b}`; {why}.",
        "Keep only the format of this file in `dates`; use one source per format.",
    )
