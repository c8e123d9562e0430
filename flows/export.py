"""`cac export`: the linked tables of a warehouse as files for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cac_core.analysis.plan import Plan, load_plan
from cac_core.analysis.r_script import r_script
from cac_core.cohort.export import export_tables
from cac_core.cohort.export_files import write_tables
from cac_core.cohort.linked import read_linked
from cac_core.cohort.warehouse import Warehouse
from cac_core.scratch import scratch_folder
from cac_core.settings import Settings
from flows.request import open_warehouse, read_settings
from flows.runtime.known_folders import remember_folder
from flows.runtime.results_folder import results_folder
from flows.summaries import ExportedFile, ExportSummary, PlannedWrites
from schemas.results import ANALYSES

#: Formats of `linked` that R reads without further packages, or with arrow.
_R_FORMATS = ("parquet", "csv")
_SCRIPTS = (".R", ".sas")


def export_linked(
    warehouse: str | None,
    config: str | None,
    shapes: Sequence[str],
    file_format: str,
    out: Path,
    *,
    known: bool = True,
) -> ExportSummary:
    """Write the last linkage of a warehouse in the given shapes, and scripts that read it.

    Parameters
    ----------
    known : the warehouse remembers the folder, so that `cac forget` finds it.

    Raises
    ------
    UsageError
        If the folder holds a file of that name that is not from an earlier export.
    CacError
        If nothing is linked yet, or the folder cannot be written.
    """
    settings = read_settings(config)
    store = open_warehouse(warehouse, settings)
    cohort = read_linked(store)
    written = []
    if known:
        remember_folder(store, out, "export")
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
        if "linked" in shapes and file_format in _R_FORMATS:
            text = r_script(_plan(store, settings))
            (folder / "analysis.R").write_text(text, encoding="utf-8")
        scripts = sorted(path.name for path in folder.iterdir() if path.suffix in _SCRIPTS)
    return ExportSummary(cohort.run["run_id"], written, [str(out / name) for name in scripts])


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
        made = export_linked(warehouse, config, shapes, file_format, folder / "export", known=False)
    files = {str(out / Path(item.file).name): item.rows for item in made.files}
    scripts = [str(out / Path(script).name) for script in made.scripts]
    return PlannedWrites([*(f"{name}: {rows} rows" for name, rows in files.items()), *scripts])


def _plan(store: Warehouse, settings: Settings) -> Plan:
    """The plan of the last analysis, else that of the settings, else the shipped one."""
    runs = store.read(ANALYSES).sort_by("started_at")
    if runs.num_rows:
        return Plan.model_validate_json(runs["plan"][-1].as_py())
    return load_plan(settings.analysis.plan)
