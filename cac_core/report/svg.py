"""Drawings inside a page: scalable, with a text alternative, several in one document."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from cac_core.report.figures import Figure, as_bytes
from cac_core.report.figures.style import needs_reader_fonts
from cac_core.report.figures.texts import fit_texts
from cac_core.report.page import DataTable, FigureView

_ROOT = re.compile(r"<svg\b[^>]*>", re.DOTALL)
_VIEW_BOX = re.compile(r'\bviewBox="([^"]+)"')
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_IDENTIFIER = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(\bxlink:href="#|url\(#)([^")]+)')


def drawn(
    identifier: str,
    caption: str,
    description: str,
    drawing: Figure,
    table: DataTable | None = None,
) -> FigureView:
    """A drawing for a page; `table` is collapsed below it."""
    caption = in_full(caption, drawing)
    svg = inline_svg(as_bytes(drawing, "svg"), f"{identifier}-figure", description)
    return FigureView(f"{identifier}-drawing", caption, svg, table)


def in_full(caption: str, drawing: Figure) -> str:
    """The caption with the full text of cut labels, and a note on missing characters."""
    cut = fit_texts(drawing)
    if cut:
        caption += f" Labels in full: {'; '.join(cut)}."
    if needs_reader_fonts(drawing):
        caption += (
            " No installed font has some of the characters: the SVG uses the fonts of the reader, "
            "the PNG shows \N{REPLACEMENT CHARACTER} instead."
        )
    return caption


def inline_svg(drawing: bytes, identifier: str, description: str) -> Markup:
    """An SVG document as an element of an HTML page.

    Identifiers get a prefix, so that several drawings can share a page, and unused ones are
    removed. The style sheet sets the size.

    Parameters
    ----------
    drawing : the document, as matplotlib writes it.
    identifier : unique within the page.
    description : text alternative.
    """
    text = _METADATA.sub("", drawing.decode("utf-8"))
    root = _ROOT.search(text)
    view_box = None if root is None else _VIEW_BOX.search(root.group())
    if root is None or view_box is None:
        raise ValueError("the drawing is not an SVG with a viewBox")
    body = text[root.end() :]
    used = {match.group(2) for match in _REFERENCE.finditer(body)}
    body = _IDENTIFIER.sub(
        lambda match: f'id="{identifier}-{match.group(1)}"' if match.group(1) in used else "", body
    )
    body = _REFERENCE.sub(rf"\g<1>{identifier}-\g<2>", body)
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view_box.group(1)}" role="img" aria-labelledby="{identifier}-text">'
        f'<title id="{identifier}-text">{escape(description)}</title>'
    )
    # Safe as markup: matplotlib escapes the labels of our figures.
    return Markup(head + body)


_IMAGE = re.compile(r'<image id="([^"]+)" ([^>]*)/>')
_USE = re.compile(r'<use href="#([^"]+)"/>')


def with_own_images(html: str) -> str:
    """A page whose drawings show no image of another drawing, for renderers of single drawings."""
    images = {name: f"<image {rest}/>" for name, rest in _IMAGE.findall(html)}
    return _USE.sub(lambda use: images.get(use[1], use[0]), html)
