"""What runs in a Dask worker: the cascade, loaded once per process, and one call per study.

Imports neither Prefect nor the flows, so that a worker starts within two seconds and talks only to
the scheduler.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Worker, WorkerPlugin, get_worker

from cac_core.memory import bounded_memory
from cac_core.protocol import ScoringProtocol
from cac_core.study import StudyResult, StudyWork, score_study
from schemas.codes import StudyReason

if TYPE_CHECKING:
    from cac_core.model.cascade import Cascade

#: Default memory of a study: enough for the largest volume that is read, and so far below the
#: point at which Dask ends a worker (80 % of its memory) that the study fails first.
_MEMORY_BYTES, _MEMORY_SHARE = 4 * 2**30, 0.6
#: Exit status of a worker whose study exceeded its time limit.
TIMEOUT_EXIT = 75


class CascadePlugin(WorkerPlugin):
    """Loads the weights when a worker starts or restarts.

    Parameters
    ----------
    folder : folder of the weights, as the worker sees it; None for the shipped weights.
    digest : digest of the weights that the run was planned with; others are refused.
    """

    name = "cascade"

    def __init__(self, folder: str | None, digest: str) -> None:
        self.folder = folder
        self.digest = digest
        self.cascade: Cascade | None = None

    def setup(self, worker: Worker) -> None:
        """Load the cascade; an error stops the run at registration."""
        from cac_core.model.cascade import Cascade  # the process that sends this needs no torch

        faulthandler.enable()
        cascade = Cascade.load(None if self.folder is None else Path(self.folder), threads=1)
        if cascade.digest != self.digest:
            raise RuntimeError(
                "the weights on this worker differ from those that the run was planned with"
            )
        self.cascade = cascade


@dataclass(frozen=True, slots=True)
class StudyLimits:
    """Time and memory that one study may take.

    Parameters
    ----------
    seconds : time, after which the worker process ends.
    memory_bytes : memory beside that of the worker; None for the default, a share of the memory of
        the worker.
    """

    seconds: float
    memory_bytes: int | None = None

    def memory(self, worker_bytes: int | None) -> int:
        """The memory limit on a worker with this memory (None: unlimited)."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return min(_MEMORY_BYTES, int(_MEMORY_SHARE * (worker_bytes or _MEMORY_BYTES * 2)))


def score_on_worker(
    work: StudyWork, protocol: ScoringProtocol, limits: StudyLimits, previews: bool
) -> StudyResult:
    """Score one study with this worker's cascade, within its limits.

    At the time limit the process exits, since native code cannot be interrupted otherwise. The
    nanny starts a new worker, and the study gets a row with its reason. At the memory limit the
    allocation fails, and the worker goes on with the next study.
    """
    worker = get_worker()
    memory = limits.memory(worker.memory_manager.memory_limit)
    with _deadline(limits.seconds), bounded_memory(memory * worker.state.nthreads):
        plugin = worker.plugins[CascadePlugin.name]
        assert isinstance(plugin, CascadePlugin) and plugin.cascade is not None
        result = score_study(work, plugin.cascade, protocol, previews=previews)
    if result.score.get("reason") == StudyReason.OUT_OF_MEMORY.value:
        where = result.score.get("detail")
        result.score["detail"] = f"limit {memory // 2**20} MiB" + (f", {where}" if where else "")
    return result


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, os._exit, (TIMEOUT_EXIT,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
