"""From the files of one chosen series to a volume in HU, or the reason why there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.acquisition import AcquisitionInfo, read_acquisition
from cac_core.dicom.enhanced import enhanced_frames, is_enhanced
from cac_core.dicom.frames import Frame, single_frame
from cac_core.dicom.geometry import (
    Reorientation,
    SliceGrid,
    body_axes,
    canonical_affine,
    check_transverse,
    fit_slice_grid,
)
from cac_core.dicom.hounsfield import Padding, declared_padding, is_plausible, to_hounsfield
from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.pixels import LOSSY_SYNTAXES, FrameReader, PixelLayout, pixel_layout
from cac_core.dicom.series_checks import check_frames, series_flags
from cac_core.errors import StudyError
from schemas.codes import QualityFlag, StudyReason

__all__ = ["AcquisitionInfo", "CtVolume", "ReadLimits", "read_volume"]


@dataclass(frozen=True)
class CtVolume:
    """A CT volume in the canonical orientation, with all that scoring needs.

    Parameters
    ----------
    hu : (slice, row, column); slices towards the head, rows to posterior, columns to the
        patient's left. Flips and transposes only, nothing is resampled. Air is -1024.
    spacing_mm : slice increment from ImagePositionPatient, row spacing, column spacing.
    affine : 4 x 4, (slice, row, column, 1) to LPS millimetres.
    flags : sorted quality flags.
    acquisition : values of the header.
    pixel_digest : SHA-256 of shape, spacing, affine and HU, 64 hexadecimal digits.
    """

    hu: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    flags: tuple[QualityFlag, ...]
    acquisition: AcquisitionInfo
    pixel_digest: str


@dataclass(frozen=True, slots=True)
class _ImageFile:
    """One file, parsed, its pixels not decoded yet."""

    dataset: Dataset
    layout: PixelLayout
    padding: Padding | None


def read_volume(paths: Sequence[Path], *, limits: ReadLimits = ReadLimits()) -> CtVolume:  # noqa: B008
    """Read the files of one series, single-frame or multi-frame, in any order.

    Raises
    ------
    StudyError
        And nothing else but the interrupts: the first reason found, checked in the order
        files, pixel layout, attributes of each slice, agreement of the slices, geometry,
        pixels.
    """
    try:
        with datafile.quiet_pydicom():
            return _read_volume(paths, limits)
    except (StudyError, KeyboardInterrupt, SystemExit):
        raise
    except MemoryError:
        raise StudyError(StudyReason.OUT_OF_MEMORY, "reading the series", rejected=False) from None
    except datafile.PARSE_ERRORS as error:
        detail = f"{type(error).__module__}.{type(error).__qualname__}"
        raise StudyError(StudyReason.INTERNAL_ERROR, detail, rejected=False) from error


def _read_volume(paths: Sequence[Path], limits: ReadLimits) -> CtVolume:
    files, frames = _read_headers(paths, limits)
    orientation = check_frames(frames)
    check_transverse(orientation)
    positions = np.array([frame.position for frame in frames])
    grid = fit_slice_grid(positions, orientation, limits.min_slices)
    turn = body_axes(orientation)
    hu, pixel_flags = _read_pixels(files, frames, grid, turn)
    first = files[frames[grid.groups[0][0]].file_index]
    acquisition = read_acquisition(first.dataset, len(grid.groups))
    pixel_spacing = frames[0].pixel_spacing_mm
    stored_shape = (frames[0].rows, frames[0].columns)
    affine = canonical_affine(grid, orientation, pixel_spacing, stored_shape, turn)
    in_plane = pixel_spacing[::-1] if turn.transpose else pixel_spacing
    spacing_mm = (grid.spacing_mm, in_plane[0], in_plane[1])
    flags = {
        *pixel_flags,
        *series_flags([frames[group[0]] for group in grid.groups], grid.spacing_mm),
        *_file_flags(files),
    }
    if acquisition.kernel is None:
        flags.add(QualityFlag.MISSING_KERNEL)
    digest = _digest(hu, spacing_mm, affine)
    return CtVolume(hu, spacing_mm, affine, tuple(sorted(flags)), acquisition, digest)


def _read_headers(
    paths: Sequence[Path], limits: ReadLimits
) -> tuple[list[_ImageFile], list[Frame]]:
    """Files and their frames; the frames of all files together keep within the limits."""
    files: list[_ImageFile] = []
    frames: list[Frame] = []
    n_pixels = 0
    for dataset in datafile.read_files(paths, limits):
        if (datafile.text(dataset, "Modality") or "CT") != "CT":
            raise StudyError(StudyReason.NOT_HOUNSFIELD, "Modality is not CT")
        layout = pixel_layout(dataset, limits)
        n_pixels += layout.n_pixels
        if n_pixels > limits.max_pixels or len(frames) + layout.n_frames > limits.max_slices:
            detail = f"more than {limits.max_pixels} pixels or {limits.max_slices} slices"
            raise StudyError(StudyReason.TOO_LARGE, detail)
        if is_enhanced(dataset):
            frames += enhanced_frames(dataset, layout, len(files))
        elif layout.n_frames == 1:
            frames.append(single_frame(dataset, layout, len(files)))
        else:
            detail = "several frames without functional groups"
            raise StudyError(StudyReason.MISSING_POSITION, detail)
        padding = declared_padding(dataset, layout.bits_allocated, layout.signed)
        files.append(_ImageFile(dataset, layout, padding))
    if not frames:
        raise StudyError(StudyReason.TOO_FEW_SLICES, "no files")
    return files, frames


def _read_pixels(
    files: Sequence[_ImageFile],
    frames: Sequence[Frame],
    grid: SliceGrid,
    turn: Reorientation,
) -> tuple[NDArray[np.int16], set[QualityFlag]]:
    """HU volume in canonical orientation; slices given twice must be identical."""
    flags: set[QualityFlag] = set()
    readers: dict[int, FrameReader] = {}

    def slice_hu(frame: Frame) -> NDArray[np.generic]:
        file = files[frame.file_index]
        if frame.file_index not in readers:
            readers[frame.file_index] = FrameReader(file.dataset, file.layout)
        stored = readers[frame.file_index].stored(frame.frame_index)
        hu, replaced = to_hounsfield(stored, frame.slope, frame.intercept, file.padding)
        if replaced:
            flags.add(QualityFlag.PADDING_REPLACED)
        if file.layout.n_frames == 1:  # the bytes are not needed again: halve the peak of memory
            del readers[frame.file_index], file.dataset.PixelData
        return turn.plane(hu)

    groups = grid.groups[::-1] if turn.reverse_slices else grid.groups
    shape = (frames[0].rows, frames[0].columns)
    volume = np.empty((len(groups), *(shape[::-1] if turn.transpose else shape)), np.int16)
    for index, group in enumerate(groups):
        volume[index] = slice_hu(frames[group[0]])
        for other in group[1:]:
            if not np.array_equal(volume[index], slice_hu(frames[other])):
                raise StudyError(StudyReason.DUPLICATE_POSITIONS, "two slices, different pixels")
            flags.add(QualityFlag.DUPLICATE_SLICES_DROPPED)
    if not is_plausible(volume):
        flags.add(QualityFlag.IMPLAUSIBLE_HU)
    return volume, flags


def _file_flags(files: Sequence[_ImageFile]) -> set[QualityFlag]:
    flags: set[QualityFlag] = set()
    if len({file.layout.signed for file in files}) > 1:
        flags.add(QualityFlag.MIXED_PIXEL_REPRESENTATION)
    for file in files:
        once_lossy = datafile.text(file.dataset, "LossyImageCompression") == "01"
        if once_lossy or file.layout.syntax in LOSSY_SYNTAXES:
            flags.add(QualityFlag.LOSSY_COMPRESSION)
    return flags


def _digest(
    hu: NDArray[np.int16], spacing_mm: tuple[float, float, float], affine: NDArray[np.float64]
) -> str:
    """SHA-256 over what is scored; little-endian whatever the machine."""
    digest = hashlib.sha256()
    digest.update(repr((hu.shape, spacing_mm)).encode())
    digest.update(affine.astype("<f8").tobytes())
    digest.update(np.ascontiguousarray(hu, "<i2").data)
    return digest.hexdigest()
