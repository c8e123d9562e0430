"""A Dask preload that puts a stub in place of the networks of a worker.

Named in `cluster.options.preload` of the settings, as any preload of a site; the program itself has
no part in it. The stub takes `CAC_BENCH_STUB_S` seconds (default 0.005), finds the heart of
`bench/small_archive.py` and calls bright voxels in it coronary. The first pixel of a volume can
tell it to misbehave. With `CAC_BENCH_LOAD_S`, loading the weights takes that long.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cac_core.model.weights import verify_weights

#: What the first pixel can ask for, in HU above that of air; a bomb is a file, see `small_archive`.
GOOD, SEGFAULT, ENDLESS, GREEDY, BOMB = range(5)
_BRIGHT_HU = 130
#: Heart of every study (slice, row, column): 415 ml.
HEART = (slice(1, 5), slice(20, 29), slice(20, 29))


class Segmentation(NamedTuple):
    """The fields of `cac_core.model.cascade.Segmentation`, which imports torch."""

    heart_mask: NDArray[np.bool_]
    calcium_class: NDArray[np.uint8]
    possible: NDArray[np.bool_]
    scores: NDArray[np.float32]
    hearts_overlap: float
    seconds_heart: float
    seconds_calcium: float


class Cascade:
    """Answers after a fixed time."""

    def __init__(self, folder: Path | None) -> None:
        manifest = verify_weights(folder)
        self.digest, self.confidence = manifest.digest, manifest.confidence
        self.seconds = float(os.environ.get("CAC_BENCH_STUB_S", "0.005"))

    @classmethod
    def load(cls, folder: Path | None = None, **options: Any) -> Cascade:
        """Take the digest from the manifest, and nothing else."""
        time.sleep(float(os.environ.get("CAC_BENCH_LOAD_S", "0")))
        return cls(folder)

    def segment(self, hu: NDArray[np.int16], spacing_mm: Any, **options: Any) -> Segmentation:
        """Misbehave if the volume asks for it; else find the heart and what is bright in it."""
        _misbehave(int(hu[0, 0, 0]) + 1000)
        time.sleep(self.seconds)
        heart = np.zeros(hu.shape, bool)
        heart[HEART] = True
        possible = heart & (hu >= _BRIGHT_HU)
        scores = np.zeros((int(possible.sum()), 3), np.float32)
        scores[:, 1] = 4.0
        classes = possible.astype(np.uint8)
        return Segmentation(heart, classes, possible, scores, 1.0, self.seconds, 0.0)


def _misbehave(code: int) -> None:
    if code == SEGFAULT:
        ctypes.string_at(0)
    while code == ENDLESS:
        pass
    if code == GREEDY:
        kept = []
        while True:
            kept.append(np.ones(2**28, np.uint8))


def install() -> None:
    """Put the stub where the worker plugin looks for the cascade."""
    module = ModuleType("cac_core.model.cascade")
    module.Cascade = Cascade  # type: ignore[attr-defined]
    module.Segmentation = Segmentation  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


def dask_setup(worker: object) -> None:
    """Called by Dask when a worker starts."""
    install()
