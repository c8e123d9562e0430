"""Worker processes on this machine, for work that neither Prefect nor Dask need know about."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor


def processes(tasks: int) -> ProcessPoolExecutor:
    """As many processes as there are cores, and no more than there are tasks."""
    workers = min(len(os.sched_getaffinity(0)), tasks)
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
