"""Worker processes on this machine that ignore Ctrl-C.

A terminal sends SIGINT to every process of a run. Only the main process handles it; a worker that
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
    """Block SIGINT for threads and processes started inside; it stays pending for this thread."""
    resource_tracker.ensure_running()  # multiprocessing unblocks SIGINT after starting it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def interrupt_handler_kept() -> Iterator[None]:
    """Undo what a package does to the handler of SIGINT while it is imported inside.

    `dask_jobqueue` installs one that ends the process with exit code 0: an interrupted run would
    count as finished.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def end_processes(others: set[BaseProcess]) -> None:
    """Kill the processes of multiprocessing that are not among `others`."""
    for process in set(multiprocessing.active_children()) - others:
        process.kill()
        process.join()


class WorkerPool(ProcessPoolExecutor):
    """Worker processes that ignore Ctrl-C; an exception in the `with` block kills them.

    Parameters
    ----------
    workers : largest number of processes.
    """

    def __init__(self, workers: int) -> None:
        self._others = set(multiprocessing.active_children())
        super().__init__(workers, mp_context=multiprocessing.get_context("spawn"))

    def submit(self, task: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a task; starts a process if needed."""
        with without_interrupts():
            return super().submit(task, *args, **kwargs)

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        """Wait for the submitted tasks; after an exception kill the processes."""
        if kind is not None:
            end_processes(self._others)
        self.shutdown(wait=True, cancel_futures=kind is not None)


def worker_pool(tasks: int) -> WorkerPool:
    """Return a pool with one process per usable core, and at most one per task."""
    return WorkerPool(min(len(os.sched_getaffinity(0)), tasks))
