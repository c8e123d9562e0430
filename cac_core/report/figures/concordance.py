"""Figures of two readings of a cohort: matrix of categories, scatter and Bland-Altman plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cac_core.report.figures.paper import panels, resizable, sheet
from cac_core.report.figures.style import BLUE, GREY, RED, bare, lay_out

_TICKS = (0, 1, 10, 100, 400, 1000, 4000)
_DPI = 72  # of an SVG: one unit is one point


@dataclass(frozen=True, slots=True)
class Matrix:
    """Cells of a concordance matrix: rows by the first reading, columns by the second."""

    rows: Sequence[str]
    columns: Sequence[str]
    shares: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]]
    row_title: str
    column_title: str
    note: str


@resizable
def matrix_figure(matrix: Matrix) -> Figure:
    """Counts of each pair of categories; darker with a larger share of all patients."""
    figure = sheet(5.4, 4.6, layout="constrained")
    axis = figure.subplots()
    shares = np.array(matrix.shares, float)
    top = max(float(shares.max(initial=0)), 1e-9)
    axis.pcolormesh(np.sqrt(shares / top), cmap="Blues", vmin=0, vmax=1)
    axis.invert_yaxis()
    for at in np.ndindex(shares.shape):
        dark = np.sqrt(shares[at] / top) > 0.55
        axis.text(
            at[1] + 0.5,
            at[0] + 0.5,
            matrix.texts[at[0]][at[1]],
            ha="center",
            va="center",
            color="white" if dark else "black",
        )
    axis.set_xticks(np.arange(len(matrix.columns)) + 0.5, matrix.columns)
    axis.set_yticks(np.arange(len(matrix.rows)) + 0.5, matrix.rows)
    axis.set(xlabel=matrix.column_title, ylabel=matrix.row_title)
    axis.set_title(matrix.note, fontsize=10)
    return figure


def scatter_figure(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    titles: tuple[str, str],
    limits: tuple[float | None, float | None, float | None],
    notes: tuple[str, str],
) -> tuple[Figure, list[tuple[float, float]], list[tuple[float, float]]]:
    """Scatter and Bland-Altman plot, and (x, y) of each point in both panels of the SVG.

    Parameters
    ----------
    first, second : log(1 + Agatston) of both readings, (n,).
    limits : estimated bias and limits of agreement.
    """
    figure = _scatter(first, second, titles, limits, notes)
    figure.set_dpi(_DPI)
    lay_out(figure)
    left, right = figure.axes
    return (
        figure,
        _places(left, second, first),
        _places(right, (first + second) / 2, first - second),
    )


@resizable
def _scatter(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    titles: tuple[str, str],
    limits: tuple[float | None, float | None, float | None],
    notes: tuple[str, str],
) -> Figure:
    figure, (left, right) = panels(2, 5.0, 4.4)
    look = {"s": 13, "color": BLUE, "alpha": 0.45, "linewidths": 0}
    top = max(float(first.max(initial=1)), float(second.max(initial=1))) + 0.2
    left.plot([0, top], [0, top], color=GREY, lw=0.8)
    left.scatter(second, first, **look)
    for setter in (left.set_xticks, left.set_yticks, right.set_xticks):
        setter(np.log1p(_TICKS), [str(tick) for tick in _TICKS])
    left.set(xlabel=f"Agatston, {titles[1]}", ylabel=f"Agatston, {titles[0]}")
    left.set_title(notes[0], fontsize=10)
    middle, apart = (first + second) / 2, first - second
    right.scatter(middle, apart, **look)
    for value, dash in zip(limits, ("-", "--", "--"), strict=True):
        if value is not None:
            right.axhline(value, color=RED, ls=dash, lw=1.2)
    right.set(
        xlabel="mean of both, as Agatston",
        ylabel=f"log(1 + Agatston), {titles[0]} less {titles[1]}",
    )
    right.set_title(notes[1], fontsize=10)
    for axis in (left, right):
        bare(axis)
    return figure


def _places(
    axis: Axes, x: NDArray[np.float64], y: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Data in units of the SVG, whose y axis points down."""
    height = axis.figure.bbox.height
    points = axis.transData.transform(np.column_stack([x, y]))
    return [(float(a), float(height - b)) for a, b in points]
