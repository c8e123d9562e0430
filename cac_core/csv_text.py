"""Writes CSV that a spreadsheet opens without executing formulas in it.

Spreadsheets take a text cell that begins with `=`, `+`, `-`, `@`, a tab or a line end for a
formula; it is prefixed with an apostrophe (OWASP, "CSV Injection"). Numbers are unchanged.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

#: Texts that a spreadsheet takes for a formula, and those among them that are signed numbers.
#: Full-width signs count like their ASCII forms.
_FORMULA = r"^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]"
_NUMBER = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"


def write_csv(table: pa.Table, sink: BinaryIO) -> None:
    """Write a table as CSV in UTF-8; texts that could be formulas are escaped."""
    columns = [_escaped(column) for column in table.columns]
    names = _escaped(pa.chunked_array([table.column_names], pa.string())).to_pylist()
    pa_csv.write_csv(pa.table(columns, names=names), sink)


def csv_bytes(table: pa.Table) -> bytes:
    """Return a table as CSV, see `write_csv`."""
    stream = io.BytesIO()
    write_csv(table, stream)
    return stream.getvalue()


def _escaped(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    formula = pc.match_substring_regex(column, _FORMULA)
    number = pc.match_substring_regex(column, _NUMBER)
    escaped = pc.binary_join_element_wise(
        pa.scalar("'", column.type), column, pa.scalar("", column.type)
    )
    return pc.if_else(pc.and_not(formula, number), escaped, column)
