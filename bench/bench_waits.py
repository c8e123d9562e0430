"""What a user waits for: help, status, the first study of a run, the report of a cohort.

    python -m bench.bench_waits [--repeats 9] [--patients 2271] [--studies 4]

Wall time of commands in processes of their own, as a shell starts them. `cac --help` is beside a
Python that imports nothing: the part of it that no program can save.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from bench.bench_night import start
from bench.measure import from_pairs, record
from bench.small_archive import SECRET
from cac_core.phantom.archive.write import write_archive

_CAC = str(Path(sys.executable).with_name("cac"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--patients", type=int, default=2271, help="of the report; 0: leave it out")
    parser.add_argument("--studies", type=int, default=4, help="for the start; 0: leave it out")
    options = parser.parse_args()
    figures: dict[str, float] = {"load": os.getloadavg()[0]}
    pairs = [
        (waited(_CAC, "--help"), waited(sys.executable, "-c", "")) for _ in range(options.repeats)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.patients:
            figures |= cohort(folder, options.patients, options.repeats)
        if options.studies:
            write_archive(folder / "phantoms", studies=options.studies, seed=5, workers=2)
            figures |= start(folder)
    record("waits", [from_pairs("empty Python / cac --help", "help", "Python", pairs)], figures)
    for what, seconds in figures.items():
        print(f"{what:<28}{seconds:8.2f}")


def cohort(folder: Path, patients: int, repeats: int) -> dict[str, float]:
    """Seconds of a cohort with drawn scores: everything, its status, its report once more."""
    warehouse = str(folder / "study" / "warehouse")
    demo = waited(
        _CAC, "demo", "--full", "--studies", str(patients), "--out", str(folder / "study")
    )
    status = [waited(_CAC, "status", "-w", warehouse) for _ in range(repeats)]
    report = waited(_CAC, "report", "-w", warehouse, "--out", str(folder / "report"))
    return {
        "demo_full_s": demo,
        "status_s": statistics.median(status),
        "report_again_s": report,
    }


def waited(*command: str) -> float:
    """Seconds of a command; a report may lack estimates (code 3)."""
    begin = perf_counter()
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"CAC_LINKAGE_KEY": SECRET},
        check=False,
    )
    assert done.returncode in (0, 3), command
    return perf_counter() - begin


if __name__ == "__main__":
    main()
