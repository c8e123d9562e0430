"""A page as tagged PDF with bookmarks, without browser, system libraries or network."""

from __future__ import annotations

from functools import cache
from importlib import resources

import typst

from cac_core.report.figures.style import font_folder
from cac_core.report.figures.texts import drawable, families
from cac_core.report.svg import with_own_images
from cac_core.report.typst_text import literal, typst_text

#: Seconds since 1970; a fixed date of creation, so that the same page gives the same bytes.
_EPOCH = 946_684_800


def to_pdf(html: str, title: str) -> bytes:
    """Print a self-contained page on A4; the same page gives the same bytes.

    The PDF has tags, a bookmark per heading, its language and title (PDF/UA-1). Links to other
    files are left out: a PDF travels alone.
    """
    fonts = ", ".join(literal(name) for name in families())
    document = (
        f"#let text-fonts = ({fonts},)\n"
        f"#set text(font: text-fonts)\n"
        f"#set document(title: {literal(drawable(title))})\n"
        + _style()
        + typst_text(with_own_images(html))
    )
    return typst.compile(
        document.encode(),
        font_paths=_fonts(),
        format="pdf",
        pdf_standards="ua-1",
        timestamp=_EPOCH,
    )


@cache
def _fonts() -> typst.Fonts:
    """The fonts of matplotlib, and those of the system for other scripts."""
    return typst.Fonts(
        include_system_fonts=len(families()) > 1,
        include_embedded_fonts=False,
        font_paths=[str(font_folder())],
    )


def _style() -> str:
    return resources.files("cac_core.report").joinpath("templates/printed.typ").read_text()
