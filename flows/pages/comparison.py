"""Comparison of two runs: of two warehouses, or of two models of one warehouse."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from cac_core.cohort.scores import scores_of
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import UsageError
from cac_core.report.comparison import ComparisonSummary, Run, compare_runs, summarise
from cac_core.report.comparison_page import comparison_files
from cac_core.settings import Settings, load_settings
from flows.request import open_warehouse
from flows.runtime.results_folder import require_replaceable, results_folder, write_files
from schemas.linkage import FLOW, LINKAGES
from schemas.results import ANALYSES, ESTIMATES
from schemas.run import RUNS

#: Name of the contents of the folder, in messages.
_CONTENTS = "comparison"


def run_comparison(
    old: str,
    new: str,
    out: Path,
    warehouse: str | None = None,
    config: str | None = None,
    *,
    dry_run: bool = False,
) -> ComparisonSummary:
    """Compare two warehouses, or two models of one, and write the page into `out`.

    Parameters
    ----------
    old, new : warehouses, or models of `warehouse`.
    dry_run : compare, and write nothing.

    Raises
    ------
    UsageError
        If a side is neither a warehouse nor a model, both are the same, or `out` holds something
        else.
    CacError
        If a table cannot be read or the folder cannot be written.
    """
    if old == new:
        raise UsageError(f"{old} is both the old and the new run.", "Name two runs.")
    require_replaceable(out, _CONTENTS)
    settings = load_settings(None if config is None else Path(config))
    shared = open_warehouse(warehouse, settings) if warehouse or settings.warehouse else None
    found = compare_runs(_run(old, shared, settings), _run(new, shared, settings))
    if not dry_run:
        with results_folder(out, _CONTENTS) as folder:
            write_files(comparison_files(found), folder)
    return summarise(found, str(out / "index.html"))


def _run(name: str, shared: Warehouse | None, settings: Settings) -> Run:
    """One side of the comparison, named by a model or a warehouse."""
    if shared is not None and name in shared.models():
        return _read(shared, name, name)
    store = open_warehouse(name, settings)
    models = store.models()
    if not models:
        known = "" if shared is None else f" and {shared.url} has no model of that name"
        raise UsageError(
            f"{name} is not a warehouse with scores{known}.",
            "Name two warehouses, or with --warehouse two of its models (`cac status` lists them).",
        )
    runs = store.read(LINKAGES).sort_by("started_at").to_pylist()
    model = runs[-1]["model_id"] if runs else models[0]
    if not runs and len(models) > 1:
        raise UsageError(
            f"{name} has scores of several models.",
            f"Compare models with --warehouse {name}: {', '.join(models)}.",
        )
    return _read(store, model, name)


def _read(store: Warehouse, model: str, name: str) -> Run:
    analyses = store.read(ANALYSES).sort_by("started_at").to_pylist()
    linkages = store.read(LINKAGES).sort_by("started_at").to_pylist()
    # Estimates and flow belong to the model of the last linkage only.
    mine = [row for row in analyses if row["model_id"] == model][-1:]
    linked = [row for row in linkages[-1:] if row["model_id"] == model]
    estimated = bool(mine) and bool(linked) and store.has(ESTIMATES)
    runs = [row for row in store.read(RUNS).to_pylist() if row["model_id"] == model]
    runs.sort(key=lambda row: row["started_at"])
    flow = Counter(store.read(FLOW)["step"].to_pylist()) if linked else {}
    return Run(
        name,
        scores_of(store, model),
        store.read(ESTIMATES) if estimated else None,
        flow,
        _run_settings(model, runs[-1:], linked, mine),
    )


def _run_settings(model: str, *rows: list[dict[str, Any]]) -> dict[str, str]:
    """Digests, versions and settings of the last run of each job, by name."""
    settings = {"model": model}
    for job, found in zip(("scoring", "linkage", "analysis"), rows, strict=True):
        for row in found:
            for column in ("model_digest", "protocol_digest", "rules_digest", "core_version"):
                if column in row:
                    settings[f"{job}: {column.replace('_', ' ')}"] = row[column]
            for name, version in json.loads(row["versions"]).items():
                settings[f"{job}: {name}"] = version
            for name, value in _declared(job, row).items():
                settings[f"{job}: {name}"] = json.dumps(value, sort_keys=True)
    return settings


def _declared(job: str, row: dict[str, Any]) -> dict[str, Any]:
    """Keys of the plan or of the outcome definition; never a path."""
    if job == "analysis":
        plan: dict[str, Any] = json.loads(row["plan"])
        return {f"plan, {name}": value for name, value in plan.items()}
    if job == "linkage":
        definition: dict[str, Any] = json.loads(row["definition"])
        return {f"definition, {name}": value for name, value in definition.items()}
    return {}
