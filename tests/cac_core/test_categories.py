"""Categories of the Agatston score at their edges."""

from __future__ import annotations

import math

import pytest

from cac_core.categories import (
    VISUAL_LEVELS,
    cac_category,
    visual_level,
)
from schemas.codes import CAC_CATEGORIES
from schemas.registry import READINGS

EDGES: list[tuple[float | None, str | None]] = [
    (0, "0"),
    (-0.0, "0"),
    (0.99, "0"),
    (math.nextafter(1, 0), "0"),
    (1, "1-100"),
    (99.5, "1-100"),
    (100, "1-100"),
    (100.0001, "101-400"),
    (100.5, "101-400"),
    (101, "101-400"),
    (400, "101-400"),
    (math.nextafter(400, 500), ">400"),
    (400.5, ">400"),
    (5000, ">400"),
    (math.inf, ">400"),
    (None, None),
    (math.nan, None),
]


@pytest.mark.parametrize(("agatston", "category"), EDGES)
def test_one_score(agatston: float | None, category: str | None) -> None:
    assert cac_category(agatston) == category


def test_a_negative_score_is_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        cac_category(-0.1)


def test_visual_levels_of_grades_and_categories() -> None:
    """Supplemental Table 3: equivocal with present, extensive above 400."""
    grades = next(c for c in READINGS.columns if c.name == "visual_grade").codes
    assert [visual_level(grade) for grade in grades] == [
        "absent",
        "present",
        "present",
        "extensive",
    ]
    levels = [visual_level(category) for category in CAC_CATEGORIES]
    assert levels == ["absent", "present", "present", "extensive"]
    assert set(levels) == set(VISUAL_LEVELS)
    assert visual_level(None) is None
    with pytest.raises(ValueError, match="'some'"):
        visual_level("some")
