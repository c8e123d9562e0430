"""Throughput of one and of two workers with the real networks, and what the machine allows.

    python -m bench.bench_workers [--studies 96] [--workers 1 2]

Makes a synthetic archive and scores it once with each number of workers, in turn and in fresh
warehouses. Prints studies per second from the moment when the workers have their weights, and the
ratio to the first. Then as many processes that know nothing of each other score the same studies in
plain loops, without Dask and Prefect, from the moment when all have scored one study: their ratio
is the ceiling, which memory and processor set. Needs as many idle cores as workers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep

from bench.bench_night import score
from bench.bench_study import study_works
from bench.measure import record
from cac_core.model.cascade import Cascade
from cac_core.phantom.archive.write import write_archive
from cac_core.processes import WorkerPool
from cac_core.protocol import ScoringProtocol
from cac_core.study import score_study
from flows.runtime.worker_server import WORKER_VARIABLES


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=96)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_archive(folder / "archive", studies=options.studies, seed=11, workers=cores)
        print(f"{options.studies} studies, {cores} cores, load {os.getloadavg()[0]:.1f}")
        figures: dict[str, object] = {"studies": options.studies}
        figures |= compare("workers", options, lambda workers: run(folder, workers))
        figures |= compare("processes", options, lambda processes: alone(folder, processes))
        record("workers", [], figures)


def compare(
    what: str, options: argparse.Namespace, seconds: Callable[[int], float]
) -> dict[str, float]:
    """Print and return studies per second of each number of processes; prints the ratio."""
    first, found = 0.0, {}
    for number in options.workers:
        speed = options.studies / seconds(number)
        first = first or speed
        found[f"studies_per_s_{number}_{what}"] = speed
        print(f"{number} {what:<10}{speed:8.3f} studies/s, ratio {speed / first:.2f}", flush=True)
    return found


def run(folder: Path, workers: int) -> float:
    """Seconds that a run with this number of workers takes to score the archive."""
    settings = folder / "cac.toml"
    settings.write_text(f"[cluster]\nworkers = {workers}\n", encoding="utf-8")
    summary = score(folder / "archive", folder / f"tables-{workers}", settings, folder)
    return float(summary["seconds_scoring"])


def alone(folder: Path, processes: int) -> float:
    """Seconds that unconnected processes take, each with its share of the studies."""
    os.environ.update(WORKER_VARIABLES)
    together = folder / f"ready-{processes}"
    together.mkdir()
    with WorkerPool(processes) as pool:
        shares = [
            pool.submit(share, folder / "archive", together, number, processes)
            for number in range(processes)
        ]
        return max(found.result() for found in shares)


def share(archive: Path, together: Path, number: int, processes: int) -> float:
    """Score every n-th study, once all processes are ready; returns the seconds it took."""
    works, cascade, protocol = (
        list(study_works(archive)),
        Cascade.load(threads=1),
        ScoringProtocol(),
    )
    score_study(works[0], cascade, protocol)
    (together / str(number)).touch()
    while len(list(together.iterdir())) < processes:
        sleep(0.01)
    begin = perf_counter()
    for work in works[number::processes]:
        score_study(work, cascade, protocol)
    return perf_counter() - begin


if __name__ == "__main__":
    main()
