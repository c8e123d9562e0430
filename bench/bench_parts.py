"""Processor time and memory of the parts of a night, per file and per study.

    python -m bench.bench_parts [--studies 20000]

Writes small studies, and does in one process what a run does before it scores: lists the archive
beside the last index, makes the series table, selects, plans. Then publishes 250 rows onto a table
of scores with one row per study. Prints the CPU time of each part, and by how much the process has
grown since its start.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import process_time
from typing import Any

import psutil
import pyarrow.parquet as pq

from bench import small_archive
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import Identity, wanted_studies, work_orders
from cac_core.dicom.index import index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.errors import StudyError
from cac_core.keys import Keyring
from cac_core.study import unscored
from schemas.codes import StudyReason
from schemas.lesion import LESIONS
from schemas.score import SCORES

_MODEL = "bench-1-00000000"
_BEGAN = psutil.Process().memory_info().rss


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        small_archive.write_studies(Path(name) / "archive", options.studies)
        report(Path(name), options.studies)


def report(folder: Path, studies: int) -> None:
    """Do the parts in turn, and print each."""
    small_archive.write_settings(folder)
    rules, keyring = load_rules(folder / "rules.toml"), Keyring(small_archive.SECRET.encode())
    archive, files = folder / "archive", studies * small_archive.SLICES
    with ProcessPoolExecutor(1) as pool:  # in a process of its own, whose memory does not count
        pool.submit(prepare, folder).result()
    previous = pq.read_table(_previous(folder))
    found = timed(
        "list and compare",
        files,
        "file",
        lambda: index_archive([archive], keyring, previous=previous),
    )
    table = timed("series table", files, "file", lambda: series_table(found.instances))
    series = timed("selection", studies, "study", lambda: select_series(table, rules))
    identity = Identity("0" * 64, "0" * 16, rules.digest)
    wanted = timed(
        "plan", studies, "study", lambda: wanted_studies(found.instances, series, identity)
    )
    store, fault = Warehouse(folder / "warehouse"), StudyError(StudyReason.TIMEOUT, rejected=False)
    common = {
        "model_digest": identity.model_digest,
        "protocol_digest": identity.protocol_digest,
        "core_version": identity.core_version,
        "run_id": "bench",
        "scored_at": dt.datetime.now(dt.UTC),
    }
    works = work_orders(wanted, found.instances, found.paths)
    rows = SCORES.from_rows(unscored(work, fault).score | common for work in works)
    store.replace(SCORES, rows, _MODEL)
    store.stage(_MODEL, "bench", rows.slice(0, 250), LESIONS.empty())
    timed("publish 250 rows", studies, "row of scores", lambda: store.publish(_MODEL))


def prepare(folder: Path) -> None:
    """Write the index of the night before."""
    keyring = Keyring(small_archive.SECRET.encode())
    pq.write_table(index_archive([folder / "archive"], keyring).instances, _previous(folder))


def _previous(folder: Path) -> Path:
    return folder / "previous.parquet"


def timed(what: str, number: int, unit: str, part: Callable[[], Any]) -> Any:
    """Do one part and print what it took."""
    cpu = process_time()
    result = part()
    cpu = process_time() - cpu
    grown = psutil.Process().memory_info().rss - _BEGAN
    print(
        f"{what:<18}{cpu:7.2f} s of CPU, {cpu / number * 1e6:.1f} us per {unit}; "
        f"grown by {grown / 2**20:.0f} MiB, {grown / number / 1024:.1f} KiB per {unit}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    main()
