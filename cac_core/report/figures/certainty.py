"""Figure of certainty: reliability of the categories' chances, and agreement by share reviewed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cac_core.report.figures.paper import panels, resizable
from cac_core.report.figures.style import BLUE, GREY, ORANGE, bare


@resizable
def certainty_figure(found: Mapping[str, Any]) -> Figure:
    """Reliability diagram, and kappa against the share of studies reviewed.

    Parameters
    ----------
    found : fields of `cac_core.evaluation.results.Certainty`.
    """
    figure, (left, right) = panels(2, 4.4, 4.2)
    _reliability(left, found)
    _reviews(right, found)
    return figure


def _reliability(axis: Axes, found: Mapping[str, Any]) -> None:
    axis.plot([0, 100], [0, 100], color=GREY, lw=0.8)
    for row in found["reliability"]:
        at = 100 * row["mean_chance"]
        axis.plot([at, at], [100 * limit for limit in row["ci"]], color=BLUE, lw=1)
        axis.plot([at], [100 * row["share"]], marker="o", color=BLUE, ls="none", ms=5)
    axis.set(
        xlim=(-3, 103),
        ylim=(-3, 103),
        xlabel="chance of a category, %",
        ylabel="share that is in it, %",
    )
    axis.set_title(
        f"Brier score {found['brier']:.3f}; {100 * found['coverage']:.1f} % in the "
        f"{100 * found['interval']:.0f} % interval",
        fontsize=10,
    )
    bare(axis)


def _reviews(axis: Axes, found: Mapping[str, Any]) -> None:
    rows = [row for row in found["kappa_by_reviewed"] if row["kappa_linear"] is not None]
    axis.plot(
        [100 * row["share"] for row in rows],
        [row["kappa_linear"] for row in rows],
        color=BLUE,
        lw=1.6,
        label="most doubtful first",
    )
    if found["kappa_after_needed_reviews"] is not None:
        axis.plot(
            [100 * found["needs_review"] / found["n"]],
            [found["kappa_after_needed_reviews"]],
            marker="D",
            color=ORANGE,
            ls="none",
            label="those that need review",
        )
    axis.set(xlim=(-3, 103), xlabel="studies reviewed, %", ylabel="linear-weighted kappa")
    axis.legend(frameon=False, fontsize=9, loc="lower right")
    bare(axis)
