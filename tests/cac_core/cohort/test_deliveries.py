"""What was sent is not sent again, what was refused waits, and other objects are others."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.cohort.deliveries import Deliveries
from cac_core.cohort.warehouse import Warehouse
from schemas.codes import DeliveryOutcome
from schemas.delivery import DELIVERIES
from tests.builders.rows import score_row

PLACE = "https://pacs.example/dicom-web"


def deliveries(store: Warehouse, **changes: object) -> Deliveries:
    arguments = {"model_id": "m", "address": PLACE, "kinds": ("sr", "seg")} | changes
    return Deliveries(store, **arguments)  # type: ignore[arg-type]


def test_what_was_sent_is_known_to_the_next_run(tmp_path: Path) -> None:
    store, sent, refused = Warehouse(tmp_path / "wh"), score_row(1), score_row(2)
    first = deliveries(store)
    assert not first.is_sent(sent) and not first.waits(sent)
    first.add(sent, DeliveryOutcome.SENT, 3)
    first.add(refused, DeliveryOutcome.NOT_SENT, 3)
    first.close()
    later = deliveries(store, kinds=("seg", "sr"))
    assert later.is_sent(sent) and not later.waits(sent)
    assert later.waits(refused) and not later.is_sent(refused)
    later.add(refused, DeliveryOutcome.SENT, 3)
    later.close()
    assert deliveries(store).is_sent(refused)
    table = store.read(DELIVERIES)
    assert table.num_rows == 3 and not any("pacs" in str(row) for row in table.to_pylist())


@pytest.mark.parametrize(
    "other",
    [{"model_id": "n"}, {"address": PLACE + "2"}, {"kinds": ("seg",)}],
)
def test_another_model_receiver_or_kind_is_another_delivery(
    tmp_path: Path, other: dict[str, object]
) -> None:
    store, row = Warehouse(tmp_path / "wh"), score_row(1)
    first = deliveries(store)
    first.add(row, DeliveryOutcome.SENT, 2)
    first.close()
    assert deliveries(store).is_sent(row)
    assert not deliveries(store, **other).is_sent(row)


def test_a_study_that_was_scored_anew_is_sent_anew(tmp_path: Path) -> None:
    store, row = Warehouse(tmp_path / "wh"), score_row(1)
    found = deliveries(store)
    found.add(row, DeliveryOutcome.SENT, 2)
    assert not found.is_sent(row | {"pixel_digest": "f" * 64})
    assert not found.is_sent(row | {"core_version": "9.9"})


def test_batches_are_written_before_the_end(tmp_path: Path) -> None:
    store = Warehouse(tmp_path / "wh")
    found = deliveries(store)
    for number in range(150):
        found.add(score_row(number), DeliveryOutcome.SENT, 1)
    assert store.read(DELIVERIES).num_rows == 100
