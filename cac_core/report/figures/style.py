"""What all figures share: colours, axes, and how a figure becomes bytes."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Okabe and Ito's colours, told apart with every kind of colour vision.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#555555"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
#: One for each category of `schemas.codes.CAC_CATEGORIES`, from little to much calcium.
CATEGORY_COLOURS = (SKY, BLUE, ORANGE, RED)


def as_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as `png` or `svg`; the same figure gives the same bytes."""
    stream = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "cac", "svg.fonttype": "path"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, dpi=150, metadata=metadata)
    return stream.getvalue()


def bare(axis: Axes) -> None:
    """Take the frame away where nothing is read from it."""
    axis.spines[["top", "right"]].set_visible(False)


def font_file(*, bold: bool = False) -> bytes:
    """The font of the figures, which comes with matplotlib: a machine may have no other."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return (Path(mpl.get_data_path()) / "fonts" / "ttf" / name).read_bytes()
