"""Canaries are compared with their first scores bit for bit."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cac_core.cohort.canaries import (
    IDENTITY,
    choose_canaries,
    compare_canaries,
    without_old_nights,
)
from cac_core.cohort.warehouse import Warehouse
from schemas.canary import CANARIES
from schemas.score import SCORES
from tests.builders.rows import digest, key, score_row


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    """Three scored studies and a rejected one."""
    store = Warehouse(tmp_path / "wh")
    rows = [score_row(n, agatston=0.1 + 0.2 * n) for n in (1, 2, 3)]
    rows.append(
        score_row(4, status="rejected", reason="no_heart", agatston=None, cac_category=None)
    )
    store.replace(SCORES, SCORES.from_rows(rows), "m")
    return store


def _wanted(store: Warehouse) -> pa.Table:
    return store.read(SCORES, "m").select(list(IDENTITY))


def _chosen(store: Warehouse, wanted: pa.Table, studies: int, *keys: str) -> set[str]:
    return set(choose_canaries(store, wanted, "m", studies, keys)["study_key"].to_pylist())


def _again(store: Warehouse, run: str, **changes: object) -> list[dict[str, object]]:
    """Compare the first study scored again, with other times, in this run."""
    row = store.read(SCORES, "m", [key(1)]).to_pylist()[0]
    row |= {"run_id": run, "scored_at": dt.datetime.now(dt.UTC), "seconds_read": 9.0} | changes
    return compare_canaries(store, "m", run, [row])


def test_only_scored_studies_whose_score_is_current(store: Warehouse) -> None:
    wanted = _wanted(store)
    scored = {key(n) for n in (1, 2, 3)}
    assert _chosen(store, wanted, 9) == scored
    assert _chosen(store, wanted, 0) == set()
    assert len(_chosen(store, wanted, 2)) == 2
    assert _chosen(store, wanted, 0, key(3), key(4), key("none")) == {key(3)}
    other = wanted.set_column(1, "instances_digest", pa.array([digest("new")] * 4))
    assert _chosen(store, other, 9) == set()


def test_the_same_studies_every_night(store: Warehouse) -> None:
    wanted = _wanted(store)
    last = sorted(key(n) for n in (1, 2, 3))[-1]
    row = store.read(SCORES, "m", [last]).to_pylist()[0]
    compare_canaries(store, "m", "run-1", [row])
    assert _chosen(store, wanted, 1) == {last}


def test_the_first_score_is_the_reference(store: Warehouse) -> None:
    before = store.read(SCORES, "m")
    (same,) = _again(store, "run-1")
    assert (same["drifted"], same["differs"]) == (False, None)
    first = before.filter(pc.field("study_key") == key(1))["agatston"][0].as_py()
    changed = float(np.nextafter(first, 1))
    (drifted,) = _again(store, "run-2", agatston=changed, n_lesions=5)
    assert (drifted["drifted"], drifted["differs"]) == (True, "agatston;n_lesions")
    (back,) = _again(store, "run-3")
    assert not back["drifted"]
    rows = store.read(CANARIES).to_pylist()
    assert [(row["run_id"], row["is_reference"]) for row in rows] == [
        ("run", True),
        ("run-1", False),
        ("run-2", False),
        ("run-3", False),
    ]
    assert store.read(SCORES, "m").equals(before)


def test_a_rescored_study_keeps_its_reference(store: Warehouse) -> None:
    _again(store, "run-1")
    rows = [row | {"agatston": 99.0} for row in store.read(SCORES, "m").to_pylist()]
    store.replace(SCORES, SCORES.from_rows(rows), "m")
    (drifted,) = _again(store, "run-2")
    assert drifted["drifted"]


def test_digests_of_pixels_by_different_functions_are_not_compared(store: Warehouse) -> None:
    same = "blake3:" + digest("pixels")
    assert not _again(store, "n1", pixel_digest=same)[0]["drifted"]
    (changed,) = _again(store, "n2", pixel_digest=digest("others"))
    assert changed["differs"] == "pixel_digest"


def test_a_failed_canary_is_not_compared(store: Warehouse) -> None:
    (row,) = _again(store, "run-1", status="failed", reason="timeout", agatston=None)
    assert (row["drifted"], row["reason"]) == (False, "timeout")


def test_old_nights_go_and_references_stay(store: Warehouse) -> None:
    for number in range(4):
        _again(store, f"run-{number}")
    kept = without_old_nights(store.read(CANARIES), 2)
    assert kept["run_id"].to_pylist() == ["run", "run-2", "run-3"]
