"""Linked tables for other programs, out of a warehouse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cac_core.cohort.export import export_tables, write_tables
from cac_core.cohort.outcomes import OutcomeDefinition
from cac_core.errors import CacError
from cac_core.settings import load_settings
from flows.request import open_warehouse
from flows.runtime.results_folder import results_folder
from schemas.linkage import EVENTS, LINKAGES
from schemas.linked import linked_table


def export_linked(
    warehouse: str | None, config: str | None, shapes: list[str], file_format: str, out: Path
) -> dict[str, Any]:
    """Write the last linkage of a warehouse in the given shapes.

    Raises
    ------
    UsageError
        If a file of that name is in the folder and is not from an earlier export.
    CacError
        If nothing was linked yet, or the folder cannot be written.
    """
    store = open_warehouse(warehouse, load_settings(None if config is None else Path(config)))
    runs = store.read(LINKAGES).sort_by("started_at").to_pylist()
    if not runs:
        raise CacError(f"Nothing is linked in {store.url} yet.", "Run `cac link` first.")
    outcomes = OutcomeDefinition.model_validate(json.loads(runs[-1]["definition"]))
    linked, events = store.read(linked_table(tuple(outcomes.outcome))), store.read(EVENTS)
    written = []
    with results_folder(out, "export", whole=False) as folder:
        for shape in shapes:
            tables = export_tables(linked, events, outcomes, shape, runs[-1]["site"])
            files = write_tables(tables, folder, file_format)
            written += [
                {"file": str(out / path.name), "rows": table.num_rows}
                for path, table in zip(files, tables.values(), strict=True)
            ]
    return {"run_id": runs[-1]["run_id"], "files": written}
