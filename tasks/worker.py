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
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Worker, WorkerPlugin, get_worker

from cac_core.protocol import ScoringProtocol
from cac_core.study import StudyResult, StudyWork, score_study

if TYPE_CHECKING:
    from cac_core.model.cascade import Cascade

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


def score_on_worker(
    work: StudyWork, protocol: ScoringProtocol, timeout_s: float, previews: bool
) -> StudyResult:
    """Score one study with this worker's cascade, within the time limit.

    At the limit the process exits, since native decoders cannot be interrupted otherwise. The
    nanny starts a new worker, and the study gets a row with its reason.
    """
    with _deadline(timeout_s):
        plugin = get_worker().plugins[CascadePlugin.name]
        assert isinstance(plugin, CascadePlugin) and plugin.cascade is not None
        return score_study(work, plugin.cascade, protocol, previews=previews)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, os._exit, (TIMEOUT_EXIT,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
