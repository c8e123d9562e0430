"""`cac export`: the linked tables of a warehouse as files for other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cac_core.cohort.export import export_tables, write_tables
from cac_core.cohort.outcomes import OutcomeDefinition
from cac_core.errors import CacError
from cac_core.settings import load_settings
from flows.request import open_warehouse
from flows.runtime.results_folder import results_folder
from flows.summaries import ExportedFile, ExportSummary
from schemas.linkage import EVENTS, LINKAGES
from schemas.linked import linked_table


def export_linked(
    warehouse: str | None, config: str | None, shapes: Sequence[str], file_format: str, out: Path
) -> ExportSummary:
    """Write the last linkage of a warehouse in the given shapes.

    Raises
    ------
    UsageError
        If the folder holds a file of that name that is not from an earlier export.
    CacError
        If nothing is linked yet, or the folder cannot be written.
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
                ExportedFile(str(out / path.name), table.num_rows)
                for path, table in zip(files, tables.values(), strict=True)
            ]
    return ExportSummary(runs[-1]["run_id"], written)
