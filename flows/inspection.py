"""What the commands tell without a Prefect run: dry run, index, status, key lookup."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from cac_core.cohort.store import Warehouse, run_sql
from cac_core.cohort.worklist import wanted_studies
from cac_core.dicom.index import ArchiveIndex, index_archive
from cac_core.dicom.rules import load_rules, text_policy
from cac_core.dicom.select import select_series
from cac_core.dicom.series import series_table
from cac_core.errors import CacError, UsageError
from cac_core.keys import load_keyring
from cac_core.settings import load_settings
from flows.request import (
    Request,
    archive_roots,
    index_workers,
    open_warehouse,
    prepare,
    require_ct,
)
from flows.runtime.progress import RunProgress
from schemas.instance import INSTANCES
from schemas.run import RUNS
from schemas.score import SCORES
from schemas.series import SERIES


def preview_run(**parameters: Any) -> dict[str, Any]:
    """What `cac score` would do with these arguments; writes nothing."""
    prepared = prepare(Request(**parameters | {"archive": tuple(parameters["archive"])}))
    previous = prepared.warehouse.read(INSTANCES)
    archive = index_archive(
        prepared.roots,
        prepared.keyring,
        previous=previous,
        workers=prepared.index_workers,
        texts=prepared.texts,
    )
    require_ct(archive)
    series = select_series(series_table(archive.instances), prepared.rules)
    wanted = wanted_studies(archive.instances, series, prepared.identity)
    model_id = prepared.weights.model_id
    delta = prepared.warehouse.pending(wanted, model_id)
    pending = delta.slice(0, prepared.limit)
    reasons = Counter(reason for reason in pending["reason"].to_pylist() if reason)
    return {
        "dry_run": True,
        "files": archive.n_files,
        "file_reasons": archive.reasons,
        "studies": wanted.num_rows,
        "to_score": pending.num_rows - sum(reasons.values()),
        "to_reject": dict(reasons),
        "left": delta.num_rows - pending.num_rows,
        "skipped": wanted.num_rows - delta.num_rows,
        "warehouse": prepared.warehouse.url,
        "model": model_id,
    }


def index_only(
    archive: list[str], warehouse: str | None, config: str | None, progress: RunProgress
) -> dict[str, Any]:
    """Index the archive, choose the series, and publish both tables."""
    settings = load_settings(None if config is None else Path(config))
    roots = archive_roots(tuple(archive), settings)
    store = open_warehouse(warehouse, settings)
    keyring, rules = load_keyring(settings.key_file), load_rules(settings.rules)
    store.check_writable()
    with progress.counting("headers read") as report:
        found = index_archive(
            roots,
            keyring,
            previous=store.read(INSTANCES),
            workers=index_workers(settings),
            texts=text_policy(rules, keep=settings.privacy.keep_descriptions),
            progress=report,
        )
    require_ct(found)
    series = select_series(series_table(found.instances), rules)
    with store.lock():
        store.replace(INSTANCES, found.instances)
        store.replace(SERIES, series)
    return _index_result(found, series.to_pylist(), store)


def warehouse_status(
    warehouse: str | None, config: str | None, page: Path | None = None
) -> dict[str, Any]:
    """Counts of what a warehouse holds, per model, and its last runs.

    Parameters
    ----------
    page : also write the page of the archive here.

    Raises
    ------
    CacError
        If there is no warehouse at that place, or the page cannot be written.
    """
    store = open_warehouse(warehouse, load_settings(None if config is None else Path(config)))
    if not store.exists():
        raise CacError(
            f"There is no warehouse at {store.url}.", "Make one with: cac score ARCHIVE -w DIR"
        )
    if page is not None:
        from flows.pages.archive import write_archive_page  # it draws: a second to import

        write_archive_page(store, page)
    models = {}
    for model in store.models():
        scores = store.read(SCORES, model)
        models[model] = run_sql("status", scores=scores).to_pylist()
    runs = run_sql("last_runs", runs=store.read(RUNS)).to_pylist()
    return {"warehouse": store.url, "models": models, "runs": runs}


def lookup(key: str, archive: list[str], config: str | None) -> list[str]:
    """Files of the archive behind a patient, study or file key; needs the secret.

    Raises
    ------
    UsageError
        If the key is malformed.
    CacError
        If no file of the archive has the key.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", key):
        raise UsageError(
            "That is no key.", "A key has 32 lower-case hexadecimal digits, as in the tables."
        )
    settings = load_settings(None if config is None else Path(config))
    roots = archive_roots(tuple(archive), settings)
    found = index_archive(roots, load_keyring(settings.key_file), workers=index_workers(settings))
    table = found.instances
    matches = pc.or_kleene(
        pc.or_kleene(pc.equal(table["study_key"], key), pc.equal(table["patient_key"], key)),
        pc.equal(table["path_key"], key),
    )
    keys = table.filter(pc.fill_null(matches, False))["path_key"].to_pylist()
    if not keys:
        raise CacError(
            "No file of this archive has that key.",
            "The key comes from another archive, or was made under another secret.",
        )
    return sorted(str(found.paths[path_key]) for path_key in keys)


def _index_result(
    found: ArchiveIndex, series: list[dict[str, Any]], store: Warehouse
) -> dict[str, Any]:
    reasons = Counter(row["reason"] for row in series if not row["selected"])
    return {
        "files": found.n_files,
        "files_opened": found.n_opened,
        "file_reasons": found.reasons,
        "studies": len({row["study_key"] for row in series}),
        "series": len(series),
        "selected": sum(1 for row in series if row["selected"]),
        "series_reasons": dict(reasons),
        "seconds": round(found.seconds, 3),
        "headers_per_second": round(found.n_opened / found.seconds, 1) if found.seconds else 0.0,
        "warehouse": store.url,
    }
