"""`cac status`: what a warehouse holds."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from cac_core.cohort.fingerprint import same_secret
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from cac_core.keys import load_keyring
from cac_core.settings import Settings
from flows.request import open_warehouse, read_settings
from flows.summaries import Rows, StatusSummary
from schemas.run import RUNS
from schemas.score import SCORES

_COUNTED = ("status", "reason", "cac_category", "needs_review")
_SHOWN = (
    "run_id", "job", "started_at", "outcome", "studies", "scored", "rejected", "failed", "skipped",
    "seconds", "model_id",
)  # fmt: skip
_MOST_RUNS = 10


def warehouse_status(
    warehouse: str | None, config: str | None, page: Path | None = None
) -> StatusSummary:
    """Count the scores of a warehouse per model, and list its last runs.

    Parameters
    ----------
    page : file to write the archive page into; None writes none.

    Raises
    ------
    CacError
        If there is no warehouse at that place, or the page cannot be written.
    """
    settings = read_settings(config)
    store = open_warehouse(warehouse, settings)
    if not store.exists():
        raise CacError(
            f"There is no warehouse at {store.url}.", "Make one with: cac score ARCHIVE -w DIR"
        )
    if page is not None:
        from flows.pages.archive import write_archive_page

        write_archive_page(store, page)
    # Only the columns that are counted, and without SQL: to validate whole tables and to import
    # DuckDB and pandas takes longer than the rest.
    models, older = {}, {}
    for model in store.models():
        scores = store.columns(SCORES, (*_COUNTED, "study_key", "scored_at"), model)
        newest = _newest(scores)
        models[model], older[model] = _counts(newest), scores.num_rows - len(newest)
    runs = _last_runs(store.columns(RUNS, _SHOWN))
    return StatusSummary(
        warehouse=store.url,
        models=models,
        runs=runs,
        secret=_secret(store, settings),
        older_rows=older,
    )


def _secret(store: Warehouse, settings: Settings) -> str:
    """Whether the secret of this shell is that of the warehouse; status itself needs none."""
    if store.fingerprint() is None:
        return "no_fingerprint"
    try:
        keyring = load_keyring(settings.key_file)
    except CacError:
        return "not_given"
    return "same" if same_secret(store, keyring) else "another"


def _newest(scores: pa.Table) -> list[tuple[Any, ...]]:
    """What is counted of the newest row of each study, under any protocol."""
    columns = zip(*(scores[name].to_pylist() for name in _COUNTED), strict=True)
    rows = sorted(
        zip(
            _as_numbers(scores, "scored_at"), scores["study_key"].to_pylist(), columns, strict=True
        ),
        key=lambda row: row[0],
    )
    return list({key: counted for _, key, counted in rows}.values())


def _counts(rows: Iterable[tuple[Any, ...]]) -> Rows:
    """Studies by status, reason and category, most frequent first; how many need review."""
    counts: dict[tuple[str, str | None, str | None], list[int]] = {}
    for (*group, needs_review), studies in Counter(rows).items():
        found = counts.setdefault(tuple(group), [0, 0])
        found[0] += studies
        found[1] += studies if needs_review else 0
    groups: Rows = [
        {"status": status, "reason": reason, "cac_category": category, "studies": studies,
         "need_review": need_review}
        for (status, reason, category), (studies, need_review) in counts.items()
    ]  # fmt: skip
    groups.sort(
        key=lambda row: (-row["studies"], *map(_nulls_last, (row["reason"], row["cac_category"])))
    )
    groups.sort(key=lambda row: row["status"], reverse=True)
    return groups


def _nulls_last(text: str | None) -> tuple[bool, str]:
    return text is None, text or ""


def _as_numbers(table: pa.Table, name: str) -> list[int]:
    """A column of timestamps in microseconds.

    PyArrow imports pandas to make a datetime of a timestamp, but not of a number; its functions
    that compute take longer to import than these rows to sort.
    """
    return [at for part in table[name].chunks for at in part.view(pa.int64()).to_pylist()]


def _last_runs(runs: pa.Table) -> Rows:
    """The newest runs first."""
    started = _as_numbers(runs, "started_at")
    others = runs.drop_columns(["started_at"]).to_pylist()
    rows = [row | {"started_at": at} for row, at in zip(others, started, strict=True)]
    newest = sorted(rows, key=lambda row: row["started_at"], reverse=True)[:_MOST_RUNS]
    begin = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return [
        row | {"started_at": begin + dt.timedelta(microseconds=row["started_at"])} for row in newest
    ]
