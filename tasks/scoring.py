"""Scoring one shard of studies: the unit that Prefect sees of a rescoring run."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from time import monotonic

import pyarrow as pa
from dask.utils import parse_bytes
from distributed import Client

from cac_core.cluster_settings import ClusterSettings
from cac_core.cohort.suspects import STRIKES
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import Identity, rejected_unread, work_orders
from cac_core.dicom.index import ArchiveIndex
from cac_core.errors import StudyError
from cac_core.protocol import ScoringProtocol
from cac_core.settings import ScoringSettings
from cac_core.study import StudyResult, StudyWork, unscored
from schemas.codes import StudyReason
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import SCORES
from tasks.archive_wait import ArchiveWait
from tasks.arrivals import Arrivals
from tasks.fanout import score_studies
from tasks.read_ahead import reading_ahead
from tasks.step import step

#: Reasons whose rows are staged at once: a run that is killed must not lose what they cost.
_COST_A_WORKER = frozenset((StudyReason.WORKER_DIED.value, StudyReason.TIMEOUT.value))


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
    cluster: ClusterSettings
    on_study: Callable[[dict[str, object]], None]
    on_unchanged: Callable[[], None]
    wait: ArchiveWait
    arrivals: Arrivals | None = None
    unread: frozenset[str] = frozenset()
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


class _Rows:
    """Results of one shard, staged at its end; those that cost a worker at once."""

    def __init__(self, shards: Shards, number: int) -> None:
        self._shards, self._notes = shards, shards.store.suspects(shards.model_id)
        self._parts = (f"{shards.run_id}-{number:05d}-{part}" for part in count())
        self._results: list[StudyResult] = []
        self._noted: list[str] = []
        self._unchanged: list[dict[str, object]] = []

    def take(self, result: StudyResult) -> None:
        """Keep a result."""
        if result.unchanged:
            self._unchanged.append(self._shards.stamp(result.score))
            self._shards.on_unchanged()
            return
        stamped = dataclasses.replace(result, score=self._shards.stamp(result.score))
        self._results.append(stamped)
        self._shards.on_study(result.score)
        if result.score.get("reason") in _COST_A_WORKER:
            self.stage()

    def scored(self, result: StudyResult) -> None:
        """Keep the result of a worker; files that were pulled for it may go."""
        self.take(result)
        if self._shards.arrivals is not None:
            self._shards.arrivals.done(str(result.score["study_key"]))

    def arriving(self, works: Iterable[StudyWork]) -> Iterable[StudyWork]:
        """The studies, each when its files are here."""
        arrivals = self._shards.arrivals
        if arrivals is None:
            return works
        return arrivals.works(works, lambda work, error: self.take(unscored(work, error)))

    def suspect(self, work: StudyWork) -> None:
        """Note a study that is about to be scored alone."""
        self._notes.add(work.study_key, work.instances_digest)
        self._noted.append(work.study_key)

    def sorted_out(self, works: Iterable[StudyWork]) -> tuple[list[StudyWork], list[StudyWork]]:
        """Take the rows of studies that are not read; return those to score, and to score alone."""
        unread: list[StudyWork] = []
        alone: list[StudyWork] = []
        for work in works:
            strikes = self._notes.strikes(work.study_key, work.instances_digest)
            rejected = rejected_unread(work)
            if work.study_key in self._shards.unread:
                self.take(_not_retrieved(work))
            elif rejected is not None:
                self.take(rejected)
            elif strikes >= STRIKES:
                detail = f"the run ended {strikes} times while it was scored alone"
                self._noted.append(work.study_key)
                died = StudyError(StudyReason.WORKER_DIED, detail, rejected=False)
                self.take(unscored(work, died))
            else:
                (alone if strikes else unread).append(work)
        return unread, alone

    def stage(self) -> None:
        """Stage what was taken since the last time, and forget the notes of this shard."""
        results, self._results = self._results, []
        if results:
            self._shards.store.stage(
                self._shards.model_id,
                next(self._parts),
                SCORES.from_rows(result.score for result in results),
                LESIONS.from_rows(row for result in results for row in result.lesions),
                PREVIEWS.from_rows(row for result in results for row in result.previews),
            )
        if self._unchanged:
            names = ("study_key", "protocol_digest", "files_digest")
            stamps = [{name: row[name] for name in names} for row in self._unchanged]
            self._shards.store.restamp(self._shards.model_id, pa.Table.from_pylist(stamps))
            self._unchanged.clear()
        if self._noted:
            self._notes.clear(self._noted)
            self._noted.clear()


def _not_retrieved(work: StudyWork) -> StudyResult:
    """The row of a study of which the PACS did not even give the headers."""
    bare = dataclasses.replace(work, header={}, files_digest=None)
    error = StudyError(StudyReason.NOT_RETRIEVED, "no headers", rejected=False)
    return unscored(bare, error)


@step("score-shard")
def score_shard(shards: Shards, client: Client, number: int, studies: pa.Table) -> None:
    """Score one shard and stage its rows, even if it is interrupted half-way."""
    rows, archive = _Rows(shards, number), shards.archive
    memory = shards.scoring.memory_limit
    try:
        unread, alone = rows.sorted_out(
            work_orders(studies, archive.instances, archive.paths, archive.roots)
        )
        works = rows.arriving(unread)
        score_studies(
            client,
            reading_ahead(works) if shards.cluster.kind == "local" else works,
            shards.protocol,
            timeout_s=shards.scoring.timeout_s,
            memory_bytes=None if memory == "auto" else parse_bytes(memory),
            previews=shards.scoring.previews,
            no_workers_s=shards.cluster.patience_s,
            grows_to=shards.cluster.widest,
            resources=shards.cluster.study_resources,
            alone=rows.arriving(alone),
            wait=shards.wait,
            on_suspect=rows.suspect,
            on_result=rows.scored,
        )
    finally:
        rows.stage()
