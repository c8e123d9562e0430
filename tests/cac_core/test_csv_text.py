"""CSV cells that a spreadsheet would execute, read back with the standard library."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cac_core.csv_text import csv_bytes


def _read(table: pa.Table) -> list[list[str]]:
    return list(csv.reader(io.StringIO(csv_bytes(table).decode("utf-8"), newline="")))


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "-1+cmd|x"])
def test_a_formula_becomes_text(text: str) -> None:
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        column = pa.array([text, "plain", None]).cast(kind)
        _, *rows = _read(pa.table({"a": column, "b": [1, 2, 3]}))
        assert [row[0] for row in rows] == ["'" + text, "plain", ""]


def test_numbers_stay_numbers() -> None:
    table = pa.table({"a": [-1.5, 2.0], "b": [-3, 4], "c": ["-0.25", "+1e-9"]})
    assert _read(table)[1:] == [["-1.5", "-3", "-0.25"], ["2", "4", "+1e-9"]]


def test_headers_are_escaped_too() -> None:
    assert _read(pa.table({"=A1": [1]}))[0] == ["'=A1"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_every_text_can_be_recovered(texts: list[str]) -> None:
    rows = _read(pa.table({"a": pa.array(texts, pa.string()), "n": pa.array(range(len(texts)))}))
    for text, row in zip(texts, rows[1:], strict=True):
        assert row[0] in (text, "'" + text)
        assert not row[0].startswith(("=", "@", "\t", "\r"))
