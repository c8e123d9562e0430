"""Drawn scores: consistent rows, and a certainty that is right as often as it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cac_core.categories import cac_category
from cac_core.evaluation.certainty import certainty
from cac_core.evaluation.results import Certainty
from cac_core.keys import Keyring
from cac_core.phantom.registry.records import Registry, make_registry
from cac_core.phantom.registry.scored_archive import (
    SYNTHETIC_DETAIL,
    ScoredArchive,
    scored_archive,
)
from schemas.score import CATEGORY_CHANCES

KEYS = Keyring(b"a secret of these tests")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return make_registry(2271, 3)


@pytest.fixture(scope="module")
def archive(registry: Registry) -> ScoredArchive:
    return scored_archive(registry, KEYS, 3)


@pytest.fixture(scope="module")
def scored(archive: ScoredArchive) -> list[dict[str, Any]]:
    return [row for row in archive.scores.to_pylist() if row["status"] == "scored"]


def test_each_study_has_one_row_per_table(registry: Registry, archive: ScoredArchive) -> None:
    studies = {KEYS.study_key(visit.study_instance_uid) for visit in registry.visits}
    for table in (archive.scores, archive.series, archive.instances):
        assert table.num_rows == len(studies)
        assert set(table["study_key"].to_pylist()) == studies
    again = scored_archive(registry, KEYS, 3)
    assert archive.scores.equals(again.scores)
    assert archive.lesions.equals(again.lesions)
    assert not archive.scores.equals(scored_archive(registry, KEYS, 4).scores)


def test_scores_are_the_registrys_and_say_that_they_are_drawn(
    registry: Registry, scored: list[dict[str, Any]]
) -> None:
    drawn = {KEYS.study_key(uid): score for uid, score in registry.agatston.items()}
    for row in scored:
        assert row["agatston"] == drawn[row["study_key"]]
        assert row["cac_category"] == cac_category(row["agatston"])
        assert row["detail"] == SYNTHETIC_DETAIL
        assert row["Manufacturer"] == "Synthetic"


def test_lesions_add_up_to_the_scores(archive: ScoredArchive, scored: list[dict[str, Any]]) -> None:
    sums: dict[tuple[str, str], float] = {}
    for lesion in archive.lesions.to_pylist():
        key = lesion["study_key"], lesion["calcium_class"]
        sums[key] = sums.get(key, 0.0) + lesion["agatston"]
    for row in scored:
        for kind, column in (("coronary", "agatston"), ("noncoronary", "agatston_noncoronary")):
            assert sums.get((row["study_key"], kind), 0.0) == pytest.approx(row[column])


def test_certainty_is_consistent_with_its_score(scored: list[dict[str, Any]]) -> None:
    for row in scored:
        assert sum(row[name] for name in CATEGORY_CHANCES) == pytest.approx(1.0)
        assert row["agatston_low"] <= row["agatston"] <= row["agatston_high"]
        assert row["needs_review"] == bool(row["review_reasons"])


@pytest.fixture(scope="module")
def found(registry: Registry, scored: list[dict[str, Any]]) -> Certainty:
    truth = {KEYS.study_key(uid): score for uid, score in registry.expert_agatston.items()}
    rows = [row | {"first": row["agatston"], "second": truth[row["study_key"]]} for row in scored]
    given = certainty(rows)
    assert given is not None
    return given


def test_chances_are_right_as_often_as_they_say(found: Certainty) -> None:
    for row in found["reliability"]:
        if row["n"] >= 100:
            sd = np.sqrt(row["mean_chance"] * (1 - row["mean_chance"]) / row["n"])
            assert row["share"] == pytest.approx(row["mean_chance"], abs=max(5 * sd, 0.06))
    assert 0.90 <= found["coverage"] <= 0.97


def test_reviews_find_most_wrong_categories(found: Certainty) -> None:
    assert found["wrong_category_needs_review"] > 0.8 * found["wrong_category"]
    assert found["needs_review"] < 0.5 * found["n"]
