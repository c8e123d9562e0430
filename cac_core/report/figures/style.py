"""Style of all figures: colours, axes, and rendering to bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from cac_core.report.figures.paper import SMALLEST_TEXT, Paper, Sheet, drawing_on
from cac_core.report.figures.texts import drawable, families, fit_texts, tick_names, undrawable

#: Okabe and Ito's colours, safe for colour blindness.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#555555"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
#: One for each category of `schemas.codes.CAC_CATEGORIES`, from little to much calcium.
CATEGORY_COLOURS = (SKY, BLUE, ORANGE, RED)


#: Dots per inch of pictures: for a screen, and for line art in print.
_SCREEN_DPI, _PRINT_DPI = 150, 600
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
}


def as_bytes(figure: Figure, kind: str, *, for_print: bool = False) -> bytes:
    """A figure as `png`, `svg`, `pdf` or `tiff`; the same figure gives the same bytes.

    A TIFF has 600 dots per inch. With `for_print` an SVG leaves nothing to the fonts of its reader.
    """
    if not (isinstance(figure, Sheet) and figure.settled):
        fit_texts(figure)
    texts = [part for part in figure.findobj(Text) if isinstance(part, Text)]
    strange = needs_reader_fonts(figure)
    of_reader = strange and kind == "svg" and not for_print
    style: Any = {
        "svg.hashsalt": "cac",
        # Characters that no installed font has stay text, for the fonts of the reader.
        "svg.fonttype": "none" if of_reader else "path",
        "pdf.fonttype": 42,  # text that programs for drawing can edit
    }
    dpi = _PRINT_DPI if kind == "tiff" else _SCREEN_DPI
    stream = io.BytesIO()
    with mpl.rc_context(style), _drawn_in(texts, figure, replace=strange and not of_reader):
        if kind == "tiff":
            figure.savefig(stream, format="raw", dpi=dpi)
            return _tiff(stream.getvalue(), figure, dpi)
        figure.savefig(stream, format=kind, dpi=dpi, metadata=_METADATA[kind])
    return stream.getvalue()


def _tiff(pixels: bytes, figure: Figure, dpi: int) -> bytes:
    """A compressed TIFF in red, green and blue; journals refuse a fourth channel."""
    width, height = (int(dpi * inches) for inches in figure.get_size_inches())
    image = Image.frombuffer("RGBA", (width, height), pixels).convert("RGB")
    stream = io.BytesIO()
    image.save(stream, "TIFF", compression="tiff_lzw", dpi=(dpi, dpi))
    return stream.getvalue()


def papers_of(figure: Figure) -> tuple[Paper, ...]:
    """The widths in print that a figure can be drawn in."""
    return figure.papers if isinstance(figure, Sheet) and figure.again is not None else ()


def on_paper(figure: Figure, paper: Paper) -> Figure:
    """The same figure as a journal prints it, in its final layout.

    Raises
    ------
    ValueError
        If the function that drew it has no such width.
    """
    if paper not in papers_of(figure) or not isinstance(figure, Sheet) or figure.again is None:
        raise ValueError(f"the figure has no width of {paper.width_mm:g} mm")
    with drawing_on(paper):
        drawn = figure.again()
        for part in drawn.findobj(Text):
            if isinstance(part, Text):
                size = float(part.get_fontsize())
                part.set_fontsize(min(max(size, SMALLEST_TEXT), paper.largest))
        lay_out(drawn)
    return drawn


def lay_out(figure: Figure) -> None:
    """Fit texts and compute the final layout of a figure, in the fonts of its rendering."""
    if isinstance(figure, Sheet):
        if figure.settled:
            return
        figure.settled = True
    fit_texts(figure)
    texts = [part for part in figure.findobj(Text) if isinstance(part, Text)]
    with _drawn_in(texts, figure, replace=False):
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
    figure.set_layout_engine("none")


def needs_reader_fonts(figure: Figure) -> bool:
    """Whether a text of the figure has characters that no installed font has."""
    texts = [part.get_text() for part in figure.findobj(Text) if isinstance(part, Text)]
    names = [name for axis in _axis_of(figure) for name in tick_names(axis)]
    return any(undrawable(text) for text in (*texts, *names))


def _axis_of(figure: Figure) -> list[Axis]:
    return [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]


@contextmanager
def _drawn_in(texts: Sequence[Text], figure: Figure, *, replace: bool) -> Iterator[None]:
    """Use installed fonts of all scripts; with `replace` a sign for characters they lack."""
    kept = [part.get_text() for part in texts]
    names = {axis: tick_names(axis) for axis in _axis_of(figure)} if replace else {}
    with mpl.rc_context({"font.family": list(families())}), warnings.catch_warnings():
        # The figure reports them, instead of a warning for each glyph.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        if len(families()) > 1:
            for part in texts:
                part.set_fontfamily(list(families()))
        if replace:
            for part in texts:
                part.set_text(drawable(part.get_text()))
            for axis, given in names.items():
                if given:
                    axis.set_ticklabels([drawable(name) for name in given])
        yield
    for part, text in zip(texts, kept, strict=True):
        part.set_text(text)
    for axis, given in names.items():
        if given:
            axis.set_ticklabels(given)


def bare(axis: Axes) -> None:
    """Remove the top and right frame."""
    axis.spines[["top", "right"]].set_visible(False)


def font_folder() -> Path:
    """Fonts of the figures, which are part of matplotlib: a machine may have no other."""
    return Path(mpl.get_data_path()) / "fonts" / "ttf"
