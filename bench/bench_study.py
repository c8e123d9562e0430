"""Where the time of one study goes, from files to row, and what it costs against its size.

    python -m bench.bench_study [--studies 24] [--repeats 5] [--archive DIR]

Scores the studies of a synthetic archive (or of one that is given) in one process with one thread,
as a worker does. Prints the processor time of each part, the floating-point operations of the
networks and the bytes read beside what one core of this machine can do, the ratio of reading a
series to the bare reads of the same bytes, and seconds per study for 20 to 400 slices and matrices
of 256 to 1024.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib
import os
import resource
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from pydicom import dcmread
from scipy.ndimage import zoom
from torch.utils.flop_counter import FlopCounterMode

from bench.measure import Ratio, ratio_of, record, seconds
from cac_core.cohort.worklist import Identity, wanted_studies, work_orders
from cac_core.dicom.index import index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.dicom.volume import read_volume
from cac_core.keys import Keyring
from cac_core.model.cascade import Cascade
from cac_core.phantom.analytic.scan import synthesise_scan
from cac_core.phantom.archive.write import write_archive
from cac_core.protocol import ScoringProtocol
from cac_core.storage import ArchiveFile, archive_file, read_all
from cac_core.study import StudyWork, score_study

#: Parts of a study, and the functions whose time is theirs, without that of parts inside them.
PARTS: dict[str, tuple[str, ...]] = {
    "open and read": ("cac_core.dicom.datafile:read_all",),
    "parse headers": ("cac_core.dicom.datafile:parse_dataset",),
    "decode compressed frames": ("cac_core.dicom.pixels:decode_frame",),
    "HU": ("cac_core.dicom.volume:_read_pixels",),
    "digest of the pixels": ("cac_core.dicom.volume:pixel_digest",),
    "check files and headers": ("cac_core.study:read_study",),
    "heart input": ("cac_core.model.cascade:heart_input",),
    "heart networks": ("cac_core.model.cascade:Cascade.heart_probability",),
    "heart mask": ("cac_core.model.cascade:heart_mask",),
    "candidates": ("cac_core.model.cascade:candidates",),
    "windows": ("cac_core.model.cascade:candidate_windows",),
    "calcium network": ("cac_core.model.cascade:Cascade.candidate_scores",),
    "components": ("cac_core.model.cascade:classify_lesions", "cac_core.study:label_lesions"),
    "contrast and heart checks": ("cac_core.study:_check_heart",),
    "quality": ("cac_core.study:_quality",),
    "certainty": ("cac_core.study:_certainty",),
    "previews": ("cac_core.study:_previews",),
    "rows and the rest": ("cac_core.study:_score",),
}
_SLICES, _MATRICES = (20, 45, 100, 200, 400), (256, 512, 768, 1024)
_SCORED = "scored"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class Stopwatch:
    """Processor time by part; the time of a part inside another counts once."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = process_time()

    def _switch(self) -> None:
        now = process_time()
        if self._open:
            self.spent[self._open[-1]] += now - self._since
        self._since = now

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted to a part; a generator is run to its end."""

        @functools.wraps(function)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            self._switch()
            self._open.append(part)
            try:
                found = function(*arguments, **keywords)
                return iter(list(found)) if isinstance(found, Iterator) else found
            finally:
                self._switch()
                self._open.pop()

        return timed


@contextmanager
def timed_parts(watch: Stopwatch) -> Iterator[None]:
    """Count the time of all parts inside."""
    with ExitStack() as stack:
        for part, names in PARTS.items():
            for name in names:
                module, _, path = name.partition(":")
                owner: Any = importlib.import_module(module)
                *outer, last = path.split(".")
                for step in outer:
                    owner = getattr(owner, step)
                stack.enter_context(
                    patch.object(owner, last, watch.wrap(part, getattr(owner, last)))
                )
        yield


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--archive", type=Path)
    options = parser.parse_args()
    _allocate_as_a_worker()
    with tempfile.TemporaryDirectory() as name:
        archive = options.archive or Path(name) / "archive"
        if options.archive is None:
            write_archive(archive, studies=options.studies, seed=7, workers=_cores())
        works = list(study_works(archive))
        cascade, protocol = Cascade.load(threads=1), ScoringProtocol()
        scored = [w for w in works if score_study(w, cascade, protocol).score["status"] == _SCORED]
        figures: dict[str, object] = profile(scored, cascade, protocol, options.repeats)
        figures |= machine_limits(scored, cascade)
        ratios = [reading(scored, options.repeats)]
        figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"largest memory of this process: {figures['peak_mib']:.0f} MiB")
        figures["seconds_by_size"] = by_size(cascade)
        record("study", ratios, figures)


def study_works(archive: Path) -> Iterator[StudyWork]:
    """What a worker gets for each study of an archive."""
    rules = load_rules()
    found = index_archive([archive], Keyring(b"a secret of the benchmark"))
    series = select_series(series_table(found.instances), rules)
    identity = Identity("0" * 64, "0" * 16, rules.digest)
    wanted = wanted_studies(found.instances, series, identity)
    return work_orders(wanted, found.instances, found.paths, found.roots)


def profile(
    works: Sequence[StudyWork], cascade: Cascade, protocol: ScoringProtocol, repeats: int
) -> dict[str, object]:
    """Print and return the processor time of each part: the median over the studies."""
    whole: list[float] = []
    parts: dict[str, list[float]] = {part: [] for part in PARTS}
    for work in works:
        runs = []
        for _ in range(repeats):
            watch = Stopwatch()
            with timed_parts(watch):
                total = seconds(functools.partial(score_study, work, cascade, protocol))
            runs.append((total, watch.spent))
        total, spent = min(runs, key=lambda run: run[0])  # the least disturbed run
        whole.append(total)
        for part, values in parts.items():
            values.append(spent[part])
    quartiles = statistics.quantiles(whole, n=4, method="inclusive")
    print(f"core-seconds per study: median {quartiles[1]:.3f}, quartiles {quartiles[0]:.3f} and "
          f"{quartiles[2]:.3f}, {len(whole)} studies")  # fmt: skip
    means = {part: statistics.mean(values) for part, values in parts.items()}
    for part, mean in means.items():
        print(f"  {part:<28}{mean * 1e3:8.1f} ms on average, "
              f"{statistics.median(parts[part]) * 1e3:.1f} in the median study")  # fmt: skip
    return {
        "core_seconds": quartiles,
        "n_studies": len(whole),
        "part_seconds_mean": means,
        "part_seconds_median": {part: statistics.median(v) for part, v in parts.items()},
    }


def machine_limits(works: Sequence[StudyWork], cascade: Cascade) -> dict[str, object]:
    """Operations and bytes of a study, and what one core does of both in a second."""
    operations, n_bytes = [], []
    for work in works:
        volume = read_volume(files_of(work))
        with FlopCounterMode(display=False) as counter:
            cascade.segment(volume.hu, volume.spacing_mm)
        operations.append(counter.get_total_flops())
        n_bytes.append(sum(stamp.size_bytes for stamp in work.files))
    side = 2048
    a, b = torch.randn(side, side), torch.randn(side, side)
    peak = 2 * side**3 / min(seconds(lambda: a @ b) for _ in range(5))
    source = np.ones(2**26, np.uint8)
    speed = len(source) / min(seconds(source.copy) for _ in range(5))
    found: dict[str, object] = {
        "gflop": statistics.median(operations) / 1e9,
        "gflop_per_s_matmul": peak / 1e9,
        "megabytes": statistics.median(n_bytes) / 1e6,
        "gigabytes_per_s_copy": speed / 1e9,
    }
    print(
        f"networks: {found['gflop']:.1f} GFLOP per study; a matrix product does "
        f"{found['gflop_per_s_matmul']:.0f} GFLOP in a core-second\n"
        f"files: {found['megabytes']:.0f} MB per study; a copy does "
        f"{found['gigabytes_per_s_copy']:.1f} GB in a core-second"
    )
    return found


def files_of(work: StudyWork) -> list[ArchiveFile]:
    """The files of a study as its reader gets them."""
    return [archive_file(stamp.path, stamp.size_bytes) for stamp in work.files]


def reading(works: Sequence[StudyWork], repeats: int) -> Ratio:
    """Reading an uncompressed series against the bare reads of its bytes, 60 slices or nearest."""
    uncompressed = [work for work in works if _syntax(work) == "1.2.840.10008.1.2.1"]
    files = files_of(min(uncompressed or works, key=lambda work: abs(len(work.files) - 60)))
    return ratio_of(
        f"reading {len(files)} files / bare reads",
        ("bare reads", lambda: sum(map(len, read_all(files)))),
        ("volume in HU", lambda: read_volume(files)),
        repeats=max(repeats, 9),
    )


def _syntax(work: StudyWork) -> str:
    header = dcmread(work.files[0].path, stop_before_pixels=True)
    return str(header.file_meta.TransferSyntaxUID)


def _allocate_as_a_worker() -> None:
    """Keep freed memory, as the environment of workers says; without it volumes are page faults."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**30)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**25)


def by_size(cascade: Cascade) -> list[dict[str, float]]:
    """Processor time of the networks for one scan, resampled to more slices or a larger matrix."""
    scan, rows = synthesise_scan(7000), []
    sizes = [(slices, 512) for slices in _SLICES] + [(45, side) for side in _MATRICES]
    for slices, side in sizes:
        n, height, width = scan.hu.shape
        factors = (slices / n, side / height, side / width)
        hu = zoom(scan.hu, factors, order=1).astype(np.int16)
        spacing = tuple(s / f for s, f in zip(scan.spacing_mm, factors, strict=True))
        spent = min(seconds(lambda: cascade.segment(hu, spacing)) for _ in range(3))  # type: ignore[arg-type]  # noqa: B023
        rows.append({"slices": slices, "matrix": side, "seconds": spent})
        print(f"  {slices:4d} slices of {side:4d} x {side:4d}: {spent:.3f} s", flush=True)
    return rows


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
