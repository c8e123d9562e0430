"""Figures of a scored archive over time: runs, reasons, drift, scanners, speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cac_core.cohort.archive_rows import (
    CATEGORY_COLUMNS,
    STAGE_COLUMNS,
    CategoryCounts,
    ModelRow,
    MonthRow,
    ReasonRow,
    RunRow,
    ScannerRow,
    SpeedRow,
)
from cac_core.report.figures.style import (
    BLUE,
    CATEGORY_COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    bare,
)
from schemas.codes import CAC_CATEGORIES

_STATUSES: tuple[tuple[Literal["scored", "rejected", "failed"], str], ...] = (
    ("scored", BLUE),
    ("rejected", ORANGE),
    ("failed", RED),
)
#: Name and colour of the stages, in the order of `STAGE_COLUMNS`.
_STAGES = (
    ("reading", SKY),
    ("heart network", BLUE),
    ("calcium network", ORANGE),
    ("lesions and quality", GREEN),
    ("pictures", PURPLE),
)
#: Labels that fit side by side under an axis of full width.
_MAX_LABELS = 12
#: Width of the axis in bars, at least: a single bar would fill the drawing.
_MIN_BARS = 8
_WIDTH = 9.6


def nights_figure(runs: Sequence[RunRow]) -> Figure:
    """Studies finished per run by status, and below the studies left to do; oldest run first."""
    figure = Figure(figsize=(_WIDTH, 4.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _stack(upper, [(name, [row[name] for row in runs], colour) for name, colour in _STATUSES])
    upper.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, 1.18))
    upper.set_ylabel("studies finished")
    _stack(lower, [("left", [row["queued"] for row in runs], GREY)])
    lower.set_ylabel("left to do")
    lower.set_ylim(0, max(1, *(1.1 * row["queued"] for row in runs)))
    _label(lower, [f"{row['started_at']:%Y-%m-%d}" for row in runs])
    for axis in (upper, lower):
        bare(axis)
        axis.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return figure


def reasons_figure(reasons: Sequence[ReasonRow]) -> Figure:
    """Studies without a score by reason and status, most frequent first."""
    figure = Figure(figsize=(_WIDTH, 1.0 + 0.3 * len(reasons)), layout="constrained")
    axis = figure.subplots()
    colours: dict[str, str] = dict(_STATUSES)
    at = np.arange(len(reasons))
    counts = [row["studies"] for row in reasons]
    axis.barh(at, counts, color=[colours[row["status"]] for row in reasons], height=0.7)
    axis.set_yticks(at, [row["reason"] for row in reasons])
    axis.invert_yaxis()
    for position, row in enumerate(reasons):
        text = f" {row['studies']:,} {row['status']}"
        axis.text(row["studies"], position, text, va="center", fontsize=9)
    axis.margins(x=0.15)
    axis.set_xlabel("studies")
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    bare(axis)
    return figure


def drift_figure(months: Sequence[MonthRow], models: Sequence[ModelRow]) -> Figure:
    """Share of each category by month and by model, and the median score by month."""
    figure = Figure(figsize=(_WIDTH, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(4, 1), height_ratios=(2, 1))
    shares = figure.add_subplot(grid[0, 0])
    _shares(shares, months)
    shares.set_ylabel("share of studies, %")
    handles, labels = shares.get_legend_handles_labels()
    figure.legend(handles, labels, title="CAC", frameon=False, ncols=4, loc="outside upper left")
    median = figure.add_subplot(grid[1, 0], sharex=shares)
    values = [row["median_agatston"] for row in months]
    median.plot(range(len(months)), values, "o-", color=BLUE, ms=4, lw=1.2)
    median.set_ylabel("median Agatston")
    median.set_ylim(bottom=0)
    bare(median)
    _label(median, [row["month"] for row in months])
    shares.tick_params(labelbottom=False)
    by_model = figure.add_subplot(grid[0, 1], sharey=shares)
    _shares(by_model, models)
    by_model.set_xticks(
        range(len(models)), [row["model"] for row in models], rotation=30, ha="right"
    )
    by_model.tick_params(labelleft=False)
    return figure


def scanners_figure(scanners: Sequence[ScannerRow]) -> Figure:
    """Share of zeros with interval, and noise, by scanner; diamonds stand out."""
    figure = Figure(figsize=(_WIDTH, 1.3 + 0.42 * len(scanners)), layout="constrained")
    zeros, noise = figure.subplots(1, 2, sharey=True)
    for position, row in enumerate(scanners):
        colour, mark = (RED, "D") if row["stands_out"] else (BLUE, "o")
        share = row["n_zero"] / row["n"]
        reach = [[max(share - row["zero_low"], 0.0)], [max(row["zero_high"] - share, 0.0)]]
        whiskers = 100 * np.array(reach)
        zeros.errorbar(100 * share, position, xerr=whiskers, fmt=mark, color=colour, capsize=3)
        if row["noise_median"] is not None:
            noise.hlines(position, row["noise_q1"], row["noise_q3"], color=colour, lw=3, alpha=0.5)
            noise.plot(row["noise_median"], position, mark, color=colour)
    names = [f"{row['scanner'] or 'unknown'}\nn={row['n']:,}" for row in scanners]
    zeros.set_yticks(range(len(scanners)), names, fontsize=8.5)
    zeros.set_ylim(len(scanners) - 0.5, -0.5)
    zeros.set_xlabel("scores of zero, % (95 % interval)")
    noise.set_xlabel("noise in the heart, HU (median, quartiles)")
    for axis in (zeros, noise):
        axis.grid(axis="x", color="#dddddd", lw=0.6)
        bare(axis)
    return figure


def speed_figure(speed: Sequence[SpeedRow], started: Sequence[str]) -> Figure:
    """Median seconds per study and stage of each run.

    Parameters
    ----------
    speed : oldest first.
    started : start of each of these runs.
    """
    figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
    axis = figure.subplots()
    _stack(
        axis,
        [
            (name, [row[column] or 0.0 for row in speed], colour)
            for (name, colour), column in zip(_STAGES, STAGE_COLUMNS, strict=True)
        ],
    )
    axis.set_ylabel("seconds per study")
    axis.legend(frameon=False, ncols=5, loc="upper left", bbox_to_anchor=(0, 1.17))
    _label(axis, started)
    bare(axis)
    return figure


def _shares(axis: Axes, rows: Sequence[CategoryCounts]) -> None:
    """Stacked shares of the categories, one bar per row."""
    series = [
        (name, [100 * row[column] / max(row["n"], 1) for row in rows], colour)
        for name, column, colour in zip(
            CAC_CATEGORIES, CATEGORY_COLUMNS, CATEGORY_COLOURS, strict=True
        )
    ]
    _stack(axis, series)
    axis.set_ylim(0, 100)
    bare(axis)


def _stack(axis: Axes, series: Sequence[tuple[str, Sequence[float], str]]) -> None:
    """Stacked series, one shape each: a bar per value would make pages large and slow."""
    base = np.zeros(len(series[0][1]))
    edges = np.arange(len(base) + 1) - 0.5
    for name, values, colour in series:
        top = base + np.asarray(values, float)
        axis.stairs(top, edges, baseline=base, fill=True, color=colour, label=name)
        base = top
    # A thin gap between the bars.
    axis.vlines(edges, 0, 1, transform=axis.get_xaxis_transform(), color="white", lw=0.8)


def _label(axis: Axes, labels: Sequence[str]) -> None:
    """Evenly spaced labels, as many as fit and always the last one."""
    step = -(-len(labels) // _MAX_LABELS) or 1
    shown = range((len(labels) - 1) % step, len(labels), step) if labels else range(0)
    axis.set_xticks(list(shown), [labels[i] for i in shown], rotation=30, ha="right", fontsize=8.5)
    axis.set_xlim(-0.6, max(len(labels), _MIN_BARS) - 0.4)
