"""The tables that the last linkage of a warehouse published."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cac_core.cohort.outcomes import OutcomeDefinition
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from schemas.codes import FlowStep
from schemas.linkage import EVENTS, FLOW, LINKAGES
from schemas.linked import linked_table
from schemas.table import TableSpec


@dataclass(frozen=True)
class LinkedCohort:
    """The last linkage: its row in `linkages`, its outcome definition, and its tables."""

    run: dict[str, Any]
    outcomes: OutcomeDefinition
    linked: pa.Table
    events: pa.Table
    flow: pa.Table

    @property
    def empty_because(self) -> list[str]:
        """Why no patient is in the analysis; without any reason if there are some."""
        if self.linked.num_rows:
            return []
        reasons: list[str] = json.loads(self.run["empty_because"] or "[]")
        return reasons or exclusions(self.flow)

    @property
    def spec(self) -> TableSpec:
        """Specification of `linked`, whose columns depend on the outcomes."""
        return linked_table(tuple(self.outcomes.outcome))


def read_linked(store: Warehouse) -> LinkedCohort:
    """Read the last linkage of a warehouse.

    Raises
    ------
    CacError
        If nothing is linked yet, or a table cannot be read.
    """
    runs = store.read(LINKAGES).sort_by("started_at").to_pylist()
    if not runs:
        raise CacError(f"Nothing is linked in {store.url} yet.", "Run `cac link` first.")
    outcomes = OutcomeDefinition.model_validate_json(runs[-1]["definition"])
    linked = store.read(linked_table(tuple(outcomes.outcome)))
    return LinkedCohort(runs[-1], outcomes, linked, store.read(EVENTS), store.read(FLOW))


def exclusions(flow: pa.Table) -> list[str]:
    """Why nobody is left: the steps at which patients leave, the most frequent first.

    Parameters
    ----------
    flow : table `flow` of a linkage that includes no patient.
    """
    steps = Counter(flow["step"].to_pylist()).most_common()
    listed = [FlowStep(step).description for step, _ in steps]
    return ["every patient leaves the cohort before the analysis", *listed]
