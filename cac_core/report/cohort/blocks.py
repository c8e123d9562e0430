"""What a section is made of, and what is known of the cohort when it is written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from markupsafe import Markup

from cac_core.analysis.plan import Plan, Term
from cac_core.report.cohort.numbers import Numbers, plain
from cac_core.report.figures import Figure, as_bytes
from cac_core.report.page import Cell, DataTable, FigureView
from cac_core.report.svg import in_full, inline_svg
from schemas.codes import CAC_CATEGORIES

#: Outcomes of the paper in its own words; others are named as they are defined.
_OUTCOMES = {
    "mace": "MACE",
    "death_mi": "death or MI",
    "mi": "MI",
    "mace_no_early_revascularisation": "MACE, early revascularisation excluded",
}
#: Categories of the score as the paper prints them; the tables hold `0` for the first.
_SHOWN_LEVELS = dict(zip(CAC_CATEGORIES, ("<1", *CAC_CATEGORIES[1:]), strict=True))
CATEGORIES_NOTE = (
    "CAC categories by Agatston score: <1 is below 1, 1-100 from 1 to 100, 101-400 above 100 to "
    "400, >400 above 400; a score of 100.5 lies in 101-400."
)
_NOT_SLUG = re.compile(r"[\W_]+")
_LONGEST_SLUG = 120


@dataclass(frozen=True, slots=True)
class Points:
    """Where the points of a drawing lie in it, for those who point at them.

    `places` are (x, y) in units of the drawing; `labels` what stands there.
    """

    places: Sequence[tuple[float, float]]
    labels: Sequence[str]

    def data(self) -> list[list[float | str]]:
        """Rows of x, y and label."""
        pairs = zip(self.places, self.labels, strict=True)
        return [[round(x, 1), round(y, 1), label] for (x, y), label in pairs]


@dataclass(frozen=True, slots=True)
class Part:
    """A paragraph, a table, a figure, or a piece of page made elsewhere; one of them is set.

    With a `summary` a table is closed at first; a `half` figure leaves room for another beside it.
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
    """A part of a section; shown for one population and outcome, or for all where that is None.

    `gaps` say what is missing and why.
    """

    title: str = ""
    population: str | None = None
    outcome: str | None = None
    parts: list[Part] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def say(self, text: str, *values: object) -> None:
        """Add a paragraph; values fill its places and are escaped unless marked."""
        self.parts.append(Part(text=Markup(text).format(*values)))

    def add(self, table: DataTable, summary: str = "") -> None:
        """Add a table; with a summary it can be opened and is closed at first."""
        self.parts.append(Part(table=table, summary=summary))

    def draw(self, figure: FigureView, points: Points | None = None, *, half: bool = False) -> None:
        """Add a figure; half as wide as the page where there is room for two."""
        self.parts.append(Part(figure=figure, points=points, half=half))

    def missing(self, reasons: Sequence[str]) -> None:
        """Add reasons why something is not there, each once."""
        self.gaps += [reason for reason in reasons if reason not in self.gaps]


@dataclass
class ReportSection:
    """A section of the report; its title names the table or figure of the paper."""

    identifier: str
    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def gaps(self) -> list[str]:
        """Everything that is missing in it."""
        found = []
        for block in self.blocks:
            about = ", ".join(part for part in (block.title, block.outcome) if part)
            found += [f"{about}: {gap}" if about else gap for gap in block.gaps]
        return list(dict.fromkeys(found))


@dataclass
class Report:
    """The cohort as the sections see it, and the files they leave.

    Parameters
    ----------
    linked : the table `linked`, for the points of scatter plots.
    outcomes : what each outcome and component is, in a line.
    hidden : whether small counts are hidden, and single patients with them.
    """

    numbers: Numbers
    plan: Plan
    linked: pa.Table
    outcomes: Mapping[str, str]
    discrepancies: pa.Table | None = None
    hidden: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    tables: dict[str, DataTable] = field(default_factory=dict)

    @property
    def populations(self) -> tuple[str, ...]:
        """Names of the plan's populations, the main one first."""
        return tuple(self.plan.populations)

    @property
    def ci(self) -> str:
        """Confidence intervals of the plan, as headings name them."""
        return f"{100 * self.plan.confidence:g} % CI"

    def other(self, population: str) -> str | None:
        """Name of a population for files; None for the main one."""
        return None if population == self.populations[0] else population

    def label(self, source: str) -> str:
        """A score source for people."""
        if source == "base":
            return "Without CAC"
        known = self.plan.sources.get(source)
        return source if known is None else known.label

    def outcome(self, name: str) -> str:
        """An outcome for people."""
        return _OUTCOMES.get(name) or name.replace("_", " ")

    def term(self, name: str | None) -> str:
        """A covariate for people."""
        return next((term.label for term in self.terms if term.name == name), str(name))

    def level(self, term: Term, level: str) -> str:
        """A level of a term for people."""
        return _SHOWN_LEVELS.get(level, level) if term.levels == CAC_CATEGORIES else level

    def source_level(self, source: str, level: str) -> str:
        """A category of a score source, or a pair of them (`0 vs >400`), for people."""
        term = self.plan.sources[source].term
        return " vs ".join(self.level(term, one) for one in level.split(" vs "))

    @property
    def terms(self) -> list[Term]:
        """Every variable of the plan, calcium first."""
        sources = [source.term for source in self.plan.sources.values()]
        return [*sources, *self.plan.covariates, *self.plan.described]

    def drawn(
        self, name: str, drawing: Figure, caption: str, description: str, table: DataTable | None
    ) -> FigureView:
        """Keep a figure as SVG and PNG, and give the view of it for the page."""
        name = self._free(name, self.figures)
        caption = in_full(caption, drawing)
        svg = as_bytes(drawing, "svg")
        self.figures[name] = svg, as_bytes(drawing, "png")
        if table is not None:
            table = self.kept(table)
        return FigureView(name, caption, inline_svg(svg, name, description), table)

    def kept(self, table: DataTable) -> DataTable:
        """Keep a table for the folder of tables, and give it back for the page.

        Where it has categories of the score, what their limits are stands under it.
        """
        cells = [column.title for column in table.columns]
        cells += [cell_text(item) for row in table.rows for item in row]
        if any(CAC_CATEGORIES[2] in text for text in cells):
            table = replace(table, note=f"{table.note} {CATEGORIES_NOTE}".strip())
        table = replace(table, identifier=self._free(table.identifier, self.tables))
        self.tables[table.identifier] = table
        return table

    @staticmethod
    def _free(name: str, taken: Mapping[str, object]) -> str:
        """The name, with a number where names that differ in signs alone have become one."""
        free, number = name, 2
        while free in taken:
            free, number = f"{name}-{number}", number + 1
        return free


def slug(*parts: str | None) -> str:
    """A name for files and anchors: letters and digits of any script, not too long."""
    joined = " ".join(part for part in parts if part)
    # The signs that tell categories apart are words in a name.
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
