"""The nightly rescoring: index, select series, compare with the ledger, score, publish."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Literal

import pyarrow as pa
from prefect import State, flow

from cac_core.cohort.fingerprint import keep_fingerprint
from cac_core.cohort.warehouse import Warehouse
from cac_core.dicom.index import ArchiveIndex
from cac_core.errors import CacError
from cac_core.events import event
from cac_core.keys import ignored_secret
from flows.canaries import Canaries, check_canaries, chosen_canaries
from flows.night_watch import watched
from flows.pages.archive import publish_archive_page
from flows.planning import ArchiveContent, ScoringPlan, plan_scoring, read_archive
from flows.request import (
    PreparedScoring,
    ScoringRequest,
    current_archive,
    prepare_scoring,
    schedule_of,
)
from flows.runtime.attempts import attempted
from flows.runtime.dask_cluster import cluster_client
from flows.runtime.progress import UNCHANGED, RunProgress, current_progress
from flows.runtime.stamp import RunStamp
from flows.runtime.states import concluded, follow
from flows.runtime.worker_server import start_early
from flows.summaries import ScoringSummary
from tasks.archive_wait import ArchiveWait
from tasks.scoring import Shards, score_shard
from tasks.step import step
from tasks.worker import CascadePlugin

_LIBRARIES = ("prefect", "distributed", "torch", "pydicom", "pyarrow", "duckdb", "pandera", "numpy")

_SHARD_SIZE, _STUDIES_PER_THREAD = 250, 20

_Outcome = Literal["completed", "over_budget", "interrupted"]
_publish = step("publish")(Warehouse.publish)


@flow(name="nightly-rescore", persist_result=False, validate_parameters=False)
def nightly_rescore(
    warehouse: str | None = None,
    config: str | None = None,
    model: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    reasons: list[str] | None = None,
    scheduled: bool = False,
) -> ScoringSummary | State[ScoringSummary]:
    """Score every study of the archive that the ledger does not hold yet.

    Parameters
    ----------
    warehouse, config, model, limit : as the options of `cac score`. The archive comes from the
        settings file or from `flows.request.archive_of_run`.
    retry_failed : also score studies whose last row has status `failed`.
    reasons : of these, only those that failed for one of these reasons.
    scheduled : wait for the warehouse, try again, and link afterwards, as the settings say.

    Returns
    -------
    The summary that `cac score --json` prints; for a run over its failure budget, a state that
    holds it.
    """
    request = ScoringRequest(
        current_archive(),
        warehouse,
        config,
        model,
        limit,
        retry_failed,
        tuple(reasons or ()),
        scheduled,
    )
    return concluded("nightly-rescore", lambda: _scheduled(request))


def _scheduled(request: ScoringRequest) -> ScoringSummary:
    """Score; a scheduled run that was completed is followed by the linkage, if wanted."""
    schedule = schedule_of(request.config, request.scheduled)
    summary = attempted(lambda: rescore(request), schedule)
    if schedule is None or not schedule.link_after_score or summary.outcome != "completed":
        return summary
    from flows.linkage import registry_linkage

    followed = follow(
        registry_linkage, warehouse=request.warehouse, config=request.config, scheduled=True
    )
    return dataclasses.replace(summary, followed_by=followed)


def rescore(request: ScoringRequest) -> ScoringSummary:
    """Score what the ledger lacks; called inside a flow, whose task runs are the shards."""
    prepared = prepare_scoring(request)
    start_early(prepared.settings.cluster)
    stamp, progress = RunStamp(), current_progress()
    with prepared.warehouse.lock(), watched(prepared, stamp, progress) as watch:
        summary = _rescore(prepared, stamp, progress)
        if prepared.settings.results.nightly:
            _send_results(request, stamp.run_id, progress)
        return watch.finished(summary)


def _send_results(request: ScoringRequest, run_id: str, progress: RunProgress) -> None:
    """Send what was scored, and what waits; the scores are published, whatever becomes of it."""
    from flows.results import send_new

    try:
        send_new(request, run_id, progress)
    except CacError as error:
        progress.say(f"The scores are published, but their objects are not sent: {error}")
        event("warning", "warning", reason="results_not_sent")


def _rescore(prepared: PreparedScoring, stamp: RunStamp, progress: RunProgress) -> ScoringSummary:
    store, model = prepared.warehouse, prepared.weights.model_id
    content = read_archive(prepared.indexing, progress)
    keep_fingerprint(store, prepared.indexing.keyring)
    content.keep(store)
    _publish(store, model)  # rows that a killed run finished but did not publish
    plan = plan_scoring(prepared, content)
    store.restamp(model, plan.unstamped)
    canaries = chosen_canaries(prepared, plan)
    progress.say(
        f"{content.index.n_files} files ({content.index.n_opened} opened), "
        f"{plan.wanted.num_rows} studies, {plan.pending.num_rows} to score"
    )
    outcome: _Outcome = "interrupted"
    try:
        if plan.pending.num_rows or canaries.studies.num_rows:
            _score(prepared, plan.pending, content, canaries, stamp, progress)
        outcome = "completed"
        if content.pacs is not None:
            content.pacs.end()
    finally:
        _publish(store, model)
        summary = _summary(prepared, stamp, content, plan, progress, outcome)
        summary = dataclasses.replace(
            summary, canaries=len(canaries.rows), drifted=canaries.drifted
        )
        store.add_run(_run_row(prepared, stamp, content.index, summary))
    return dataclasses.replace(summary, archive_page=_write_archive_page(store, progress))


def _score(
    prepared: PreparedScoring,
    pending: pa.Table,
    content: ArchiveContent,
    canaries: Canaries,
    stamp: RunStamp,
    progress: RunProgress,
) -> None:
    settings, weights = prepared.settings, prepared.weights
    shards = _shards_of(prepared, content, stamp, progress)
    for warning in filter(None, (settings.cluster.exposure, ignored_secret(settings.key_file))):
        progress.say(f"warning: {warning}")
    if settings.cluster.exposure:
        event("warning", "warning", reason="cluster_exposed")
    plugin = CascadePlugin(str(weights.folder), weights.digest)
    with (
        cluster_client(settings.cluster, plugin) as client,
        progress.scoring(pending.num_rows),
    ):
        threads = max(sum(client.nthreads().values()), settings.cluster.widest)
        parts = list(_shards(pending, settings.scoring.shard_size, threads))
        for number, part in enumerate(parts, start=1):
            score_shard.named(f"shard-{number}-of-{len(parts)}")(shards, client, number, part)
            shards.publish_if_due()
            progress.shard_done(number, len(parts))
        if canaries.studies.num_rows:
            check_canaries(canaries, prepared, content, client, stamp.run_id, progress)


def _shards_of(
    prepared: PreparedScoring, content: ArchiveContent, stamp: RunStamp, progress: RunProgress
) -> Shards:
    settings = prepared.settings
    return Shards(
        store=prepared.warehouse,
        model_id=prepared.weights.model_id,
        identity=prepared.identity,
        protocol=settings.protocol,
        scoring=settings.scoring,
        archive=content.index,
        run_id=stamp.run_id,
        cluster=settings.cluster,
        on_study=progress.study_done,
        on_unchanged=progress.study_unchanged,
        wait=ArchiveWait(settings.scoring.archive_wait_s, progress.say),
        arrivals=content.pacs.arrivals if content.pacs else None,
        unread=content.pacs.unread if content.pacs else frozenset(),
    )


def _write_archive_page(store: Warehouse, progress: RunProgress) -> str | None:
    """Where the archive page is; None, and a message, if it could not be written."""
    try:
        return publish_archive_page(store)
    except (CacError, OSError) as error:
        progress.say(f"The scores are published, but the archive page is not written: {error}")
        event("warning", "warning", reason="archive_page_not_written")
        return None


def _summary(
    prepared: PreparedScoring,
    stamp: RunStamp,
    content: ArchiveContent,
    plan: ScoringPlan,
    progress: RunProgress,
    outcome: _Outcome,
) -> ScoringSummary:
    counts = progress.statuses
    done = sum(counts.values())
    budget = prepared.settings.scoring.failure_budget
    if outcome == "completed" and counts["failed"] > budget * max(done, 1):
        outcome = "over_budget"
    speed = done / progress.seconds if progress.seconds > 0 else 0.0
    return ScoringSummary(
        run_id=stamp.run_id,
        outcome=outcome,
        studies=plan.wanted.num_rows,
        scored=counts["scored"],
        rejected=counts["rejected"],
        failed=counts["failed"],
        skipped=plan.n_skipped + counts[UNCHANGED],
        left=plan.unscored.num_rows - done,
        reasons=dict(progress.reasons),
        needs_review=progress.needs_review,
        review_reasons=dict(progress.review_reasons),
        file_reasons=content.index.reasons,
        seconds=round(stamp.seconds, 3),
        seconds_scoring=round(progress.seconds, 3),
        warehouse=prepared.warehouse.url,
        model=prepared.weights.model_id,
        archive_page=None,
        studies_per_second=round(speed, 4),
    )


def _run_row(
    prepared: PreparedScoring, stamp: RunStamp, index: ArchiveIndex, summary: ScoringSummary
) -> dict[str, object]:
    identity = prepared.identity
    return stamp.columns(_LIBRARIES) | {
        "job": prepared.job,
        "outcome": summary.outcome,
        "files": index.n_files,
        "files_opened": index.n_opened,
        "studies": summary.studies,
        "scored": summary.scored,
        "rejected": summary.rejected,
        "failed": summary.failed,
        "skipped": summary.skipped,
        "reasons": json.dumps(summary.reasons, sort_keys=True),
        "file_reasons": json.dumps(summary.file_reasons, sort_keys=True),
        "model_id": summary.model,
        "model_digest": identity.model_digest,
        "protocol_digest": identity.protocol_digest,
        "rules_digest": identity.rules_digest,
        "settings": json.dumps(prepared.settings.public(), sort_keys=True),
    }


def _shards(pending: pa.Table, size: int | None, threads: int) -> Iterator[pa.Table]:
    """Cut into shards; large clusters get larger ones, so that fewer ends of shards idle them."""
    size = size or max(_SHARD_SIZE, _STUDIES_PER_THREAD * threads)
    for start in range(0, pending.num_rows, size):
        yield pending.slice(start, size)
