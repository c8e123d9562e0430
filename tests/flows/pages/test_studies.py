"""Pages of studies out of a warehouse, with the newest score of each."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from flows.pages.studies import write_pages
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import SCORES
from tests.builders.rows import key, lesion_row, preview_row, score_row


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    store = Warehouse(tmp_path / "warehouse")
    other = {"protocol_digest": "q" * 16}
    later = {"scored_at": dt.datetime(2025, 1, 1, tzinfo=dt.UTC), "agatston": 777.0}
    store.stage(
        "m",
        "a",
        SCORES.from_rows([score_row(1), score_row(1, **other, **later), score_row(2)]),
        LESIONS.from_rows([lesion_row(1), lesion_row(1, **other, agatston=321.0), lesion_row(2)]),
        PREVIEWS.from_rows([preview_row(1), preview_row(1, **other, slice_index=8)]),
    )
    store.publish("m")
    return store


def test_the_newest_score_with_its_own_rows(store: Warehouse, tmp_path: Path) -> None:
    pages = write_pages(store, [key(2), key(1)], tmp_path / "pages")
    assert list(pages) == sorted([key(1), key(2)])
    text = pages[key(1)].read_text()
    assert "777.0" in text
    assert "321.0" in text
    assert 'id="slice-8"' in text
    assert 'id="slice-5"' not in text, "a picture of the other protocol"
    assert "No pictures were kept" in pages[key(2)].read_text()


def test_unknown_studies_and_models(store: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no score row"):
        write_pages(store, [key(1), key(3)], tmp_path)
    with pytest.raises(UsageError, match="no model other"):
        write_pages(store, [key(1)], tmp_path, "other")
    with pytest.raises(CacError, match="holds no scores"):
        write_pages(Warehouse(tmp_path / "empty"), [key(1)], tmp_path)
