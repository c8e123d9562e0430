"""`cac export`: the linked tables of a warehouse as files for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cac_core.cohort.export import export_tables, write_tables
from cac_core.cohort.linked import read_linked
from cac_core.scratch import scratch_folder
from flows.request import open_warehouse, read_settings
from flows.runtime.results_folder import results_folder
from flows.summaries import ExportedFile, ExportSummary, PlannedWrites


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


def preview_export(
    warehouse: str | None, config: str | None, shapes: Sequence[str], file_format: str, out: Path
) -> PlannedWrites:
    """What an export would write: it goes into a private folder, which is removed.

    Raises
    ------
    CacError
        As `export_linked`.
    """
    with scratch_folder("cac-export-") as folder:
        made = export_linked(warehouse, config, shapes, file_format, folder / "export")
    files = {str(out / Path(item.file).name): item.rows for item in made.files}
    return PlannedWrites([f"{name}: {rows} rows" for name, rows in files.items()])
