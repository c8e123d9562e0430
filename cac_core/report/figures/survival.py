"""Figures of time to event: survival curves with numbers at risk, cumulative incidence, forests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from cac_core.report.figures.paper import is_narrow, is_on_paper, resizable, room, sheet
from cac_core.report.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, bare
from cac_core.report.figures.texts import fitted, in_legend

_STYLES = ((BLUE, "-"), (GREEN, "--"), (ORANGE, "-."), (RED, (0, (1, 1))), (PURPLE, (0, (5, 1))))
_MARKS = (("o", BLUE), ("s", RED), ("D", GREEN))
_HEADLINE = 10


@dataclass(frozen=True, slots=True)
class Curve:
    """A step curve: years, values from 0 to 1 and limits, and numbers at risk by whole year."""

    label: str
    years: Sequence[float]
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    at_risk: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True, slots=True)
class ForestRow:
    """A line of a forest plot; a heading if `marks` is empty.

    `marks` are value, lower and upper limit of each series, or None; `text` is at the right.
    """

    label: str
    marks: Sequence[tuple[float, float | None, float | None] | None] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Axes that figures which are compared share: last year, and range of values from 0 to 1."""

    years: float
    bottom: float
    top: float


def shared_limits(panels: Sequence[Sequence[Curve]]) -> Limits:
    """Axes in which all curves of some figures can be seen."""
    curves = [curve for panel in panels for curve in panel]
    years = max((curve.years[-1] for curve in curves), default=1.0)
    if any(curve.values[0] == 0 for curve in curves):
        highest = max(value for curve in curves for value in (*curve.values, *curve.high))
        return Limits(years, 0.0, min(1.0, 1.05 * highest) or 1.0)
    return Limits(years, min(0.5, _lowest(curves)), 1.005)


@resizable
def curves_figure(
    curves: Sequence[Curve], y_label: str, note: str, limits: Limits | None = None
) -> Figure:
    """Step curves with their confidence bands, and the numbers at risk below.

    Parameters
    ----------
    note : text above the curves at the right, such as the log-rank test.
    limits : of the axes; by default those that these curves need.
    """
    limits = shared_limits([curves]) if limits is None else limits
    counted = any(curve.at_risk for curve in curves)
    line = 0.17 if is_narrow() else 0.22
    below = line * (len(curves) + 1) if counted else 0.0
    figure = sheet(6.2, 4.1, below, layout="constrained")
    if counted:
        ratios = (figure.get_figheight() - below, below + 0.05)
        axis, counts = figure.subplots(2, 1, height_ratios=ratios)
        _counts(counts, curves)
    else:
        axis, counts = figure.subplots(), None
    rising = bool(curves) and curves[0].values[0] == 0
    _steps(axis, curves)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    axis.set(xlim=(0, limits.years), xlabel="Years", ylabel=y_label)
    axis.set_ylim(limits.bottom, limits.top)
    axis.legend(
        frameon=False, loc="upper left" if rising else "lower left", fontsize=9, handlelength=2.6
    )
    if note:
        axis.set_title(note, loc="right", fontsize=9)
    bare(axis)
    if counts is not None:
        counts.set_xlim(axis.get_xlim())
    return figure


def _steps(axis: Axes, curves: Sequence[Curve]) -> None:
    for number, curve in enumerate(curves):
        colour, dash = _STYLES[number % len(_STYLES)]
        axis.fill_between(
            curve.years, curve.low, curve.high, step="post", color=colour, alpha=0.15, lw=0
        )
        axis.step(
            curve.years,
            curve.values,
            where="post",
            color=colour,
            ls=dash,
            label=in_legend(curve.label),
        )


@resizable
def forest_figure(
    rows: Sequence[ForestRow], series: Sequence[str], x_label: str, text_title: str
) -> Figure:
    """Hazard ratios on a logarithmic axis, a mark and an interval per series and line."""
    # On paper two figures fit on a page.
    head, line = (0.7, 0.2) if is_on_paper() else (0.9, 0.27)
    figure = sheet(8.2, 0.0, head + line * len(rows), layout="constrained")
    ratios = (1.0, 2.2) if is_narrow() else (3.2, 1.6)
    axis, text = figure.subplots(1, 2, width_ratios=ratios, sharey=True)
    for at, row in enumerate(rows):
        _row(axis, at, row, len(series))
        text.text(0.0, at, row.text, va="center", fontsize=8.5)
    for (shape, colour), name in zip(_MARKS, series, strict=False):
        axis.plot([], [], marker=shape, color=colour, ls="none", label=name)
    axis.axvline(1, color=GREY, lw=0.8)
    axis.set_xscale("log")
    steps = (0.06, 0.25, 1, 4, 16) if is_narrow() else (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32)
    ticks = [tick for tick in steps if _inside(tick, rows)]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8.5)
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if row.marks else "bold")
    axis.set(xlabel=x_label, ylim=(len(rows) - 0.5, -0.8))
    if len(series) > 1:
        figure.legend(loc="outside upper left", ncols=len(series), frameon=False, fontsize=9)
    text.set_title(text_title, fontsize=8.5, loc="left")
    text.axis("off")
    bare(axis)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    return figure


def _row(axis: Axes, at: int, row: ForestRow, series: int) -> None:
    """Marks and intervals of one line, those of several series beside each other."""
    offset = 0.14 if series > 1 else 0.0
    for number, mark in enumerate(row.marks):
        if mark is None:
            continue
        value, low, high = mark
        y = at + offset * (2 * number - (series - 1))
        shape, colour = _MARKS[number]
        if low is not None and high is not None:
            axis.plot([low, high], [y, y], color=colour, lw=1.2)
        axis.plot([value], [y], marker=shape, color=colour, ms=4.5, ls="none")


def _counts(axis: Axes, curves: Sequence[Curve]) -> None:
    axis.set_title("Number at risk", fontsize=_HEADLINE - 1, loc="left")
    for number, curve in enumerate(curves):
        for years, text in curve.at_risk:
            axis.text(years, number, text, ha="center", va="center", fontsize=8.5, clip_on=False)
    axis.set_yticks(
        range(len(curves)), [fitted(one.label, room(24), 1) for one in curves], fontsize=8.5
    )
    for number, label in enumerate(axis.get_yticklabels()):
        label.set_color(_STYLES[number % len(_STYLES)][0])
    axis.set(ylim=(len(curves) - 0.5, -0.5))
    axis.set_xticks([])
    axis.tick_params(length=0, pad=18)
    axis.spines[:].set_visible(False)


def _lowest(curves: Sequence[Curve]) -> float:
    """Bottom of the axis: a tenth below the lowest curve."""
    lowest = min((value for curve in curves for value in curve.values), default=0.0)
    return max(0.0, (int(lowest * 10) - 1) / 10)


def _inside(tick: float, rows: Sequence[ForestRow]) -> bool:
    known = [part for row in rows for mark in row.marks if mark for part in mark if part]
    return (bool(known) and min(known) / 1.6 <= tick <= max(known) * 1.6) or tick == 1
