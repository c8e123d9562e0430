"""One run over ten thousand studies: what orchestration costs beside plain Dask, and its memory.

    python -m bench.bench_scale [--studies 10000] [--workers N]

Writes small studies as DICOM files and scores them with `cac score`, with a stub of 5 ms in place
of the networks (`bench/stub_cascade.py`); all else is real: reading, scoring, previews, rows,
Prefect. The same work orders go through a plain Dask client, one half of them before the run and
the other half after it. Prints seconds per study of both, their difference and ratio, and those of
the CPU time of the process that holds the scheduler, which a busy machine does not change; the
memory of the run over its time, the size of Prefect's database, and a second run, which has nothing
to do.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, perf_counter, process_time, sleep, time
from typing import Any

import numpy as np
import psutil
from distributed import Client, LocalCluster, as_completed

from bench import processes, small_archive
from bench.measure import record
from cac_core.cohort.worklist import Identity, wanted_studies, work_orders
from cac_core.dicom.index import index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.keys import Keyring
from cac_core.protocol import ScoringProtocol
from cac_core.study import StudyResult, StudyWork, score_study

_MIB = 2**20
_SAMPLE_EVERY_S = 0.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), perf_counter()
        small_archive.write_studies(folder / "archive", options.studies)
        seconds = perf_counter() - start
        print(
            f"{options.studies} studies of {small_archive.SLICES} files, {seconds:.0f} s to write"
        )
        report(folder, options.workers)


def report(folder: Path, workers: int) -> None:
    """Run plain Dask, the flow, and plain Dask again, and print the comparison."""
    settings = small_archive.write_settings(
        folder, cluster={"workers": workers}, logging={"file": str(folder / "run.log")}
    )
    works = orders(folder / "archive", folder / "rules.toml")
    half = len(works) // 2
    before = plain_dask(works[:half], workers)
    summary, samples = watched_run(folder, settings)
    after = plain_dask(works[half:], workers)
    assert summary["scored"] == len(works), summary
    plain, plain_cpu = (1e3 * sum(pair) / len(works) for pair in zip(before, after, strict=True))
    flow, flow_cpu = 1e3 * summary["seconds_scoring"] / len(works), 1e3 * samples.cpu(folder)
    print(f"{workers} workers of one thread, load {os.getloadavg()[0]:.1f}; per study")
    print(f"{'':<34}{'plain':>8}{'run':>8}{'difference':>12}{'ratio':>7}")
    for what, one, other in (
        ("time, ms", plain, flow),
        ("CPU of scheduler and flow, ms", plain_cpu, flow_cpu),
    ):
        print(f"{what:<34}{one:8.2f}{other:8.2f}{other - one:+12.2f}{other / one:7.2f}")
    rest = summary["seconds"] - summary["seconds_scoring"]
    print(f"index, plan, cluster, page      {rest:8.1f} s in all")
    for line in samples.memory_lines():
        print(line)
    kept = sum(path.stat().st_size for path in (folder / "prefect").glob("prefect.db*"))
    print(f"Prefect's database              {kept / _MIB:8.1f} MiB")
    again, _ = watched_run(folder, settings)
    assert again["skipped"] == len(works), again
    record(
        "scale",
        [],
        {
            "studies": len(works),
            "workers": workers,
            "plain_dask_ms_per_study": plain,
            "run_ms_per_study": flow,
            "cpu_of_plain_ms_per_study": plain_cpu,
            "cpu_of_run_ms_per_study": flow_cpu,
            "index_plan_cluster_page_s": rest,
            "database_mib": kept / _MIB,
            "second_run_s": again["seconds"],
        },
    )
    print(f"second run, nothing to do       {again['seconds']:8.1f} s, without its start")


def orders(archive: Path, rules_file: Path) -> list[StudyWork]:
    """The work orders of an archive, as a run makes them."""
    rules = load_rules(rules_file)
    found = index_archive([archive], Keyring(small_archive.SECRET.encode()))
    series = select_series(series_table(found.instances), rules)
    wanted = wanted_studies(found.instances, series, Identity("0" * 64, "0" * 16, rules.digest))
    return work_orders(wanted, found.instances, found.paths, found.roots)


def plain_dask(works: Sequence[StudyWork], workers: int) -> tuple[float, float]:
    """Seconds to score the studies by a plain client on a cluster that is up; CPU of this process.

    This process holds the scheduler, as the process of a run does.
    """
    stub = str(Path(__file__).with_name("stub_cascade.py"))
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers, threads_per_worker=1, dashboard_address=None, preload=[stub]
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        client.gather(client.map(_score_plainly, works[: 4 * workers], pure=False))
        start, cpu = perf_counter(), process_time()
        futures = client.map(_score_plainly, works, pure=False)
        done = sum(future.result().score["status"] == "scored" for future in as_completed(futures))
        assert done == len(works)
        return perf_counter() - start, process_time() - cpu


_CASCADE: list[Any] = []


def _score_plainly(work: StudyWork) -> StudyResult:
    from cac_core.model.cascade import Cascade

    if not _CASCADE:
        _CASCADE.append(Cascade.load())
    return score_study(work, _CASCADE[0], ScoringProtocol())


class Samples:
    """Memory of the processes of a run by role, and the CPU time of its main process."""

    def __init__(self) -> None:
        self.memory: dict[str, list[int]] = defaultdict(list)
        self.clock: list[tuple[float, float]] = []

    def watch(self, run: subprocess.Popen[bytes]) -> None:
        """Sample the processes of a run until it ends."""
        process, next_time = psutil.Process(run.pid), monotonic()
        while run.poll() is None:
            with contextlib.suppress(psutil.Error):
                self._sample(process)
            next_time = max(next_time + _SAMPLE_EVERY_S, monotonic())
            sleep(next_time - monotonic())

    def _sample(self, process: psutil.Process) -> None:
        used = process.cpu_times()
        self.clock.append((time(), used.user + used.system))
        self.memory["scheduler and flow"].append(process.memory_info().rss)
        for role, of in (("Prefect API", processes.prefect_api), ("a worker", processes.workers)):
            self.memory[role] += [child.memory_info().rss for child in of(process)]

    def cpu(self, folder: Path) -> float:
        """CPU seconds of the main process per study, between the first and the last study."""
        lines = (folder / "run.log").read_text(encoding="utf-8").splitlines()
        studies = [event for event in map(json.loads, lines) if event["event"] == "study"]
        times = [dt.datetime.fromisoformat(event["time"]).timestamp() for event in studies]
        used = np.interp([times[0], times[-1]], *zip(*self.clock, strict=True))
        return float(used[1] - used[0]) / (len(times) - 1)

    def memory_lines(self) -> list[str]:
        """Greatest memory of each role, and that after a quarter of its life and at its end."""
        lines = []
        for role, values in self.memory.items():
            later, third = values[len(values) // 4 :], len(values) // 4 + 1
            middle, last = statistics.median(later[:third]), statistics.median(later[-third:])
            lines.append(
                f"memory, {role:<24}{max(values) / _MIB:8.0f} MiB at most; "
                f"{middle / _MIB:.0f} MiB after a quarter, {last / _MIB:.0f} MiB at the end"
            )
        return lines


def watched_run(folder: Path, settings: Path) -> tuple[dict[str, Any], Samples]:
    """Run `cac score`; its summary, and what its processes took."""
    samples = Samples()
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("cac")), "score", str(folder / "archive"), "--json",
         "-c", str(settings), "-w", str(folder / "warehouse")],
        env=os.environ
        | {"CAC_LINKAGE_KEY": small_archive.SECRET, "PREFECT_HOME": str(folder / "prefect")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as run:  # fmt: skip
        watcher = threading.Thread(target=samples.watch, args=(run,), daemon=True)
        watcher.start()
        output, _ = run.communicate()
    watcher.join()
    assert run.returncode == 0, output
    summary: dict[str, Any] = json.loads(output)
    return summary, samples


if __name__ == "__main__":
    main()
