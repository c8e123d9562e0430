"""Parts of a section of the cohort report: paragraphs, tables and figures in blocks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from cac_core.report.cohort.shown_estimates import plain
from cac_core.report.page import Cell, DataTable, FigureView

_NOT_SLUG = re.compile(r"[\W_]+")
_LONGEST_SLUG = 120


@dataclass(frozen=True, slots=True)
class Points:
    """Labels of the points of a drawing, for a pointing device or the keyboard.

    `positions` are (x, y) in units of the drawing.
    """

    positions: Sequence[tuple[float, float]]
    labels: Sequence[str]

    def data(self) -> list[list[float | str]]:
        """Rows of x, y and label."""
        pairs = zip(self.positions, self.labels, strict=True)
        return [[round(x, 1), round(y, 1), label] for (x, y), label in pairs]


@dataclass(frozen=True, slots=True)
class Part:
    """A paragraph, a table, a figure, or HTML; exactly one is set.

    A table with a `summary` is collapsed at first; a `half` figure leaves room for another beside
    it.
    """

    text: Markup | None = None
    table: DataTable | None = None
    figure: FigureView | None = None
    points: Points | None = None
    html: Markup | None = None
    summary: str = ""
    half: bool = False


@dataclass
class Block:
    """A part of a section for one population and outcome, or for all if these are None.

    `gaps` say what is missing and why.
    """

    title: str = ""
    population: str | None = None
    outcome: str | None = None
    parts: list[Part] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def say(self, text: str, *values: object) -> None:
        """Add a paragraph; values replace its `{}` and are escaped unless they are `Markup`."""
        self.parts.append(Part(text=Markup(text).format(*values)))

    def add(self, table: DataTable, summary: str = "") -> None:
        """Add a table; with a summary it is collapsed at first."""
        self.parts.append(Part(table=table, summary=summary))

    def draw(self, figure: FigureView, points: Points | None = None, *, half: bool = False) -> None:
        """Add a figure; half as wide as the page if there is room for two."""
        self.parts.append(Part(figure=figure, points=points, half=half))

    def missing(self, reasons: Sequence[str]) -> None:
        """Add reasons why something is missing, each once."""
        self.gaps += [reason for reason in reasons if reason not in self.gaps]


@dataclass
class ReportSection:
    """A section of the report; its title names the table or figure of the paper.

    `only` names the outcome of a section that has one, whichever is chosen on the page. The search
    shows the rows of an `aside` section after those of the main analyses.
    """

    identifier: str
    title: str
    blocks: list[Block] = field(default_factory=list)
    only: str = ""
    aside: bool = False

    @property
    def gaps(self) -> list[str]:
        """Everything that is missing in the section."""
        found = []
        for block in self.blocks:
            found += [f"{block.title}: {gap}" if block.title else gap for gap in block.gaps]
        return list(dict.fromkeys(found))


def slug(*parts: str | None) -> str:
    """A name for files and anchors: letters and digits of any script, limited in length."""
    joined = " ".join(part for part in parts if part)
    # Signs that distinguish categories become words.
    for sign, word in (("<", " below "), (">", " above ")):
        joined = joined.replace(sign, word)
    name = _NOT_SLUG.sub("-", joined.lower()).strip("-")
    if len(name.encode()) <= _LONGEST_SLUG:
        return name
    short = name.encode()[: _LONGEST_SLUG - 9].decode(errors="ignore").strip("-")
    return f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def cell_text(item: Cell | str) -> str:
    """A cell as plain text."""
    return plain(item.text if isinstance(item, Cell) else item)


def cell_texts(table: DataTable) -> list[list[str]]:
    """All cells of a table as plain text, by row."""
    return [[cell_text(item) for item in row] for row in table.rows]
