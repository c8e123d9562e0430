"""State of an archive: counts, medians and comparisons against manual calculations."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pyarrow.parquet as pq
import pytest

from cac_core.cohort.archive import archive_state, share_z
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from schemas.score import SCORES
from tests.builders.archives import warehouse_of_nights
from tests.builders.rows import key, run_row, score_row

MODEL, OLD = "convlstm-test", "convlstm-old"
CATEGORY = {0.0: "0", 50.0: "1-100", 250.0: "101-400", 900.0: ">400"}
UNSCORED = {"agatston": None, "cac_category": None, "noise_hu": None}


def scored(study: object, agatston: float = 0.0, **changes: object) -> dict[str, object]:
    values = {"agatston": agatston, "cac_category": CATEGORY[agatston], "run_id": "run-002"}
    return score_row(study, **values | changes)


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "wh")


def publish(store: Warehouse, *rows: dict[str, object], model: str = MODEL) -> None:
    store.replace(SCORES, SCORES.from_rows(rows), model)


def test_an_empty_warehouse_has_an_empty_state(store: Warehouse) -> None:
    state = archive_state(store)
    assert (state.model, state.queued, state.failed) == ("", 0, 0)
    assert not any((state.runs, state.reasons, state.months, state.models, state.scanners))


def test_runs_are_in_order_with_their_queue(store: Warehouse) -> None:
    for number in (3, 1, 2):
        store.add_run(
            run_row(number, scored=number, file_reasons='{"not_dicom": 2, "empty_file": 5}')
        )
    publish(store, scored(1), scored(2, seconds_read=0.3), scored(3, run_id="run-777"))
    state = archive_state(store)
    assert [row["run_id"] for row in state.runs] == ["run-001", "run-002", "run-003"]
    assert state.queued == 30 - 15 - 3 - 2 - 1
    assert state.file_reasons == [("empty_file", 5), ("not_dicom", 2)]
    (speed,) = state.speed
    assert (speed["run_id"], speed["n"], speed["seconds_read"]) == (
        "run-002",
        2,
        pytest.approx(0.2),
    )


def test_reasons_of_the_current_model(store: Warehouse) -> None:
    store.add_run(run_row(1, model_id=OLD))
    store.add_run(run_row(2))
    no_heart = {"status": "rejected", "reason": "no_heart", **UNSCORED}
    timeout = {"status": "failed", "reason": "timeout", **UNSCORED}
    publish(
        store,
        score_row(1, **no_heart, run_id="run-001"),
        score_row(2, **no_heart, run_id="run-002"),
        score_row(3, **timeout, run_id="run-002"),
        scored(4),
    )
    publish(store, score_row(5, **timeout), model=OLD)
    state = archive_state(store)
    assert state.model == MODEL
    assert state.reasons == [
        {"status": "rejected", "reason": "no_heart", "studies": 2, "last_run": 1},
        {"status": "failed", "reason": "timeout", "studies": 1, "last_run": 1},
    ]
    assert state.failed == 1


def test_scores_that_need_review(store: Warehouse) -> None:
    store.add_run(run_row(2))
    odd = {"needs_review": True, "review_reasons": "device;heart_mask_odd"}
    publish(
        store,
        scored(1, **odd, run_id="run-001"),
        scored(2, needs_review=True, review_reasons="device", run_id="run-002"),
        scored(3, needs_review=False, review_reasons=""),
        scored(4),  # of an earlier version
    )
    assert archive_state(store).reviews == [
        {"reason": None, "studies": 2, "last_run": 1},
        {"reason": "device", "studies": 2, "last_run": 1},
        {"reason": "heart_mask_odd", "studies": 1, "last_run": 0},
    ]


def test_a_study_counts_once_with_several_protocols(store: Warehouse) -> None:
    store.add_run(run_row(2))
    later = {"protocol_digest": "q" * 16, "scored_at": dt.datetime(2025, 1, 1, tzinfo=dt.UTC)}
    publish(store, scored(1, 900.0), scored(1, 50.0, **later))
    (month,) = archive_state(store).months
    assert (month["n"], month["n_low"], month["n_high"]) == (1, 1, 0)


def test_months_and_models(store: Warehouse) -> None:
    store.add_run(run_row(2))
    may, june = dt.date(2024, 5, 31), dt.date(2024, 6, 1)
    publish(
        store,
        scored(1, 0.0, study_date=may),
        scored(2, 250.0, study_date=may),
        scored(3, 900.0, study_date=may),
        scored(4, 50.0, study_date=june, noise_hu=None),
        scored(5, 50.0, study_date=None),
    )
    older = {"scored_at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)}
    publish(
        store,
        scored(1, 50.0, **older),  # lower now
        scored(2, 50.0, **older),  # higher now
        scored(3, 900.0, **older),  # the same
        scored(9, 0.0, **older),  # not scored by the new model
        model=OLD,
    )
    state = archive_state(store)
    first, second = state.months
    assert (first["month"], second["month"]) == ("2024-05", "2024-06")
    assert [first[name] for name in ("n", "n_zero", "n_low", "n_middle", "n_high")] == [
        3,
        1,
        0,
        1,
        1,
    ]
    assert (first["median_agatston"], first["median_noise_hu"]) == (250.0, 22.0)
    assert second["median_noise_hu"] is None
    old, new = state.models
    assert (old["model"], new["model"]) == (OLD, MODEL)
    assert (new["n"], new["n_both"]) == (5, 0)
    assert [old[name] for name in ("n", "n_both", "n_same", "n_higher_now")] == [4, 3, 1, 1]


def _scanner(name: str, zeros: int, others: int, noise: tuple[float, ...]) -> list[dict[str, Any]]:
    rows = []
    for number in range(zeros + others):
        score = 0.0 if number < zeros else 50.0
        maker = {"Manufacturer": name, "noise_hu": noise[number % len(noise)]}
        rows.append(scored(f"{name} {number}", score, **maker))
    return rows


def test_an_unusual_scanner_stands_out(store: Warehouse) -> None:
    store.add_run(run_row(2))
    usual, odd = _scanner("Usual", 40, 60, (20.0, 24.0)), _scanner("Odd", 30, 20, (60.0,))
    few = _scanner("Few", 9, 0, (22.0,))
    publish(store, *usual, *odd, *few)
    found = {row["scanner"]: row for row in archive_state(store).scanners}
    assert list(found) == ["Usual", "Odd", "Few"], "most studies first"
    # By hand: 30 of 50 against 49 of 109.
    pooled = (30 + 49) / (50 + 109)
    z = (30 / 50 - 49 / 109) / (pooled * (1 - pooled) * (1 / 50 + 1 / 109)) ** 0.5
    assert found["Odd"]["zero_z"] == pytest.approx(z)
    # Wilson's interval of 30 of 50, as tables of it give it.
    assert found["Odd"]["zero_low"] == pytest.approx(0.4618, abs=1e-4)
    assert found["Odd"]["zero_high"] == pytest.approx(0.7239, abs=1e-4)
    rest = [row["noise_hu"] for row in (*usual, *few)]
    low, _, high = quantiles(rest, n=4, method="inclusive")
    expected = (60.0 - median(rest)) / ((high - low) / 1.349)
    assert found["Odd"]["noise_z"] == pytest.approx(expected)
    assert found["Odd"]["stands_out"] == ("more noise",), "z of the share is below the limit"
    assert found["Few"]["stands_out"] == (), "too few studies to say"
    publish(store, *usual, *_scanner("Odd", 48, 2, (23.0,)))
    found = {row["scanner"]: row for row in archive_state(store).scanners}
    assert found["Odd"]["stands_out"] == ("more scores of zero",)


def test_the_same_rows_give_the_same_state_to_the_last_digit(tmp_path: Path) -> None:
    """Sums over rows in the order of whichever thread comes first would not."""
    store = warehouse_of_nights(tmp_path / "wh", nights=30)
    first = archive_state(store)
    assert all(archive_state(store) == first for _ in range(8))


def test_one_scanner_is_compared_with_nothing(store: Warehouse) -> None:
    store.add_run(run_row(2))
    publish(store, *_scanner("Only", 20, 20, (20.0,)))
    (row,) = archive_state(store).scanners
    assert (row["n"], row["rest_n"], row["zero_z"], row["stands_out"]) == (40, None, None, ())


def _month(month: int, zeros: int, others: int) -> list[dict[str, Any]]:
    day = dt.date(2024, month, 5)
    scores = [0.0] * zeros + [900.0] * others
    return [scored(f"{month} {i}", score, study_date=day) for i, score in enumerate(scores)]


def test_the_newest_month_is_compared_with_those_before(store: Warehouse) -> None:
    store.add_run(run_row(2))
    usual = [row for month in (1, 2, 3) for row in _month(month, 20, 20)]
    publish(store, *usual, *_month(4, 38, 2))
    *before, last = archive_state(store).months
    assert [last[name] for name in ("rest_n", "rest_zero", "rest_high")] == [120, 60, 60]
    assert last["stands_out"] == ("more scores of zero", "fewer scores above 400")
    assert not any("stands_out" in row for row in before)
    publish(store, *usual, *_month(4, 22, 18))
    assert archive_state(store).months[-1]["stands_out"] == ()
    publish(store, *_month(1, 30, 30))
    (only,) = archive_state(store).months
    assert (only["rest_n"], only["stands_out"]) == (0, ())


def test_difference_of_shares_matches_a_manual_calculation() -> None:
    assert share_z(5200, 10000, 4800, 10000) == pytest.approx(5.657, abs=1e-3)
    assert share_z(3, 10, 3, 10) == 0.0
    assert share_z(0, 10, 0, 20) is None
    assert share_z(1, 10, 0, 0) is None


def test_with_many_studies_a_small_difference_does_not_stand_out(store: Warehouse) -> None:
    store.add_run(run_row(2))
    publish(store, *_scanner("A", 350, 350, (20.0,)), *_scanner("B", 287, 413, (20.0,)))
    for row in archive_state(store).scanners:
        assert abs(row["zero_z"]) > 3, "9 percentage points apart"
        assert row["stands_out"] == ()


def test_a_missing_column_is_a_named_fault(store: Warehouse) -> None:
    store.add_run(run_row(2))
    publish(store, scored(1))
    assert store.columns(SCORES, ["study_key"], MODEL)["study_key"].to_pylist() == [key(1)]
    path = next(Path(store.url).glob("scores/**/*.parquet"))
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["run_id"]), path)
    with pytest.raises(CacError, match="does not fit this version"):
        archive_state(store)
