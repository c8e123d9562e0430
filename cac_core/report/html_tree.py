"""A page of ours as a tree of elements, for renderings other than the browser's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser

_DRAWING = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.DOTALL)
_VOID = frozenset({"br", "img", "link", "meta", "input", "hr"})
#: What a printed page does not show.
_UNSEEN = frozenset({"head", "script", "style", "nav", "form", "summary"})


@dataclass
class Element:
    """An element with its attributes and what it contains, in order.

    A drawing is the element `svg` with its markup in `drawing` and its text alternative in `alt`.
    """

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)
    drawing: str = ""

    @property
    def classes(self) -> frozenset[str]:
        """Names of the style classes."""
        return frozenset(self.attributes.get("class", "").split())

    def elements(self, tag: str = "") -> list[Element]:
        """Elements directly inside, of a tag or of all."""
        inside = [child for child in self.children if isinstance(child, Element)]
        return [child for child in inside if tag in ("", child.tag)]

    def every(self, tag: str) -> Iterator[Element]:
        """Elements of a tag at any depth, in order."""
        for child in self.elements():
            if child.tag == tag:
                yield child
            yield from child.every(tag)

    @property
    def text(self) -> str:
        """Text inside, without markup."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


def parse(html: str) -> Element:
    """The tree of a page or of a piece of one, without what only a screen shows.

    Drawings are kept as they are written.
    """
    drawings: list[str] = []

    def set_aside(found: re.Match[str]) -> str:
        drawings.append(found.group())
        return f'<img data-drawing="{len(drawings) - 1}">'

    builder = _Builder(drawings)
    builder.feed(_DRAWING.sub(set_aside, html))
    builder.close()
    return builder.root


class _Builder(HTMLParser):
    def __init__(self, drawings: list[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("page")
        self._drawings = drawings
        self._open = [self.root]
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._unseen or tag in _UNSEEN:
            self._unseen += tag not in _VOID
            return
        element = Element(tag, {name: value or "" for name, value in attrs})
        if "skip" in element.classes:
            self._unseen = 1
            return
        if "data-drawing" in element.attributes:
            element = _drawn(self._drawings[int(element.attributes["data-drawing"])])
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            self._unseen -= 1
        elif len(self._open) > 1 and tag not in _VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._open[-1].children.append(data)


def _drawn(markup: str) -> Element:
    title = _TITLE.search(markup)
    alt = "" if title is None else unescape(title.group(1))
    return Element("svg", {"alt": alt}, drawing=markup)
