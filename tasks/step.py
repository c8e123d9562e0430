"""Steps of a job: task runs of Prefect where a flow runs, plain functions where none does.

A command that fans nothing out needs no orchestration; the same steps serve it without a server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result", covariant=True)


class Step(Protocol[_Parameters, _Result]):
    """A function that can be told what its run is called."""

    def __call__(self, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        """Run it."""
        ...

    def named(self, name: str) -> Callable[_Parameters, _Result]:
        """The same, under a name of its own in Prefect."""
        ...


def step(
    name: str,
) -> Callable[[Callable[_Parameters, _Result]], Step[_Parameters, _Result]]:
    """Make a function a step; neither its results nor its arguments are kept by Prefect."""

    def decorate(function: Callable[_Parameters, _Result]) -> Step[_Parameters, _Result]:
        def run(run_name: str | None, *args: Any, **kwargs: Any) -> _Result:
            if not _in_flow():
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
            plain = run_name.replace("{", "{{").replace("}", "}}")  # Prefect takes it as a template
            return lambda *args, **kwargs: run(plain, *args, **kwargs)

        call.named = named  # type: ignore[attr-defined]
        return cast(Step[_Parameters, _Result], call)

    return decorate


def _in_flow() -> bool:
    context = sys.modules.get("prefect.context")
    return context is not None and context.FlowRunContext.get() is not None
