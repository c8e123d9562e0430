"""A page as PDF, without browser, system libraries or network."""

from __future__ import annotations

import io
import re

import plutoprint

from cac_core.report.figures.style import font_file

_FONT = "cac:font"
_PAGE = "cac:report"
_BOLD = "cac:font-bold"
#: A fixed date of creation, so that the same page gives the same bytes.
_EPOCH = "2000-01-01T00:00:00Z"
#: A link to a file beside the page: a PDF travels alone, and the renderer warns of each.
_LINK_TO_FILE = re.compile(r'\shref="(?!#|[a-z]+:)[^"]*"')


class _Fonts(plutoprint.ResourceFetcher):
    """Serves the fonts of matplotlib and data URLs; refuses everything else."""

    def fetch_url(self, url: str) -> plutoprint.ResourceData:
        """The bytes behind a URL of the page."""
        if url in (_FONT, _BOLD):
            return plutoprint.ResourceData(font_file(bold=url == _BOLD), "font/ttf", "")
        if url.startswith("data:"):
            return plutoprint.default_resource_fetcher.fetch_url(url)
        raise ValueError("a report must be self-contained")


def to_pdf(html: str, title: str) -> bytes:
    """Print a self-contained page on A4; the same page gives the same bytes."""
    book = plutoprint.Book(plutoprint.PAGE_SIZE_A4, plutoprint.PAGE_MARGINS_NONE)
    book.custom_resource_fetcher = _Fonts()
    book.load_html(_LINK_TO_FILE.sub("", html), base_url=_PAGE)
    for name, value in (
        (plutoprint.PDF_METADATA_TITLE, title),
        (plutoprint.PDF_METADATA_CREATION_DATE, _EPOCH),
        (plutoprint.PDF_METADATA_MODIFICATION_DATE, _EPOCH),
    ):
        book.set_metadata(name, value)
    stream = io.BytesIO()
    book.write_to_pdf_stream(stream)
    return stream.getvalue()
