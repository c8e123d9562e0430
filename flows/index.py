"""`cac index`: index an archive and select the CTAC series, without scoring and without Prefect."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence

from cac_core.cohort.fingerprint import keep_fingerprint
from cac_core.keys import ignored_secret
from flows.planning import read_archive
from flows.request import prepare_indexing
from flows.runtime.progress import RunProgress
from flows.summaries import IndexSummary


def index(
    archive: Sequence[str],
    warehouse: str | None,
    config: str | None,
    progress: RunProgress,
    *,
    dry_run: bool = False,
) -> IndexSummary:
    """Index the archive, select the series, and publish both tables unless it is a dry run.

    Raises
    ------
    CacError
        If the request is wrong, the archive holds no CT, or the warehouse cannot be written.
    """
    prepared = prepare_indexing(tuple(archive), warehouse, config)
    if shadowed := ignored_secret(prepared.settings.key_file):
        progress.say(f"warning: {shadowed}")
    store = prepared.warehouse
    # Read under the lock: rows of a patient who is being forgotten must not come back.
    with contextlib.nullcontext() if dry_run else store.lock():
        content = read_archive(prepared, progress)
        found = content.index
        if not dry_run:
            keep_fingerprint(store, prepared.keyring)
            content.keep(store)
    series = content.series.select(["study_key", "selected", "reason"]).to_pylist()
    return IndexSummary(
        files=found.n_files,
        files_opened=found.n_opened,
        file_reasons=found.reasons,
        studies=len({row["study_key"] for row in series}),
        series=len(series),
        selected=sum(row["selected"] for row in series),
        series_reasons=dict(Counter(row["reason"] for row in series if not row["selected"])),
        seconds=round(found.seconds, 3),
        headers_per_second=round(found.n_opened / found.seconds, 1) if found.seconds else 0.0,
        warehouse=store.url,
        dry_run=dry_run,
    )
