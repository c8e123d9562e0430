"""Ratios of two things measured alternately in one process, and their record.

Seconds are processor time of the process, which depends little on the load of the machine. A record
is a JSON file under `bench/results`, with the machine and the versions it was measured with.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import gc
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import process_time

from cac_core.version import __version__

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "numpy", "scipy", "pydicom", "onnxruntime", "openvino", "monai")


@dataclass(frozen=True)
class Ratio:
    """Time of `other` divided by that of `ours`: how many times faster ours is.

    `low` and `high` are the quartiles of the ratio over the repetitions; seconds are medians.
    """

    what: str
    ours: str
    other: str
    ratio: float
    low: float
    high: float
    seconds_ours: float
    seconds_other: float
    n: int

    def __str__(self) -> str:
        """One line: the ratio with its quartiles, and both times."""
        return (
            f"{self.what:<34}{self.ratio:7.2f} ({self.low:.2f} to {self.high:.2f})   "
            f"{self.other} {self.seconds_other * 1e3:.1f} ms, {self.ours} "
            f"{self.seconds_ours * 1e3:.1f} ms, n = {self.n}"
        )


def ratio_of(
    what: str,
    ours: tuple[str, Callable[[], object]],
    other: tuple[str, Callable[[], object]],
    *,
    repeats: int = 5,
) -> Ratio:
    """Call both in turn, once unmeasured and then `repeats` times, and compare.

    Parameters
    ----------
    ours, other : name and function.
    """
    pairs = []
    for number in range(repeats + 1):
        pair = seconds(ours[1]), seconds(other[1])
        if number:
            pairs.append(pair)
    return from_pairs(what, ours[0], other[0], pairs)


def from_pairs(what: str, ours: str, other: str, pairs: list[tuple[float, float]]) -> Ratio:
    """The ratio of times that were measured in pairs, (ours, other)."""
    ratios = sorted(theirs / own for own, theirs in pairs)
    low, middle, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    own, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Ratio(what, ours, other, middle, low, high, own, theirs, len(pairs))


def seconds(function: Callable[[], object]) -> float:
    """Processor time of one call, without garbage collection."""
    gc.collect()
    gc.disable()
    try:
        begin = process_time()
        function()
        return process_time() - begin
    finally:
        gc.enable()


def record(name: str, ratios: list[Ratio], figures: Mapping[str, object] | None = None) -> Path:
    """Print the ratios, and write them with the machine and versions; returns the file.

    Parameters
    ----------
    name : file name without ending.
    figures : other results, as JSON values.
    """
    for ratio in ratios:
        print(ratio, flush=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "measured": dt.datetime.now(dt.UTC).date().isoformat(),
        "version": __version__,
        "machine": machine(),
        "ratios": [dataclasses.asdict(ratio) for ratio in ratios],
        "figures": dict(figures or {}),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def machine() -> dict[str, object]:
    """Processor, cores, Python and packages, without the name of the machine."""
    processor = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    packages = {name: found for name in _PACKAGES if (found := _version(name))}
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": packages,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
