"""Studies that kill or hang a worker affect only their own row; with real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, Worker

from cac_core.model.cascade import Segmentation
from cac_core.protocol import ScoringProtocol
from cac_core.settings import ClusterSettings
from cac_core.study import FileStamp, StudyResult, StudyWork
from flows.runtime.dask_cluster import cluster_client
from tasks.fanout import score_studies
from tasks.worker import CascadePlugin
from tests.builders.ct_series import write_ct_series
from tests.builders.networks import whole_segmentation
from tests.builders.rows import digest, key

#: What a study does to its worker, reported by its number of slices.
GOOD, KILLS, HANGS, RAISES, KILLS_ONCE = 24, 25, 26, 27, 28


class Saboteur:
    """A cascade that finds an empty heart, unless the volume's size tells it to misbehave."""

    confidence = None

    def __init__(self, once: str) -> None:
        self.once = Path(once)

    def segment(self, hu: np.ndarray, spacing_mm: Any, **options: Any) -> Segmentation:
        """Misbehave, or find a heart."""
        slices = hu.shape[0]
        if slices == KILLS or (slices == KILLS_ONCE and not self.once.exists()):
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if slices == HANGS:
            time.sleep(600)
        if slices == RAISES:
            raise RuntimeError
        mask = np.zeros(hu.shape, bool)
        mask[6:18, 20:44, 20:44] = True
        return whole_segmentation(mask, np.zeros(hu.shape, np.uint8))


class SaboteurPlugin(CascadePlugin):
    """Replaces the plugin that loads the weights."""

    def __init__(self, once: str) -> None:
        super().__init__(None, "")
        self.once = once

    def setup(self, worker: Worker) -> None:
        """Give the worker its saboteur."""
        self.cascade = Saboteur(self.once)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    once = tmp_path_factory.mktemp("once") / "killed"
    with cluster_client(ClusterSettings(workers=2), SaboteurPlugin(str(once))) as client:
        yield client


def works(folder: Path, *slices: int) -> list[StudyWork]:
    made = []
    for number, n_slices in enumerate(slices):
        paths = write_ct_series(folder / str(number), n_slices=n_slices)
        stamps = tuple(FileStamp(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths)
        made.append(StudyWork(key(number), None, None, stamps, digest(number)))
    return made


def outcomes(client: Client, orders: list[StudyWork], timeout_s: float = 60) -> dict[str, str]:
    results: list[StudyResult] = []
    score_studies(
        client, orders, ScoringProtocol(), timeout_s=timeout_s, window=3, on_result=results.append
    )
    assert sorted(str(r.score["study_key"]) for r in results) == sorted(
        w.study_key for w in orders
    ), "each study yields exactly one row"
    rows = {r.score["study_key"]: str(r.score.get("reason") or r.score["status"]) for r in results}
    return {str(number): rows[work.study_key] for number, work in enumerate(orders)}


def test_a_study_that_kills_its_worker_affects_no_other(client: Client, tmp_path: Path) -> None:
    orders = works(tmp_path, GOOD, GOOD, KILLS, GOOD, RAISES, GOOD, KILLS_ONCE, GOOD)
    found = outcomes(client, orders)
    assert found.pop("2") == "worker_died"
    assert found.pop("4") == "internal_error"
    assert set(found.values()) == {"scored"}, found


def test_a_hanging_study_times_out(client: Client, tmp_path: Path) -> None:
    found = outcomes(client, works(tmp_path, GOOD, HANGS, GOOD), timeout_s=3)
    assert found == {"0": "scored", "1": "timeout", "2": "scored"}


def test_nothing_to_do(client: Client) -> None:
    assert outcomes(client, []) == {}
