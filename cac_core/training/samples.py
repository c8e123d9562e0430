"""Training samples: the parts of an annotated scan that the networks are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.ndimage import binary_dilation, binary_erosion

from cac_core.errors import TrainingDataError
from cac_core.model.preprocess import Spacing, heart_input, heart_labels

#: Margin of the crop around the heart, in pixels: receptive field of the calcium network and patch.
CROP_MARGIN_PX = 48
#: Candidates up to this far outside the true heart are included: predicted masks are inexact.
MASK_TOLERANCE_MM = 5.0


@dataclass(frozen=True)
class Sample:
    """One annotated scan, reduced; arrays (slice, row, column).

    `heart_stack` (slices + 2, rows, columns) is the input of the heart network; `heart_label` the
    fraction of each pixel inside the heart, in 255ths. `hu`, `inside` and `calcium` are a crop
    around the heart at native resolution. `inside` is 0 outside the heart, 1 in the tolerance band,
    2 inside; `calcium` is 0 background, 1 coronary, 2 non-coronary. `spacing_mm` is slice
    increment, row spacing, column spacing. `crop_start` is the first voxel of the crop and
    `scan_shape` the shape of the scan, both (3,): where a predicted heart mask lies in the crop.
    """

    heart_stack: NDArray[np.float16]
    heart_label: NDArray[np.uint8]
    hu: NDArray[np.int16]
    inside: NDArray[np.uint8]
    calcium: NDArray[np.uint8]
    spacing_mm: NDArray[np.float64]
    crop_start: NDArray[np.int64]
    scan_shape: NDArray[np.int64]

    @property
    def spacing(self) -> Spacing:
        """Slice increment, row spacing, column spacing in mm."""
        increment, row, column = map(float, self.spacing_mm)
        return increment, row, column

    @property
    def pixel_mm2(self) -> float:
        """Area of a pixel of the crop."""
        return float(self.spacing_mm[1] * self.spacing_mm[2])


def make_sample(
    hu: NDArray[np.int16],
    heart: NDArray[np.bool_],
    calcium: NDArray[np.uint8],
    spacing_mm: Spacing,
) -> Sample:
    """Reduce an annotated scan to a training sample; arrays (slice, row, column).

    Raises
    ------
    ValueError
        If the arrays differ in shape or the heart mask is empty.
    """
    if not (hu.shape == heart.shape == calcium.shape):
        raise ValueError(f"shapes differ: {hu.shape}, {heart.shape}, {calcium.shape}")
    if not heart.any():
        raise ValueError("the heart mask is empty")
    box = _crop_box(heart)
    band = max(1, round(MASK_TOLERANCE_MM / spacing_mm[1]))
    core = heart[box]
    disc = _disc(band)
    inside = np.zeros(core.shape, np.uint8)
    for k, plane in enumerate(core):
        if plane.any():
            inside[k] = binary_dilation(plane, disc).astype(np.uint8)
            inside[k] += binary_erosion(plane, _disc(1))
    return Sample(
        heart_input(hu, spacing_mm).numpy().astype(np.float16),
        np.rint(255 * heart_labels(heart, spacing_mm)).astype(np.uint8),
        hu[box].copy(),
        inside,
        calcium[box].copy(),
        np.array(spacing_mm, np.float64),
        np.array([part.start for part in box], np.int64),
        np.array(hu.shape, np.int64),
    )


def save_sample(path: Path, sample: Sample) -> None:
    """Write a sample to a temporary file and rename it, so that no partial file is left."""
    aside = path.with_suffix(".part")
    save_file({name: getattr(sample, name) for name in Sample.__dataclass_fields__}, aside)
    aside.chmod(0o644)  # safetensors creates files that only their owner can read
    aside.replace(path)


class SampleFiles:
    """Samples on disk, read on demand and cached in memory.

    Parameters
    ----------
    paths : files written by `save_sample`.
    keep : maximum number of samples in memory, about 7 MB each.
    """

    def __init__(self, paths: Sequence[Path], keep: int = 1000) -> None:
        self.paths = tuple(paths)
        self.names = tuple(path.stem for path in paths)
        self._read = lru_cache(maxsize=keep)(lambda number: load_sample(self.paths[number]))

    def __getitem__(self, number: int) -> Sample:
        return self._read(number)


def load_sample(path: Path) -> Sample:
    """Read one sample.

    Raises
    ------
    TrainingDataError
        If the file is missing, truncated, or not a sample of this version.
    """
    try:
        return Sample(**load_file(path))
    except (OSError, SafetensorError, TypeError) as error:
        raise TrainingDataError(
            f"The sample {path} cannot be read ({type(error).__name__}).",
            "Remove it; the same command creates it again.",
        ) from None


def _crop_box(heart: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    box = []
    margins = (1, CROP_MARGIN_PX, CROP_MARGIN_PX)
    for axis, margin in enumerate(margins):
        other = tuple(a for a in range(3) if a != axis)
        at = np.flatnonzero(heart.any(axis=other))
        box.append(slice(max(0, at[0] - margin), min(heart.shape[axis], at[-1] + 1 + margin)))
    return box[0], box[1], box[2]


def _disc(radius: int) -> NDArray[np.bool_]:
    across = np.arange(-radius, radius + 1)
    return across[:, None] ** 2 + across**2 <= radius**2
