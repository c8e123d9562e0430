"""Scoring one shard of studies: the unit that Prefect sees of a rescoring run."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

import pyarrow as pa
from distributed import Client

from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import Identity, rejected_unread, work_orders
from cac_core.dicom.index import ArchiveIndex
from cac_core.protocol import ScoringProtocol
from cac_core.settings import ScoringSettings
from cac_core.study import StudyResult, StudyWork
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import SCORES
from tasks.fanout import score_studies
from tasks.step import step


@dataclass(eq=False)
class Shards:
    """Parameters that all shards of a run share, and the clock of publishing."""

    store: Warehouse
    model_id: str
    identity: Identity
    protocol: ScoringProtocol
    scoring: ScoringSettings
    archive: ArchiveIndex
    run_id: str
    no_workers_s: float
    on_study: Callable[[dict[str, object]], None]
    _published: float = field(default_factory=monotonic)

    def stamp(self, score: dict[str, object]) -> dict[str, object]:
        """Add the run-wide identity to a score row."""
        return score | {
            "model_digest": self.identity.model_digest,
            "protocol_digest": self.identity.protocol_digest,
            "core_version": self.identity.core_version,
            "run_id": self.run_id,
            "scored_at": dt.datetime.now(dt.UTC),
        }

    def publish_if_due(self) -> None:
        """Publish the staged rows if `publish_every_s` has passed since the last time."""
        if monotonic() - self._published >= self.scoring.publish_every_s:
            self.store.publish(self.model_id)
            self._published = monotonic()


@step("score-shard")
def score_shard(shards: Shards, client: Client, number: int, studies: pa.Table) -> None:
    """Score one shard and stage its rows, even if it is interrupted half-way."""
    results: list[StudyResult] = []

    def take(result: StudyResult) -> None:
        results.append(dataclasses.replace(result, score=shards.stamp(result.score)))
        shards.on_study(result.score)

    try:
        unread: list[StudyWork] = []
        for work in work_orders(studies, shards.archive.instances, shards.archive.paths):
            rejected = rejected_unread(work)
            if rejected is not None:
                take(rejected)
            else:
                unread.append(work)
        score_studies(
            client,
            unread,
            shards.protocol,
            timeout_s=shards.scoring.timeout_s,
            previews=shards.scoring.previews,
            window=max(1, sum(client.nthreads().values())) + 1,
            no_workers_s=shards.no_workers_s,
            on_result=take,
        )
    finally:
        if results:
            shards.store.stage(
                shards.model_id,
                f"{shards.run_id}-{number:05d}",
                SCORES.from_rows(result.score for result in results),
                LESIONS.from_rows(row for result in results for row in result.lesions),
                PREVIEWS.from_rows(row for result in results for row in result.previews),
            )
