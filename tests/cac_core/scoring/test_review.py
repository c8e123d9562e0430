"""Reasons for review: hearts of known shape, metal at known distances, chances by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.scoring.confidence import Confidence
from cac_core.scoring.review import (
    ReviewLimits,
    certainty_reasons,
    faint_mm2,
    heart_shape,
    image_reasons,
    metal_mm3,
    review_markdown,
    review_rules,
)
from schemas.codes import QualityFlag, ReviewReason

SPACING = (5.0, 2.0, 2.0)
NOWHERE = np.zeros(1, np.bool_)


def ball(shape: tuple[int, int, int] = (24, 100, 100)) -> np.ndarray:
    """A round heart of 100 mm, away from every border."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    away = ((z - 12) * 5.0) ** 2 + ((y - 50) * 2.0) ** 2 + ((x - 50) * 2.0) ** 2
    return np.asarray(away <= 50.0**2)


def reasons(
    heart: np.ndarray, hu: np.ndarray | None = None, overlap: float = 1.0, *flags: QualityFlag
):
    image = np.full(heart.shape, 40, np.int16) if hu is None else hu
    return image_reasons(image, heart, SPACING, overlap, flags, 130.0)


def sure(*chances: float) -> Confidence:
    return Confidence(chances, 0.0, 0.0)  # type: ignore[arg-type]


def test_a_round_heart_raises_nothing() -> None:
    assert reasons(ball()) == set()


def test_a_heart_that_ends_flat_is_odd() -> None:
    heart = ball()
    heart[14:] = False  # 10 mm above the middle: nearly the largest area
    assert reasons(heart) == {ReviewReason.HEART_MASK_ODD}
    shape = heart_shape(heart, SPACING, 500.0)
    assert shape.end_share == pytest.approx(1 - (5 / 50) ** 2, abs=0.02)


def test_a_heart_with_a_jump_is_odd() -> None:
    heart = ball()
    heart[13:, :, :40] = heart[13:, :, 58:] = False
    heart[13:, :44] = heart[13:, 56:] = False  # from the largest area to a stalk
    shape = heart_shape(heart, SPACING, 500.0)
    assert shape.step_share > 0.7
    assert shape.end_share < 0.2
    assert ReviewReason.HEART_MASK_ODD in reasons(heart)


def test_thin_slices_are_compared_5_mm_apart() -> None:
    thin = np.repeat(ball(), 5, axis=0)
    thick, fine = (
        heart_shape(heart, (step, 2.0, 2.0), 500.0) for heart, step in ((ball(), 5.0), (thin, 1.0))
    )
    assert fine.step_share == pytest.approx(thick.step_share)


def test_a_second_piece_counts_from_its_area() -> None:
    heart = ball()
    heart[12, 2:10, 2:10] = True  # 64 pixels of 4 mm2
    assert heart_shape(heart, SPACING, 200.0).pieces == 1
    assert heart_shape(heart, SPACING, 300.0).pieces == 0


def test_flags_of_the_heart_are_reasons() -> None:
    for flag, reason in (
        (QualityFlag.HEART_TRUNCATED, ReviewReason.HEART_MASK_ODD),
        (QualityFlag.HEART_VOLUME_UNUSUAL, ReviewReason.HEART_MASK_ODD),
        (QualityFlag.HEART_ON_THE_RIGHT, ReviewReason.HEART_ON_THE_RIGHT),
        (QualityFlag.MIRRORED_OR_SITUS_INVERSUS, ReviewReason.HEART_ON_THE_RIGHT),
        (
            QualityFlag.ORIENTATION_CONTRADICTS_HEADER,
            ReviewReason.ORIENTATION_CONTRADICTS_HEADER,
        ),
    ):
        assert reasons(ball(), None, 1.0, flag, QualityFlag.THICK_SLICES) == {reason}


def test_networks_that_disagree() -> None:
    assert reasons(ball(), None, 0.8) == {ReviewReason.HEARTS_DISAGREE}


def test_metal_in_and_near_the_heart() -> None:
    # The heart begins at row 25 of the middle slice; a voxel has 20 mm3.
    for row, expected in ((40, 40.0), (21, 40.0), (18, 0.0)):
        hu = np.full((24, 100, 100), 40, np.int16)
        hu[12, row, 50:52] = 2500
        assert metal_mm3(hu, ball(), SPACING) == expected
        assert reasons(ball(), hu) == ({ReviewReason.DEVICE} if expected else set())
    hu[12, 40, 50:52] = 1400  # bright calcium
    assert metal_mm3(hu, ball(), SPACING) == 0.0


def test_a_large_faint_area_is_motion() -> None:
    # Pixels of 4 mm2: 12 are 48 mm2, 9 are 36 mm2.
    for n, peak, expected in ((12, 215, 48.0), (9, 215, 36.0), (12, 260, 0.0), (12, 125, 0.0)):
        hu = np.full((24, 100, 100), 40, np.int16)
        hu[12, 40, 40 : 40 + n] = min(peak, 140)
        hu[12, 40, 40] = peak
        assert faint_mm2(hu, ball(), SPACING, 130.0) == expected
        assert reasons(ball(), hu) == ({ReviewReason.MOTION} if expected > 40 else set())
    # The same area outside the heart, and in two slices with half of it each.
    hu = np.full((24, 100, 100), 40, np.int16)
    hu[12, 10, 40:52] = hu[12:14, 40, 40:46] = 140
    assert faint_mm2(hu, ball(), SPACING, 130.0) == 24.0


def test_an_empty_mask_has_no_shape() -> None:
    assert reasons(np.zeros((4, 8, 8), bool)) == set()


def test_doubt_about_the_category() -> None:
    assert certainty_reasons(sure(0.85, 0.15, 0, 0), 0.0, 0.0, NOWHERE) == set()
    borderline = {ReviewReason.BORDERLINE_CATEGORY}
    assert certainty_reasons(sure(0.75, 0.25, 0, 0), 0.0, 0.0, NOWHERE) == borderline
    # Sure, but of another category than the score.
    assert certainty_reasons(sure(0.05, 0.95, 0, 0), 0.0, 0.0, NOWHERE) == borderline
    decided = certainty_reasons(sure(0.85, 0.15, 0, 0), 0.0, 0.0, np.array([False, True]))
    assert decided == {ReviewReason.DOUBTFUL_COMPONENT}


@pytest.mark.parametrize(("score", "other", "reviewed"), [(0, 401, 1), (0, 400, 0), (401, 900, 0)])
def test_much_other_calcium_is_looked_at_where_it_could_change_the_category(
    score: float, other: float, reviewed: bool
) -> None:
    chances = (0, 0, 0, 1) if score > 400 else (1, 0, 0, 0)
    found = certainty_reasons(sure(*chances), score, other, NOWHERE)
    assert found == ({ReviewReason.MUCH_OTHER_CALCIUM} if reviewed else set())


def test_every_reason_is_described() -> None:
    assert set(review_rules()) == set(ReviewReason)
    text = review_markdown()
    assert all(f"`{reason}`" in text for reason in ReviewReason)
    assert "below 0.7," in "".join(review_rules(ReviewLimits(min_category_chance=0.7)).values())
