"""Pages of single studies from a warehouse; without Prefect, torch or DICOM."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cac_core.cohort.outcomes import OutcomeDefinition
from cac_core.cohort.scores import chosen_model
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import UsageError
from cac_core.report.study_page import StudyRecord, write_study_pages
from schemas.lesion import LESIONS
from schemas.linkage import LINKAGES
from schemas.linked import linked_table
from schemas.preview import PREVIEWS
from schemas.run import RUNS
from schemas.score import SCORES
from schemas.table import TableSpec

#: Studies whose pictures are in memory at the same time.
_AT_ONCE = 500


def write_pages(
    store: Warehouse,
    studies: Sequence[str],
    folder: Path,
    model: str | None = None,
    report: str | None = None,
) -> dict[str, Path]:
    """Write the page of each study, `<study_key>.html`, and return the paths by key.

    Parameters
    ----------
    studies : study keys.
    model : model of the scores; may be left out if the warehouse has one model only.
    report : address of the report that the pages belong to, relative to the folder.

    Raises
    ------
    UsageError
        If the warehouse has no score of a study, or several models and none is named.
    CacError
        If a table cannot be read or the folder cannot be written.
    """
    keys = sorted(set(studies))
    records = study_records(store, keys, chosen_model(store, model))
    return write_study_pages(records, folder, report)


def study_records(store: Warehouse, keys: Sequence[str], model: str) -> Iterator[StudyRecord]:
    """What the warehouse holds about each study, for its page; in order of the keys.

    Raises
    ------
    UsageError
        If the warehouse has no score of a study.
    CacError
        If a table cannot be read.
    """
    linked = {row["study_key"]: row for row in _linked(store, keys)}
    versions = {row["run_id"]: json.loads(row["versions"]) for row in store.read(RUNS).to_pylist()}
    for begin in range(0, len(keys), _AT_ONCE):
        batch = keys[begin : begin + _AT_ONCE]
        scores = _newest(store.read(SCORES, model, studies=batch).to_pylist())
        unknown = [key for key in batch if key not in scores]
        if unknown:
            raise UsageError(
                f"{store.url} has no score row of {model} for {len(unknown)} of the studies, "
                f"the first is {unknown[0]!r}.",
                "Take study keys from the column `study_key` of the table `scores`.",
            )
        details = {spec.name: _details(store, spec, model, batch) for spec in (LESIONS, PREVIEWS)}
        for key, score in sorted(scores.items()):
            identity = key, score["protocol_digest"]
            yield StudyRecord(
                model,
                score,
                details[LESIONS.name][identity],
                details[PREVIEWS.name][identity],
                linked.get(key),
                versions.get(score["run_id"], {}),
            )


def _newest(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The newest row of each study, of any protocol."""
    return {row["study_key"]: row for row in sorted(rows, key=lambda row: row["scored_at"])}


def _details(
    store: Warehouse, spec: TableSpec, model: str, studies: Sequence[str]
) -> defaultdict[tuple[str, str], list[dict[str, Any]]]:
    found: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in store.read(spec, model, studies=studies).to_pylist():
        found[row["study_key"], row["protocol_digest"]].append(row)
    return found


def _linked(store: Warehouse, studies: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the last linkage; empty if nothing is linked yet."""
    runs = store.read(LINKAGES).sort_by("started_at").to_pylist()
    if not runs:
        return []
    outcomes = OutcomeDefinition.model_validate(json.loads(runs[-1]["definition"]))
    spec = linked_table(tuple(outcomes.outcome))
    rows: list[dict[str, Any]] = store.read(spec, studies=studies).to_pylist()
    return rows
