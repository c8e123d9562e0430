"""Figures of two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from cac_core.categories import CATEGORY_EDGES
from cac_core.report.figures.style import BLUE, GREY, ORANGE, bare

_SCORE_TICKS = (0, 1, 10, 100, 400, 1000, 4000)
#: Value, lower and upper limit; nothing is drawn for NaN.
_Ratio = tuple[float, float, float]
#: Label, old and new hazard ratio.
Pair = tuple[str, _Ratio, _Ratio]


def scores_figure(pairs: Sequence[tuple[float, float]]) -> Figure:
    """New against old score of the studies that both runs scored, on a log(1 + score) scale."""
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    axis = figure.subplots()
    logs = np.log1p(np.array(pairs, float).reshape(-1, 2))
    top = float(logs.max(initial=np.log1p(400))) + 0.2
    axis.plot([0, top], [0, top], color=GREY, lw=0.8)
    axis.scatter(logs[:, 0], logs[:, 1], s=14, color=BLUE, alpha=0.5, linewidths=0)
    for limit in CATEGORY_EDGES:
        axis.axvline(np.log1p(limit), color=GREY, lw=0.5, ls=":")
        axis.axhline(np.log1p(limit), color=GREY, lw=0.5, ls=":")
    for set_ticks in (axis.set_xticks, axis.set_yticks):
        set_ticks(np.log1p(_SCORE_TICKS), [str(tick) for tick in _SCORE_TICKS])
    axis.set(xlabel="Agatston, old run", ylabel="Agatston, new run")
    bare(axis)
    return figure


def ratios_figure(pairs: Sequence[Pair]) -> Figure:
    """Hazard ratios with intervals, old above new, on a log scale."""
    figure = Figure(figsize=(7.2, 0.8 + 0.42 * max(1, len(pairs))), layout="constrained")
    axis = figure.subplots()
    for at, (_, old, new) in enumerate(pairs):
        for (value, low, high), shift, colour, marker in (
            (old, -0.14, ORANGE, "o"),
            (new, 0.14, BLUE, "s"),
        ):
            axis.plot([low, high], [at + shift, at + shift], color=colour, lw=1.2)
            axis.plot([value], [at + shift], marker, color=colour, ms=5)
    axis.axvline(1, color=GREY, lw=0.8)
    axis.set_xscale("log")
    axis.set_yticks(range(len(pairs)), [name for name, _, _ in pairs])
    axis.invert_yaxis()
    axis.set_xlabel("hazard ratio; circles the old run, squares the new")
    ticks = [0.25, 0.5, 1, 2, 4, 8, 16]
    low, high = axis.get_xlim()
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.minorticks_off()
    bare(axis)
    return figure
