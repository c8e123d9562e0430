"""Estimates as the report shows them: look-up, formatting, and a record of every shown number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from markupsafe import Markup

from cac_core.report.cohort.small_cells import HIDDEN
from cac_core.report.page import Cell

_NOT_ESTIMABLE = "not estimable: "
#: Formats of numbers: factor and digits after the point.
FORMATS = {
    "count": (1, 0),
    "percent": (100, 1),
    "one": (1, 1),
    "two": (1, 2),
    "three": (1, 3),
    "four": (1, 4),
}
_P_FLOOR = 0.001


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table `estimates`, and its index from 0."""

    index: int
    analysis: str
    population: str | None
    outcome: str | None
    model: str | None
    term: str | None
    level: str | None
    statistic: str
    at: float | None
    value: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    n: int | None
    n_events: int | None
    method: str

    @property
    def reason(self) -> str:
        """Why there is no value; empty with a value."""
        if self.value is not None:
            return ""
        _, found, why = self.method.partition(_NOT_ESTIMABLE)
        return why if found else ""


@dataclass
class ShownEstimates:
    """The table `estimates`, and a record of the numbers that are shown.

    Parameters
    ----------
    table : the table `estimates`; shown numbers refer to its rows.
    place : section that is being written.
    words : makes a reason readable, see `Report.words`.
    """

    table: pa.Table
    place: str = ""
    shown: list[dict[str, Any]] = field(default_factory=list)
    words: Callable[[str], str] = str

    def __post_init__(self) -> None:
        self._rows = [
            Row(index=index, **(row | {"method": row["method"] or ""}))
            for index, row in enumerate(self.table.to_pylist())
        ]
        self._by_name: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for one in self._rows:
            self._by_name[one.analysis, one.statistic].append(one)

    # -- lookup ----------------------------------------------------------------------------

    def rows(self, analysis: str, statistic: str, **wanted: str | float | None) -> list[Row]:
        """Rows of a statistic whose columns have these values, in the order of the table."""
        return [
            row
            for row in self._by_name.get((analysis, statistic), ())
            if all(getattr(row, name) == value for name, value in wanted.items())
        ]

    def row(self, index: int) -> Row:
        """A row by its index."""
        return self._rows[index]

    def one(self, analysis: str, statistic: str, **wanted: str | float | None) -> Row | None:
        """The first such row, or None."""
        found = self.rows(analysis, statistic, **wanted)
        return found[0] if found else None

    def why_not(self, analysis: str, **wanted: str | float | None) -> Row | None:
        """The row with the reason why an analysis failed; it may lack some of these values."""
        for row in self._rows:
            fits = all(getattr(row, name) in (value, None) for name, value in wanted.items())
            if row.analysis == analysis and row.reason and fits:
                return row
        return None

    # -- numbers as text -------------------------------------------------------------------

    def text(self, row: Row | None, style: str, column: str = "value") -> Markup:
        """A number of a row, marked with its row and column; a dash without a number."""
        value = None if row is None else getattr(row, column)
        if row is None or value is None:
            return self._absent(row)
        factor, digits = FORMATS[style]
        return self._marked(row, column, style, f"{factor * value:,.{digits}f}")

    def p(self, row: Row | None) -> Markup:
        """The p value of a row, three digits, `<0.001` below that."""
        if row is None or row.p_value is None:
            return self._absent(row)
        small = row.p_value < _P_FLOOR
        return self._marked(row, "p_value", "p", "<0.001" if small else f"{row.p_value:.3f}")

    def interval(self, row: Row | None, style: str) -> Markup:
        """The limits of a row in brackets; empty without limits."""
        if row is None or row.ci_low is None or row.ci_high is None:
            return Markup("")
        low, high = self.text(row, style, "ci_low"), self.text(row, style, "ci_high")
        return Markup("({} to {})").format(low, high)

    def with_interval(self, row: Row | None, style: str) -> Markup:
        """Value and limits."""
        unit = " %" if style == "percent" and row is not None and row.value is not None else ""
        text = Markup("{}{} {}").format(self.text(row, style), unit, self.interval(row, style))
        return Markup(text.rstrip())

    def count_share(self, count: Row | None, share: Row | None) -> Markup:
        """A count and its share of all."""
        if share is None or share.value is None:
            return self.text(count, "count")
        return Markup("{} ({} %)").format(self.text(count, "count"), self.text(share, "percent"))

    # -- cells -----------------------------------------------------------------------------

    def cell(self, row: Row | None, style: str, column: str = "value") -> Cell:
        """A number as a cell that sorts by its value."""
        value = None if row is None else getattr(row, column)
        return Cell(self.text(row, style, column), "" if value is None else float(value))

    def interval_cell(self, row: Row | None, style: str) -> Cell:
        """Value and limits as a cell that sorts by the value."""
        value = None if row is None else row.value
        return Cell(self.with_interval(row, style), "" if value is None else value)

    def p_cell(self, row: Row | None) -> Cell:
        """A p value as a cell that sorts by it."""
        value = None if row is None else row.p_value
        return Cell(self.p(row), "" if value is None else value)

    def share_cell(self, count: Row | None, share: Row | None) -> Cell:
        """Count and share as one cell, sorted by the count."""
        value = None if count is None else count.value
        return Cell(self.count_share(count, share), "" if value is None else value)

    def spread_cell(self, middle: Row | None, *others: Row | None, style: str = "one") -> Cell:
        """A mean or median with its spread in brackets, sorted by the former."""
        if middle is None or middle.value is None:
            return Cell(self.text(middle, style), "")
        inside = Markup(", ").join(self.text(other, style) for other in others)
        return Cell(Markup("{} ({})").format(self.text(middle, style), inside), middle.value)

    def _absent(self, row: Row | None) -> Markup:
        if row is not None and row.method == HIDDEN:
            return Markup('<span class="absent">hidden</span>')
        if row is None or not row.reason:
            return Markup('<span class="absent">\N{EN DASH}</span>')
        reason = self.words(row.reason)
        return Markup('<span class="absent" title="{}">not estimable</span>').format(reason)

    def _marked(self, row: Row, column: str, style: str, text: str) -> Markup:
        self.shown.append(
            {"row": row.index, "column": column, "as": style, "text": text, "in": self.place}
        )
        return Markup('<data value="{}.{}" data-as="{}">{}</data>').format(
            row.index, column, style, text
        )


def plain(text: str) -> str:
    """Text without markup, for figures and files."""
    return Markup(text).striptags() if isinstance(text, Markup) else str(text)
