"""Which score rows of a warehouse are analysed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.cohort.scores import scores_of
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from schemas.run import RUNS
from schemas.score import SCORES
from tests.builders.rows import digest, run_row, score_row

_OLD, _NEW = digest("old protocol"), digest("new protocol")


def _scored_twice(folder: Path) -> Warehouse:
    store = Warehouse(folder)
    rows = [
        score_row(study, protocol_digest=protocol, agatston=score)
        for study in (1, 2)
        for protocol, score in ((_OLD, 10.0), (_NEW, 20.0))
    ]
    store.replace(SCORES, SCORES.from_rows(rows), "m-1")
    return store


@pytest.mark.parametrize(("protocol", "score"), [(_OLD, 10.0), (_NEW, 20.0)])
def test_scores_of_the_given_protocol_are_used(tmp_path: Path, protocol: str, score: float) -> None:
    scores = scores_of(_scored_twice(tmp_path), "m-1", protocol)
    assert scores["agatston"].to_pylist() == [score, score]


def test_the_default_is_the_protocol_of_the_newest_run(tmp_path: Path) -> None:
    store = _scored_twice(tmp_path)
    with pytest.raises(CacError, match="under 2 protocols"):
        scores_of(store, "m-1")
    store.add_run(run_row(1, model_id="m-1", protocol_digest=_OLD), RUNS)
    assert set(scores_of(store, "m-1")["agatston"].to_pylist()) == {10.0}
    with pytest.raises(CacError, match="--config"):
        scores_of(store, "m-1", digest("a third"))


def test_a_single_protocol_needs_no_choice(tmp_path: Path) -> None:
    store = Warehouse(tmp_path)
    store.replace(SCORES, SCORES.from_rows([score_row(1)]), "m-1")
    assert scores_of(store, "m-1", digest("another")).num_rows == 1
