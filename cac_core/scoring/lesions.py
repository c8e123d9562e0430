"""Calcified lesions: connected components of calcium pixels within one slice.

Lesions are two-dimensional, as in the original score (Agatston et al., J Am Coll Cardiol
1990;15:827). A pixel belongs to a lesion where the network classed it as calcium, it lies inside
the heart mask and its HU reaches the threshold. Coronary and non-coronary pixels that touch are
two lesions.
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
    """The lesions of one study, a struct of arrays of shape (n,).

    Ordered by slice, within the slice coronary first, then by the first pixel in reading order.

    Parameters
    ----------
    slice_index : slice of the volume.
    calcium_class : 1 coronary, 2 non-coronary.
    n_pixels : pixels of the lesion.
    area_mm2 : their area.
    peak_hu, mean_hu : largest and mean HU.
    weight : density weight, 1 to 4.
    agatston : contribution to the score, slice increment / 3 mm included.
    volume_mm3 : number of voxels times voxel volume.
    mass_mg : NaN where the protocol holds no calibration.
    centroid_row, centroid_column : unweighted centre in pixels, 0 at the centre of the first.
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
        """Rows of the table `lesions`, in order, as plain Python values."""
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
    """Calcium pixels of the volume, in reading order; `label` 0.. numbers the components."""

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
    """Find and measure every lesion that reaches the protocol's minimum area.

    Parameters
    ----------
    hu : (slice, row, column), HU.
    calcium_class : same shape; 0 background, 1 coronary, 2 non-coronary.
    heart_mask : same shape; calcium outside is dropped.
    spacing_mm : slice increment (from ImagePositionPatient, not SliceThickness), row spacing,
        column spacing.
    threshold_hu : threshold in place of the protocol's, see `threshold_for_kvp`; the density
        weights follow it, see `density_weight`.

    Raises
    ------
    ValueError
        If the shapes differ, a spacing is not positive or a class is unknown.
    """
    _check(hu, calcium_class, heart_mask, spacing_mm)
    threshold = protocol.threshold_hu if threshold_hu is None else threshold_hu
    pixels = _calcium_pixels(hu, calcium_class, heart_mask, threshold, protocol.connectivity)
    return _measure(pixels, spacing_mm, protocol, threshold)


def density_weight(
    peak_hu: ArrayLike, protocol: ScoringProtocol, threshold_hu: float | None = None
) -> NDArray[np.intp]:
    """Density weight of lesions by their peak HU, an array of the shape of `peak_hu`.

    By default 1 from 130, 2 from 200, 3 from 300, 4 from 400 HU, and 0 below the threshold. A
    threshold adapted to the tube voltage moves the upper limits in proportion, since calcium's
    HU changes by one factor over the whole range: at 177 HU (80 kVp) they are 272, 408 and 545,
    against 271, 408 and 544 as published (doi 10.1093/ehjci/jey019).
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
    threshold_hu: float,
    connectivity: int,
) -> _Pixels:
    """Pixels that count, with their component. Only the first step touches the whole volume."""
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
        numbers = _components(tuple(axis[of_kind] for axis in index), connectivity)
        labels[of_kind] = numbers + offset
        offset += int(numbers.max(initial=-1)) + 1
    return _Pixels(labels, (index[0], index[1], index[2]), values, classes)


def _components(index: tuple[NDArray[np.intp], ...], connectivity: int) -> NDArray[np.intp]:
    """Component number, from 0, of each pixel; pixels of different slices are never joined."""
    if not index[0].size:
        return np.zeros(0, np.intp)
    low = [int(axis.min()) for axis in index]
    local = tuple(axis - start for axis, start in zip(index, low, strict=True))
    box = np.zeros([int(axis.max()) + 1 for axis in local], np.bool_)
    box[local] = True
    labels, _ = label_in_plane(box, connectivity)
    return np.asarray(labels[local], np.intp) - 1


def _measure(
    pixels: _Pixels,
    spacing_mm: tuple[float, float, float],
    protocol: ScoringProtocol,
    threshold_hu: float,
) -> Lesions:
    """Reduce pixels to lesions, drop the small ones, put the rest in order."""
    increment, row_mm, column_mm = spacing_mm
    _, first, n_pixels = np.unique(pixels.label, return_index=True, return_counts=True)
    peak = np.full(len(n_pixels), np.iinfo(np.int16).min, np.int16)
    np.maximum.at(peak, pixels.label, pixels.hu)

    pixel_mm2 = row_mm * column_mm
    area = np.asarray(n_pixels * pixel_mm2, np.float64)
    keep = np.flatnonzero(reaches_area(n_pixels, pixel_mm2, protocol.min_area_mm2))
    slices, classes = pixels.index[0][first], pixels.calcium_class[first]
    order = keep[np.lexsort((first[keep], classes[keep], slices[keep]))]

    def mean(values: NDArray[np.intp] | NDArray[np.int16]) -> NDArray[np.float64]:
        sums = np.bincount(pixels.label, values, len(n_pixels))
        return np.asarray(sums[order] / n_pixels[order], np.float64)

    weight = density_weight(peak[order], protocol, threshold_hu)
    volume = area[order] * increment
    mean_hu = mean(pixels.hu)
    calibration = protocol.mass_calibration_mg_per_ml_hu
    return Lesions(
        slice_index=slices[order],
        calcium_class=classes[order],
        n_pixels=n_pixels[order],
        area_mm2=area[order],
        peak_hu=peak[order],
        mean_hu=mean_hu,
        weight=weight,
        agatston=area[order] * weight * (increment / protocol.reference_increment_mm),
        volume_mm3=volume,
        # Volume is in mm3, the calibration per ml.
        mass_mg=volume * mean_hu * (math.nan if calibration is None else calibration / 1000.0),
        centroid_row=mean(pixels.index[1]),
        centroid_column=mean(pixels.index[2]),
    )
