"""What a flow run leaves in Prefect: its state, its log and its summary.

A run that ended badly is not green: it has a named state of type Failed. None of this decides about
the results: a Prefect API that is lost in mid-run costs its record, not the scores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from prefect import Flow, State, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import MissingContextError
from prefect.states import Failed

from cac_core.errors import CacError
from flows.runtime.faults import debugging, describe_fault
from flows.runtime.progress import current_progress, showing
from flows.summaries import RunRecord
from schemas.invalid import InvalidTableError
from tasks.step import in_flow

_LOST = (
    "warning: Prefect's record of this run is lost: its API does not answer any more. The results "
    "are complete."
)


class Summary(Protocol):
    """What a flow returns."""

    def as_markdown(self) -> str:
        """The artifact on the Prefect page of the run."""
        ...

    def record(self) -> RunRecord:
        """Lines of the run's log, and the state of a run that ended badly."""
        ...


_Summary = TypeVar("_Summary", bound=Summary)


@dataclass
class _Ending:
    """How the work of a flow ended, whatever becomes of Prefect's record of it."""

    summary: Any = None
    error: Exception | None = None
    told: bool = False

    def tell_lost(self) -> None:
        if not self.told:
            current_progress().say(_LOST)
        self.told = True


_ENDING: ContextVar[_Ending | None] = ContextVar("ending", default=None)


def concluded(key: str, work: Callable[[], _Summary]) -> _Summary | State[_Summary]:
    """Do the work of a flow, inside of it, and return what the flow returns.

    Writes the log lines and the artifact `key` of the summary. Returns the summary, or for a run
    that ended badly a state of type Failed that holds it.

    Raises
    ------
    CacError
        In place of an unexpected error, whose text could hold a path of the archive: Prefect
        stores it with the state.
    """
    ending = _ENDING.get() or _Ending()
    try:
        summary = ending.summary = work()
    except (CacError, InvalidTableError) as error:
        ending.error = error
        raise
    except Exception as error:
        ending.error = error
        if debugging():
            raise
        raise CacError(f"A fault of the program: {describe_fault(error)}.") from None
    record = summary.record()
    _log(record)
    try:
        create_markdown_artifact(key=key, markdown=summary.as_markdown())
    except Exception:  # noqa: BLE001 - whatever its client raises, the results are there
        ending.tell_lost()
    if record.failure is None:
        return summary
    return Failed(name=record.failure, message=record.failure_message, data=summary)


def run_flow(flow: Flow[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a flow whose body is `concluded`, and return its summary, also of one that ended badly.

    Raises
    ------
    Exception
        That of the work of the flow, as it was raised; or that of Prefect, if the work did not
        begin.
    """
    ending = _Ending()
    token = _ENDING.set(ending)
    try:
        state = flow(*args, return_state=True, **kwargs)
    except Exception:
        # Errors of the work are in the state: this is Prefect's.
        if ending.summary is None and ending.error is None:
            raise
        ending.tell_lost()
        state = None
    finally:
        _ENDING.reset(token)
    if ending.error is not None:
        raise ending.error
    if ending.summary is None and state is not None:
        state.result()  # the work did not begin: raises why
    return ending.summary


def follow(
    flow: Flow[..., Any], plain: Callable[..., Any] | None = None, **parameters: Any
) -> dict[str, str]:
    """Run the job that follows; its faults do not end this one.

    Parameters
    ----------
    flow : runs as a subflow inside of a flow.
    plain : function that does the same without Prefect, for a job outside of a flow.

    Returns
    -------
    The name of the flow with how it ended: `Completed`, or the name of its state.
    """
    say = current_progress().say
    try:
        with showing(current_progress().fresh()):
            if plain is not None and not in_flow():
                summary = plain(**parameters)
            else:
                summary = run_flow(flow, **parameters)
    except (CacError, InvalidTableError) as error:
        say(f"warning: {flow.name}, which follows, failed: {error}")
        return {flow.name: "Failed"}
    except Exception as error:  # noqa: BLE001 - the job before it is done and published
        say(f"warning: {flow.name}, which follows, failed: {describe_fault(error)}")
        return {flow.name: "Failed"}
    record = summary.record()
    if record.failure:
        say(f"warning: {flow.name}, which follows: {record.failure_message}")
    return {flow.name: record.failure or "Completed"}


def _log(record: RunRecord) -> None:
    """Write the lines to the log of the flow run; there is none outside of one."""
    with contextlib.suppress(MissingContextError):
        log = get_run_logger()
        for line in record.info:
            log.info(line)
        for line in record.warnings:
            log.warning(line)
