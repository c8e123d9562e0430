"""`cac export`: the linked tables of a warehouse as files for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cac_core.cohort.export import export_tables, write_tables
from cac_core.cohort.linked import read_linked
from flows.request import open_warehouse, read_settings
from flows.runtime.results_folder import results_folder
from flows.summaries import ExportedFile, ExportSummary


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
    store = open_warehouse(warehouse, read_settings(config))
    cohort = read_linked(store)
    written = []
    with results_folder(out, "export", whole=False) as folder:
        for shape in shapes:
            tables = export_tables(
                cohort.linked, cohort.events, cohort.outcomes, shape, cohort.run["site"]
            )
            files = write_tables(tables, folder, file_format)
            written += [
                ExportedFile(str(out / path.name), table.num_rows)
                for path, table in zip(files, tables.values(), strict=True)
            ]
    return ExportSummary(cohort.run["run_id"], written)
