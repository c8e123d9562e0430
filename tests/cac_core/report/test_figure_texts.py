"""Labels of figures as users write them: long, in any script, with signs that markup would take."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cac_core.report.cohort.sections import slug
from cac_core.report.figures.concordance import scatter_figure
from cac_core.report.figures.performance import (
    Moves,
    Series,
    calibration_figure,
    reclassification_figure,
)
from cac_core.report.figures.style import as_bytes
from cac_core.report.figures.survival import Curve, ForestRow, curves_figure, forest_figure
from cac_core.report.figures.texts import drawable, fit_texts, fitted, tick_names, undrawable
from cac_core.report.svg import drawn, in_full

LONG = "a reading of the second room of the northern campus " * 4
CHINESE = "\u51a0\u72b6\u52a8\u8109\u9499\u5316"


def _curves(*labels: str, outcome: str = "MACE") -> Figure:
    curves = [
        Curve(label, [0, 1, 2], [1, 0.9, 0.8], [1, 0.8, 0.7], [1, 0.95, 0.9], [(0, "9"), (1, "8")])
        for label in labels
    ]
    return curves_figure(curves, f"Free of {outcome}, %", "log-rank p = 0.040")


def _quietly(figure: Figure, kind: str = "svg") -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return as_bytes(figure, kind)


def test_two_long_labels_leave_room_for_the_drawing_and_stand_in_full_below() -> None:
    figure = _curves(LONG + "one", LONG + "two", outcome=LONG)
    caption = in_full("Curves.", figure)
    assert LONG + "one" in caption and LONG + "two" in caption
    _quietly(figure)
    axis = figure.axes[0]
    assert axis.get_window_extent().width > 0.5 * figure.bbox.width
    assert axis.get_window_extent().height > 0.5 * figure.bbox.height


def test_long_names_of_rows_are_cut_too() -> None:
    rows = [ForestRow(LONG), ForestRow(LONG + "x", [(1.2, 0.8, 1.9)], "1.20")]
    figure = forest_figure(rows, ("adjusted",), "HR", "adjusted")
    assert LONG + "x" in in_full("", figure)
    _quietly(figure)
    assert figure.axes[0].get_window_extent().width > 0.3 * figure.bbox.width


@pytest.mark.parametrize("label", ["$x_1$", "a $ b", "\\frac{1}{2} 50 %", "{}_^", "_hidden"])
def test_signs_of_formulas_are_drawn_as_they_are_written(label: str) -> None:
    figure = _curves(label, f"{CHINESE} {label}")
    svg = _quietly(figure).decode()  # as text, for the sake of the other script
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert [text.strip() for text in legend] == [label, f"{CHINESE} {label}"]
    assert svg.count(label) >= 2


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_what_no_font_has_is_left_to_the_reader_and_warns_nobody(kind: str) -> None:
    missing = "\U00012345"  # cuneiform
    figure = _curves(missing, "plain")
    assert "fonts of the reader" in in_full("", figure)
    found = _quietly(figure, kind)
    if kind == "svg":
        assert missing in found.decode()
    assert drawable(f"a{missing}") == "a\N{REPLACEMENT CHARACTER}"
    assert as_bytes(_curves(missing, "plain"), kind) == as_bytes(_curves(missing, "plain"), kind)


def test_text_from_right_to_left_is_set_by_the_reader() -> None:
    assert undrawable("\u05e9\u05dc\u05d5\u05dd") and not undrawable("\u00c4rztin, 5 %")


def test_ordinary_labels_stay_outlines_without_a_note() -> None:
    figure = _curves("1-100", ">400")
    assert in_full("Curves.", figure) == "Curves."
    assert b"<text" not in _quietly(figure)


def test_markup_in_a_label_is_escaped() -> None:
    view = drawn("a", "c", "<b>d</b>", _curves(f"{CHINESE}<script>"))
    assert "&lt;script&gt;" in view.svg and "<script>" not in view.svg and "<b>" not in view.svg


@given(text=st.text(max_size=400), width=st.integers(4, 60), most=st.integers(1, 3))
@example(text="1\n2\n3\n4\n5\n6\n7", width=4, most=1)
@settings(deadline=None)
def test_a_fitted_text_has_its_room(text: str, width: int, most: int) -> None:
    lines = fitted(text, width, most).split("\n")
    assert len(lines) <= max(most, 6) and all(len(line) <= width for line in lines)
    assert fitted("short", 10) == "short" and fit_texts(Figure()) == []


@given(text=st.text(max_size=500))
def test_a_slug_is_one_file_name(text: str) -> None:
    name = slug("figure", text)
    assert len(name.encode()) <= 120 and not set(name) & set("/\\. \n<>:\"'&%$")


def test_slugs_of_other_scripts_differ() -> None:
    assert slug("t", "\u7537\u6027") != slug("t", "\u5973\u6027") and slug("t", "..", "/") == "t"


def _boxes(figure: Figure, parts: Sequence[Text]) -> list[Bbox]:
    figure.draw_without_rendering()
    return [part.get_window_extent() for part in parts]


def test_titles_of_neighbouring_panels_do_not_run_into_each_other() -> None:
    series = [Series(f"{LONG}{n}", [0.1, 0.2], [0.1, 0.3], [0, 0.2], [0.2, 0.4]) for n in range(4)]
    figure = calibration_figure(series, 3)
    _quietly(figure)
    boxes = _boxes(figure, [axis.title for axis in figure.axes])
    for left, right in pairwise(boxes):
        assert left.x1 < right.x0
    one = _curves("a")
    one.axes[0].set_title("of one panel, " * 3)  # has the room that it had
    fit_texts(one)
    assert one.axes[0].title.get_text() == "of one panel, " * 3


@pytest.mark.parametrize("label", ["DL", LONG])
def test_names_of_readings_stand_outside_the_net_reclassification(label: str) -> None:
    net = [(0.2, 0.1, 0.3)] * 3
    moves = [Moves(f"{label} {n}", 0.6, 0.4, 0.4, 0.6, net) for n in range(3)]
    figure = reclassification_figure(moves)
    _quietly(figure)
    assert len(figure.legends) == 2 and all(axis.get_legend() is None for axis in figure.axes)
    figure.draw_without_rendering()
    for legend in figure.legends:
        for axis in figure.axes:
            assert not legend.get_window_extent().overlaps(axis.get_window_extent())
    assert figure.axes[1].get_window_extent().height > 0.3 * figure.bbox.height
    who = [name.rpartition(", ")[2] for name in tick_names(figure.axes[0].yaxis)]
    assert who == ["with event", "without"] * 3
    whole = " ".join(f"{label} 0".split())
    assert label == "DL" or whole in in_full("", reclassification_figure(moves))


def test_a_scatter_plot_of_other_scripts_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        figure, places, _ = scatter_figure(
            np.array([0.0, 2.0]), np.array([1.0, 2.0]), (CHINESE, "\U00012345"), (0, -1, 1),
            ("r2 0.5", "difference 0"),
        )  # fmt: skip
        as_bytes(figure, "svg")
    # Points lie where the drawing has them.
    height = figure.bbox.height
    again = figure.axes[0].transData.transform([[1.0, 0.0], [2.0, 2.0]])
    assert np.allclose(places, [(x, height - y) for x, y in again])
