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

from cac_core.report.figures.texts import drawable, families, fit_texts, tick_names, undrawable

#: Okabe and Ito's colours, safe for colour blindness.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#555555"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
#: One for each category of `schemas.codes.CAC_CATEGORIES`, from little to much calcium.
CATEGORY_COLOURS = (SKY, BLUE, ORANGE, RED)


def as_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as `png` or `svg`; the same figure gives the same bytes."""
    fit_texts(figure)
    texts = [part for part in figure.findobj(Text) if isinstance(part, Text)]
    strange = needs_reader_fonts(figure)
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    style: Any = {
        "svg.hashsalt": "cac",
        # Characters that no installed font has stay text, for the fonts of the reader.
        "svg.fonttype": "none" if strange else "path",
    }
    stream = io.BytesIO()
    with mpl.rc_context(style), _drawn_in(texts, figure, replace=strange and kind == "png"):
        figure.savefig(stream, format=kind, dpi=150, metadata=metadata)
    return stream.getvalue()


def lay_out(figure: Figure) -> None:
    """Compute the final layout of a figure, in the fonts of its rendering."""
    fit_texts(figure)
    texts = [part for part in figure.findobj(Text) if isinstance(part, Text)]
    with _drawn_in(texts, figure, replace=False):
        figure.draw_without_rendering()
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


def font_file(*, bold: bool = False) -> bytes:
    """The font of the figures, which is part of matplotlib: a machine may have no other."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return (Path(mpl.get_data_path()) / "fonts" / "ttf" / name).read_bytes()
