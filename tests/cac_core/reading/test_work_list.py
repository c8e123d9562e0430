"""The work list: filters, orders, and what it says of other readers."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.reading.readings import grouped
from cac_core.reading.work_list import Wanted, WorkList, expected_distance
from schemas.lesion import LESIONS
from schemas.linked import LINKED
from schemas.score import SCORES
from tests.builders.readings import reading_row
from tests.builders.rows import key, score_row

SURE = {"p_category_0": 0.0, "p_category_1_100": 1.0, "p_category_101_400": 0.0}
SURE |= {"p_category_over_400": 0.0}
DOUBT = {"p_category_0": 0.5, "p_category_1_100": 0.5, "p_category_101_400": 0.0}
DOUBT |= {"p_category_over_400": 0.0}


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    store = Warehouse(tmp_path / "wh")
    rows = [
        score_row(1, **SURE, Manufacturer="GE", quality_flags="high_noise"),
        score_row(2, **DOUBT, needs_review=True, review_reasons="motion;device"),
        score_row(3, agatston=500.0, cac_category=">400", needs_review=False),
        score_row(4, status="rejected", reason="no_heart", agatston=None, cac_category=None),
    ]
    store.stage("m", "a", SCORES.from_rows(rows), LESIONS.from_rows([]))
    store.publish("m")
    return store


def keys(store: Warehouse, reader: str = "A", rows: list | None = None, **wanted: object) -> list:
    made = WorkList.read(store, "m", None, grouped(rows or []))
    page = made.page(Wanted(**wanted), reader)  # type: ignore[arg-type]
    assert page["total"] == len(page["rows"])
    return [row["study_key"] for row in page["rows"]]


def test_most_doubtful_first(store: Warehouse) -> None:
    assert keys(store)[0] == key(2)
    assert keys(store, order="score")[0] == key(3)
    assert keys(store, order="study") == sorted(map(key, (1, 2, 3)))


def test_filters(store: Warehouse) -> None:
    assert keys(store, category=">400") == [key(3)]
    assert keys(store, needs_review=True) == [key(2)]
    assert keys(store, reason="device") == [key(2)]
    assert keys(store, flag="high_noise") == [key(1)]
    assert keys(store, flag="noise") == []
    assert keys(store, scanner="GE") == [key(1)]
    assert keys(store, search=key(3)[:6]) == [key(3)]


def test_states(store: Warehouse) -> None:
    rows = [reading_row(1), reading_row(2), reading_row(2, "B", 1, cac_category="0")]
    assert keys(store, rows=rows, state="unread") == [key(3)]
    assert keys(store, rows=rows, state="read") == [key(1)]
    assert keys(store, rows=rows, state="differs") == [key(2)]
    assert keys(store, "B", rows, state="mine") == [key(2)]
    assert set(keys(store, "B", rows, state="not_mine")) == {key(1), key(3)}


def test_the_list_says_nothing_of_what_others_found(store: Warehouse) -> None:
    rows = [reading_row(1, agatston=777.0, cac_category=">400", reason="hidden")]
    made = WorkList.read(store, "m", None, grouped(rows))
    shown = str(made.page(Wanted(), "B"))
    assert "777" not in shown and "hidden" not in shown
    assert made.progress("A")["mine"] == 1 and made.progress("B")["mine"] == 0


def test_expert_and_visual_grade(store: Warehouse) -> None:
    def linked(study: int, **changes: object) -> dict:
        row = {column.name: None for column in LINKED.columns}
        days = {name: 10 for name in row if name.endswith("_days")}
        known = {"patient_key": key(f"patient {study}"), "study_key": key(study)}
        return row | days | known | {"study_date": score_row()["study_date"]} | changes

    rows = [
        linked(1, expert_agatston=0.0, expert_cac_category="0", visual_grade="present"),
        linked(3, expert_agatston=500.0, expert_cac_category=">400", visual_grade="absent"),
    ]
    events = {name: 0 for name in rows[0] if name.endswith("_event")}
    store.replace(LINKED, LINKED.from_rows([row | events for row in rows]))
    assert keys(store, disagrees="expert") == [key(1)]
    assert keys(store, disagrees="visual") == [key(3)]
    assert len(keys(store, disagrees="any")) == 2


def test_expected_distance() -> None:
    chances = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.1, 0.9], [np.nan] * 4])
    found = expected_distance(chances, np.array([0, 3, 1]))
    assert found.tolist() == pytest.approx([0.5, 0.1, 0.0])


def test_a_page_of_many_studies_takes_no_time(store: Warehouse) -> None:
    made = WorkList.read(store, "m", None, grouped([]))
    table = made.table.take(np.tile([0, 1, 2], 33_333))
    large = WorkList(table, grouped([]), {})
    begun = perf_counter()
    page = large.page(Wanted(flag="high_noise", order="score"), "A", 30_000)
    assert page["total"] == 33_333 and len(page["rows"]) == 50
    assert perf_counter() - begun < 1
