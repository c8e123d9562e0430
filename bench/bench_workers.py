"""Throughput of one and of two workers with the real networks.

    python -m bench.bench_workers [--studies 24] [--workers 1 2]

Makes a synthetic archive and scores it once with each number of workers, in turn and in fresh
warehouses. Prints studies per second from the moment when the workers have their weights, and the
ratio to the first. Needs as many idle cores as workers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from bench.bench_night import score
from bench.measure import record
from cac_core.phantom.archive.write import write_archive


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=24)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_archive(folder / "archive", studies=options.studies, seed=11, workers=cores)
        print(f"{options.studies} studies, {cores} cores, load {os.getloadavg()[0]:.1f}")
        first, figures = 0.0, {"studies": options.studies}
        for workers in options.workers:
            settings = folder / "cac.toml"
            settings.write_text(f"[cluster]\nworkers = {workers}\n", encoding="utf-8")
            summary = score(folder / "archive", folder / f"tables-{workers}", settings, folder)
            speed = options.studies / summary["seconds_scoring"]
            first = first or speed
            figures[f"studies_per_s_{workers}_workers"] = speed
            print(
                f"{workers} workers {speed:8.3f} studies/s, ratio {speed / first:.2f}", flush=True
            )
        record("workers", [], figures)


if __name__ == "__main__":
    main()
