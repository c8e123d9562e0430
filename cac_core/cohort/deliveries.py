"""What was sent to a PACS: nothing goes twice, and what it did not take is tried again.

The UIDs of the objects of a study follow from its images, model, protocol, version and pixels. So a
delivery holds for a score as long as these are the same.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from cac_core.cohort.warehouse import Warehouse
from schemas.codes import DeliveryOutcome
from schemas.delivery import DELIVERIES

_SCORE = ("study_key", "protocol_digest", "core_version", "pixel_digest")
#: Rows that are kept back before they are written: each write is a file.
_BATCH = 100


class Deliveries:
    """Deliveries of the scores of a model to one receiver; written in batches and at `close`.

    Parameters
    ----------
    store : the warehouse.
    model_id : model of the scores.
    address : of the receiver.
    kinds : of the objects.
    """

    def __init__(self, store: Warehouse, model_id: str, address: str, kinds: Sequence[str]) -> None:
        self._store = store
        self._common = {
            "model_id": model_id,
            "receiver": hashlib.sha256(address.encode()).hexdigest()[:16],
            "kinds": ",".join(sorted(kinds)),
        }
        self._new: list[dict[str, Any]] = []
        rows = store.read(DELIVERIES).sort_by("tried_at").to_pylist()
        self._latest = {
            _score(row): row["outcome"]
            for row in rows
            if all(row[name] == value for name, value in self._common.items())
        }

    def is_sent(self, row: Mapping[str, Any]) -> bool:
        """Whether the receiver has the objects of a row of `scores`."""
        return self._latest.get(_score(row)) == DeliveryOutcome.SENT

    def waits(self, row: Mapping[str, Any]) -> bool:
        """Whether the receiver did not take them when they were last sent."""
        return self._latest.get(_score(row)) == DeliveryOutcome.NOT_SENT

    def add(self, row: Mapping[str, Any], outcome: DeliveryOutcome, n_objects: int) -> None:
        """Note what became of the objects of a row of `scores`.

        Raises
        ------
        CacError
            If a full batch cannot be written.
        """
        self._latest[_score(row)] = outcome.value
        new = {"delivery_id": uuid.uuid4().hex, "outcome": outcome.value, "n_objects": n_objects}
        score = {name: row[name] for name in _SCORE}
        self._new.append(new | score | self._common | {"tried_at": dt.datetime.now(dt.UTC)})
        if len(self._new) >= _BATCH:
            self.close()

    def close(self) -> None:
        """Write what was noted.

        Raises
        ------
        CacError
            If it cannot be written.
        """
        if self._new:
            table = DELIVERIES.from_rows(self._new)
            self._store.files.add_table(DELIVERIES, uuid.uuid4().hex, table)
            self._new = []


def _score(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in _SCORE)
