"""Checks that the slices of a series belong together, and derives flags from their headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cac_core.dicom.acquisition import AcquisitionInfo, read_acquisition
from cac_core.dicom.frames import Frame
from cac_core.dicom.geometry import (
    MAX_TILT_DEG,
    common_orientation,
    grid_tolerance_mm,
    slice_normal,
)
from cac_core.dicom.increment import SAME_POSITION_MM
from cac_core.errors import StudyError
from schemas.codes import QualityFlag, StudyReason

#: Larger slice increments are flagged: small plaques are missed between slices.
THICK_SLICES_MM = 5.0
_SAME_PIXEL_SPACING_MM = 0.001
_SAME_KVP = 1.0


def check_frames(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Check that all slices are of one scan, and return their common orientation (6,).

    Raises
    ------
    StudyError
        `mixed_matrix`, `mixed_acquisitions`, or `gantry_tilt` where the header states a tilt.
    GeometryError
        As `common_orientation`.
    """
    orientation = common_orientation(np.array([frame.orientation for frame in frames]))
    _check_matrix(frames)
    _check_acquisitions(frames, orientation)
    tilt = max((frame.tilt_deg for frame in frames), key=abs)
    if abs(tilt) > MAX_TILT_DEG:
        raise StudyError(StudyReason.GANTRY_TILT, f"GantryDetectorTilt {tilt:.1f} degrees")
    return orientation


def common_acquisition(datasets: Sequence[Dataset]) -> AcquisitionInfo:
    """Return the acquisition of the slices: that of the first, completed by the others.

    Raises
    ------
    StudyError
        `mixed_acquisitions` where slices differ in tube voltage or kernel, on which the HU of
        calcium depend.
    """
    files = {id(dataset): dataset for dataset in datasets}
    found = [read_acquisition(dataset, len(datasets)) for dataset in files.values()]
    voltages = [item.kvp for item in found if item.kvp is not None]
    kernels = [item.kernel for item in found if item.kernel is not None]
    if voltages and max(voltages) - min(voltages) > _SAME_KVP:
        detail = f"KVP from {min(voltages):g} to {max(voltages):g}"
        raise StudyError(StudyReason.MIXED_ACQUISITIONS, detail)
    if len({kernel.casefold() for kernel in kernels}) > 1:
        raise StudyError(StudyReason.MIXED_ACQUISITIONS, "slices of different kernels")
    return replace(
        found[0],
        kvp=voltages[0] if voltages else None,
        kernel=kernels[0] if kernels else None,
    )


def series_flags(slices: Sequence[Frame], spacing_mm: float) -> set[QualityFlag]:
    """Return the flags from the headers of the slices.

    Parameters
    ----------
    slices : the slices of the volume.
    spacing_mm : slice increment of the fitted grid.
    """
    flags: set[QualityFlag] = set()
    tolerance = grid_tolerance_mm(spacing_mm)
    if round(spacing_mm, 2) > THICK_SLICES_MM:
        flags.add(QualityFlag.THICK_SLICES)
    for frame in slices:
        stated, thickness = frame.spacing_attribute_mm, frame.slice_thickness_mm
        if stated is not None and abs(abs(stated) - spacing_mm) > tolerance:
            flags.add(QualityFlag.SPACING_ATTRIBUTE_MISMATCH)
        if thickness is not None and thickness > spacing_mm + tolerance:
            flags.add(QualityFlag.OVERLAPPING_SLICES)
        if thickness is not None and 0 < thickness < spacing_mm - tolerance:
            flags.add(QualityFlag.GAPPED_SLICES)
        if frame.rescale_type is None:
            flags.add(QualityFlag.MISSING_RESCALE_TYPE)
        if frame.rescale_type == "US":
            flags.add(QualityFlag.UNSPECIFIED_RESCALE_TYPE)
        if frame.has_decimal_comma:
            flags.add(QualityFlag.DECIMAL_COMMA)
    if _has_number_gap([frame.instance_number for frame in slices]):
        flags.add(QualityFlag.INSTANCE_NUMBER_GAP)
    return flags


def _check_matrix(frames: Sequence[Frame]) -> None:
    sizes = {(frame.rows, frame.columns) for frame in frames}
    if len(sizes) > 1:
        raise StudyError(StudyReason.MIXED_MATRIX, f"{len(sizes)} different matrices")
    spacings = np.array([frame.pixel_spacing_mm for frame in frames])
    if np.ptp(spacings, axis=0).max() > _SAME_PIXEL_SPACING_MM:
        detail = f"PixelSpacing from {spacings.min():.3f} to {spacings.max():.3f} mm"
        raise StudyError(StudyReason.MIXED_MATRIX, detail)


def _check_acquisitions(frames: Sequence[Frame], orientation: NDArray[np.float64]) -> None:
    """Refuse interleaved acquisitions; acquisitions one after another are one scan."""
    acquisitions = np.array([frame.acquisition_number or 0 for frame in frames])
    if np.unique(acquisitions).size < 2:
        return
    along = np.array([frame.position for frame in frames]) @ slice_normal(orientation)
    if not np.isfinite(along).all():
        return
    order = np.lexsort((acquisitions, np.round(along / SAME_POSITION_MM)))
    runs = 1 + np.count_nonzero(np.diff(acquisitions[order]))
    if runs > np.unique(acquisitions).size:
        raise StudyError(StudyReason.MIXED_ACQUISITIONS, "acquisitions interleave along the table")


def _has_number_gap(numbers: Sequence[int | None]) -> bool:
    """Whether InstanceNumber suggests further slices beyond those of the series.

    True where the numbers start above one, or have gaps although the positions are regular.
    """
    known = sorted({number for number in numbers if number is not None})
    if len(known) != len(numbers):
        return False
    return known[0] > 1 or known[-1] - known[0] + 1 > len(known)
