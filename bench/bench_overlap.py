"""What it brings to read and decode the next study while the networks see the one before.

    python -m bench.bench_overlap [--studies 12] [--repeats 3]

Scores the same studies in one process and in as many as there are cores, each with and without a
thread that reads the next study (and, through the decoder process, decodes it). Wall time, in turn.
With a core for every process nothing should be left to gain; with idle cores, at most the part of
reading. Two kinds of archive: as most are, and every frame compressed (JPEG 2000).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless

from bench.bench_study import study_works
from bench.measure import Ratio, from_pairs, record
from cac_core.dicom.volume import CtVolume
from cac_core.model.cascade import Cascade
from cac_core.phantom.archive.write import write_archive
from cac_core.protocol import ScoringProtocol
from cac_core.study import StudyWork, read_study, score_study

_cascade: list[Cascade] = []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    ratios: list[Ratio] = []
    with tempfile.TemporaryDirectory() as name:
        archive = Path(name) / "archive"
        write_archive(archive, studies=options.studies, seed=7, workers=cores)
        for kind in ("as written", "compressed"):
            if kind == "compressed":
                compress(archive)
            works = list(study_works(archive))
            for processes in sorted({1, cores}):
                what = f"{kind}, {processes} processes of {cores} cores"
                ratios.append(compared(what, works, processes, options.repeats))
    record("overlap", ratios, {"load": os.getloadavg()[0]})


def compress(archive: Path) -> None:
    """Compress every uncompressed image of an archive in place."""
    for path in archive.rglob("*"):
        if path.is_file():
            dataset = dcmread(path, force=True)
            syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
            if "PixelData" in dataset and syntax is not None and not syntax.is_compressed:
                dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
                dataset.save_as(path)


def compared(what: str, works: Sequence[StudyWork], processes: int, repeats: int) -> Ratio:
    """Wall time of both ways, in turn."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _load) as pool:
        pairs = [
            (waited(pool, works, processes, True), waited(pool, works, processes, False))
            for _ in range(repeats + 1)
        ]
    return from_pairs(what, "next study read ahead", "one after the other", pairs[1:])


def waited(pool: Pool, works: Sequence[StudyWork], processes: int, ahead: bool) -> float:
    """Seconds in which the processes score all studies."""
    shares = [works[number::processes] for number in range(processes)]
    begin = perf_counter()
    pool.map(partial(_score_all, ahead=ahead), shares, chunksize=1)
    return perf_counter() - begin


def _load() -> None:
    _cascade.append(Cascade.load(threads=1))


def _score_all(works: Sequence[StudyWork], *, ahead: bool) -> None:
    if not ahead:
        for work in works:
            score_study(work, _cascade[0], ScoringProtocol())
        return
    with ThreadPoolExecutor(1) as thread:
        reads: dict[str, Future[CtVolume]] = {}

        def read(work: StudyWork) -> CtVolume:
            return reads.pop(work.study_key).result()

        with patch("cac_core.study.read_study", read):
            for number, work in enumerate(works):
                for near in works[number : number + 2]:
                    if near.study_key not in reads:
                        reads[near.study_key] = thread.submit(read_study, near)
                score_study(work, _cascade[0], ScoringProtocol())


if __name__ == "__main__":
    main()
