"""Calcified lesions: connected components of calcium pixels within one slice.

Lesions are two-dimensional, as in the original score (Agatston et al., J Am Coll Cardiol
1990;15:827). A pixel belongs to a lesion where the network classified it as calcium, it lies inside
the heart mask and its HU reaches the threshold. Adjacent coronary and non-coronary pixels form
separate lesions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cac_core.components import label_in_plane, reaches_area
from cac_core.protocol import ScoringProtocol
from schemas.codes import CalciumClass

#: Values of a calcium class volume; 0 is background.
CORONARY = 1
NONCORONARY = 2

_CLASS_NAMES = {CORONARY: CalciumClass.CORONARY.value, NONCORONARY: CalciumClass.NONCORONARY.value}


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """The lesions of one study, as arrays of shape (n,).

    Ordered by slice, then class (coronary first), then first pixel in reading order.

    Parameters
    ----------
    slice_index : slice of the volume.
    calcium_class : 1 coronary, 2 non-coronary.
    n_pixels : pixels of the lesion.
    area_mm2 : area of the pixels.
    peak_hu, mean_hu : largest and mean HU.
    weight : density weight, 1 to 4.
    agatston : contribution to the score, including slice increment / 3 mm.
    volume_mm3 : number of voxels x voxel volume.
    mass_mg : calcium mass; NaN where the protocol has no calibration.
    centroid_row, centroid_column : unweighted centroid in pixels; 0 is the centre of the first.
    """

    slice_index: NDArray[np.intp]
    calcium_class: NDArray[np.uint8]
    n_pixels: NDArray[np.intp]
    area_mm2: NDArray[np.float64]
    peak_hu: NDArray[np.int16]
    mean_hu: NDArray[np.float64]
    weight: NDArray[np.intp]
    agatston: NDArray[np.float64]
    volume_mm3: NDArray[np.float64]
    mass_mg: NDArray[np.float64]
    centroid_row: NDArray[np.float64]
    centroid_column: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.slice_index)

    def rows(self, study_key: str, protocol_digest: str) -> list[dict[str, object]]:
        """Return the rows of the table `lesions`, in order, as plain Python values."""
        return [
            {
                "study_key": study_key,
                "protocol_digest": protocol_digest,
                "calcium_class": _CLASS_NAMES[int(self.calcium_class[i])],
                "slice_index": int(self.slice_index[i]),
                "centroid_row": float(self.centroid_row[i]),
                "centroid_column": float(self.centroid_column[i]),
                "n_pixels": int(self.n_pixels[i]),
                "area_mm2": float(self.area_mm2[i]),
                "peak_hu": int(self.peak_hu[i]),
                "mean_hu": float(self.mean_hu[i]),
                "density_weight": int(self.weight[i]),
                "agatston": float(self.agatston[i]),
                "volume_mm3": float(self.volume_mm3[i]),
            }
            for i in range(len(self))
        ]


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Calcium pixels of the volume in reading order; `label` is the component number, from 0."""

    label: NDArray[np.intp]
    index: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]
    hu: NDArray[np.int16]
    calcium_class: NDArray[np.uint8]


def label_lesions(
    hu: NDArray[np.int16],
    calcium_class: NDArray[np.uint8],
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    protocol: ScoringProtocol,
    threshold_hu: float | None = None,
) -> Lesions:
    """Find and measure every lesion of at least the minimum area of the protocol.

    Parameters
    ----------
    hu : (slice, row, column), HU.
    calcium_class : same shape; 0 background, 1 coronary, 2 non-coronary.
    heart_mask : same shape; calcium outside is ignored.
    spacing_mm : slice increment (from ImagePositionPatient, not SliceThickness), row spacing,
        column spacing.
    protocol : rules of the score.
    threshold_hu : replaces the threshold of the protocol, see `threshold_for_kvp`; the density
        weights scale with it, see `density_weight`.

    Raises
    ------
    ValueError
        If the shapes differ, a spacing is not positive or a class is unknown.
    """
    threshold = protocol.threshold_hu if threshold_hu is None else threshold_hu
    pixels = _calcium_pixels(hu, calcium_class, heart_mask, spacing_mm, protocol, threshold)
    return _measure(pixels, _order(pixels, spacing_mm, protocol), spacing_mm, protocol, threshold)


def label_lesions_of(
    values: NDArray[np.uint8],
    hu: NDArray[np.int16],
    calcium_class: NDArray[np.uint8],
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    protocol: ScoringProtocol,
    threshold_hu: float,
) -> tuple[Lesions, NDArray[np.uint8]]:
    """As `label_lesions`, with the value that most pixels of each lesion have, (n,).

    Parameters
    ----------
    values : (slice, row, column); the smallest of values that are equally frequent counts.
    """
    pixels = _calcium_pixels(hu, calcium_class, heart_mask, spacing_mm, protocol, threshold_hu)
    order = _order(pixels, spacing_mm, protocol)
    found = values[pixels.index].astype(np.intp)
    n_values = int(found.max(initial=0)) + 1
    n_lesions = int(pixels.label.max(initial=-1)) + 1
    counts = np.bincount(pixels.label * n_values + found, minlength=n_lesions * n_values)
    frequent = counts.reshape(n_lesions, n_values).argmax(axis=1)[order].astype(np.uint8)
    return _measure(pixels, order, spacing_mm, protocol, threshold_hu), frequent


def density_weight(
    peak_hu: ArrayLike, protocol: ScoringProtocol, threshold_hu: float | None = None
) -> NDArray[np.intp]:
    """Return the density weight of lesions, an array of the shape of `peak_hu`.

    By default 1 from 130, 2 from 200, 3 from 300, 4 from 400 HU, and 0 below the threshold. A
    threshold for another tube voltage scales the upper limits in proportion, because the HU of
    calcium change by the same factor over the whole range: with 177 HU (80 kVp) they are 272, 408
    and 545; published are 271, 408 and 544 (doi 10.1093/ehjci/jey019).

    Parameters
    ----------
    peak_hu : peak HU of each lesion.
    protocol : rules of the score.
    threshold_hu : replaces the threshold of the protocol.
    """
    threshold = protocol.threshold_hu if threshold_hu is None else threshold_hu
    edges = np.array(protocol.weight_edges_hu) * (threshold / protocol.threshold_hu)
    peak = np.asarray(peak_hu, np.float64)
    return np.where(peak >= threshold, 1 + np.searchsorted(edges, peak, side="right"), 0)


def _check(
    hu: NDArray[np.int16],
    calcium_class: NDArray[np.uint8],
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> None:
    if hu.ndim != 3 or not hu.shape == calcium_class.shape == heart_mask.shape:
        raise ValueError(
            f"HU {hu.shape}, calcium {calcium_class.shape} and heart {heart_mask.shape} "
            "must share one shape (slice, row, column)"
        )
    if not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        raise ValueError(f"spacing must be positive, got {spacing_mm}")


def _calcium_pixels(
    hu: NDArray[np.int16],
    calcium_class: NDArray[np.uint8],
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    protocol: ScoringProtocol,
    threshold_hu: float,
) -> _Pixels:
    """Return the calcium pixels and their components; only the first step reads all voxels."""
    _check(hu, calcium_class, heart_mask, spacing_mm)
    found = np.flatnonzero(calcium_class != 0)
    found = found[np.asarray(heart_mask, bool).reshape(-1)[found]]
    values = hu.reshape(-1)[found]
    found, values = found[values >= threshold_hu], values[values >= threshold_hu]
    classes = calcium_class.reshape(-1)[found]
    if classes.size and classes.max() > NONCORONARY:
        raise ValueError(f"unknown calcium class {int(classes.max())}")
    index = tuple(axis.astype(np.intp) for axis in np.unravel_index(found, hu.shape))
    labels = np.zeros(len(found), np.intp)
    offset = 0
    for kind in (CORONARY, NONCORONARY):
        of_kind = classes == kind
        numbers = _components(tuple(axis[of_kind] for axis in index), protocol.connectivity)
        labels[of_kind] = numbers + offset
        offset += int(numbers.max(initial=-1)) + 1
    return _Pixels(labels, (index[0], index[1], index[2]), values, classes)


def _components(index: tuple[NDArray[np.intp], ...], connectivity: int) -> NDArray[np.intp]:
    """Return the component number of each pixel, from 0; slices are labelled separately."""
    if not index[0].size:
        return np.zeros(0, np.intp)
    low = [int(axis.min()) for axis in index]
    local = tuple(axis - start for axis, start in zip(index, low, strict=True))
    box = np.zeros([int(axis.max()) + 1 for axis in local], np.bool_)
    box[local] = True
    labels, _ = label_in_plane(box, connectivity)
    return np.asarray(labels[local], np.intp) - 1


def _order(
    pixels: _Pixels, spacing_mm: tuple[float, float, float], protocol: ScoringProtocol
) -> NDArray[np.intp]:
    """Return the components that are large enough, sorted as the lesions are."""
    _, first, n_pixels = np.unique(pixels.label, return_index=True, return_counts=True)
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    keep = np.flatnonzero(reaches_area(n_pixels, pixel_mm2, protocol.min_area_mm2))
    slices, classes = pixels.index[0][first], pixels.calcium_class[first]
    return np.asarray(keep[np.lexsort((first[keep], classes[keep], slices[keep]))], np.intp)


def _measure(
    pixels: _Pixels,
    order: NDArray[np.intp],
    spacing_mm: tuple[float, float, float],
    protocol: ScoringProtocol,
    threshold_hu: float,
) -> Lesions:
    """Reduce pixels to the lesions of `order`."""
    increment, row_mm, column_mm = spacing_mm
    _, first, counts = np.unique(pixels.label, return_index=True, return_counts=True)
    peaks = np.full(len(counts), np.iinfo(np.int16).min, np.int16)
    np.maximum.at(peaks, pixels.label, pixels.hu)
    n_pixels, peak, first = counts[order], peaks[order], first[order]
    area = np.asarray(n_pixels * (row_mm * column_mm), np.float64)

    def mean(values: NDArray[np.intp] | NDArray[np.int16]) -> NDArray[np.float64]:
        sums = np.bincount(pixels.label, values, len(counts))
        return np.asarray(sums[order] / n_pixels, np.float64)

    weight = density_weight(peak, protocol, threshold_hu)
    volume = area * increment
    mean_hu = mean(pixels.hu)
    return Lesions(
        slice_index=pixels.index[0][first],
        calcium_class=pixels.calcium_class[first],
        n_pixels=n_pixels,
        area_mm2=area,
        peak_hu=peak,
        mean_hu=mean_hu,
        weight=weight,
        agatston=area * weight * (increment / protocol.reference_increment_mm),
        volume_mm3=volume,
        mass_mg=volume * mean_hu * _mass_factor(protocol),
        centroid_row=mean(pixels.index[1]),
        centroid_column=mean(pixels.index[2]),
    )


def _mass_factor(protocol: ScoringProtocol) -> float:
    """Calcium mass in mg per mm3 and HU; NaN without a calibration, which is per ml."""
    calibration = protocol.mass_calibration_mg_per_ml_hu
    return math.nan if calibration is None else calibration / 1000.0
