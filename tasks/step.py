"""Steps of a job: Prefect task runs inside a flow run, plain function calls outside of one.

Commands that run in one process need no orchestration, and use the same steps without a server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import monotonic
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from cac_core.events import Level, event

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result", covariant=True)


class Step(Protocol[_Parameters, _Result]):
    """A function whose task run can be given a name."""

    def __call__(self, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        """Run the step."""
        ...

    def named(self, name: str) -> Callable[_Parameters, _Result]:
        """The same step with this name of its task run."""
        ...


def step(
    name: str,
) -> Callable[[Callable[_Parameters, _Result]], Step[_Parameters, _Result]]:
    """Make a function a step; Prefect stores neither its results nor its arguments."""

    def decorate(function: Callable[_Parameters, _Result]) -> Step[_Parameters, _Result]:
        def run(run_name: str | None, *args: Any, **kwargs: Any) -> _Result:
            with _logged(name):
                return run_here(run_name, *args, **kwargs)

        def run_here(run_name: str | None, *args: Any, **kwargs: Any) -> _Result:
            if not in_flow():
                return function(*args, **kwargs)
            from prefect import task
            from prefect.cache_policies import NO_CACHE

            as_task = task(
                name=name,
                task_run_name=run_name,
                cache_policy=NO_CACHE,
                persist_result=False,
            )
            return cast(_Result, as_task(function)(*args, **kwargs))

        @wraps(function)
        def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            return run(None, *args, **kwargs)

        def named(run_name: str) -> Callable[_Parameters, _Result]:
            plain = run_name.replace("{", "{{").replace(
                "}", "}}"
            )  # Prefect formats it as a template
            return lambda *args, **kwargs: run(plain, *args, **kwargs)

        call.named = named  # type: ignore[attr-defined]
        return cast(Step[_Parameters, _Result], call)

    return decorate


@contextmanager
def _logged(name: str) -> Iterator[None]:
    """Report the step and its time, also if it fails."""
    begun, status = monotonic(), "failed"
    try:
        yield
        status = "completed"
    finally:
        level: Level = "info" if status == "completed" else "error"
        event("step", level, step=name, status=status, seconds=round(monotonic() - begun, 3))


def in_flow() -> bool:
    """Whether this code runs inside of a Prefect flow run."""
    context = sys.modules.get("prefect.context")
    return context is not None and context.FlowRunContext.get() is not None
