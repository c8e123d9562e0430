"""The canaries of a run: scored again on its cluster, and compared with their first scores."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from distributed import Client

from cac_core.cohort.canaries import choose_canaries, compare_canaries
from cac_core.cohort.worklist import Identity, work_orders
from cac_core.events import Level, event
from cac_core.study import StudyResult, StudyWork
from flows.planning import ArchiveContent, ScoringPlan
from flows.request import PreparedScoring
from flows.runtime.progress import RunProgress
from tasks.fanout import score_studies


@dataclass(eq=False)
class Canaries:
    """Studies to be checked, and after the check its rows."""

    studies: pa.Table
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def drifted(self) -> int:
        """Number of studies whose result differs from their reference."""
        return sum(row["drifted"] for row in self.rows)


def chosen_canaries(prepared: PreparedScoring, plan: ScoringPlan) -> Canaries:
    """The canaries of a run, from studies that were scored before it."""
    wanted = prepared.settings.canary
    return Canaries(
        choose_canaries(
            prepared.warehouse,
            plan.wanted,
            prepared.weights.model_id,
            wanted.studies,
            wanted.keys,
        )
    )


def check_canaries(
    canaries: Canaries,
    prepared: PreparedScoring,
    content: ArchiveContent,
    client: Client,
    run_id: str,
    progress: RunProgress,
) -> None:
    """Score the canaries again and compare; rows of `scores` are not touched."""
    settings, results = prepared.settings, list[StudyResult]()
    works = work_orders(canaries.studies, content.index.instances, content.index.paths)

    def scored(result: StudyResult) -> None:
        results.append(result)
        if content.pacs is not None:
            content.pacs.arrivals.done(str(result.score["study_key"]))

    score_studies(
        client,
        _arriving(content, works),
        settings.protocol,
        timeout_s=settings.scoring.timeout_s,
        previews=False,
        no_workers_s=settings.cluster.patience_s,
        grows_to=settings.cluster.widest,
        resources=settings.cluster.study_resources,
        on_result=scored,
    )
    rows = [result.score | _stamp(prepared.identity, run_id) for result in results]
    model = prepared.weights.model_id
    canaries.rows = compare_canaries(prepared.warehouse, model, run_id, rows)
    for row in canaries.rows:
        shown = "drifted" if row["drifted"] else row["status"]
        level: Level = "warning" if row["drifted"] else "info"
        event("canary", level, study_key=row["study_key"], status=shown, reason=row["reason"])
    if canaries.drifted:
        progress.say(
            f"warning: {canaries.drifted} of {len(canaries.rows)} canaries drifted: the same "
            "files, model and protocol give other results than before (table `canaries`)"
        )


def _arriving(content: ArchiveContent, works: list[StudyWork]) -> Iterable[StudyWork]:
    """The canaries with their files; one that a PACS does not deliver cannot be compared."""
    if content.pacs is None:
        return works
    return content.pacs.arrivals.works(works, lambda work, error: None)


def _stamp(identity: Identity, run_id: str) -> dict[str, object]:
    """The columns of `scores` that a run adds to the result of a worker."""
    return {
        "model_digest": identity.model_digest,
        "protocol_digest": identity.protocol_digest,
        "core_version": identity.core_version,
        "run_id": run_id,
        "scored_at": dt.datetime.now(dt.UTC),
    }
