"""Whether scores are as sure as they say, against hand-worked cases."""

from __future__ import annotations

from typing import Any

import pytest

from cac_core.evaluation.certainty import certainty, certainty_estimates
from cac_core.stats.agreement import proportion
from schemas.results import ESTIMATES
from schemas.score import CATEGORY_CHANCES


def study(found: float, truth: float, chances: tuple[float, ...], **changes: Any) -> dict[str, Any]:
    row = {
        "first": found,
        "second": truth,
        "agatston_low": 0.5 * found,
        "agatston_high": 2 * found,
        "needs_review": False,
        **dict(zip(CATEGORY_CHANCES, chances, strict=True)),
    }
    return row | changes


#: Two right, one wrong and doubtful, one wrong and sure.
FOUR = [
    study(0, 0, (0.9, 0.1, 0.0, 0.0)),
    study(50, 60, (0.0, 0.9, 0.1, 0.0)),
    study(90, 150, (0.0, 0.5, 0.5, 0.0), needs_review=True),
    study(500, 20, (0.0, 0.0, 0.3, 0.7)),
]


def test_by_hand() -> None:
    found = certainty(FOUR)
    assert found is not None
    # Squares: 0.01 + 0.01; 0.01 + 0.01; 0.25 + 0.25; 0.09 + 0.49 + 1.
    assert found["brier"] == pytest.approx((0.02 + 0.02 + 0.5 + 1.58) / 4)
    assert found["mean_chance_of_category"] == pytest.approx((0.9 + 0.9 + 0.5 + 0.7) / 4)
    assert (found["same_category"], found["coverage"]) == (0.5, 0.75)  # 20 is below 250
    assert found["coverage_ci"] == pytest.approx(
        [proportion(3, 4).ci_low, proportion(3, 4).ci_high]
    )
    assert (found["wrong_category"], found["wrong_category_needs_review"]) == (2, 1)
    assert found["needs_review"] == 1


def test_reliability_by_hand() -> None:
    found = certainty(FOUR)
    assert found is not None
    rows = {row["from"]: row for row in found["reliability"]}
    assert sum(row["n"] for row in rows.values()) == 16
    # Of eight impossible categories one is true; 0.5 was said twice and right once.
    assert (rows[0.0]["n"], rows[0.0]["share"]) == (8, 1 / 8)
    assert (rows[0.4]["n"], rows[0.4]["mean_chance"], rows[0.4]["share"]) == (2, 0.5, 0.5)
    assert (rows[0.9]["n"], rows[0.9]["share"]) == (2, 1.0)


def test_reviews_replace_the_most_doubtful_first() -> None:
    found = certainty(FOUR)
    assert found is not None
    kappa = {round(row["share"], 2): row["kappa_linear"] for row in found["kappa_by_reviewed"]}
    # Categories 0, 1, 1, 3 against 0, 1, 2, 1: three steps apart; by chance 16 of 16 pairs.
    assert kappa[0.0] == pytest.approx(1 - (3 / 4) / (16 / 16))
    # The third study, the most doubtful, is right now; the fourth remains two steps apart.
    assert kappa[0.25] == pytest.approx(1 - (2 / 4) / (18 / 16))
    assert found["kappa_after_needed_reviews"] == kappa[0.25]
    assert kappa[0.5] == kappa[1.0] == pytest.approx(1)


def test_rows_of_an_earlier_version_do_not_count() -> None:
    old = {"first": 1.0, "second": 1.0, **dict.fromkeys(CATEGORY_CHANCES)}
    assert certainty([old]) is None
    mixed = certainty([old, *FOUR])
    assert mixed is not None
    assert mixed["n"] == 4


def test_estimates() -> None:
    found = certainty(FOUR)
    assert found is not None
    rows = ESTIMATES.from_rows(certainty_estimates(found, "m", None)).to_pylist()
    values = {(row["statistic"], row["term"], row["level"]): row for row in rows if row["at"] != 0}
    assert values["brier", None, None]["value"] == pytest.approx(found["brier"])
    assert values["coverage", None, None]["at"] == 0.9
    assert values["reliability", None, "0.4-0.6"]["value"] == 0.5
    assert values["kappa_linear", "needs_review", None]["n"] == 4
