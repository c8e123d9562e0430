"""Figures at the widths of journals: size, text and resolution of what is printed."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from pypdf import PdfReader

from cac_core.report.figures import (
    ONE_COLUMN,
    PAPERS,
    Paper,
    agreement_figure,
    as_bytes,
    on_paper,
    papers_of,
)
from cac_core.report.figures.concordance import scatter_figure
from cac_core.report.figures.performance import (
    Moves,
    Series,
    calibration_figure,
    decision_figure,
    flow_figure,
    reclassification_figure,
)
from cac_core.report.figures.survival import (
    Curve,
    ForestRow,
    curves_figure,
    forest_figure,
    shared_limits,
)

_LOGS = np.log1p(np.array([0.0, 3, 50, 120, 700]))


def _curve(label: str, low: float) -> Curve:
    return Curve(
        label, [0, 1, 2], [1, 0.9, low], [1, 0.85, low], [1, 0.95, low], [(0, "90"), (1, "80")]
    )


def _series(label: str) -> Series:
    return Series(label, [0.1, 0.2], [0.1, 0.3], [0.05, 0.2], [0.2, 0.4])


def _moves(label: str) -> Moves:
    return Moves(label, 0.6, 0.4, 0.3, 0.7, [(0.2, 0.1, 0.3), (0.4, 0.3, 0.5), (0.6, 0.4, 0.8)])


FIGURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: curves_figure(
        [_curve("<1", 0.8), _curve(">400", 0.6)], "Free of MACE, %", "log-rank p <0.001"
    ),
    "forest": lambda: forest_figure(
        [ForestRow("CAC"),
         ForestRow("1-100", [(1.2, 0.8, 1.9), (1.4, 1, 2)], "1.20 (0.80 to 1.90)")],
        ("unadjusted", "adjusted"), "Hazard ratio (95 % CI)", "adjusted",
    ),
    "calibration": lambda: calibration_figure([_series(name) for name in "abcd"], 3),
    "decision": lambda: decision_figure([_series("Treat all"), _series("DL CAC")], 3),
    "reclassification": lambda: reclassification_figure([_moves("DL CAC"), _moves("Expert CAC")]),
    "flow": lambda: flow_figure("All: 20", [("Known disease: 5", "Remain: 15")], "Analysed: 15"),
    "scatter": lambda: scatter_figure(
        _LOGS, _LOGS[::-1], ("DL", "Expert"), (0, -1, 1), ("r2 0.7", "difference 0.1")
    )[0],
}  # fmt: skip


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
@pytest.mark.parametrize("name", FIGURES)
def test_width_and_text_are_those_of_print(name: str, paper: Paper) -> None:
    drawn = on_paper(FIGURES[name](), paper)
    page = PdfReader(io.BytesIO(as_bytes(drawn, "pdf"))).pages[0]
    assert float(page.mediabox.width) / 72 * 25.4 == pytest.approx(paper.width_mm, abs=0.1)
    texts = [text for text in drawn.findobj(Text) if text.get_text() and text.get_visible()]
    assert texts and all(7 <= text.get_fontsize() <= 9 for text in texts)
    # Nothing is cut at the edge of the paper.
    edge = drawn.bbox.padded(2)
    for text in drawn.get_default_bbox_extra_artists():
        if isinstance(text, Text) and text.get_text():
            box = text.get_window_extent()
            assert edge.x0 <= box.x0 and box.x1 <= edge.x1, text.get_text()


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_a_tiff_has_the_width_of_the_paper_in_three_colours(paper: Paper) -> None:
    image = Image.open(io.BytesIO(as_bytes(on_paper(FIGURES["curves"](), paper), "tiff")))
    across, down = image.info["dpi"]
    assert (image.format, image.mode) == ("TIFF", "RGB")
    assert across == down >= 300
    assert image.width / float(across) * 25.4 == pytest.approx(paper.width_mm, abs=0.1)


def test_panels_are_below_each_other_in_one_column() -> None:
    left, right = on_paper(FIGURES["scatter"](), ONE_COLUMN).axes
    assert right.get_position().y1 < left.get_position().y0
    wide, other = FIGURES["scatter"]().axes
    assert other.get_position().x0 > wide.get_position().x1


def test_the_flow_keeps_every_word_and_its_boxes_apart_in_one_column() -> None:
    long = (
        "No follow-up after the scan (coverage, life or membership ended on or before its day): 9"
    )
    figure = flow_figure("All: 200", [(long, "189 remain"), (long, "178 remain")], "Analysed: 178")
    drawn = on_paper(figure, ONE_COLUMN)
    drawn.canvas.draw()
    texts = [text for text in drawn.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [text for text in texts if text.get_text().replace("\n", " ") == long]
    assert len(boxes) == 2
    first, second = (box.get_window_extent() for box in boxes)
    assert first.y0 > second.y1


def test_the_figure_of_the_screen_is_not_changed_by_paper() -> None:
    figure = FIGURES["forest"]()
    before = as_bytes(figure, "svg")
    on_paper(figure, ONE_COLUMN)
    assert as_bytes(figure, "svg") == before


def test_other_figures_have_one_size() -> None:
    result = {
        "studies": [], "concordance_reference_by_compared": [[1]], "categories": ["0"],
        "compared": "a", "reference": "b", "kappa_linear": None, "r2_log": None,
        "bland_altman": [None, None, None],
    }  # fmt: skip
    figure = agreement_figure(result | {"studies": [{"first": "0", "second": "0"}]})
    assert papers_of(figure) == ()
    with pytest.raises(ValueError, match="no width of 88 mm"):
        on_paper(figure, ONE_COLUMN)


def test_compared_curves_share_their_axes() -> None:
    panels = [[_curve("a", 0.93)], [_curve("b", 0.41)]]
    limits = shared_limits(panels)
    drawn = [curves_figure(panel, "y", "", limits).axes[0] for panel in panels]
    assert drawn[0].get_ylim() == drawn[1].get_ylim() == (0.3, 1.005)
    assert drawn[0].get_xlim() == drawn[1].get_xlim() == (0, 2)
    rising = Curve("c", [0, 3], [0, 0.2], [0, 0.1], [0, 0.4])
    assert shared_limits([[rising], []]) == shared_limits([[rising]])
    assert (shared_limits([[rising]]).bottom, shared_limits([[rising]]).years) == (0, 3)
    assert 0.4 < shared_limits([[rising]]).top < 0.5
