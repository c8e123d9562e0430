"""Figures of agreement: concordance, scatter, Bland-Altman, lesions found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cac_core.report.figures.style import BLUE, GREY, ORANGE, bare

_SCORE_TICKS = (0, 1, 10, 100, 400, 1000, 4000)


def agreement_figure(result: Mapping[str, Any]) -> Figure:
    """Concordance matrix, and where both sides are scores their scatter and Bland-Altman plot.

    Parameters
    ----------
    result : what `cac evaluate --json` prints; `studies` hold the pairs.
    """
    pairs = [(row["first"], row["second"]) for row in result["studies"]]
    graded = any(isinstance(value, str) for pair in pairs for value in pair)
    panels = 1 if graded else 3
    figure = Figure(figsize=(4.4 * panels, 4.2), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _matrix(axes[0], result)
    if not graded:
        scores = np.array(pairs, float)
        _scatter(axes[1], scores, result)
        _difference(axes[2], scores, result)
    return figure


def detection_figure(bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Share of true lesions found, with intervals, a panel per measure.

    Parameters
    ----------
    bins : label of the measure, and its bins with `from`, `to`, `lesions`, `found`, `ci`.
    """
    figure = Figure(figsize=(4.4 * len(bins), 3.4), layout="constrained")
    for axis, (label, rows) in zip(
        figure.subplots(1, len(bins), squeeze=False)[0], bins.items(), strict=True
    ):
        shown = [row for row in rows if row["lesions"]]
        share = np.array([row["found"] for row in shown]) * 100
        limits = np.array([row["ci"] for row in shown]).reshape(-1, 2).T * 100
        at = np.arange(len(shown))
        axis.bar(at, share, color=BLUE, width=0.7)
        if len(shown):
            whiskers = np.maximum(np.abs(limits - share), 0)
            axis.errorbar(at, share, whiskers, fmt="none", color=GREY, capsize=3)
        names = [
            f"{row['from']:g} and more" if row["to"] is None else f"{row['from']:g}-{row['to']:g}"
            for row in shown
        ]
        axis.set_xticks(
            at, [f"{name}\n(n={row['lesions']})" for name, row in zip(names, shown, strict=True)]
        )
        axis.set(ylim=(0, 105), ylabel="lesions found, %", xlabel=label)
        bare(axis)
    return figure


def _matrix(axis: Axes, result: Mapping[str, Any]) -> None:
    counts = np.array(result["concordance_reference_by_compared"])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if share[row, column] > 0.6 else "black"
        axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    axis.set_xticks(range(len(counts)), result["categories"])
    axis.set_yticks(range(len(counts)), result["categories"])
    axis.set(xlabel=result["compared"], ylabel=result["reference"])
    if result["kappa_linear"] is not None:
        axis.set_title(f"linear-weighted kappa {result['kappa_linear']:.3f}", fontsize=10)


def _scatter(axis: Axes, scores: np.ndarray[Any, Any], result: Mapping[str, Any]) -> None:
    logs = np.log1p(scores)
    axis.plot([0, logs.max() + 0.2], [0, logs.max() + 0.2], color=GREY, lw=0.8)
    axis.scatter(logs[:, 1], logs[:, 0], s=14, color=BLUE, alpha=0.6, linewidths=0)
    for set_ticks in (axis.set_xticks, axis.set_yticks):
        set_ticks(np.log1p(_SCORE_TICKS), [str(tick) for tick in _SCORE_TICKS])
    axis.set(xlabel=f"Agatston, {result['reference']}", ylabel=f"Agatston, {result['compared']}")
    if result["r2_log"] is not None:
        axis.set_title(f"r2 of log(1 + Agatston) {result['r2_log']:.3f}", fontsize=10)
    bare(axis)


def _difference(axis: Axes, scores: np.ndarray[Any, Any], result: Mapping[str, Any]) -> None:
    bias, low, high = result["bland_altman"]
    middle = np.log1p(scores.mean(axis=1))
    axis.scatter(middle, scores[:, 0] - scores[:, 1], s=14, color=BLUE, alpha=0.6, linewidths=0)
    for value, style in ((bias, "-"), (low, "--"), (high, "--")):
        if value is not None:
            axis.axhline(value, color=ORANGE, ls=style, lw=1)
    axis.set_xticks(np.log1p(_SCORE_TICKS), [str(tick) for tick in _SCORE_TICKS])
    axis.set(
        xlabel="mean of both", ylabel=f"Agatston, {result['compared']} minus {result['reference']}"
    )
    axis.set_title("Bland-Altman: bias and limits of agreement", fontsize=10)
    bare(axis)
