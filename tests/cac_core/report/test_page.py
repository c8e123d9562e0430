"""Pages: self-contained, escaped, with reasons for gaps, the same bytes for the same values."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from cac_core.report.figures import Figure, as_bytes
from cac_core.report.page import (
    Cell,
    Column,
    DataTable,
    Page,
    Section,
    environment,
    number,
    render,
    share,
)
from cac_core.report.svg import inline_svg

PAGE = Page("A <title>", "Kind of page", sections=(Section("one", "One"),))
TABLE = DataTable(
    "numbers",
    "Numbers",
    (Column("name"), Column("value", numeric=True)),
    [["<b>", number(1234.5, 1)], [Cell("link", href="#one"), number(None)]],
    filterable=True,
)


def shown(table: DataTable) -> str:
    source = '{% import "macros.html.j2" as ui %}{{ ui.table(table) }}'
    return environment().from_string(source).render(table=table)


class Tags(HTMLParser):
    """Start tags with their attributes, and unclosed ones."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag."""
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Tags close in the order they were opened."""
        assert self.open.pop() == tag, (tag, self.open)


def test_the_frame_is_well_formed_and_loads_nothing() -> None:
    text = render("base.html.j2", PAGE)
    tags = Tags(text)
    assert not tags.open
    names = [tag for tag, _ in tags.found]
    for landmark in ("header", "nav", "main", "footer"):
        assert names.count(landmark) == 1
    assert names.count("h1") == 1
    for _, attributes in tags.found:
        for name in ("src", "href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), value
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", text)
    assert "A &lt;title&gt;" in text
    assert text == render("base.html.j2", PAGE)


def test_values_of_a_table_are_escaped_and_sort_by_value() -> None:
    text = shown(TABLE)
    assert "&lt;b&gt;" in text
    assert 'data-sort="1234.5">1,234.5</td>' in text
    assert 'data-sort=""></td>' in text
    assert '<a href="#one">link</a>' in text
    assert "data-filterable" in text
    assert not Tags(text).open


def test_an_empty_table_says_so() -> None:
    text = shown(DataTable("none", "Nothing", (Column("a"), Column("b")), []))
    assert '<td colspan="2">None.</td>' in text
    assert "data-sortable" not in text


def test_a_missing_value_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(UndefinedError):
        environment().from_string("{{ nothing.here }}").render()


def test_numbers_as_cells() -> None:
    assert number(float("nan")).text == ""
    assert number(0.0, 1, "HU") == Cell("0.0 HU", 0.0)
    assert number(-0.04, 1).text == "0.0"
    assert share(1, 3).text == "33.3 %"
    assert share(1, 0).text == ""


def drawing() -> bytes:
    figure = Figure(figsize=(3, 2))
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1])
    axis.set_title("a & b")
    return as_bytes(figure, "svg")


def test_two_drawings_share_no_identifier() -> None:
    first, second = (inline_svg(drawing(), name, "A line <up>") for name in ("one", "two"))
    assert isinstance(first, Markup)
    identifiers = re.findall(r'\bid="([^"]+)"', first + second)
    assert len(identifiers) == len(set(identifiers)) > 4
    for svg in (first, second):
        own = set(re.findall(r'\bid="([^"]+)"', svg))
        references = re.findall(r'(?:href="|url\()#([^")]+)', svg)
        assert references
        assert set(references) <= own
    assert '<title id="one-text">A line &lt;up&gt;</title>' in first


def test_what_is_no_drawing_is_refused() -> None:
    with pytest.raises(ValueError, match="viewBox"):
        inline_svg(b"<html></html>", "x", "y")
