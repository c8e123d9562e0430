"""Figures: drawn for every kind of comparison, byte for byte the same, readable as SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from cac_core.report.figures import agreement_figure, as_bytes, detection_figure

SCORES = {
    "compared": "model",
    "reference": "reader:a",
    "categories": ["0", "1-100", "101-400", ">400"],
    "concordance_reference_by_compared": [[2, 0, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 17]],
    "kappa_linear": 0.91,
    "r2_log": 0.95,
    "bland_altman": [1.0, -10.0, 12.0],
    "studies": [{"first": 0.0, "second": 0.0}, {"first": 55.0, "second": 400.0}],
}
GRADES = {
    "compared": "model",
    "reference": "visual:v",
    "categories": ["absent", "present", "extensive"],
    "concordance_reference_by_compared": [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
    "kappa_linear": None,
    "studies": [{"first": 0.0, "second": "absent"}, {"first": 5.0, "second": "present"}],
}
BINS = [
    {"from": 0, "to": 10, "lesions": 4, "found": 0.5, "ci": [0.15, 0.85]},
    {"from": 10, "to": None, "lesions": 0, "found": None, "ci": [None, None]},
]


def _texts(svg: bytes) -> int:
    return len(ElementTree.fromstring(svg).findall(".//{http://www.w3.org/2000/svg}g"))


def test_scores_have_three_panels_and_grades_one() -> None:
    assert len(agreement_figure(SCORES).axes) == 3
    assert len(agreement_figure(GRADES).axes) == 1


def test_the_matrix_shows_every_count() -> None:
    shown = [text.get_text() for text in agreement_figure(SCORES).axes[0].texts]
    assert shown == [
        "2",
        "0",
        "0",
        "0",
        "1",
        "3",
        "0",
        "0",
        "0",
        "0",
        "0",
        "0",
        "0",
        "0",
        "0",
        "17",
    ]


def test_bins_without_lesions_are_left_out() -> None:
    axis = detection_figure({"volume, mm3": BINS}).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0-10\n(n=4)"]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([50.0])  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_figure_gives_the_same_bytes(kind: str) -> None:
    first, second = (as_bytes(agreement_figure(SCORES), kind) for _ in range(2))
    assert first == second
    if kind == "svg":
        assert _texts(first) > 20
