"""Corrections change what they say, and the score is that of the functions that score a study."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.errors import UsageError
from cac_core.reading.masks import ReadingMasks
from cac_core.scoring.agatston import score_calcium
from cac_core.scoring.lesions import label_lesions
from cac_core.scoring.sites import CLASS_OF_SITE
from schemas.codes import CalciumSite
from tests.builders.readings import SPACING, some_masks

SPOT = {"slice": 2, "row": 11, "column": 11}
NEW = {"slice": 2, "row": 20, "column": 20}


@pytest.fixture
def masks() -> ReadingMasks:
    return some_masks()


def whole_score(masks: ReadingMasks) -> float:
    """The score of the whole volume, without the box that live scores are restricted to."""
    classes = CLASS_OF_SITE[masks.sites]
    lesions = label_lesions(masks.hu, classes, masks.heart, SPACING, masks.protocol, 130.0)
    return score_calcium(lesions, masks.protocol).agatston


def test_a_lesion_goes_to_its_vessel_and_the_score_stays(masks: ReadingMasks) -> None:
    before = masks.score()
    assert before.score.agatston == 2 * 9 * 3  # two slices of 9 mm2, weight 3 from 300 HU
    assert masks.correct({"do": "assign", **SPOT, "site": "lad"}) == [2, 3]
    after = masks.score()
    assert after.score == before.score
    assert after.agatston(CalciumSite.LAD) == 54.0
    assert after.agatston(CalciumSite.CORONARY) == 0.0


@pytest.mark.parametrize("site", [None, "mitral_valve"])
def test_what_is_not_coronary_leaves_the_score(masks: ReadingMasks, site: str | None) -> None:
    masks.correct({"do": "assign", **SPOT, "site": site})
    found = masks.score()
    assert found.score.agatston == 0.0
    assert found.score.agatston_noncoronary == (0.0 if site is None else 54.0)


def test_one_slice_alone(masks: ReadingMasks) -> None:
    assert masks.correct({"do": "assign", **SPOT, "site": None, "extent": "slice"}) == [2]
    assert masks.score().score.agatston == 27.0


def test_a_click_grows_a_missed_lesion(masks: ReadingMasks) -> None:
    masks.correct({"do": "grow", **NEW, "site": "rca"})
    found = masks.score()
    assert found.agatston(CalciumSite.RCA) == 4 * 2  # 4 mm2, weight 2 from 200 HU
    assert found.score.agatston == 54.0 + 8.0 == whole_score(masks)
    assert [int(n) for n in found.lesions.slice_index] == [2, 2, 3]
    assert found.lesions.centroid_row.tolist() == [11.0, 20.5, 11.0]


def test_a_brush_marks_only_what_reaches_the_threshold(masks: ReadingMasks) -> None:
    stroke = {"do": "paint", "slice": 2, "points": [[20, 18], [20, 23]], "radius_px": 3}
    masks.correct({**stroke, "site": "lcx"})
    assert int((masks.sites[2] == 4).sum()) == 4
    masks.correct({**stroke, "site": None})
    assert masks.score().score.agatston == 54.0


def test_the_heart_is_pulled_to_a_lesion_outside(masks: ReadingMasks) -> None:
    outside = {"slice": 2, "row": 5, "column": 36}
    with pytest.raises(UsageError, match="outside of the heart"):
        masks.correct({"do": "grow", **outside, "site": "rca"})
    brush = {"do": "heart", "slice": 2, "points": [[5, 30], [5, 38]], "radius_px": 3}
    assert masks.correct({**brush, "add": True, "reach": 1}) == [1, 2, 3]
    masks.correct({"do": "grow", **outside, "site": "rca"})
    assert masks.score().agatston(CalciumSite.RCA) == 9.0
    masks.correct({**brush, "add": False})
    assert masks.score().score.agatston == 54.0, "calcium outside of the heart does not count"


def test_undo_and_redo_restore_every_voxel(masks: ReadingMasks) -> None:
    first = masks.sites.copy(), masks.heart.copy()
    steps = [
        {"do": "assign", **SPOT, "site": "lm"},
        {"do": "grow", **NEW, "site": "lad"},
        {"do": "heart", "slice": 3, "points": [[8, 8]], "radius_px": 4, "add": False},
    ]
    for step in steps:
        masks.correct(step)
    last = masks.sites.copy(), masks.heart.copy()
    assert [one["do"] for one in masks.corrections] == ["assign", "grow", "heart"]
    for _ in steps:
        masks.undo()
    assert masks.undo() == [] and masks.corrections == []
    assert np.array_equal(masks.sites, first[0]) and np.array_equal(masks.heart, first[1])
    for _ in steps:
        masks.redo()
    assert masks.redo() == [] and not masks.can_redo
    assert np.array_equal(masks.sites, last[0]) and np.array_equal(masks.heart, last[1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"do": "explode"},
        {"do": "assign", "slice": 2, "row": 11},
        {"do": "assign", **SPOT, "site": "liver"},
        {"do": "assign", "slice": 99, "row": 1, "column": 1, "site": None},
        {"do": "assign", "slice": 2, "row": 99, "column": 1, "site": None},
        {"do": "assign", "slice": -1, "row": 1, "column": 1, "site": None},
        {"do": "assign", "slice": 2, "row": 25, "column": 25, "site": "lad"},
        {"do": "grow", "slice": 2, "row": 28, "column": 28, "site": "lad"},
        {"do": "paint", "slice": 2, "points": [], "radius_px": 2, "site": "lad"},
        {"do": "paint", "slice": 2, "points": [[1e9, float("nan")]], "radius_px": 2, "site": "lad"},
        {"do": "heart", "slice": 2, "points": [[1, 1]], "radius_px": 1e9, "add": True},
        [],
        None,
    ],
)
def test_what_is_no_correction_changes_nothing(masks: ReadingMasks, wrong: object) -> None:
    before = masks.sites.copy()
    with pytest.raises(UsageError):
        masks.correct(wrong)
    assert np.array_equal(masks.sites, before) and masks.corrections == []


def test_random_corrections_keep_to_the_scoring_of_the_whole_volume() -> None:
    masks, rng = some_masks(), np.random.default_rng(7)
    masks.hu += rng.integers(0, 200, masks.hu.shape).astype(np.int16)
    for _ in range(60):
        row, column, k = (int(n) for n in rng.integers(5, 30, 3))
        site = rng.choice([site.value for site in CalciumSite])
        one = [
            {"do": "grow", "slice": 1 + k % 4, "row": row, "column": column, "site": site},
            {"do": "assign", "slice": 1 + k % 4, "row": row, "column": column, "site": site},
            {
                "do": "paint",
                "slice": 1 + k % 4,
                "points": [[row, column]],
                "radius_px": 3,
                "site": site,
            },
            {
                "do": "heart",
                "slice": 1 + k % 4,
                "points": [[row, column]],
                "radius_px": 3,
                "add": bool(k % 2),
            },
        ][int(rng.integers(4))]
        try:
            masks.correct(one)
        except UsageError:
            continue
        found = masks.score()
        assert found.score.agatston == whole_score(masks)
        parts = sum(found.agatston(site) for site in CalciumSite)
        whole = found.score.agatston + found.score.agatston_noncoronary
        assert parts == pytest.approx(whole)
    assert len(masks.corrections) > 20
