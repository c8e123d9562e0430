"""Figures of a scored archive over time: nights, reasons, drift, scanners, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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

Rows = Sequence[Mapping[str, Any]]

_STATUSES = (("scored", BLUE), ("rejected", ORANGE), ("failed", RED))
_COUNTS = ("n_zero", "n_low", "n_middle", "n_high")
_STAGES = (
    ("reading", "seconds_read", SKY),
    ("heart network", "seconds_heart", BLUE),
    ("calcium network", "seconds_calcium", ORANGE),
    ("lesions and quality", "seconds_score", GREEN),
    ("pictures", "seconds_preview", PURPLE),
)
#: Labels that fit side by side under an axis of full width.
_MAX_LABELS = 12
#: Room for so many bars at least: one alone would fill the drawing.
_MIN_BARS = 8
_WIDTH = 9.6


def nights_figure(runs: Rows) -> Figure:
    """Studies finished per run by what became of them, and below how many were left to do.

    Parameters
    ----------
    runs : oldest first; `started_at`, `scored`, `rejected`, `failed`, `queued`.
    """
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


def reasons_figure(reasons: Rows) -> Figure:
    """Studies without a score by reason, rejected ones and failed ones.

    Parameters
    ----------
    reasons : most first; `status`, `reason`, `studies`.
    """
    figure = Figure(figsize=(_WIDTH, 1.0 + 0.3 * len(reasons)), layout="constrained")
    axis = figure.subplots()
    colours = dict(_STATUSES)
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


def drift_figure(months: Rows, models: Rows) -> Figure:
    """Share of each category by month of the study and by model, and the median score by month.

    Parameters
    ----------
    months : oldest first; `month`, `n`, the counts of the four categories, `median_agatston`.
    models : the same counts by `model`.
    """
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


def scanners_figure(scanners: Rows) -> Figure:
    """Each scanner: share of zeros with its interval, and noise; those that stand out as diamonds.

    Parameters
    ----------
    scanners : `scanner`, `n`, `n_zero`, `zero_low`, `zero_high`, `noise_q1`, `noise_median`,
        `noise_q3`, `stands_out`.
    """
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


def speed_figure(speed: Rows, started: Sequence[str]) -> Figure:
    """Median seconds per study of each run, stage upon stage.

    Parameters
    ----------
    speed : oldest first; the five columns `seconds_...`.
    started : when each of these runs started.
    """
    figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
    axis = figure.subplots()
    _stack(
        axis, [(name, [row[key] or 0.0 for row in speed], colour) for name, key, colour in _STAGES]
    )
    axis.set_ylabel("seconds per study")
    axis.legend(frameon=False, ncols=5, loc="upper left", bbox_to_anchor=(0, 1.17))
    _label(axis, started)
    bare(axis)
    return figure


def _shares(axis: Axes, rows: Rows) -> None:
    """Stacked shares of the categories, one bar per row."""
    series = [
        (name, [100 * row[column] / max(row["n"], 1) for row in rows], colour)
        for name, column, colour in zip(CAC_CATEGORIES, _COUNTS, CATEGORY_COLOURS, strict=True)
    ]
    _stack(axis, series)
    axis.set_ylim(0, 100)
    bare(axis)


def _stack(axis: Axes, series: Sequence[tuple[str, Sequence[float], str]]) -> None:
    """Series upon each other, one shape each: a bar per value would make a page slow and large."""
    base = np.zeros(len(series[0][1]))
    edges = np.arange(len(base) + 1) - 0.5
    for name, values, colour in series:
        top = base + np.asarray(values, float)
        axis.stairs(top, edges, baseline=base, fill=True, color=colour, label=name)
        base = top
    # A thin gap between the bars, where there are few enough to count.
    axis.vlines(edges, 0, 1, transform=axis.get_xaxis_transform(), color="white", lw=0.8)


def _label(axis: Axes, labels: Sequence[str]) -> None:
    """As many labels as fit, evenly spaced, the last one always."""
    step = -(-len(labels) // _MAX_LABELS) or 1
    shown = range((len(labels) - 1) % step, len(labels), step) if labels else range(0)
    axis.set_xticks(list(shown), [labels[i] for i in shown], rotation=30, ha="right", fontsize=8.5)
    axis.set_xlim(-0.6, max(len(labels), _MIN_BARS) - 0.4)
