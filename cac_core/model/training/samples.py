"""Training samples: what each network needs of an annotated scan, and no more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from cac_core.model.preprocess import Spacing, heart_input, heart_labels

#: Context kept around the heart, in pixels: the calcium network's field, and room for a patch.
CROP_MARGIN_PX = 48
#: The heart network's mask is not perfect: candidates up to this far outside the true one count.
MASK_TOLERANCE_MM = 5.0


@dataclass(frozen=True)
class Sample:
    """One annotated scan, cut down.

    `heart_stack` is the input of the heart network (slices + 2, rows, columns), float16;
    `heart_label` its coverage, 0 to 1. `hu`, `inside` and `calcium` are a crop around the heart at
    native resolution: int16; 0 outside, 1 in the tolerance band, 2 in the heart; class 0, 1, 2.
    """

    heart_stack: NDArray[np.float16]
    heart_label: NDArray[np.float16]
    hu: NDArray[np.int16]
    inside: NDArray[np.uint8]
    calcium: NDArray[np.uint8]


def make_sample(
    hu: NDArray[np.int16],
    heart: NDArray[np.bool_],
    calcium: NDArray[np.uint8],
    spacing_mm: Spacing,
) -> Sample:
    """Cut an annotated scan down to what training needs; arrays (slice, row, column).

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
        heart_labels(heart, spacing_mm).astype(np.float16),
        hu[box].copy(),
        inside,
        calcium[box].copy(),
    )


def save_sample(path: Path, sample: Sample) -> None:
    """Write a sample, uncompressed: reading must never starve the training."""
    fields = {name: getattr(sample, name) for name in Sample.__dataclass_fields__}
    with path.open("wb") as stream:
        np.savez(stream, **fields)


def load_samples(folder: Path) -> list[Sample]:
    """All samples of a folder, in order of their names.

    Raises
    ------
    FileNotFoundError
        If the folder holds none.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise FileNotFoundError(f"no training samples (*.npz) in {folder}")
    samples = []
    for path in paths:
        with np.load(path) as arrays:
            samples.append(Sample(**{name: arrays[name] for name in Sample.__dataclass_fields__}))
    return samples


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
