"""Worker processes on this machine, for work that neither Prefect nor Dask need know about."""

from __future__ import annotations

import os

from cac_core.interrupts import DeafPool


def processes(tasks: int) -> DeafPool:
    """As many processes as there are cores, and no more than there are tasks."""
    return DeafPool(min(len(os.sched_getaffinity(0)), tasks))
