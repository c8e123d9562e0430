"""Sends studies to a Dask cluster: few at a time, one result each, and none lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from queue import Empty, SimpleQueue
from time import monotonic, sleep

from dask.typing import Key
from distributed import Client, Future, KilledWorker

from cac_core.cluster_settings import as_words
from cac_core.errors import CacError, StudyError
from cac_core.protocol import ScoringProtocol
from cac_core.study import StudyResult, StudyWork, unscored
from schemas.codes import StudyReason
from tasks.archive_wait import ArchiveWait
from tasks.slots import study_slots
from tasks.worker import StudyLimits, score_on_worker

_Submit = Callable[[StudyWork], Future[StudyResult]]

#: Without a result for this long, look whether any worker is left.
_LOOK_EVERY_S = 2.0
#: A study scored alone is tried again if other workers were lost together with its own.
_ALONE_TRIES = 3
#: How long a study that is to be scored alone waits for the lost workers to be replaced.
_WHOLE_AGAIN_S = 30.0


def score_studies(
    client: Client,
    works: Iterable[StudyWork],
    protocol: ScoringProtocol,
    *,
    timeout_s: float,
    window: int | None = None,
    no_workers_s: float,
    grows_to: int = 0,
    resources: Mapping[str, float] | None = None,
    previews: bool = True,
    memory_bytes: int | None = None,
    alone: Iterable[StudyWork] = (),
    wait: ArchiveWait | None = None,
    on_suspect: Callable[[StudyWork], None] = lambda work: None,
    on_result: Callable[[StudyResult], None],
) -> None:
    """Score every study, in any order, and pass each result on as it arrives.

    A study whose worker died is scored once more with no other study of this call in flight; if
    its worker dies again, and no other worker with it, it is recorded as failed. While the archive
    is away, the studies wait.

    Parameters
    ----------
    timeout_s, memory_bytes : limits per study; see `tasks.worker.StudyLimits`.
    window : largest number of studies in flight; without it, as many as fit on the workers that
        are there or may come, and one more.
    no_workers_s : how long the cluster may have no workers that offer `resources`.
    grows_to : number of workers that the cluster starts if there is enough to do.
    resources : what a study takes of its worker while it is scored, such as a GPU.
    previews : add images of the key slices to each result.
    alone : studies that are scored alone at once: they may have ended an earlier run.
    wait : how long to wait for an archive that is away; by default its studies fail at once.
    on_suspect : called before a study is scored alone.

    Raises
    ------
    CacError
        If the cluster had no workers for too long.
    Exception
        Only for faults of the cluster itself (scheduler lost, connection closed).
    """
    limits = StudyLimits(timeout_s, memory_bytes)
    submit = _submitter(client, protocol, limits, previews, resources or None)
    finished = _Finished(client, no_workers_s, resources or {}, grows_to)
    wait = ArchiveWait(0.0) if wait is None else wait
    suspects, queue = list(alone), iter(works)
    while True:
        away: list[StudyWork] = []
        for work, future in _completed(submit, _until(queue, away), window, finished):
            result = _take(future)
            if result is None:
                suspects.append(work)
            elif wait.holds(result):
                away.append(work)
            else:
                on_result(result)
        if not away:
            break
        wait.pause()
        queue = chain(away, queue)
    for work in suspects:
        on_suspect(work)
        on_result(_score_alone(submit, work, timeout_s, finished))


def _submitter(
    client: Client,
    protocol: ScoringProtocol,
    limits: StudyLimits,
    previews: bool,
    resources: Mapping[str, float] | None,
) -> _Submit:
    def submit(work: StudyWork) -> Future[StudyResult]:
        arguments = (work, protocol, limits, previews)
        return client.submit(
            score_on_worker, *arguments, pure=False, retries=0, resources=resources
        )

    return submit


def _until(queue: Iterator[StudyWork], stop: list[StudyWork]) -> Iterator[StudyWork]:
    """Studies of the queue until `stop` holds something; the others stay in it."""
    while not stop:
        work = next(queue, None)
        if work is None:
            return
        yield work


class _Finished:
    """Futures in the order in which they finish, as long as the cluster has workers."""

    def __init__(
        self, client: Client, no_workers_s: float, resources: Mapping[str, float], grows_to: int
    ) -> None:
        self._client, self._no_workers_s = client, no_workers_s
        self._resources, self._grows_to = resources, grows_to
        self._width = self._slots = 0
        self._looked = 0.0
        self.workers()
        self._queue: SimpleQueue[Future[StudyResult]] = SimpleQueue()

    def add(self, future: Future[StudyResult]) -> None:
        """Wait for this future too."""
        future.add_done_callback(self._queue.put)

    def next(self) -> Future[StudyResult]:
        """The next future that finished.

        Raises
        ------
        CacError
            If the cluster had no workers for too long: Dask itself would wait for ever.
        """
        alive = monotonic()
        while True:
            try:
                return self._queue.get(timeout=_LOOK_EVERY_S)
            except Empty:
                pass
            if self.workers():
                alive = monotonic()
            elif monotonic() - alive >= self._no_workers_s:
                asked = f" that offer {as_words(self._resources)}" if self._resources else ""
                raise CacError(
                    f"The cluster has had no workers{asked} for {self._no_workers_s:.0f} s.",
                    "What is scored is kept; the same command goes on from there. If it comes "
                    "back, look at the memory of the machine and at cluster.memory_limit.",
                )

    def workers(self) -> set[str]:
        """Addresses of the workers that are there now and can take a study."""
        found = study_slots(self._client, self._resources)
        self._looked, self._slots = monotonic(), sum(found.values())
        self._width = max(self._width, len(found))
        return set(found)

    def window(self) -> int:
        """How many studies to keep in flight: one more than fit, so that no worker waits for one.

        Not with resources: Dask hands such studies out at once, and a worker that dies would take
        a study that waits on it along.
        """
        if monotonic() - self._looked >= _LOOK_EVERY_S:
            self.workers()
        return max(1, self._slots, self._grows_to) + (not self._resources)

    def whole_cluster(self) -> set[str]:
        """Addresses of the workers, once there are as many as ever before, or after a wait."""
        begin = monotonic()
        while len(found := self.workers()) < self._width and monotonic() - begin < _WHOLE_AGAIN_S:
            sleep(0.1)
        return found


def _completed(
    submit: _Submit, works: Iterable[StudyWork], window: int | None, finished: _Finished
) -> Iterator[tuple[StudyWork, Future[StudyResult]]]:
    """Studies with their finished futures, at most `window` in flight at a time.

    Without a window, it follows the cluster, whose workers come and go.
    """
    in_flight: dict[Key, StudyWork] = {}
    for work in works:
        future = submit(work)
        in_flight[future.key] = work
        finished.add(future)
        while len(in_flight) >= (finished.window() if window is None else window):
            done = finished.next()
            yield in_flight.pop(done.key), done
    while in_flight:
        done = finished.next()
        yield in_flight.pop(done.key), done


def _score_alone(
    submit: _Submit, work: StudyWork, timeout_s: float, finished: _Finished
) -> StudyResult:
    """Result of a study with no other in flight, so that a dying worker identifies it.

    Workers that were lost together with its own say that the cause lies outside the study.
    """
    for _ in range(_ALONE_TRIES):
        before = finished.whole_cluster()
        started = monotonic()
        finished.add(submit(work))
        result = _take(finished.next())
        if result is not None:
            return result
        if len(before - finished.workers()) <= 1:
            break
    timed_out = monotonic() - started >= timeout_s
    reason = StudyReason.TIMEOUT if timed_out else StudyReason.WORKER_DIED
    return unscored(work, StudyError(reason, rejected=False))


def _take(future: Future[StudyResult]) -> StudyResult | None:
    """The result, or None if its worker died.

    Releases the future in both cases, so that a dying worker loses only its current study.
    """
    try:
        result: StudyResult = future.result()
        return result
    except KilledWorker:
        return None
    finally:
        future.release()
