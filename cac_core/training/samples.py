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
from scipy.ndimage import distance_transform_edt, maximum_filter1d

from cac_core.errors import TrainingDataError
from cac_core.model.preprocess import Spacing, heart_input, heart_labels, heart_slices

#: Margin of the crop around the tolerance band, in pixels: receptive field of the calcium network.
CROP_MARGIN_PX = 48
#: Candidates up to this far outside the true heart, within a slice, and in one slice above and
#: below are included: predicted masks are inexact, and what surrounds the heart must be known.
MASK_TOLERANCE_MM = 12.0
#: Distance within which a pixel of the heart network's grid is near coronary calcium.
CORONARY_REACH_MM = 8.0


@dataclass(frozen=True)
class Sample:
    """One annotated scan, reduced; arrays (slice, row, column).

    `heart_stack` (slices + 2, rows, columns) is the input of the heart network; `heart_label` the
    fraction of each pixel inside the heart, in 255ths; `heart_coronary` the fraction of each pixel
    near coronary calcium of the heart, likewise. `hu`, `inside` and `calcium` are a crop around the
    heart at native resolution. `inside` is 0 outside the heart, 1 in the tolerance band, 2 inside;
    `calcium` is 0 background, 1 coronary, 2 non-coronary. `spacing_mm` is slice increment, row
    spacing, column spacing. `crop_start` is the first voxel of the crop and `scan_shape` the shape
    of the scan, both (3,): where a predicted heart mask lies in the crop.
    """

    heart_stack: NDArray[np.float16]
    heart_label: NDArray[np.uint8]
    heart_coronary: NDArray[np.uint8]
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
    box = _crop_box(heart, spacing_mm)
    band = _near(heart[box], MASK_TOLERANCE_MM, spacing_mm).view(np.uint8)
    # One slice above and below belongs to the band.
    inside = maximum_filter1d(band, 3, axis=0, mode="constant") + heart[box].view(np.uint8)
    return Sample(
        heart_input(hu, spacing_mm).numpy().astype(np.float16),
        np.rint(255 * heart_labels(heart, spacing_mm)).astype(np.uint8),
        _near_coronary((calcium == 1) & heart, spacing_mm),
        hu[box].copy(),
        inside,
        calcium[box].copy(),
        np.array(spacing_mm, np.float64),
        np.array([part.start for part in box], np.int64),
        np.array(hu.shape, np.int64),
    )


def content_of_samples() -> str:
    """What `make_sample` puts into a sample; samples with other content are made again."""
    numbers = (CROP_MARGIN_PX, MASK_TOLERANCE_MM, CORONARY_REACH_MM)
    return " ".join([*Sample.__dataclass_fields__, *map(str, numbers)])


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
    keep : maximum number of samples in memory, about 9 MB each.
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


def _near_coronary(coronary: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.uint8]:
    """Fraction of each pixel of the heart network's grid near calcium, in 255ths."""
    step = int(np.diff(heart_slices(coronary.shape[0], spacing_mm[0])[:2]).sum())
    # Calcium in slices that the heart network skips counts in the nearest one that it sees.
    thick = maximum_filter1d(coronary.view(np.uint8), 2 * (step // 2) + 1, axis=0, mode="constant")
    near = _near(thick.view(np.bool_), CORONARY_REACH_MM, spacing_mm)
    return np.rint(255 * heart_labels(near, spacing_mm)).astype(np.uint8)


def _near(mask: NDArray[np.bool_], reach_mm: float, spacing_mm: Spacing) -> NDArray[np.bool_]:
    """Pixels within this distance of the mask in the same slice."""
    near = np.zeros(mask.shape, np.bool_)
    margins = [int(np.ceil(reach_mm / spacing)) for spacing in spacing_mm[1:]]
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        window = tuple(
            slice(max(0, at[0] - margin), at[-1] + 1 + margin)
            for at, margin in zip(
                (np.flatnonzero(mask[k].any(axis=axis)) for axis in (1, 0)), margins, strict=True
            )
        )
        apart = distance_transform_edt(~mask[k][window], sampling=spacing_mm[1:])
        near[k][window] = apart <= reach_mm
    return near


def _crop_box(heart: NDArray[np.bool_], spacing_mm: Spacing) -> tuple[slice, slice, slice]:
    box = []
    # The band has one slice on either side, and each slice of it has a neighbour.
    margins = [2, *(CROP_MARGIN_PX + int(np.ceil(MASK_TOLERANCE_MM / s)) for s in spacing_mm[1:])]
    for axis, margin in enumerate(margins):
        other = tuple(a for a in range(3) if a != axis)
        at = np.flatnonzero(heart.any(axis=other))
        box.append(slice(max(0, at[0] - margin), min(heart.shape[axis], at[-1] + 1 + margin)))
    return box[0], box[1], box[2]
