"""Studies that kill or hang a worker affect only their own row; with real processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster, Worker

from cac_core.errors import CacError
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
GOOD, KILLS, HANGS, RAISES, KILLS_ONCE, SLOW = 24, 25, 26, 27, 28, 29


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
        if slices == SLOW:
            time.sleep(8)
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
        client,
        orders,
        ScoringProtocol(),
        timeout_s=timeout_s,
        window=3,
        no_workers_s=60,
        on_result=results.append,
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


def worker_processes(client: Client) -> list[int]:
    return list(client.run(os.getpid).values())


@pytest.mark.slow
def test_a_study_is_not_blamed_when_every_worker_is_lost(client: Client, tmp_path: Path) -> None:
    """All workers die while it is scored for the first time, and again while it is alone."""
    client.wait_for_workers(2, timeout=60)
    ended = threading.Event()

    def kill_all_twice() -> None:
        for _ in range(2):
            client.wait_for_workers(2, timeout=60)
            while not client.processing() or not any(client.processing().values()):
                time.sleep(0.1)
            time.sleep(1)
            killed = set(client.nthreads())
            for pid in worker_processes(client):
                os.kill(pid, signal.SIGKILL)
            while killed & set(client.nthreads()):
                time.sleep(0.1)
        ended.set()

    killer = threading.Thread(target=kill_all_twice)
    killer.start()
    found = outcomes(client, works(tmp_path, SLOW))
    killer.join(60)
    assert ended.is_set()
    assert found == {"0": "scored"}


def test_a_run_without_workers_ends_with_a_message() -> None:
    """A scheduler that nobody works for; Dask would wait for ever."""
    results: list[StudyResult] = []
    work = StudyWork(key(0), None, None, (), digest(0))
    with (
        LocalCluster(n_workers=0, dashboard_address=None, processes=False) as cluster,
        Client(cluster) as idle,
        pytest.raises(CacError, match="no workers for 3 s"),
    ):
        score_studies(
            idle,
            [work],
            ScoringProtocol(),
            timeout_s=60,
            window=3,
            no_workers_s=3,
            on_result=results.append,
        )
    assert results == []
