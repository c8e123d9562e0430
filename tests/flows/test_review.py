"""`cac status`: the newest row of a study counts; `--review` lists what a person should look at."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from flows.review import studies_to_review
from flows.status import warehouse_status
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import SCORES
from tests.builders.rows import key, preview_row, score_row

LATER = {
    "protocol_digest": "q" * 16,
    "scored_at": dt.datetime(2025, 1, 1, tzinfo=dt.UTC),
    "cac_category": "101-400",
    "agatston": 150.0,
}
DOUBT = {"needs_review": True, "review_reasons": "borderline_category;motion"}


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    """Study 1 under two protocols, in doubt under the older one only; 2 and 3 to be looked at."""
    store = Warehouse(tmp_path / "warehouse")
    rows = [
        score_row(1, **DOUBT),
        score_row(1, **LATER, needs_review=False, review_reasons=""),
        score_row(2, agatston=3.0, **DOUBT),
        score_row(3, agatston=900.0, cac_category=">400", **DOUBT),
        score_row(4, needs_review=False, review_reasons=""),
    ]
    previews = PREVIEWS.from_rows([preview_row(2)])
    store.stage("m", "a", SCORES.from_rows(rows), LESIONS.from_rows([]), previews)
    store.publish("m")
    return store


def test_of_each_study_the_newest_row_counts(store: Warehouse) -> None:
    summary = warehouse_status(store.url, None)
    found = {
        row["cac_category"]: (row["studies"], row["need_review"]) for row in summary.models["m"]
    }
    assert found == {"1-100": (2, 1), "101-400": (1, 0), ">400": (1, 1)}
    assert summary.older_rows == {"m": 1}


def test_the_studies_to_look_at_and_their_pages(store: Warehouse, tmp_path: Path) -> None:
    found = studies_to_review(store.url, None, folder=tmp_path / "pages")
    assert [row["study_key"] for row in found.studies] == [key(3), key(2)]
    assert found.studies[1]["review_reasons"] == DOUBT["review_reasons"]
    assert {path.stem for path in (tmp_path / "pages").glob("*.html")} == {key(2), key(3)}


def test_without_scores_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(CacError, match="no scores"):
        studies_to_review(str(tmp_path), None)
