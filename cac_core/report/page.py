"""Pages: self-contained HTML files from given values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cac_core.version import __version__

#: Kind and address of each file of a figure or table.
Links = tuple[tuple[str, str], ...]
_BACKTICKS = re.compile(r"`([^`<>]+)`")


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a table: text, sort key if it is not the text, and link target."""

    text: str
    sort: float | str | None = None
    href: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """Title of a column; numbers are right-aligned. `description` is shown on hover."""

    title: str
    numeric: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table of a page; not `sortable` if its order has a meaning.

    `identifier` is unique within the page; `filterable` adds a filter; `empty` is shown without
    rows; `outcomes` are those of the rows, if a page shows one outcome at a time.
    """

    identifier: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Cell | str]]
    filterable: bool = False
    note: str = ""
    empty: str = "None."
    sortable: bool = True
    outcomes: tuple[str, ...] = ()

    @property
    def cells(self) -> list[list[Cell]]:
        """Rows with every value as a cell."""
        return [
            [item if isinstance(item, Cell) else Cell(item) for item in row] for row in self.rows
        ]


@dataclass(frozen=True, slots=True)
class FigureView:
    """A drawing with its caption and the table of its numbers."""

    identifier: str
    caption: str
    svg: Markup
    table: DataTable | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """An entry of the navigation."""

    identifier: str
    title: str


@dataclass(frozen=True, slots=True)
class Part:
    """A section with its contents; `missing` says why there is nothing to show."""

    identifier: str
    title: str
    paragraphs: tuple[str, ...] = ()
    figure: FigureView | None = None
    tables: tuple[DataTable, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Link to a page beside this one; `relation` is `prev`, `next`, or empty."""

    title: str
    href: str
    relation: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Titles and navigation of a page."""

    title: str
    kicker: str
    subtitle: str = ""
    sections: tuple[Section, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()

    @property
    def made_by(self) -> str:
        """Program and version."""
        return f"cac-cohort {__version__}"


@cache
def environment() -> Environment:
    """Jinja environment of the templates; undefined values are errors."""
    made = Environment(
        loader=PackageLoader("cac_core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["coded"] = coded
    # Pages with files beside them, or drawings for narrow screens, pass their own.
    made.globals["links"] = no_links
    made.globals["narrow"] = no_drawing
    return made


def no_links(identifier: str) -> Links:
    """Links to the files of a figure or table of a page without files."""
    return ()


def no_drawing(identifier: str) -> Markup:
    """The drawing of a figure for a narrow screen, of a page that has none."""
    return Markup()


def coded(text: str) -> Markup:
    """A text with words between backticks set as code; markup stays as it is."""
    escaped = text if isinstance(text, Markup) else escape(text)
    # As plain text: what is joined to `Markup` is escaped again.
    return Markup(_BACKTICKS.sub(r"<code>\1</code>", str(escaped)))


def render(template: str, page: Page, **values: object) -> str:
    """Fill a template of `cac_core/report/templates`; a missing value is an error.

    The same values give the same bytes.
    """
    return environment().get_template(template).render(page=page, **values)


def render_parts(
    title: str,
    kicker: str,
    subtitle: str,
    parts: Sequence[Part],
    tiles: Sequence[tuple[str, str]],
    footer: str,
    links: Callable[[str], Links] = no_links,
) -> str:
    """A page of parts below a row of key numbers; `links` gives the files of a table."""
    sections = tuple(Section(part.identifier, part.title) for part in parts)
    page = Page(title, kicker, subtitle, sections)
    values = {"tiles": tiles, "parts": parts, "footer": footer, "links": links}
    return render("parts.html.j2", page, **values)


def number(value: float | int | None, digits: int = 0, unit: str = "") -> Cell:
    """A number as a cell that sorts by its value; an empty cell for None or NaN."""
    if value is None or value != value:
        return Cell("", "")
    text = f"{round(value, digits) + 0.0:,.{digits}f}"  # no minus sign before zero
    return Cell(f"{text} {unit}" if unit else text, float(value))


def share(part: float, whole: float) -> Cell:
    """A percentage as a cell; empty if the whole is 0."""
    return number(100 * part / whole, 1, "%") if whole else Cell("", "")


def columns(titles: Iterable[str], numeric: Iterable[str] = ()) -> tuple[Column, ...]:
    """Columns by title; those of `numeric` come last and are right-aligned."""
    return (*(Column(title) for title in titles), *(Column(title, True) for title in numeric))
