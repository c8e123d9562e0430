"""Drives studies through a Dask cluster: a small window, one result at a time, no study lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic

from dask.typing import Key
from distributed import Client, Future, KilledWorker, as_completed

from cac_core.errors import StudyError
from cac_core.protocol import ScoringProtocol
from cac_core.study import StudyResult, StudyWork, unscored
from schemas.codes import StudyReason
from tasks.worker import score_on_worker


def score_studies(
    client: Client,
    works: Iterable[StudyWork],
    protocol: ScoringProtocol,
    *,
    timeout_s: float,
    window: int,
    previews: bool = True,
    on_result: Callable[[StudyResult], None],
) -> None:
    """Score every study, in any order, and hand each result on as it comes.

    With `previews`, a result holds pictures of the study's key slices.

    At most `window` studies are in flight. Each future is released as soon as its row is taken,
    so that a dying worker loses only what it was working on. Studies whose worker died are tried
    once more with nothing else of this call in flight; one that kills again is recorded as
    failed.

    Raises
    ------
    Exception
        Only for faults of the cluster itself (scheduler lost, connection closed).
    """
    suspects: list[StudyWork] = []

    def submit(work: StudyWork) -> Future[StudyResult]:
        arguments = (work, protocol, timeout_s, previews)
        return client.submit(score_on_worker, *arguments, pure=False, retries=0)

    def windowed() -> Iterator[tuple[StudyWork, Future[StudyResult]]]:
        queue = iter(works)
        in_flight: dict[Key, StudyWork] = {}
        completed = as_completed()
        for work in queue:
            future = submit(work)
            in_flight[future.key] = work
            completed.add(future)
            if len(in_flight) >= window:
                done = next(completed)
                yield in_flight.pop(done.key), done
        for done in completed:
            yield in_flight.pop(done.key), done

    for work, future in windowed():
        result = _take(future)
        if result is None:
            suspects.append(work)
        else:
            on_result(result)
    for work in suspects:
        started = monotonic()
        result = _take(submit(work))
        if result is None:
            timed_out = monotonic() - started >= timeout_s
            reason = StudyReason.TIMEOUT if timed_out else StudyReason.WORKER_DIED
            result = unscored(work, StudyError(reason, rejected=False))
        on_result(result)


def _take(future: Future[StudyResult]) -> StudyResult | None:
    """The result, or None where the worker died with it; the future is released either way."""
    try:
        result: StudyResult = future.result()
        return result
    except KilledWorker:
        return None
    finally:
        future.release()
