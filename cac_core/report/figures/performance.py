"""Figures of models: calibration, decision curves, reclassification; and the cohort flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from cac_core.report.figures.paper import is_narrow, panels, resizable, room, sheet
from cac_core.report.figures.style import BLUE, GREEN, GREY, ORANGE, RED, bare
from cac_core.report.figures.texts import LEGEND, Y_TICK, fitted, in_legend

_LOOKS = ((GREY, "o", "-"), (BLUE, "s", "--"), (GREEN, "D", "-."), (RED, "^", ":"))

#: Characters in a line of a box of the flow.
_IN_BOX = 48
#: As many lines as stand between the boxes of two steps; the count of a step is its last word.
_LINES_IN_BOX = 5


@dataclass(frozen=True, slots=True)
class Series:
    """A named series: x, y and limits of y, if any."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Moves:
    """Reclassification by one reading: shares that move up and down, net figures with limits."""

    label: str
    up_event: float
    down_event: float
    up_nonevent: float
    down_nonevent: float
    net: Sequence[tuple[float, float | None, float | None]]


@resizable
def calibration_figure(series: Sequence[Series], years: float) -> Figure:
    """Observed against predicted risk in groups of patients, a panel per model."""
    figure, axes = panels(len(series), 3.1, 3.4, sharex=True, sharey=True)
    top = max((100 * max(one.high or one.y) for one in series if one.y), default=100.0)
    for number, (axis, one) in enumerate(zip(axes, series, strict=True)):
        colour, shape, _ = _LOOKS[number % len(_LOOKS)]
        axis.plot([0, top], [0, top], color=GREY, lw=0.8)
        x, y = [100 * value for value in one.x], [100 * value for value in one.y]
        for at, low, high in zip(x, one.low, one.high, strict=True):
            axis.plot([at, at], [100 * low, 100 * high], color=colour, lw=1)
        axis.plot(x, y, marker=shape, color=colour, ls="none", ms=5)
        axis.set_title(one.label, fontsize=10)
        axis.set(
            xlabel=f"Predicted {years:g}-year risk, %", ylabel=f"Observed {years:g}-year risk, %"
        )
        axis.label_outer()
        bare(axis)
    return figure


@resizable
def decision_figure(series: Sequence[Series], years: float) -> Figure:
    """Net benefit over threshold probabilities."""
    figure = sheet(6.4, 4.0, 0.6 if is_narrow() else 0.0, layout="constrained")
    axis = figure.subplots()
    look: dict[str, Any]
    for number, one in enumerate(series):
        if one.label.startswith("Treat"):
            look = {"color": GREY, "ls": ":" if "none" in one.label else "-", "lw": 0.9}
        else:
            colour, _, dash = _LOOKS[number % len(_LOOKS)]
            look = {"color": colour, "ls": dash, "lw": 1.6}
        axis.plot([100 * value for value in one.x], one.y, label=in_legend(one.label), **look)
    tops = [value for one in series for value in one.y]
    top = max(tops, default=0.1)
    axis.set_ylim(-0.15 * top, 1.08 * top)
    axis.set(xlabel=f"Threshold of {years:g}-year risk, %", ylabel="Net benefit")
    if is_narrow():  # the curves fill the panel
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    else:
        axis.legend(frameon=False, fontsize=9)
    bare(axis)
    return figure


@resizable
def reclassification_figure(moves: Sequence[Moves]) -> Figure:
    """Shares of patients whose risk rises or falls, and the net figures with their limits."""
    figure, (bars, net) = panels(2, 5.1, 3.6, width_ratios=(1.5, 1))
    names = []
    for number, one in enumerate(moves):
        for half, (up, down, who) in enumerate(
            (
                (one.up_event, one.down_event, "with event"),
                (one.up_nonevent, one.down_nonevent, "without"),
            )
        ):
            at = 2.4 * number + half
            bars.barh(at, 100 * up, color=RED, height=0.75, label=_once(number, half, "risk rises"))
            bars.barh(
                at, -100 * down, color=BLUE, height=0.75, label=_once(number, half, "risk falls")
            )
            # The group must stay if the label is cut; the legend shows more of the label.
            names.append((at, f"{fitted(one.label, room(Y_TICK) - len(', with event'), 1)}, {who}"))
    bars.axvline(0, color="black", lw=0.8)
    bars.set_yticks([at for at, _ in names], [name for _, name in names], fontsize=9)
    bars.invert_yaxis()
    bars.set_xticks(range(-100, 101, 50), [str(abs(tick)) for tick in range(-100, 101, 50)])
    bars.set(xlabel="Patients, %", xlim=(-105, 105))
    _net(net, moves)
    # Outside the panels: inside them long labels would cover what they name.
    short = sum(len(one.label) for one in moves) <= LEGEND
    figure.legend(
        *bars.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False,
        fontsize=8.5,
    )  # fmt: skip
    figure.legend(
        *net.get_legend_handles_labels(),
        loc="outside lower left" if is_narrow() else "outside upper right",
        ncols=max(1, len(moves)) if short else 1,
        frameon=False,
        fontsize=8.5,
    )
    bare(bars)
    return figure


@resizable
def flow_figure(total: str, steps: Sequence[tuple[str, str]], end: str) -> Figure:
    """Cohort flow from top to bottom, with the patients who left at each step at the right.

    Parameters
    ----------
    total, end : texts of the first and the last box.
    steps : text of the box at the right, and of the box in the flow below it (none if empty).
    """
    figure = sheet(7.2, 0.0, 1.9 + 1.0 * max(len(steps), 1))
    axis = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axis.axis("off")
    bottom = 2 * len(steps) + 0.9
    axis.set(xlim=(0, 10), ylim=(bottom + 0.6, -0.6))
    box = {"boxstyle": "round,pad=0.45", "fc": "white", "ec": "black", "lw": 1}
    axis.text(2.6, 0, total, ha="center", va="center", fontsize=10, bbox=box)
    axis.text(2.6, bottom, end, ha="center", va="center", fontsize=10, bbox=box)
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 12, "color": "black", "lw": 1}
    above = 0.42
    for number, (text, rest) in enumerate(steps):
        y = 2 * number + 1.1
        axis.add_patch(FancyArrowPatch((2.6, y), (4.0, y), **arrow))
        shown = fitted(text, room(_IN_BOX), _LINES_IN_BOX)
        axis.text(4.15, y, shown, ha="left", va="center", fontsize=9, bbox=box | {"ec": ORANGE})
        if rest:
            axis.add_patch(FancyArrowPatch((2.6, above), (2.6, y + 0.76), **arrow))
            axis.text(2.6, y + 1, rest, ha="center", va="center", fontsize=9, bbox=box)
            above = y + 1.24
    axis.add_patch(FancyArrowPatch((2.6, above), (2.6, bottom - 0.28), **arrow))
    return figure


def _net(axis: Axes, moves: Sequence[Moves]) -> None:
    kinds = ("event", "non-event", "overall")
    for number, one in enumerate(moves):
        colour, shape, _ = _LOOKS[(number + 1) % len(_LOOKS)]
        for at, (value, low, high) in enumerate(one.net):
            y = at + 0.2 * (number - (len(moves) - 1) / 2)
            if low is not None and high is not None:
                axis.plot([low, high], [y, y], color=colour, lw=1.2)
            axis.plot(
                [value],
                [y],
                marker=shape,
                color=colour,
                ls="none",
                ms=5,
                label=in_legend(one.label) if at == 0 else None,
            )
    axis.axvline(0, color=GREY, lw=0.8)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    axis.set_xlabel("Net reclassification")
    bare(axis)


def _once(number: int, half: int, label: str) -> str | None:
    return label if number == half == 0 else None
