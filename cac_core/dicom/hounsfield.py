"""Stored values to Hounsfield units: rescale, padding to air, and a check of plausibility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from cac_core.dicom import datafile

#: HU of air, and of every pixel outside the reconstructed field.
AIR_HU = -1024
#: Noise does not reach below this; lower values (-2000, -2048, -3024) are padding of the scanner.
_PADDING_BELOW_HU = -1500
#: Declared padding above this HU counts only where it touches the border of the image.
_NO_TISSUE_BELOW_HU = -900
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True)
class Padding:
    """Stored values declared as padding: PixelPaddingValue to PixelPaddingRangeLimit."""

    low: int
    high: int


def declared_padding(dataset: Dataset, bits_allocated: int, signed: bool) -> Padding | None:
    """Return the padding of a data set (PS3.3 C.7.5.1.1.2); None where not declared.

    The VR depends on PixelRepresentation and is often wrong, so the value is read modulo 2^bits.

    Parameters
    ----------
    dataset : one file.
    bits_allocated, signed : representation of the pixels.
    """
    value = datafile.integer(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = datafile.integer(dataset, "PixelPaddingRangeLimit")
    span = 2**bits_allocated
    low, high = sorted(
        (number + (span // 2 if signed else 0)) % span - (span // 2 if signed else 0)
        for number in (value, value if limit is None else limit)
    )
    return Padding(low, high)


def to_hounsfield(
    stored: NDArray[np.int16] | NDArray[np.uint16] | NDArray[np.int32],
    slope: float,
    intercept: float,
    padding: Padding | None,
    out: NDArray[np.int16] | None = None,
) -> tuple[NDArray[np.int16], bool]:
    """Return the HU of one slice, and whether padding was replaced by air.

    Parameters
    ----------
    stored : (rows, columns) stored values.
    slope, intercept : rescale of this slice: HU = slope x stored + intercept, in double
        precision, rounded half to even, clipped to -1024 and 32767.
    padding : declared padding, if any.
    out : where the HU are written, (rows, columns); by default a new array.
    """
    hu = np.empty(stored.shape, np.int16) if out is None else out
    low, high = int(stored.min()), int(stored.max())
    ends = (slope * low + intercept, slope * high + intercept)
    if slope == 1.0 and intercept.is_integer() and _INT16.min <= ends[0] and ends[1] <= _INT16.max:
        # Sums and operands fit 16 bits (uint16 wraps to the same bits), so this equals the
        # double-precision path at a tenth of its time.
        if stored.itemsize == 2 and _fits(intercept):
            np.add(stored.view(np.int16), np.int16(int(intercept)), out=hu)
        else:
            hu[:] = stored.astype(np.int32) + int(intercept)
    else:
        real = np.rint(stored.astype(np.float64) * slope + intercept)
        hu[:] = np.clip(real, _INT16.min, _INT16.max)
    replaced = False
    if padding is not None and padding.high >= low and padding.low <= high:
        replaced = _replace_declared(hu, stored, padding)
    if min(ends) < AIR_HU:
        replaced = replaced or bool((hu < _PADDING_BELOW_HU).any())
        np.maximum(hu, AIR_HU, out=hu)
    return hu, replaced


def _fits(intercept: float) -> bool:
    return _INT16.min <= intercept <= _INT16.max


def _replace_declared(
    hu: NDArray[np.int16],
    stored: NDArray[np.int16] | NDArray[np.uint16] | NDArray[np.int32],
    padding: Padding,
) -> bool:
    """Set declared padding to air in place; return whether that changed a pixel."""
    mask = (stored >= padding.low) & (stored <= padding.high)
    if mask.any() and hu[mask].max() > _NO_TISSUE_BELOW_HU:
        # Some writers declare 0 as padding, which is also a value of tissue. Then only the area
        # around the field of view is padding.
        labels, _ = ndimage.label(mask)
        border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        mask &= np.isin(labels, np.unique(border[border > 0]))
    changed = bool((hu[mask] != AIR_HU).any())
    hu[mask] = AIR_HU
    return changed


def is_plausible(hu: NDArray[np.int16]) -> bool:
    """Whether a volume has air (below -800 HU) and soft tissue (-150 to 150 HU).

    With a wrong intercept or unit, one of them has less than 0.1 % of the pixels. Uses every 32nd
    pixel.
    """
    sample = np.ascontiguousarray(hu[:, ::8, ::4])
    air = np.count_nonzero(sample < -800)
    tissue = np.count_nonzero((sample > -150) & (sample < 150))
    return bool(min(air, tissue) >= 0.001 * sample.size)


#: Ranges of the most frequent values of air and body if values are HU: air is -1000 by definition,
#: the most frequent tissue is fat (-100) or soft tissue (up to 60), each with a margin of 30 HU.
_AIR_PEAK_HU = (-1024, -960)
_BODY_PEAK_HU = (-130, 90)
_PEAK_BIN_HU = 10


def has_hounsfield_peaks(hu: NDArray[np.int16]) -> bool:
    """Whether the most frequent values of air and body are those of HU.

    Stricter than `is_plausible`, for values that the header does not declare as HU. Padding, which
    is exactly -1024, counts as air only where there is no other air.
    """
    sample = hu[:, ::8, ::4]
    air = sample[(sample < -800) & (sample > AIR_HU)]
    if air.size < 0.001 * sample.size:
        air = sample[sample < -800]
    body = sample[(sample > -300) & (sample < 400)]
    if min(air.size, body.size) < 0.001 * sample.size:
        return False
    return all(
        low <= _peak(values) <= high
        for values, (low, high) in ((air, _AIR_PEAK_HU), (body, _BODY_PEAK_HU))
    )


def _peak(values: NDArray[np.int16]) -> float:
    """Centre of the bin with the most values."""
    counts = np.bincount((values.astype(np.int64) + 2048) // _PEAK_BIN_HU)
    return float(np.argmax(counts) * _PEAK_BIN_HU - 2048 + _PEAK_BIN_HU / 2)
