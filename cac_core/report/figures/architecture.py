"""The cascade of networks as a drawing: what goes in, the layers of each, what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from cac_core.report.figures.paper import TWO_COLUMNS, is_on_paper, resizable, sheet
from cac_core.report.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE

Place = tuple[float, float]
_HIGH = 0.86
#: Signs that fit in a box of unit width on paper.
_SIGNS = 10.5


@dataclass(frozen=True, slots=True)
class Sketch:
    """One network: its title, and the texts of its boxes by part.

    `stem`, `blocks` and `head_1` follow each other on the branch of the current slice, `cells`,
    `head_2` and `attention` on that of its neighbours.
    """

    title: str
    single: str
    stack: str
    stem: str
    blocks: Sequence[str]
    head_1: str
    cells: Sequence[str]
    head_2: str
    attention: str
    output: str


@resizable
def architecture_figure(networks: Sequence[Sketch], steps: Sequence[str]) -> Figure:
    """The cascade above, each kind of network below it.

    Parameters
    ----------
    networks : the kinds of network, in the order data pass through.
    steps : texts of the boxes of the cascade, from scan to score.
    """
    unit = 0.95 if is_on_paper() else 0.84
    figure = sheet(10.5, 0.0, unit * (1.3 + 3.95 * len(networks)))
    figure.papers = (TWO_COLUMNS,)
    axis = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axis.axis("off")
    low = 0.05 - 3.95 * len(networks)
    axis.set(xlim=(0, 12.6), ylim=(low - 0.15, 1.2))
    _cascade(axis, steps)
    for number, network in enumerate(networks):
        _network(axis, network, -0.65 - 3.95 * number)
    return figure


def _cascade(axis: Axes, steps: Sequence[str]) -> None:
    gap = 12.4 / len(steps)
    for number, text in enumerate(steps):
        at = (0.1 + gap * (number + 0.5), 0.62)
        _box(axis, at, text, gap - 0.45, GREY)
        if number:
            _arrow(axis, (at[0] - gap / 2 - 0.22, at[1]), (at[0] - gap / 2 + 0.22, at[1]))


def _network(axis: Axes, network: Sketch, top: float) -> None:
    axis.add_patch(
        FancyBboxPatch(
            (0.15, top - 3.22), 12.3, 3.82, boxstyle="round,pad=0,rounding_size=0.12",
            fc="#f7f7f7", ec="#cccccc", lw=0.8, zorder=0,
        )
    )  # fmt: skip
    axis.text(0.35, top + 0.32, network.title, fontsize=10, weight="bold", va="center")
    upper, middle, lower = top - 0.45, top - 1.55, top - 2.65
    single = [(network.single, GREY), (network.stem, BLUE),
              *((text, BLUE) for text in network.blocks), (network.head_1, GREEN)]  # fmt: skip
    ends = _row(axis, single, upper, 8.4)
    stack = [(network.stack, GREY), *((text, ORANGE) for text in network.cells)]
    last = _row(axis, stack, (middle + lower) / 2, 5.9)
    _box(axis, (7.5, middle), network.head_2, 1.75, GREEN)
    _box(axis, (7.5, lower), network.attention, 1.75, PURPLE)
    for y in (middle, lower):
        _arrow(axis, (last, (middle + lower) / 2), (6.6, y))
    ring = {"boxstyle": "circle,pad=0.25", "fc": "white", "ec": "black", "lw": 0.9}
    for text, at, start in (
        ("\N{MULTIPLICATION SIGN} (1 \N{MINUS SIGN} a)", (9.75, upper), (ends, upper)),
        ("\N{MULTIPLICATION SIGN} a", (9.75, middle), (8.4, middle)),
    ):
        axis.text(*at, text, ha="center", va="center", fontsize=9,
                  bbox=ring | {"boxstyle": "round,pad=0.3"})  # fmt: skip
        _arrow(axis, start, (at[0] - (0.38 if "1" in text else 0.18), at[1]))
    # The attention map weighs both branches.
    axis.plot([8.4, 9.75], [lower, lower], color=PURPLE, lw=1.1)
    _arrow(axis, (9.75, lower), (9.75, middle - 0.13), PURPLE)
    axis.plot([9.75, 9.1, 9.1], [lower, lower, upper - 0.42], color=PURPLE, lw=1.1)
    _arrow(axis, (9.1, upper - 0.42), (9.45, upper - 0.13), PURPLE)
    axis.text(9.85, lower + 0.28, "a: attention, 0 to 1", fontsize=8, color=PURPLE)
    axis.text(10.75, (upper + middle) / 2, "+", ha="center", va="center", fontsize=11, bbox=ring)
    _arrow(axis, (10.13, upper), (10.66, (upper + middle) / 2 + 0.13))
    _arrow(axis, (9.93, middle), (10.66, (upper + middle) / 2 - 0.13))
    _box(axis, (11.7, (upper + middle) / 2), network.output, 1.25, GREY)
    _arrow(axis, (10.89, (upper + middle) / 2), (11.06, (upper + middle) / 2))


def _row(axis: Axes, boxes: Sequence[tuple[str, str]], y: float, right: float) -> float:
    """Boxes from left to right, with arrows; returns the right end of the last."""
    gap = (right - 0.35) / len(boxes)
    wide = gap - 0.28
    for number, (text, colour) in enumerate(boxes):
        x = 0.35 + gap * number + wide / 2
        _box(axis, (x, y), text, wide, colour)
        if number:
            _arrow(axis, (x - wide / 2 - 0.28, y), (x - wide / 2, y))
    return 0.35 + gap * len(boxes) - 0.28


def _box(axis: Axes, at: Place, text: str, wide: float, colour: str) -> None:
    axis.add_patch(
        FancyBboxPatch(
            (at[0] - wide / 2, at[1] - _HIGH / 2), wide, _HIGH,
            boxstyle="round,pad=0,rounding_size=0.06", fc="white", ec=colour, lw=1.5, zorder=2,
        )
    )  # fmt: skip
    if is_on_paper():
        lines = (wrap(line, int(_SIGNS * wide)) for line in text.splitlines())
        text = "\n".join(part for line in lines for part in line)
    size, spacing = (7.0, 1.05) if is_on_paper() else (7.4, 1.25)
    axis.text(*at, text, ha="center", va="center", fontsize=size, linespacing=spacing, zorder=3)


def _arrow(axis: Axes, start: Place, end: Place, colour: str = "black") -> None:
    axis.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=9, color=colour, lw=1.1, shrinkA=0,
            shrinkB=0, zorder=1.5,
        )
    )  # fmt: skip
