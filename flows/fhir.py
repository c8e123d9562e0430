"""`cac export --fhir`: scores as FHIR R4 bundles, one file per study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from cac_core.cohort.scores import chosen_model, scores_of
from cac_core.errors import UsageError
from cac_core.model.weights import model_id_of
from cac_core.report.fhir import study_bundle
from flows.request import open_warehouse, read_settings
from flows.runtime.known_folders import remember_folder
from flows.runtime.results_folder import results_folder
from flows.summaries import ExportedFile, ExportSummary
from schemas.codes import Status

_HOLDS = "FHIR export"


def export_fhir(
    warehouse: str | None,
    config: str | None,
    model: str | None,
    studies: Sequence[str],
    out: Path,
) -> ExportSummary:
    """Write the bundle of each scored study, `<study_key>.json`.

    Parameters
    ----------
    model : id of a model or folder of weights; may be left out if the warehouse has one model only.
    studies : study keys; empty for all.

    Raises
    ------
    UsageError
        If a study has no score, or several models and none is named.
    CacError
        If nothing is scored yet, or the folder cannot be written.
    """
    settings = read_settings(config)
    store = open_warehouse(warehouse, settings)
    chosen = chosen_model(store, None if model is None else model_id_of(model))
    table = scores_of(store, chosen, settings.protocol.digest)
    rows = table.filter(pc.equal(table["status"], Status.SCORED.value)).to_pylist()
    by_key = {row["study_key"]: row for row in rows}
    unknown = [key for key in studies if key not in by_key]
    if unknown:
        raise UsageError(
            f"{store.url} has no score of {chosen} for the study {unknown[0]!r}.",
            "Take study keys from the column `study_key` of the table `scores`.",
        )
    keys = list(studies) or sorted(by_key)
    remember_folder(store, out, _HOLDS)
    with results_folder(out, _HOLDS, whole=False) as folder:
        for key in keys:
            bundle = study_bundle(by_key[key], chosen, research=settings.results.research)
            text = json.dumps(bundle, indent=1) + "\n"
            (folder / f"{key}.json").write_text(text, encoding="utf-8")
    run = str(by_key[keys[-1]]["run_id"]) if keys else ""
    return ExportSummary(run, [ExportedFile(str(out / f"{key}.json"), 1) for key in keys])
