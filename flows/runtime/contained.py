"""Work on one study after another in a process of its own, within limits of time and memory.

For what a run does outside of its cluster: a study that crashes its process, hangs or needs too
much memory then costs only itself.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import TimeoutError as NotInTimeError
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, TypeVar

from cac_core.errors import CacError
from cac_core.memory import bounded_memory
from cac_core.processes import WorkerPool

_Result = TypeVar("_Result")


class Contained:
    """A process for work on single studies; a new one is started after it ended.

    Parameters
    ----------
    prepare, arguments : called once in each process, without a limit of time.
    seconds, memory_bytes : limits of one piece of work.
    """

    def __init__(
        self,
        prepare: Callable[..., None],
        arguments: tuple[Any, ...],
        seconds: float,
        memory_bytes: int,
    ) -> None:
        self._prepare, self._arguments = prepare, arguments
        self._seconds, self._memory = seconds, memory_bytes
        self._pool: WorkerPool | None = None

    def run(self, task: Callable[..., _Result], *arguments: Any) -> _Result:
        """Do one piece of work there.

        Raises
        ------
        CacError
            That of the task, or that it exceeded a limit or ended its process.
        """
        if self._pool is None:
            self._pool = WorkerPool(1)
            self._pool.submit(self._prepare, *self._arguments).result()
        future = self._pool.submit(_bounded, self._memory, task, *arguments)
        try:
            result: _Result = future.result(timeout=self._seconds)
        except NotInTimeError:
            self._end(RuntimeError)
            raise CacError(f"The study took more than {self._seconds:.0f} s.") from None
        except BrokenProcessPool:
            self._end(RuntimeError)
            raise CacError("The process that worked on the study ended.") from None
        except MemoryError:
            limit = self._memory // 2**20
            raise CacError(f"The study needs more than {limit} MiB of memory.") from None
        except BaseException as error:
            if not isinstance(error, CacError):
                self._end(type(error))
            raise
        return result

    def _end(self, kind: type[BaseException] | None) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.__exit__(kind, None, None)

    def __enter__(self) -> Contained:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process; after an exception, in the middle of its work."""
        self._end(kind)


def _bounded(memory_bytes: int, task: Callable[..., _Result], *arguments: Any) -> _Result:
    with bounded_memory(memory_bytes):
        return task(*arguments)
