"""Sends studies to a Dask cluster: few at a time, one result each, and none lost."""

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

_Submit = Callable[[StudyWork], Future[StudyResult]]


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
    """Score every study, in any order, and pass each result on as it arrives.

    A study whose worker died is scored once more with no other study of this call in flight; if
    its worker dies again, it is recorded as failed.

    Parameters
    ----------
    timeout_s : time limit per study.
    window : largest number of studies in flight.
    previews : add images of the key slices to each result.

    Raises
    ------
    Exception
        Only for faults of the cluster itself (scheduler lost, connection closed).
    """

    def submit(work: StudyWork) -> Future[StudyResult]:
        arguments = (work, protocol, timeout_s, previews)
        return client.submit(score_on_worker, *arguments, pure=False, retries=0)

    suspects: list[StudyWork] = []
    for work, future in _completed(submit, works, window):
        result = _take(future)
        if result is None:
            suspects.append(work)
        else:
            on_result(result)
    for work in suspects:
        on_result(_score_alone(submit, work, timeout_s))


def _completed(
    submit: _Submit, works: Iterable[StudyWork], window: int
) -> Iterator[tuple[StudyWork, Future[StudyResult]]]:
    """Studies with their finished futures, at most `window` in flight at a time."""
    in_flight: dict[Key, StudyWork] = {}
    completed = as_completed()
    for work in works:
        future = submit(work)
        in_flight[future.key] = work
        completed.add(future)
        if len(in_flight) >= window:
            done = next(completed)
            yield in_flight.pop(done.key), done
    for done in completed:
        yield in_flight.pop(done.key), done


def _score_alone(submit: _Submit, work: StudyWork, timeout_s: float) -> StudyResult:
    """Result of a study with no other in flight, so that a dying worker identifies it."""
    started = monotonic()
    result = _take(submit(work))
    if result is not None:
        return result
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
