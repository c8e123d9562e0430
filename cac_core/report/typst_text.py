"""A printed page as a document of Typst, the typesetter that makes the PDF.

All text becomes string literals, so nothing that a label contains is read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from cac_core.report.figures.texts import drawable
from cac_core.report.html_tree import Element, parse
from cac_core.report.table_rows import variables

_SPACE = re.compile(r"[ \t\r\n]+")
_INLINE = frozenset({"a", "abbr", "b", "br", "code", "data", "em", "span", "strong"})
_HEADINGS = {"h2": 1, "h3": 2, "h4": 3}
#: Tables up to this number of rows are kept on one page.
_SHORT_TABLE = 16
#: A word without a space longer than this may break after every few signs.
_LONG_WORD, _PIECE = 18, 10
_ZERO_WIDTH = "\N{ZERO WIDTH SPACE}"


def typst_text(html: str) -> str:
    """The body of a document of Typst with everything that a page shows in print.

    It uses the functions that `templates/printed.typ` defines.
    """
    page = parse(html)
    return "#{\n" + _Writer(page).blocks(page) + "\n}\n"


def literal(text: str) -> str:
    """A string literal of Typst."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Writer:
    def __init__(self, page: Element) -> None:
        self._targets = _targets(page)
        self._anchors: list[str] = []

    def blocks(self, parent: Element) -> str:
        """The contents of an element, one expression per line."""
        written: list[str] = []
        loose: list[Element | str] = []
        for child in [*parent.children, None]:
            if isinstance(child, str) or (child is not None and child.tag in _INLINE):
                loose.append(child)
                continue
            if (text := self._inline(loose)) != "[]":
                written.append(f"par({text})")
            loose = []
            if child is not None:
                written.append(self._block(child))
        return "\n".join(part for part in _halves(written) if part)

    def _block(self, element: Element) -> str:
        anchor = element.attributes.get("id", "")
        if element.tag == "section" and anchor in self._targets:
            self._anchors.append(anchor)
        if element.tag in _HEADINGS:
            return self._heading(element)
        wrap = next((name for name in ("missing", "together") if name in element.classes), "")
        if wrap:
            return f"{wrap}({{\n{self.blocks(element)}\n}})"
        for name, write in (
            ("h1", self._title),
            ("p", self._paragraph),
            ("ul", self._list),
            ("ol", self._list),
            ("dl", self._facts),
            ("figure", self._figure),
            ("table", self._table),
            ("svg", self._drawing),
            ("footer", self._footer),
        ):
            if element.tag == name:
                return write(element)
        if "cases" in element.classes:
            return f"cases({self._each(element)})"
        return self.blocks(element)

    def _each(self, element: Element) -> str:
        return ", ".join(f"{{\n{self._block(child)}\n}}" for child in element.elements())

    def _heading(self, element: Element) -> str:
        level = _HEADINGS[element.tag]
        labels = self._labels()
        return f"[#heading(level: {level}, {self._inline(element.children)}){labels}]"

    def _labels(self) -> str:
        """The first of the waiting anchors as a label; the others are placed before it."""
        waiting, self._anchors = self._anchors, []
        return "" if not waiting else f"#label({literal(waiting[-1])})"

    def _title(self, element: Element) -> str:
        return f"title({self._inline(element.children)})"

    def _paragraph(self, element: Element) -> str:
        look = next((name for name in ("kicker", "note") if name in element.classes), "par")
        return f"{look}({self._inline(element.children)})"

    def _footer(self, element: Element) -> str:
        return f"foot({{\n{self.blocks(element)}\n}})"

    def _list(self, element: Element) -> str:
        items = element.elements("li")
        if "tiles" in element.classes:
            tiles = [
                ", ".join(self._inline(part.children) for part in item.elements("span"))
                for item in items
            ]
            return f"tiles({', '.join(f'tile({tile})' for tile in tiles)})"
        return f"list({', '.join(f'{{{chr(10)}{self.blocks(item)}{chr(10)}}}' for item in items)})"

    def _facts(self, element: Element) -> str:
        pairs = []
        for row in element.elements():
            name, value = (self._inline(part.children) for part in row.elements())
            pairs.append(f"terms.item({name}, {value})")
        return f"terms({', '.join(pairs)})"

    def _drawing(self, element: Element) -> str:
        markup = element.drawing
        if "xmlns=" not in markup[: markup.index(">")]:
            markup = markup.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
        alt = literal(element.attributes["alt"] or "Drawing")
        return f'image(bytes({literal(markup)}), format: "svg", alt: {alt})'

    def _figure(self, element: Element) -> str:
        drawings = [self._drawing(one) for one in element.every("svg")]
        body = drawings[0] if len(drawings) == 1 else f"pair({', '.join(drawings)})"
        caption = next(element.every("figcaption"), None)
        under = "none" if caption is None else self._inline(caption.children)
        name = element.attributes.get("id", "")
        label = f"#label({literal(name)})" if name in self._targets else ""
        drawn = f"[#figure({body}, caption: {under}, numbering: none){label}]"
        return f"{_HALF}{drawn}" if "half" in element.classes else drawn

    def _table(self, element: Element) -> str:
        heads = [row.elements() for part in element.every("thead") for row in part.elements("tr")]
        rows = [row.elements() for part in element.every("tbody") for row in part.elements("tr")]
        caption = next(element.every("caption"), None)
        wide = max((len(row) for row in (*heads, *rows)), default=1)
        align = ["right" if "number" in cell.classes else "left" for cell in heads[0]]
        parts = [f"columns: {wide}", f"align: ({', '.join(align)},)"]
        head = ", ".join(self._cell(cell) for row in heads for cell in row)
        parts.append(f"table.header({head})")
        for group in variables([row[0].text for row in rows]):
            parts += self._rows([rows[at] for at in group])
        under = "none" if caption is None else self._inline(caption.children)
        text = f"figure(table({', '.join(parts)}), kind: table, caption: {under}, numbering: none)"
        return f"together({text})" if len(rows) <= _SHORT_TABLE else text

    def _rows(self, group: Sequence[Sequence[Element]]) -> list[str]:
        """Cells of the lines of one variable, which stay on one page.

        What stands in its first line alone, such as the p value, spans its lines; a cell over
        several lines is what Typst does not break.
        """
        free = [
            at
            for at in range(1, min(len(row) for row in group))
            if len(group) > 1 and not any(row[at].text.strip() for row in group[1:])
        ]
        cells = []
        for number, row in enumerate(group):
            for at, cell in enumerate(row):
                if at not in free:
                    cells.append(self._cell(cell))
                elif number == 0:
                    cells.append(self._cell(cell, f"rowspan: {len(group)}, breakable: false"))
        return cells

    def _cell(self, cell: Element, *more: str) -> str:
        number = cell.tag == "td" and "number" in cell.classes
        text = self._inline(cell.children, _unbroken if number else _breakable)
        wide = cell.attributes.get("colspan", "1")
        options = [*more, *([f"colspan: {wide}"] if wide != "1" else [])]
        return f"table.cell({', '.join([*options, text])})" if options else text

    def _inline(self, children: Iterable[Element | str], fit: Callable[[str], str] = str) -> str:
        """Text with its marks as content, without space at both ends."""
        parts = _trimmed([part for child in children for part in self._pieces(child, fit)])
        return "[" + "".join(f"#{part};" for part in parts) + "]"

    def _pieces(self, child: Element | str, fit: Callable[[str], str]) -> list[str]:
        if isinstance(child, str):
            text = drawable(_SPACE.sub(" ", child))
            return [literal(fit(text))]
        if child.tag == "br":
            return ["linebreak()"]
        inside = [part for one in child.children for part in self._pieces(one, fit)]
        joined = "[" + "".join(f"#{part};" for part in inside) + "]"
        if child.tag == "code":
            return [f"raw({literal(child.text)})"]
        if child.tag in ("b", "strong"):
            return [f"strong({joined})"]
        target = child.attributes.get("href", "").removeprefix("#")
        if child.tag == "a" and target in self._targets:
            return [f"link(label({literal(target)}), {joined})"]
        return inside


#: Marks a figure that shares its line with the next.
_HALF = "\0"


def _halves(written: Iterable[str]) -> list[str]:
    """Consecutive half figures become a grid of two columns."""
    found: list[str] = []
    waiting: list[str] = []
    for part in [*written, ""]:
        if part.startswith(_HALF):
            waiting.append(part.removeprefix(_HALF))
            continue
        if waiting:
            found.append(f"halves({', '.join(waiting)})")
            waiting = []
        found.append(part)
    return found


def _targets(page: Element) -> set[str]:
    """Identifiers that a link of the page names and that a heading or a figure carries."""
    named = {link.attributes.get("href", "") for link in page.every("a")}
    there = [*page.every("section"), *page.every("figure")]
    return {one.attributes.get("id", "") for one in there
            if f"#{one.attributes.get('id')}" in named}  # fmt: skip


def _trimmed(parts: list[str]) -> list[str]:
    """Without spaces at both ends and empty pieces."""
    if parts and parts[0].startswith('" '):
        parts[0] = '"' + parts[0][2:]
    if parts and parts[-1].endswith(' "'):
        parts[-1] = parts[-1][:-2] + '"'
    return [part for part in parts if part != '""']


def _unbroken(text: str) -> str:
    """Numbers, whose line may end before limits in brackets alone."""
    return re.sub(r" (?!\()", "\N{NO-BREAK SPACE}", text)


def _breakable(text: str) -> str:
    """Long words, such as digests, may break inside a column."""
    if len(text) <= _LONG_WORD:
        return text
    words = text.split(" ")
    return " ".join(
        _ZERO_WIDTH.join(word[at : at + _PIECE] for at in range(0, len(word), _PIECE))
        if len(word) > _LONG_WORD
        else word
        for word in words
    )
