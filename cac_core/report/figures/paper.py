"""Figures at the sizes in which journals print them: the drawing functions, on other paper.

A function of figures takes its sheet from here and is called again for other paper
(`cac_core.report.figures.style.on_paper`). There text has 7 to 9 points, and panels are below each
other where they do not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_P = ParamSpec("_P")
_INCH_MM = 25.4


@dataclass(frozen=True, slots=True)
class Paper:
    """A width in print.

    Parameters
    ----------
    name : part of file names.
    text, largest : size of ordinary and of the largest text, in points; the smallest has 7.
    room : characters that fit in a line, relative to a screen.
    """

    name: str
    width_mm: float
    text: float
    largest: float
    room: float


SMALLEST_TEXT = 7.0
ONE_COLUMN = Paper("1col", 88.0, 7.0, 8.0, 0.6)
TWO_COLUMNS = Paper("2col", 180.0, 8.0, 9.0, 1.0)
PAPERS = (ONE_COLUMN, TWO_COLUMNS)

_paper: ContextVar[Paper | None] = ContextVar("paper", default=None)


class Sheet(Figure):
    """A figure that can be drawn again on some papers."""

    again: Callable[[], Figure] | None = None
    #: Whether texts and layout are final.
    settled: bool = False
    papers: tuple[Paper, ...] = PAPERS


def sheet(width: float, height: float, fixed: float = 0.0, **options: Any) -> Sheet:
    """An empty figure as wide as the paper, or `width` inches on a screen.

    Parameters
    ----------
    height : inches; becomes smaller with the width.
    fixed : inches of height that text needs at any width.
    """
    paper, scale = _paper.get(), 1.0
    if paper is not None:
        inches = paper.width_mm / _INCH_MM
        scale, width = min(1.0, inches / width), inches
    return Sheet(figsize=(width, scale * height + fixed), **options)


def resizable(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """A function of figures whose figures can be drawn again on other paper."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        figure = draw(*args, **kwargs)
        if isinstance(figure, Sheet):
            figure.again = partial(draw, *args, **kwargs)
        return figure

    return drawn


@contextmanager
def drawing_on(paper: Paper) -> Iterator[None]:
    """Figures drawn inside are for this paper."""
    before = _paper.set(paper)
    try:
        with mpl.rc_context(_look(paper)):
            yield
    finally:
        _paper.reset(before)


def is_on_paper() -> bool:
    """Whether the figure that is being drawn is for print."""
    return _paper.get() is not None


def is_narrow() -> bool:
    """Whether the figure that is being drawn has one column of a journal."""
    return _paper.get() is ONE_COLUMN


def text_size() -> float:
    """Size of ordinary text of the figure that is being drawn, in points."""
    return float(mpl.rcParams["font.size"])


def room(characters: int) -> int:
    """Characters that fit where so many fit on a screen."""
    paper = _paper.get()
    return characters if paper is None else math.floor(characters * paper.room)


def panels(
    count: int, width: float, height: float, **options: Any
) -> tuple[Sheet, NDArray[np.object_]]:
    """A figure of panels beside each other; below each other where they do not fit.

    Parameters
    ----------
    width, height : of one panel, inches.
    options : of `Figure.subplots`.

    Returns
    -------
    The figure and its panels, (count,).
    """
    across = count
    if is_narrow():
        across = 2 if count > 2 and count % 2 == 0 else 1
    down = math.ceil(count / across)
    figure = sheet(width * across, height * down, layout="constrained")
    if is_narrow():
        options.pop("width_ratios", None)
    return figure, figure.subplots(down, across, squeeze=False, **options).ravel()


def _look(paper: Paper) -> Any:
    return {
        "font.size": paper.text,
        "lines.linewidth": 1.2,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "axes.labelpad": 3.0,
    }
