"""Typed cells of Parquet and Excel files as text.

Whole numbers get no decimal point and no exponent, since they may be identifiers.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.mapping import Source

#: Below this, a float represents every integer exactly.
_WHOLE_BELOW = 1e15


def text_field(found: pa.Field, name: str) -> pa.Field:
    """Field of a column as DuckDB gets it: text, unless DuckDB itself casts the type well."""
    kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    tests = (pa.types.is_floating, pa.types.is_decimal, pa.types.is_timestamp)
    special = any(test(kind) for test in tests)
    return pa.field(name, pa.string() if special else kind)


def as_text(values: pa.Array, decimal: str) -> pa.Array:
    """A column as text where `text_field` says so; a time in its own time zone.

    Parameters
    ----------
    decimal : decimal separator of the source.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(values.type):
        if values.type.tz is not None:
            values = pc.local_timestamp(values)
        return values.cast(pa.string())
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        # Integers in a column with nulls arrive as floats: identifiers must not end in `.0`,
        texts = pc.replace_substring_regex(values.cast(pa.string()), r"\.0+$", "")
        if pa.types.is_floating(values.type):  # or become 1.2e+10
            whole = values.cast(pa.float64())
            is_whole = pc.and_(
                pc.equal(pc.trunc(whole), whole), pc.less(pc.abs(whole), _WHOLE_BELOW)
            )
            numbers = pc.if_else(is_whole, whole, None).cast(pa.int64()).cast(pa.string())
            texts = pc.coalesce(numbers, texts)
        return pc.replace_substring(texts, ".", decimal)
    return values


def _number_text(value: float) -> str:
    whole = value.is_integer() and abs(value) < _WHOLE_BELOW
    return str(int(value)) if whole else str(value)


def sheet_rows(source: Source, path: Path) -> list[list[str]]:
    """Rows of a worksheet as text, the header first; dates in ISO format.

    Raises
    ------
    OSError
        If the file is not a workbook, or lacks the sheet.
    """
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
