"""Time of a rescoring run by stage, and the share of orchestration.

    python -m bench.bench_rescore [--studies 16] [--archive DIR]

Makes a synthetic archive (or takes one), scores it with `cac score`, then scores the same
studies in a plain loop of one process, without Prefect and Dask, and times writing the rows alone.
Prints seconds per study by stage, the share of orchestration (worker time without a study), the
fixed cost of a run, and the ratio of its throughput to that of the plain loop.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.measure import record
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import Identity, wanted_studies, work_orders
from cac_core.dicom.index import index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.keys import Keyring
from cac_core.model.cascade import Cascade
from cac_core.phantom.archive.write import write_archive
from cac_core.protocol import ScoringProtocol
from cac_core.study import score_study
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import SCORES

_SECRET = "a secret of the benchmark"
_STAGES = (
    "seconds_read",
    "seconds_heart",
    "seconds_calcium",
    "seconds_score",
    "seconds_preview",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=16)
    parser.add_argument("--archive", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = options.archive or Path(folder) / "archive"
        if options.archive is None:
            cores = len(os.sched_getaffinity(0))
            write_archive(archive, studies=options.studies, seed=7, workers=cores)
        report(archive, Path(folder) / "warehouse")


def report(archive: Path, warehouse: Path) -> None:
    """Run both, and print the comparison."""
    workers = len(os.sched_getaffinity(0))
    start = perf_counter()
    summary = run_cac(archive, warehouse)
    wall = perf_counter() - start
    store = Warehouse(warehouse)
    scores = store.read(SCORES, summary["model"])
    lesions, previews = (store.read(spec, summary["model"]) for spec in (LESIONS, PREVIEWS))
    rows = [row for row in scores.to_pylist() if row["status"] == "scored"]
    start = perf_counter()
    store.stage("bench", "0", scores, lesions, previews)
    store.publish("bench")
    write = (perf_counter() - start) / max(len(rows), 1)
    print(f"{len(rows)} scored studies, {workers} worker processes of one thread")
    print(f"{'stage':<12}{'median s':>10}{'mean s':>10}")
    for stage in _STAGES:
        values = [row[stage] for row in rows]
        name = stage.removeprefix("seconds_")
        print(f"{name:<12}{statistics.median(values):>10.3f}{statistics.fmean(values):>10.3f}")
    print(f"{'write':<12}{write:>10.3f}{write:>10.3f}")
    totals = [sum(row[stage] for stage in _STAGES) for row in rows]
    print(f"{'study':<12}{statistics.median(totals):>10.3f}{statistics.fmean(totals):>10.3f}")
    busy, scoring = sum(totals), summary["seconds_scoring"]
    # Rejected studies have no recorded times: their cost counts as orchestration here.
    print(f"share of orchestration, at most         {1 - busy / (scoring * workers):.1%}")
    print(f"start, index and end, once per run      {wall - scoring:.1f} s")
    plain = plain_loop(archive, len(scores))
    ratio = len(scores) / scoring / (1 / plain)
    print(f"plain loop, one process                 {plain:.3f} s per study")
    record(
        "rescore",
        [],
        {
            "studies": len(scores),
            "workers": workers,
            "core_seconds_per_study": statistics.median(totals),
            "share_busy_with_studies": busy / (scoring * workers),
            "start_index_end_s": wall - scoring,
            "throughput_over_plain_loop": ratio,
        },
    )
    print(f"ratio of throughput, run / plain loop   {ratio:.2f} with {workers} workers")


def run_cac(archive: Path, warehouse: Path) -> dict[str, Any]:
    """Score the archive in a separate process and return its summary."""
    command = [str(Path(sys.executable).with_name("cac")), "score", str(archive), "--json"]
    done = subprocess.run(
        [*command, "-w", str(warehouse)],
        env=os.environ | {"CAC_LINKAGE_KEY": _SECRET},
        stdout=subprocess.PIPE,
        check=True,
    )
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def plain_loop(archive: Path, studies: int) -> float:
    """Seconds per study of a loop over the same work in this process."""
    found, rules = index_archive([archive], Keyring(_SECRET.encode())), load_rules()
    series = select_series(series_table(found.instances), rules)
    wanted = wanted_studies(found.instances, series, Identity("0" * 64, "0" * 16, rules.digest))
    cascade, protocol = Cascade.load(threads=1), ScoringProtocol()
    start = perf_counter()
    for work in work_orders(wanted, found.instances, found.paths):
        score_study(work, cascade, protocol)
    return (perf_counter() - start) / studies


if __name__ == "__main__":
    main()
