"""Input of the cohort report, shown names, and the tables and figures that it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from cac_core.analysis.plan import Plan, Term
from cac_core.report.cohort.plain_words import in_plain_words, shown_names, squared
from cac_core.report.cohort.sections import cell_text
from cac_core.report.cohort.shown_estimates import Row, ShownEstimates
from cac_core.report.figures import Figure, as_bytes, lay_out
from cac_core.report.figures.style import needs_reader_fonts
from cac_core.report.page import DataTable, FigureView
from cac_core.report.svg import in_full, inline_svg
from schemas.codes import CAC_CATEGORIES

#: A row of a table of the warehouse; its schema names columns and types.
TableRow = Mapping[str, Any]
#: Outcomes of the paper in its own words; others are shown by their names.
_OUTCOMES = {
    "mace": "MACE",
    "death_mi": "death or MI",
    "mi": "MI",
    "mace_no_early_revascularisation": "MACE, early revascularisation excluded",
}
#: Categories of the score as the paper prints them; the tables have `0` for the first.
_SHOWN_LEVELS = dict(zip(CAC_CATEGORIES, ("<1", *CAC_CATEGORIES[1:]), strict=True))
CATEGORIES_NOTE = (
    "CAC categories by Agatston score: <1 is below 1, 1-100 from 1 to 100, 101-400 above 100 to "
    "400, >400 above 400; a score of 100.5 lies in 101-400."
)


@dataclass(frozen=True)
class ReportFacts:
    """What a report shows beside the estimates.

    Parameters
    ----------
    linked : the table `linked`, for scatter plots, example cases and the data dictionary.
    discrepancies : the table of that name; None if the analysis has none.
    outcomes : description of each outcome and component.
    subtitle : site, model and linkage, in a line.
    networks : entries of the manifest of the weights by network; empty if the weights that scored
        the cohort are not installed.
    rescoring_runs, linkage_run, analysis_run : rows of `runs`, `linkages` and `analyses`.
    previews : rows of `previews` by study key, for the example cases.
    pages : addresses of single study pages by study key, relative to the report.
    empty_because : why no patient is in the analysis; without any reason if there are some.
    """

    linked: pa.Table
    discrepancies: pa.Table | None = None
    outcomes: Mapping[str, str] = field(default_factory=dict)
    subtitle: str = ""
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rescoring_runs: Sequence[TableRow] = ()
    linkage_run: TableRow | None = None
    analysis_run: TableRow | None = None
    previews: Mapping[str, Sequence[TableRow]] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    empty_because: Sequence[str] = ()


@dataclass
class Report:
    """Input of all sections, and the tables and figures that they keep.

    Parameters
    ----------
    hidden : whether small counts are hidden, and single patients with them.
    without_font : names of figures with characters that no installed font has.
    journal : whether figures are also kept in all widths of journals, and as TIFF.
    drawings : figures with their text alternatives, to be drawn at other sizes.
    incomplete : identifiers of the sections written so far in which something is missing.
    """

    numbers: ShownEstimates
    plan: Plan
    facts: ReportFacts
    hidden: bool = False
    journal: bool = False
    incomplete: list[str] = field(default_factory=list)
    without_font: list[str] = field(default_factory=list)
    figures: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    tables: dict[str, DataTable] = field(default_factory=dict)
    drawings: dict[str, tuple[Figure, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.numbers.words = self.words

    @cached_property
    def _names(self) -> dict[str, str]:
        known = [*self.plan.outcomes, *self.plan.components, self.plan.competing]
        return shown_names(self.plan, {name: self.outcome(name) for name in known})

    def words(self, text: str) -> str:
        """A text of an estimate with the names of columns, readings and outcomes as shown."""
        return in_plain_words(text, self._names)

    def reasons(self, rows: Iterable[Row | None]) -> tuple[str, ...]:
        """Reasons for missing values, each once, with their term and level as shown."""
        found: dict[str, None] = {}
        for row in rows:
            if row is not None and row.reason:
                term = next((term for term in self.terms if term.name == row.term), None)
                level = row.level if term is None else self.level(term, row.level or "")
                name = row.term if term is None else term.title
                about = self.words(" ".join(part for part in (name, level) if part))
                reason = self.words(row.reason)
                found[reason if reason.startswith(about) else f"{about}: {reason}"] = None
        return tuple(found)

    @property
    def populations(self) -> tuple[str, ...]:
        """Names of the plan's populations, the main one first."""
        return tuple(self.plan.populations)

    @property
    def ci(self) -> str:
        """Confidence intervals of the plan, as headings name them."""
        return f"{100 * self.plan.confidence:g} % CI"

    def population_suffix(self, population: str) -> str | None:
        """Part of file names that stands for a population; None for the main one."""
        return None if population == self.populations[0] else population

    def label(self, source: str) -> str:
        """Shown name of a score source."""
        if source == "base":
            return "Without CAC"
        known = self.plan.sources.get(source)
        return source if known is None else known.label

    def outcome(self, name: str) -> str:
        """Shown name of an outcome."""
        return _OUTCOMES.get(name) or name.replace("_", " ")

    def term(self, name: str | None) -> str:
        """Shown name of a covariate."""
        return next((self.term_label(term) for term in self.terms if term.name == name), str(name))

    @staticmethod
    def term_label(term: Term) -> str:
        """Label of a term, with its units as they are printed."""
        return squared(term.label)

    def level(self, term: Term, level: str) -> str:
        """Shown name of a level of a term."""
        return _SHOWN_LEVELS.get(level, level) if term.levels == CAC_CATEGORIES else level

    def source_level(self, source: str, level: str) -> str:
        """Shown name of a category of a score source, or of a pair (`0 vs >400`)."""
        term = self.plan.sources[source].term
        return " vs ".join(self.level(term, one) for one in level.split(" vs "))

    @property
    def terms(self) -> list[Term]:
        """Every variable of the plan, calcium first."""
        sources = [source.term for source in self.plan.sources.values()]
        return [*sources, *self.plan.covariates, *self.plan.described]

    def keep_figure(
        self, name: str, drawing: Figure, caption: str, description: str, table: DataTable | None
    ) -> FigureView:
        """Keep a figure as SVG and PNG, and return its view for the page."""
        name = self._free(name, self.figures)
        if needs_reader_fonts(drawing):
            self.without_font.append(name)
        caption = in_full(caption, drawing)
        lay_out(drawing)
        svg = as_bytes(drawing, "svg")
        self.figures[name] = svg, as_bytes(drawing, "png")
        self.drawings[name] = drawing, description
        if table is not None:
            table = self.keep_table(table)
        return FigureView(name, caption, inline_svg(svg, name, description), table)

    def keep_table(self, table: DataTable) -> DataTable:
        """Keep a table for the folder of tables, and return it for the page.

        A table with categories of the score gets a note with their limits.
        """
        cells = [column.title for column in table.columns]
        cells += [cell_text(item) for row in table.rows for item in row]
        if any(CAC_CATEGORIES[2] in text for text in cells):
            table = replace(table, note=(table.note + " " + CATEGORIES_NOTE).strip())
        table = replace(table, identifier=self._free(table.identifier, self.tables))
        self.tables[table.identifier] = table
        return table

    @staticmethod
    def _free(name: str, taken: Mapping[str, object]) -> str:
        """The name, with a number if it is taken by a name that differs in signs alone."""
        free, number = name, 2
        while free in taken:
            free, number = f"{name}-{number}", number + 1
        return free
