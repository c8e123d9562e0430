"""Worker processes on this machine that Ctrl-C does not reach.

A terminal sends SIGINT to every process of a run. Only the first process handles it; another that
is still importing would print a traceback.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Threads and processes that are started inside do not get SIGINT; it waits for this thread."""
    resource_tracker.ensure_running()  # multiprocessing lets SIGINT through after starting it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_processes(others: set[BaseProcess]) -> None:
    """End the processes of multiprocessing that were started since there were only `others`."""
    for process in set(multiprocessing.active_children()) - others:
        process.kill()
        process.join()


class WorkerPool(ProcessPoolExecutor):
    """Worker processes that Ctrl-C does not reach; a fault in the block that uses them ends them.

    Parameters
    ----------
    workers : how many at most.
    """

    def __init__(self, workers: int) -> None:
        self._others = set(multiprocessing.active_children())
        super().__init__(workers, mp_context=multiprocessing.get_context("spawn"))

    def submit(self, task: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand out a task, and start a process for it if need be."""
        with without_interrupts():
            return super().submit(task, *args, **kwargs)

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        """Wait for what was handed out; after a fault for nothing."""
        if kind is not None:
            self.shutdown(wait=False, cancel_futures=True)
            end_processes(self._others)
        self.shutdown(wait=True)


def worker_pool(tasks: int) -> WorkerPool:
    """A pool with one process per core, and no more processes than tasks."""
    return WorkerPool(min(len(os.sched_getaffinity(0)), tasks))
