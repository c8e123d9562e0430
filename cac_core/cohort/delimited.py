"""Lines of a delimited text file, with every line accounted for.

In CSV, a record ends at a line end outside quotes, so one stray quote makes a reader take all lines
up to the next quote as a single field, and their rows are lost. Here every line belongs to the
header or a row, is blank, or is unreadable. A quoted field may span lines only if it is short and
its lines are not rows themselves; otherwise the line with the stray quote is unreadable, and
reading continues with the next line.

Lines end with LF, CR LF or CR. Text is processed as UTF-8 bytes in large blocks: array operations
find the lines that are rows beyond doubt, and only the others are parsed one by one.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import numpy.typing as npt

#: A quoted field with more lines, or with several lines and more characters, has a stray quote.
MOST_LINES = 40
MOST_CHARACTERS = 4_000
#: Longest line of a row in bytes; the limit of DuckDB is 2,000,000.
LONGEST_LINE = 1_000_000
_CHUNK = 8 << 20
_LONGEST_BLOCK = 256 << 20
_QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"')
_BOM = codecs.BOM_UTF8


@dataclass
class Account:
    """Account of the lines of a file; line numbers count from 1.

    `lines` = `header` + `rows` + `feeds` + unreadable + blank, where `feeds` are line ends inside
    quotes. `shifts` lists (row, number of lines before it that are not rows) where that changes.
    """

    header: int = 1
    lines: int = 0
    rows: int = 0
    feeds: int = 0
    unreadable: list[int] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)
    shifts: list[tuple[int, int]] = field(default_factory=list)

    def add_rows(self, line: int, count: int) -> None:
        """Count rows; the first begins on `line`."""
        shift = line - self.rows - 1
        if count and (not self.shifts or self.shifts[-1][1] != shift):
            self.shifts.append((self.rows + 1, shift))
        self.rows += count


@dataclass
class TextFile:
    """A plain or compressed text file as blocks of whole lines in UTF-8.

    After the blocks are read, `altered` says whether they differ from the bytes of the file, apart
    from line ends and an initial byte order mark; `n_lf` and `n_crlf` count line ends.
    """

    open: Callable[[], IO[bytes]]
    encoding: str
    fallback: str
    altered: bool = False
    n_lf: int = 0
    n_crlf: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the file itself is UTF-8 with one kind of line end."""
        return not self.altered and not (self.n_lf and self.n_crlf)

    def blocks(self) -> Generator[bytes, None, None]:
        """Blocks of whole lines that end with LF; a line that cannot be decoded contains a NUL.

        Raises
        ------
        OSError
            If a line is too long for a text file.
        """
        self.altered, self.n_lf, self.n_crlf = False, 0, 0
        begin = True
        for raw in self._raw_blocks():
            block = self._with_lf(self._utf8(raw))
            if begin:
                block, begin = block.removeprefix(_BOM), False
            if _BOM in block:  # concatenated files
                block = block if block.endswith(b"\n") else block + b"\n"
                block, self.altered = block.replace(_BOM, b""), True
            yield block

    def _raw_blocks(self) -> Generator[bytes, None, None]:
        rest = b""
        with self.open() as stream:
            for chunk in self._chunks(stream):
                block = rest + chunk
                # Not the last byte: an LF may follow the CR.
                at = max(block.rfind(b"\n"), block.rfind(b"\r", 0, len(block) - 1)) + 1
                if at:
                    yield block[:at]
                rest = block[at:]
                if len(rest) > _LONGEST_BLOCK:
                    raise OSError(5, "a line of more than 256 MiB")
        if rest:
            yield rest

    def _chunks(self, stream: IO[bytes]) -> Generator[bytes, None, None]:
        if not self._is_wide:
            while chunk := stream.read(_CHUNK):
                yield chunk
            return
        self.altered = True  # line ends have several bytes there
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        while chunk := stream.read(_CHUNK):
            yield _damaged(decoder.decode(chunk))
        yield _damaged(decoder.decode(b"", final=True))

    @property
    def _is_wide(self) -> bool:
        return codecs.lookup(self.encoding).name.startswith(("utf-16", "utf-32"))

    def _utf8(self, block: bytes) -> bytes:
        if self._is_wide:
            return block
        is_utf8 = codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig", "ascii")
        self.altered = self.altered or not is_utf8
        try:
            text = block.decode("utf-8" if is_utf8 else self.encoding)
        except UnicodeDecodeError:
            self.altered = True
            return b"".join(self._line(line) for line in block.splitlines(keepends=True))
        return block if is_utf8 else text.encode("utf-8")

    def _line(self, line: bytes) -> bytes:
        for encoding in (self.encoding, self.fallback):
            try:
                return line.decode(encoding).encode("utf-8")
            except UnicodeDecodeError:
                continue
        return b"\0\n"

    def _with_lf(self, block: bytes) -> bytes:
        n_cr = block.count(b"\r")
        n_lf = block.count(b"\n")
        if not n_cr:
            self.n_lf += n_lf
            return block
        n_crlf = block.count(b"\r\n")
        self.n_crlf += n_crlf
        self.n_lf += n_lf - n_crlf
        self.altered = self.altered or n_cr > n_crlf
        return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _damaged(text: str) -> bytes:
    """Decoded text as UTF-8, with a NUL for bytes that could not be decoded."""
    return text.replace("\ufffd", "\0").encode("utf-8", "replace")


def split(text: str, delimiter: str) -> tuple[list[str] | None, bool]:
    """Fields of a record (None if malformed), and whether a quote is still open at its end.

    A quote inside a field that does not begin with one is text, as in spreadsheets.
    """
    fields: list[str] = []
    at, end = 0, len(text)
    while True:
        if text.startswith('"', at):
            quoted = _QUOTED.match(text, at)
            if quoted is None:
                return None, True
            to = quoted.end()
            if to < end and not text.startswith(delimiter, to):
                return None, False
            fields.append(quoted[1].replace('""', '"'))
        else:
            to = text.find(delimiter, at)
            to = end if to < 0 else to
            plain = text[at:to]
            if plain.lstrip().startswith('"'):  # ambiguous: quoted or not
                return None, False
            fields.append(plain)
        if to == end:
            return fields, False
        at = to + 1


def header_of(text: TextFile, delimiter: str) -> tuple[list[str], int]:
    """Column names of the header, and its number of lines; no names if there is no header."""
    with closing(text.blocks()) as blocks:
        block = next(blocks, b"")
    lines = block[: 2 * LONGEST_LINE].decode("utf-8", "replace").split("\n")[:MOST_LINES]
    for n in range(1, len(lines) + 1):
        fields, is_open = split("\n".join(lines[:n]), delimiter)
        if not is_open:
            return ([] if fields is None or not lines[0] else fields), n
    return [], 1


def check_lines(text: TextFile, delimiter: str, n_fields: int) -> Account | None:
    """Account of a file in which every line is a valid row; None for any other file."""
    mark = delimiter.encode("utf-8")
    account = Account(rows=-1)  # the header is checked like a row
    for block in text.blocks():
        _, _, good = _survey(block, mark, n_fields)
        if not good.all():
            return None
        account.rows += len(good)
    account.lines = account.rows + 1
    return account if text.is_plain and account.rows >= 0 else None


def clean_lines(
    text: TextFile, delimiter: str, n_fields: int, n_header: int, out: IO[bytes]
) -> Account:
    """Write the rows of a file, without its header, in a form that every reader reads alike.

    Parameters
    ----------
    n_fields, n_header : number of fields and lines of the header.
    """
    cleaner = _Cleaner(delimiter, n_fields, Account(header=n_header), out)
    blocks = text.blocks()
    block = next(blocks, None)
    while block is not None:
        following = next(blocks, None)
        cleaner.take(block, is_last=following is None)
        block = following
    return cleaner.account


class _Cleaner:
    """Extracts rows from blocks of lines, and keeps the account of all lines."""

    def __init__(self, delimiter: str, n_fields: int, account: Account, out: IO[bytes]) -> None:
        self.delimiter = delimiter
        self.n_fields = n_fields
        self.account = account
        self.out = out
        self.rest = b""
        self.header_left = account.header
        self.closing: set[int] = set()
        self.has_open_quote = False

    def take(self, block: bytes, *, is_last: bool) -> None:
        """Read a block; its last lines wait for the next block, where a field may continue."""
        block = self.rest + block
        starts, ends, good = _survey(block, self.delimiter.encode("utf-8"), self.n_fields)
        stop = len(good) if is_last else max(0, len(good) - MOST_LINES)
        odd = np.flatnonzero(~good)
        base = self.account.lines
        at = min(self.header_left, stop)
        self.header_left -= at

        def line(index: int) -> str | None:
            if index >= len(good):
                return None
            return block[starts[index] : ends[index]].decode("utf-8", "replace")

        while at < stop:
            place = int(np.searchsorted(odd, at))
            until = min(int(odd[place]), stop) if place < len(odd) else stop
            if until > at:
                self.out.write(block[starts[at] : ends[until - 1]] + b"\n")
                self.account.add_rows(base + at + 1, until - at)
                at = until
            else:
                at += self._record(line, at, base + at + 1)
        self.account.lines = base + at
        self.rest = block[starts[at] :] if at < len(good) else b""

    def _record(self, line: Callable[[int], str | None], at: int, number: int) -> int:
        """Read the record that begins on a line and return its number of lines."""
        text = line(at) or ""
        if not text:
            self.account.blank.append(number)
            return 1
        if number in self.closing or "\0" in text or len(text) > LONGEST_LINE:
            return self._mark_unreadable(number, 1)
        fields, is_open = split(text, self.delimiter)
        if is_open:
            return self._several_lines(line, at, number)
        if fields is None or len(fields) != self.n_fields:
            return self._mark_unreadable(number, 1)
        if self.has_open_quote and text.count('"') % 2:
            self.has_open_quote = False
            return self._mark_unreadable(number, 1)
        return self._row(fields, number, 1)

    def _several_lines(self, line: Callable[[int], str | None], at: int, number: int) -> int:
        found = self._closed(line, at)
        if found is None:
            self.has_open_quote = True
            return self._mark_unreadable(number, 1)
        lines, fields = found
        first, *others = map(self._stands_alone, lines)
        if any(others[:-1]) or (first and any(others)):
            self.closing.add(number + len(lines) - 1)
            return self._mark_unreadable(number, 1)
        if len(fields) != self.n_fields:
            return self._mark_unreadable(number, len(lines))
        return self._row(fields, number, len(lines))

    def _closed(
        self, line: Callable[[int], str | None], at: int
    ) -> tuple[list[str], list[str]] | None:
        """Lines and fields of a record with a line end inside quotes; None if it does not close."""
        lines = [line(at) or ""]
        length = 0
        while len(lines) < MOST_LINES and length <= MOST_CHARACTERS:
            text = line(at + len(lines))
            if text is None or "\0" in text:
                return None
            lines.append(text)
            if '"' in text:
                fields, is_open = split("\n".join(lines), self.delimiter)
                if not is_open:
                    short = all(len(f) <= MOST_CHARACTERS for f in fields or () if "\n" in f)
                    return None if fields is None or not short else (lines, fields)
            length += len(text)
        return None

    def _stands_alone(self, text: str) -> bool:
        """Whether a line has the fields of a row, with quotes as text or as quotes."""
        fields, _ = split(text, self.delimiter)
        counts = (text.count(self.delimiter) + 1, 0 if fields is None else len(fields))
        return self.n_fields > 1 and self.n_fields in counts

    def _row(self, fields: list[str], number: int, lines: int) -> int:
        quoted = self.delimiter.join('"' + f.replace('"', '""') + '"' for f in fields)
        self.out.write(quoted.encode("utf-8") + b"\n")
        self.account.add_rows(number, 1)
        self.account.feeds += lines - 1
        return lines

    def _mark_unreadable(self, number: int, lines: int) -> int:
        self.account.unreadable.extend(range(number, number + lines))
        return lines


def _survey(
    block: bytes, delimiter: bytes, n_fields: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Start and end of each line of a block, and whether it is a row beyond doubt.

    That means: no NUL, the right number of delimiters outside quotes, and every quote opens a
    field, closes one, or is one of a pair inside one.
    """
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == 10)
    if block and not block.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate((np.zeros(min(1, len(ends)), np.int64), ends[:-1] + 1))
    lengths = ends - starts
    good = (lengths > 0) & (lengths <= LONGEST_LINE)
    if len(delimiter) != 1:
        return starts, ends, np.zeros_like(good)
    mark = delimiter[0]
    if b"\0" in block:
        good[np.searchsorted(ends, np.flatnonzero(data == 0))] = False
    marks = np.flatnonzero(data == mark)
    if b'"' in block:
        quoted, marks = _survey_quotes(data, ends, mark, marks)
        good &= quoted
    counts = np.searchsorted(marks, ends) - np.searchsorted(marks, starts)
    return starts, ends, good & (counts == n_fields - 1)


def _survey_quotes(
    data: npt.NDArray[np.uint8],
    ends: npt.NDArray[np.int64],
    mark: int,
    marks: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Whether the quotes of each line are valid, and the delimiters outside quotes."""
    quotes = np.flatnonzero(data == 34)
    seen = np.cumsum(data == 34, dtype=np.int32)  # quotes up to and including each byte
    line_of = np.cumsum(data == 10, dtype=np.int32)  # line of each byte that is not a line end
    last = seen[np.minimum(ends, len(data) - 1)]
    first = np.concatenate((np.zeros(1, np.int32), last[:-1]))  # quotes before each line
    lines = line_of[quotes]
    rank = np.arange(len(quotes)) - first[lines]
    padded = np.concatenate(([10], data, [10])).astype(np.uint8)
    before, after = padded[quotes], padded[quotes + 2]
    opens = (before == mark) | (before == 10) | ((before == 34) & (rank > 0))
    closes = (after == mark) | (after == 10) | (after == 34)
    wrong = np.where(rank % 2 == 0, ~opens, ~closes)
    good = (last - first) % 2 == 0
    good[lines[wrong]] = False
    outside = (seen[marks] - first[line_of[marks]]) % 2 == 0
    return good, marks[outside]
