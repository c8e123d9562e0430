"""The nightly rescoring: index, choose, delta against the ledger, shards over Dask, publish."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import platform
import secrets
from collections.abc import Iterator
from importlib.metadata import version
from time import monotonic
from typing import Any

import pyarrow as pa
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from cac_core.cohort.worklist import wanted_studies
from cac_core.dicom.index import ArchiveIndex
from cac_core.errors import CacError
from cac_core.version import __version__
from flows.pages.archive import publish_archive_page
from flows.request import Prepared, Request, named_archive, prepare, require_ct
from flows.runtime.dask_cluster import cluster_client
from flows.runtime.progress import RunProgress, current_progress
from flows.summaries import RunSummary
from schemas.instance import INSTANCES
from schemas.series import SERIES
from tasks.archive import choose_series, index
from tasks.scoring import Shards, publish, score_shard
from tasks.worker import CascadePlugin

_LIBRARIES = ("prefect", "distributed", "torch", "pydicom", "pyarrow", "duckdb", "pandera", "numpy")

_SHARD_SIZE, _STUDIES_PER_THREAD = 250, 20


@flow(name="nightly-rescore", persist_result=False, validate_parameters=False)
def nightly_rescore(
    warehouse: str | None = None,
    config: str | None = None,
    model: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
) -> dict[str, Any]:
    """Score every study of the archive that the ledger does not hold yet.

    Parameters
    ----------
    warehouse, config, model, limit : as the options of `cac score`. The archive is named by the
        settings file or by `flows.request.naming`.
    retry_failed : score studies again whose last row has status `failed`.

    Returns
    -------
    The summary that `cac score --json` prints.
    """
    request = Request(named_archive(), warehouse, config, model, limit, retry_failed)
    prepared = prepare(request)
    with prepared.warehouse.lock():
        return _Rescoring(prepared, current_progress()).run().as_dict()


class _Rescoring:
    """One run, step by step; keeps what the run row at the end has to tell."""

    def __init__(self, prepared: Prepared, progress: RunProgress) -> None:
        self.prepared = prepared
        self.progress = progress
        self.started_at = dt.datetime.now(dt.UTC)
        self.clock = monotonic()
        self.run_id = f"{self.started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.model_id = prepared.weights.model_id

    def run(self) -> RunSummary:
        prepared, store = self.prepared, self.prepared.warehouse
        archive = self._index()
        series = choose_series(archive.instances, prepared.rules)
        wanted = wanted_studies(archive.instances, series, prepared.identity)
        store.replace(INSTANCES, archive.instances)
        store.replace(SERIES, series)
        publish(store, self.model_id)  # what a killed run left finished but unpublished
        delta = store.pending(wanted, self.model_id, retry_failed=prepared.retry_failed)
        pending = delta.slice(0, prepared.limit)
        self.progress.say(
            f"{archive.n_files} files ({archive.n_opened} opened), {wanted.num_rows} studies, "
            f"{pending.num_rows} to score"
        )
        outcome = "interrupted"
        try:
            if pending.num_rows:
                self._score(pending, archive)
            outcome = "completed"
        finally:
            publish(store, self.model_id)
            summary = self._summarise(archive, wanted.num_rows, delta.num_rows, outcome)
        summary = dataclasses.replace(summary, archive_page=self._archive_page())
        create_markdown_artifact(key="nightly-rescore", markdown=summary.as_markdown())
        return summary

    def _index(self) -> ArchiveIndex:
        prepared = self.prepared
        previous = prepared.warehouse.read(INSTANCES)
        with self.progress.counting("headers read") as report:
            archive = index(
                prepared.roots,
                prepared.keyring,
                previous,
                prepared.index_workers,
                prepared.texts,
                report,
            )
        require_ct(archive)
        return archive

    def _score(self, pending: pa.Table, archive: ArchiveIndex) -> None:
        settings = self.prepared.settings
        shards = Shards(
            store=self.prepared.warehouse,
            model_id=self.model_id,
            identity=self.prepared.identity,
            protocol=settings.protocol,
            scoring=settings.scoring,
            archive=archive,
            run_id=self.run_id,
            on_study=self.progress.study_done,
        )
        if settings.cluster.exposure:
            self.progress.say(f"warning: {settings.cluster.exposure}")
        weights = self.prepared.weights
        plugin = CascadePlugin(str(weights.folder), weights.digest)
        with (
            cluster_client(settings.cluster, plugin) as client,
            self.progress.scoring(pending.num_rows),
        ):
            threads = sum(client.nthreads().values())
            parts = list(_shards(pending, settings.scoring.shard_size, threads))
            for number, part in enumerate(parts, start=1):
                score_shard.named(f"shard-{number}-of-{len(parts)}")(shards, client, number, part)
                shards.publish_if_due()
                self.progress.shard_done(number, len(parts))

    def _archive_page(self) -> str | None:
        """Where the page of the archive is; None, and a line, where it could not be written."""
        try:
            return publish_archive_page(self.prepared.warehouse)
        except (CacError, OSError) as error:
            self.progress.say(f"The scores are safe; the page of the archive is not made: {error}")
            return None

    def _summarise(
        self, archive: ArchiveIndex, studies: int, delta: int, outcome: str
    ) -> RunSummary:
        prepared, counts = self.prepared, self.progress.statuses
        budget = prepared.settings.scoring.failure_budget
        done = sum(counts.values())
        if outcome == "completed" and counts["failed"] > budget * max(done, 1):
            outcome = "over_budget"
        summary = RunSummary(
            run_id=self.run_id,
            outcome=outcome,
            studies=studies,
            scored=counts["scored"],
            rejected=counts["rejected"],
            failed=counts["failed"],
            skipped=studies - delta,
            left=delta - done,
            reasons=dict(self.progress.reasons),
            file_reasons=archive.reasons,
            seconds=monotonic() - self.clock,
            seconds_scoring=self.progress.seconds,
            warehouse=prepared.warehouse.url,
            model=self.model_id,
        )
        prepared.warehouse.add_run(self._run_row(summary, archive))
        return summary

    def _run_row(self, summary: RunSummary, archive: ArchiveIndex) -> dict[str, object]:
        prepared, identity = self.prepared, self.prepared.identity
        libraries = {name: version(name) for name in _LIBRARIES}
        return {
            "run_id": self.run_id,
            "job": "retry" if prepared.retry_failed else "nightly-rescore",
            "started_at": self.started_at,
            "finished_at": dt.datetime.now(dt.UTC),
            "outcome": summary.outcome,
            "files": archive.n_files,
            "files_opened": archive.n_opened,
            "studies": summary.studies,
            "scored": summary.scored,
            "rejected": summary.rejected,
            "failed": summary.failed,
            "skipped": summary.skipped,
            "reasons": json.dumps(summary.reasons, sort_keys=True),
            "file_reasons": json.dumps(summary.file_reasons, sort_keys=True),
            "seconds": summary.seconds,
            "model_id": self.model_id,
            "model_digest": identity.model_digest,
            "protocol_digest": identity.protocol_digest,
            "rules_digest": identity.rules_digest,
            "core_version": __version__,
            "settings": json.dumps(prepared.settings.public(), sort_keys=True),
            "versions": json.dumps({"python": platform.python_version(), **libraries}),
        }


def _shards(pending: pa.Table, size: int | None, threads: int) -> Iterator[pa.Table]:
    """Cut into shards; large clusters get larger ones, or each shard's end would idle them."""
    size = size or max(_SHARD_SIZE, _STUDIES_PER_THREAD * threads)
    for start in range(0, pending.num_rows, size):
        yield pending.slice(start, size)
