"""CSV that a spreadsheet opens without running what is in it.

A text cell that begins with `=`, `+`, `-`, `@`, a tab or a line end is a formula to a spreadsheet;
it gets an apostrophe before it (OWASP, "CSV Injection"). Numbers are left as they are.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

#: What a spreadsheet takes for a formula, and what of it is only a number with a sign. Full-width
#: signs are read as their ASCII forms.
_FORMULA = r"^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]"
_NUMBER = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"


def write_csv(table: pa.Table, sink: BinaryIO) -> None:
    """Write a table as CSV in UTF-8, with text that could be a formula made harmless."""
    columns = [_harmless(column) for column in table.columns]
    names = _harmless(pa.chunked_array([table.column_names], pa.string())).to_pylist()
    pa_csv.write_csv(pa.table(columns, names=names), sink)


def csv_bytes(table: pa.Table) -> bytes:
    """A table as `write_csv` writes it."""
    stream = io.BytesIO()
    write_csv(table, stream)
    return stream.getvalue()


def _harmless(column: pa.ChunkedArray) -> pa.ChunkedArray:
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
