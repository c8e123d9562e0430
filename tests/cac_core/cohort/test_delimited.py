"""Every line of a text file is accounted for: a row, unreadable, blank, or inside quotes."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cac_core.cohort.delimited import (
    MOST_CHARACTERS,
    Account,
    TextFile,
    check_lines,
    clean_lines,
    header_of,
)


def _text(data: bytes, encoding: str = "utf-8") -> TextFile:
    return TextFile(lambda: io.BytesIO(data), encoding, "cp1252")


def _read(data: bytes, encoding: str = "utf-8") -> tuple[Account, list[list[str]]]:
    """Rows of a file as the slow way reads them, and its account."""
    text = _text(data, encoding)
    header, n_header = header_of(text, ",")
    out = io.BytesIO()
    account = clean_lines(text, ",", len(header), n_header, out)
    cleaned = out.getvalue().decode("utf-8")
    return account, list(csv.reader(io.StringIO(cleaned, newline=""), strict=True))


def _physical_lines(data: bytes) -> int:
    """Lines of a file, counted apart from the program: by LF, CR LF or CR."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    ends = len(re.findall(rb"\r\n|\r|\n", data))
    return ends + (1 if data and data[-1:] not in (b"\r", b"\n") else 0)


def _lines(n: int) -> list[str]:
    return [f"P{i},2015-06-01,stent {i},I21" for i in range(n)]


HEADER = "id,day,device,code"


def _file(lines: list[str], end: str = "\n") -> bytes:
    return (end.join([HEADER, *lines]) + end).encode()


def test_a_stray_quote_loses_only_its_own_line() -> None:
    lines = _lines(5000)
    lines[2399] = 'P2399,2015-06-01,"5 stent,I21'
    lines[2599] = 'P2599,2015-06-01,6 stent",I21'
    account, rows = _read(_file(lines))
    assert account.unreadable == [2401, 2601]
    assert [row[0] for row in rows] == [f"P{i}" for i in range(5000) if i not in (2399, 2599)]
    assert (account.lines, account.rows, account.feeds) == (5001, 4998, 0)


@pytest.mark.parametrize("span", [1, 2, 5, 39, 40, 41, 1000])
@pytest.mark.parametrize("column", [0, 2, 3])
def test_a_distant_closing_quote_swallows_no_row(span: int, column: int) -> None:
    lines = _lines(1100)
    for at, quoted in ((20, '"{}'), (20 + span, '{}"')):
        fields = lines[at].split(",")
        fields[column] = quoted.format(fields[column])
        lines[at] = ",".join(fields)
    account, rows = _read(_file(lines))
    kept = {row[0] for row in rows}
    assert {f"P{i}" for i in range(1100) if i not in (20, 20 + span)} <= kept
    assert account.rows + len(account.unreadable) == 1100
    assert 22 in account.unreadable


def test_an_unclosed_quote_loses_one_line() -> None:
    lines = _lines(5000)
    lines[2399] = 'P2399,2015-06-01,"5 stent,I21'
    account, rows = _read(_file(lines))
    assert (account.unreadable, len(rows)) == ([2401], 4999)


def test_a_quote_inside_a_field_is_text() -> None:
    account, rows = _read(_file(['P1,2015-06-01,5" stent x 2",I21', 'P2,2015-06-01,"a ""b""",I22']))
    assert [row[2] for row in rows] == ['5" stent x 2"', 'a "b"']
    assert not account.unreadable


def test_a_field_can_span_a_few_lines() -> None:
    address = "1, Main Street\nTown\n\nCountry"
    account, rows = _read(_file([f'P1,2015-06-01,"{address}",I21', "P2,2015-06-01,x,I22"]))
    assert [row[2] for row in rows] == [address, "x"]
    assert (account.lines, account.rows, account.feeds) == (6, 2, 3)
    assert account.shifts == [(1, 1), (2, 4)]  # the second row begins on line 6


def test_the_first_and_last_column_can_span_lines() -> None:
    data = b'note,id,day\n"a\nb",P1,2015-06-01\nx,P2,"1\n2"\n'
    account, rows = _read(data)
    assert rows == [["a\nb", "P1", "2015-06-01"], ["x", "P2", "1\n2"]]
    assert account.feeds == 2


def test_a_field_of_thousands_of_characters_over_many_lines_is_a_fault() -> None:
    note = "\n".join(["word " * 30] * (MOST_CHARACTERS // 150 + 2))
    account, rows = _read(_file([f'P1,2015-06-01,"{note}",I21', "P2,2015-06-01,x,I22"]))
    assert [row[0] for row in rows] == ["P2"]
    assert len(account.unreadable) == note.count("\n") + 1


def test_a_record_of_several_lines_with_too_few_fields_counts_all_its_lines() -> None:
    account, rows = _read(_file(['P1,"a\nb\nc"', "P2,2015-06-01,x,I22"]))
    assert account.unreadable == [2, 3, 4]
    assert [row[0] for row in rows] == ["P2"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("final", [True, False])
def test_line_ends_make_no_difference(end: str, final: bool) -> None:
    data = _file(_lines(30), end)
    account, rows = _read(data if final else data.removesuffix(end.encode()))
    assert (len(rows), account.lines, account.unreadable, account.blank) == (30, 31, [], [])


@pytest.mark.parametrize(
    ("line", "unreadable"),
    [
        (b"P,2015,x", True),
        (b"P,2015,x,y,", True),
        (b"P\0,2015,x,y", True),
        (b"P,2015,\x81\xff,y", True),  # neither UTF-8 nor cp1252
        (b"P,2015,M\xfcller,y", False),  # cp1252
        (b'P,2015,"x" z,y', True),
        (b'P,2015, "x",y', True),
        (b"P," + b"x" * 1_100_000 + b",y,z", True),
        (b"\xef\xbb\xbfP,2015,x,y", False),  # files that were put together
    ],
)
def test_which_lines_are_unreadable(line: bytes, unreadable: bool) -> None:
    data = HEADER.encode() + b"\n" + line + b"\nP9,2015-06-01,x,y\n"
    account, rows = _read(data)
    assert account.unreadable == ([2] if unreadable else [])
    assert [row[0] for row in rows] == (["P9"] if unreadable else ["P", "P9"])


def test_blank_lines_are_counted_separately() -> None:
    account, rows = _read(b"id,day\n\nP1,2015\r\n\r\n\r\nP2,2016\n\n")
    assert (account.blank, account.unreadable) == ([2, 4, 5, 7], [])
    assert [row[0] for row in rows] == ["P1", "P2"]


def test_wide_characters_are_decoded_before_lines_are_counted() -> None:
    account, rows = _read("id,day\nPä,2015\r\nPö,2016\n".encode("utf-16"), "utf-16")
    assert [row[0] for row in rows] == ["Pä", "Pö"]
    assert account.lines == 3


def test_regular_files_need_no_copy() -> None:
    for data in (_file(_lines(50)), _file(_lines(50), "\r\n"), _file(['"P,1","a","","""x"""'])):
        text = _text(data)
        account = check_lines(text, ",", 4)
        assert account is not None and account.rows == data.count(b"\n") - 1


_CELL = st.text(alphabet='ab1 ,"\n\r\0\ufeffü', max_size=6)
_ROW = st.lists(_CELL, min_size=1, max_size=4)


@st.composite
def _written(draw: st.DrawFn) -> bytes:
    """Rows as a writer would quote them, with bytes put in here and there."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])))
    writer.writerows(draw(st.lists(_ROW, max_size=8)))
    data = bytearray(stream.getvalue().encode("utf-8"))
    for byte in draw(st.lists(st.sampled_from(b'",\n\r\x00\xff'), max_size=3)):
        data.insert(draw(st.integers(0, len(data))), byte)
    return b"a,b,c\n" + bytes(data)


@settings(max_examples=400, deadline=None)
@given(_written() | st.binary(max_size=60).map(lambda tail: b"a,b,c\n" + tail))
@example(b'a,b,c\n1,"2\n3,4",5\n6",7,8\n')
def test_every_line_of_any_file_is_accounted_for(data: bytes) -> None:
    account, rows = _read(data)
    reported = account.header + account.rows + account.feeds
    assert reported + len(account.unreadable) + len(account.blank) == account.lines
    assert account.lines == _physical_lines(data)
    assert len(rows) == account.rows
    assert all(len(row) == 3 for row in rows)
    assert sum(cell.count("\n") for row in rows for cell in row) == account.feeds
    assert not set(account.unreadable) & set(account.blank)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(_CELL, min_size=3, max_size=3), min_size=1, max_size=8))
def test_files_read_directly_have_the_rows_that_python_reads(rows: list[list[str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        [["a", "b", "c"], *rows]
    )
    data = stream.getvalue().encode("utf-8")
    account = check_lines(_text(data), ",", 3)
    if account is not None:
        assert account.rows == len(rows)
        assert list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))[1:] == rows
