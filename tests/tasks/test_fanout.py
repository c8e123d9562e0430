"""Studies that kill or hang a worker affect only their own row; with real processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster, Worker

from cac_core.cluster_settings import ClusterSettings
from cac_core.errors import CacError
from cac_core.model.cascade import Segmentation
from cac_core.protocol import ScoringProtocol
from cac_core.study import FileStamp, StudyResult, StudyWork
from flows.runtime.dask_cluster import cluster_client
from tasks.archive_wait import ArchiveWait
from tasks.fanout import score_studies
from tasks.slots import study_slots
from tasks.worker import CascadePlugin
from tests.builders.ct_series import write_ct_series
from tests.builders.networks import whole_segmentation
from tests.builders.rows import digest, key

#: What a study does to its worker, reported by its number of slices.
GOOD, KILLS, HANGS, RAISES, KILLS_ONCE, SLOW, GREEDY = range(24, 31)


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
        if slices == GREEDY:
            np.ones(2**31, np.uint8)
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


def outcomes(
    client: Client, orders: list[StudyWork], timeout_s: float = 60, **options: Any
) -> dict[str, str]:
    results: list[StudyResult] = []
    score_studies(
        client,
        orders,
        ScoringProtocol(),
        timeout_s=timeout_s,
        window=3,
        no_workers_s=60,
        on_result=results.append,
        **options,
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


def test_studies_wait_for_an_archive_that_is_away(client: Client, tmp_path: Path) -> None:
    """The drive is gone for a while in the midst of the run, and then it is back."""
    archive = tmp_path / "archive"
    orders = [
        dataclasses.replace(work, roots=(str(archive),))
        for work in works(archive, GOOD, GOOD, GOOD)
    ]
    archive.rename(tmp_path / "away")
    archive.mkdir()  # the bare mount point
    said: list[str] = []

    def say(line: str) -> None:
        if not said:  # it comes back while the run waits
            archive.rmdir()
            (tmp_path / "away").rename(archive)
        said.append(line)

    found = outcomes(client, orders, wait=ArchiveWait(300.0, say))
    assert found == {"0": "scored", "1": "scored", "2": "scored"}
    assert [line.split(":")[0] for line in said] == ["The archive is away", "The archive is back."]
    archive.rename(tmp_path / "gone")
    found = outcomes(client, orders, wait=ArchiveWait(2.0, said.append))
    assert set(found.values()) == {"archive_unavailable"}
    assert said[-1].startswith("The archive is still away")


def test_a_study_that_needs_too_much_memory_costs_no_worker(client: Client, tmp_path: Path) -> None:
    before = set(client.nthreads())
    found = outcomes(client, works(tmp_path, GOOD, GREEDY, GOOD), memory_bytes=2**30)
    assert found == {"0": "scored", "1": "out_of_memory", "2": "scored"}
    assert set(client.nthreads()) == before


def test_a_suspect_of_an_earlier_run_is_noted_and_scored_alone(
    client: Client, tmp_path: Path
) -> None:
    good, suspect = works(tmp_path, GOOD, GOOD)
    noted: list[str] = []
    results: list[StudyResult] = []
    score_studies(
        client,
        [good],
        ScoringProtocol(),
        timeout_s=60,
        window=3,
        no_workers_s=60,
        alone=[suspect],
        on_suspect=lambda work: noted.append(f"{work.study_key} after {len(results)}"),
        on_result=results.append,
    )
    assert noted == [f"{suspect.study_key} after 1"]
    assert [result.score["status"] for result in results] == ["scored", "scored"]


@pytest.mark.slow
def test_a_stopped_worker_holds_nothing_up(client: Client, tmp_path: Path) -> None:
    client.wait_for_workers(2, timeout=60)
    stopped = worker_processes(client)[0]
    threading.Timer(2.0, os.kill, (stopped, signal.SIGSTOP)).start()
    began = time.monotonic()
    found = outcomes(client, works(tmp_path, SLOW, SLOW, *[GOOD] * 10), timeout_s=600)
    assert set(found.values()) == {"scored"} and len(found) == 12
    assert time.monotonic() - began < 120
    assert not psutil.pid_exists(stopped)


@pytest.fixture(scope="module")
def with_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Two workers that offer resources; no GPU is needed to offer one."""
    once = tmp_path_factory.mktemp("once") / "killed"
    settings = ClusterSettings(workers=2, worker_resources={"GPU": 1, "DISK": 5})
    with cluster_client(settings, SaboteurPlugin(str(once))) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


def test_studies_take_resources_of_their_workers(with_gpu: Client, tmp_path: Path) -> None:
    assert list(study_slots(with_gpu).values()) == [1, 1]
    assert list(study_slots(with_gpu, {"GPU": 1, "DISK": 2.5}).values()) == [1, 1]
    assert study_slots(with_gpu, {"GPU": 2}) == study_slots(with_gpu, {"TPU": 1}) == {}
    orders = works(tmp_path, GOOD, KILLS, GOOD, GOOD)
    found = outcomes(with_gpu, orders, resources={"GPU": 1})
    assert found == {"0": "scored", "1": "worker_died", "2": "scored", "3": "scored"}


def test_a_resource_that_no_worker_offers_ends_the_run(with_gpu: Client, tmp_path: Path) -> None:
    with pytest.raises(CacError, match="no workers that offer FPGA=1 for"):
        score_studies(
            with_gpu,
            works(tmp_path, GOOD),
            ScoringProtocol(),
            timeout_s=60,
            no_workers_s=3,
            resources={"FPGA": 1},
            on_result=lambda result: None,
        )


def test_slots_are_the_scarcest_resource_or_the_threads() -> None:
    offered = {"GPU": 4.0, "DISK": 5.0}
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=3, processes=False, resources=offered,
            dashboard_address=None, protocol="inproc://",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        for asked, slots in (({}, 3), ({"GPU": 1}, 3), ({"GPU": 2}, 2), ({"DISK": 5}, 1)):
            assert list(study_slots(client, asked).values()) == [slots]
