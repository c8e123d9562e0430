"""Texts in figures from plans, extracts and headers: any length, any script, no markup.

Labels are drawn literally: dollar signs start no formula. Long labels are wrapped, and cut if they
still do not fit; the caller gives the full text beside the figure.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable
from functools import cache

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from cac_core.report.figures.paper import is_narrow, room, text_size

# Read when a text is created, so it must be set before the first figure.
mpl.rcParams["text.parse_math"] = False

#: Characters per line by position of the text; wide characters count twice.
X_TITLE, Y_TITLE, LEGEND, Y_TICK, X_TICK, INSIDE = 56, 40, 44, 40, 22, 90
_NARROW_Y_TITLE = 34
_MOST_LINES = 2
#: Lines of a text that has line breaks of its own.
_MOST_GIVEN = 6
#: Titles of narrow panels: characters per inch of the panel in text of 10 points, and the fewest
#: per line.
_PER_INCH, _PER_INCH_AT, _FEWEST = 14, 10.0, 12
_CUT = "\N{HORIZONTAL ELLIPSIS}"
_DEFAULT = "DejaVu Sans"
#: Fonts of other scripts, used if installed.
_FURTHER = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans", "Source Han Sans",
    "IPAGothic", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Arial Unicode MS", "Yu Gothic",
    "Microsoft YaHei", "Malgun Gothic", "Hiragino Sans", "PingFang SC",
)  # fmt: skip


@cache
def families() -> tuple[str, ...]:
    """Installed fonts, in the order in which they are searched for a character."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    return (_DEFAULT, *(name for name in _FURTHER if name in known))


@cache
def _characters() -> frozenset[int]:
    """Characters that these fonts have."""
    found: set[int] = set()
    for family in families():
        path = font_manager.findfont(family)
        found |= set(font_manager.get_font(path).get_charmap())
    return frozenset(found)


def undrawable(text: str) -> bool:
    """Whether a text needs the fonts of its reader: no glyph here, or written from the right."""
    return any(
        ord(sign) not in _characters() or unicodedata.bidirectional(sign) in ("R", "AL")
        for sign in text
        if not sign.isspace()
    )


def drawable(text: str) -> str:
    """The text with a replacement sign for characters that no installed font has."""
    return "".join(
        sign if sign.isspace() or ord(sign) in _characters() else "\N{REPLACEMENT CHARACTER}"
        for sign in text
    )


def fitted(text: str, width: int, most: int = _MOST_LINES) -> str:
    """The text in lines of at most `width` characters; cut with an ellipsis after `most` lines.

    Line breaks of the text are kept; a text that fits is returned unchanged.
    """
    given = ["".join(c for c in line if c.isprintable()) for line in text.splitlines()] or [""]
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    room = max(1, width * len(text) // (len(text) + wide)) if wide else width
    if len(given) > 1:  # a heading and what belongs to it: each keeps its line
        return "\n".join(fitted(line, width, 1) for line in given[:_MOST_GIVEN])
    if len(given[0]) <= room:
        return given[0]
    lines = textwrap.wrap(given[0], room)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][: room - 1].rstrip() + _CUT]
    return "\n".join(lines)


def fit_texts(figure: Figure) -> list[str]:
    """Fit every text of a figure into its space; returns the full text of those that were cut."""
    cut: dict[str, None] = {}

    def fit(text: str, width: int, most: int = _MOST_LINES) -> str:
        short = fitted(text, width, most)
        if short.count(_CUT) > text.count(_CUT):
            cut[" ".join(text.split())] = None
        return short

    seen: set[int] = set()
    for axes in figure.axes:
        seen |= _fit_axes(axes, fit)
    for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes)]:
        for part in legend.get_texts() if legend is not None else ():
            part.set_text(fit(part.get_text(), room(LEGEND)))
            seen.add(id(part))
    for part in figure.findobj(Text):
        if isinstance(part, Text) and id(part) not in seen:
            part.set_text(fit(part.get_text(), room(INSIDE), 3))
    return list(cut)


def _fit_axes(axes: Axes, fit: Callable[..., str]) -> set[int]:
    """Fit tick labels and titles of a panel; returns the ids of their texts."""
    seen: set[int] = set()
    lines = 2 if is_narrow() else 1
    for axis, width, most in ((axes.xaxis, X_TICK, 2), (axes.yaxis, room(Y_TICK), lines)):
        names = tick_names(axis)
        short = [fit(name, width, most) for name in names]
        if short != names:
            axis.set_ticklabels(short)
        seen |= {id(label) for label in axis.get_ticklabels()}
    across = _title_room(axes)
    for part, width in (
        (axes.xaxis.label, across),
        (axes.yaxis.label, _NARROW_Y_TITLE if is_narrow() else Y_TITLE),
        (axes.title, across),
    ):
        part.set_text(fit(part.get_text(), width))
        seen.add(id(part))
    return seen


def _title_room(axes: Axes) -> int:
    """Characters per line above or below a panel, which must not overlap its neighbour."""
    figure = axes.get_figure(root=True)
    if figure is None or sum(panel.axison for panel in figure.axes) == 1:
        return X_TITLE
    inches = axes.get_position().width * figure.get_figwidth()
    return min(X_TITLE, max(_FEWEST, int(_PER_INCH * inches * _PER_INCH_AT / text_size())))


def tick_names(axis: Axis) -> list[str]:
    """Names at fixed positions of an axis; empty if it shows numbers."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return []
    return [label.get_text() for label in axis.get_ticklabels()]


def in_legend(label: str) -> str:
    """A label that a legend shows: matplotlib omits labels that begin with an underscore."""
    return f" {label}" if label.startswith("_") else label
