"""From the files of the selected series to a volume in HU, or a rejection reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.acquisition import AcquisitionInfo
from cac_core.dicom.enhanced import enhanced_frames, is_enhanced
from cac_core.dicom.frames import Frame, is_localizer, single_frame
from cac_core.dicom.geometry import (
    GeometryError,
    Reorientation,
    SliceGrid,
    body_axes,
    canonical_affine,
)
from cac_core.dicom.header import CT_IMAGE_CLASSES
from cac_core.dicom.hounsfield import (
    Padding,
    declared_padding,
    has_hounsfield_peaks,
    is_plausible,
    to_hounsfield,
)
from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.pixel_digest import pixel_digest
from cac_core.dicom.pixels import LOSSY_SYNTAXES, FrameReader, PixelLayout, pixel_layout
from cac_core.dicom.slice_consistency import common_acquisition, series_flags
from cac_core.dicom.slice_stack import stack_slices
from cac_core.errors import StudyError
from cac_core.storage import ArchiveFile
from schemas.codes import QualityFlag, StudyReason


@dataclass(frozen=True)
class CtVolume:
    """A CT volume in the canonical orientation, as input of the scoring.

    Parameters
    ----------
    hu : (slice, row, column); slices towards the head, rows to posterior, columns to the
        patient's left. Slices are flipped or transposed, never resampled. Air is -1024.
    spacing_mm : slice increment from ImagePositionPatient, row spacing, column spacing.
    affine : 4 x 4, (slice, row, column, 1) to LPS millimetres.
    flags : sorted quality flags.
    acquisition : acquisition values of the header.
    pixel_digest : digest of shape, spacing, affine and HU; see `cac_core.dicom.pixel_digest`.
    """

    hu: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    flags: tuple[QualityFlag, ...]
    acquisition: AcquisitionInfo
    pixel_digest: str

    def has_pixels(self, recorded: str) -> bool:
        """Whether a digest, also of an earlier version, is that of this volume."""
        return recorded == pixel_digest(self.hu, self.spacing_mm, self.affine, like=recorded)


@dataclass(frozen=True, slots=True)
class _ImageFile:
    """One parsed file with encoded pixels."""

    dataset: Dataset
    layout: PixelLayout
    padding: Padding | None


def read_volume(paths: Sequence[ArchiveFile], *, limits: ReadLimits = ReadLimits()) -> CtVolume:  # noqa: B008
    """Read the files of one series, single-frame or multi-frame, in any order.

    Parameters
    ----------
    paths : files of the series.
    limits : limits on size and number of slices.

    Raises
    ------
    StudyError
        With the first reason found, in the order files, pixel layout, attributes of each slice,
        agreement of the slices, geometry, pixels. Other exceptions than interrupts are not raised.
    """
    try:
        with datafile.quiet_pydicom():
            return _read_volume(paths, limits)
    except (StudyError, KeyboardInterrupt, SystemExit):
        raise
    except GeometryError as error:
        raise StudyError(StudyReason(error.fault.value), error.detail) from None
    except MemoryError:
        raise StudyError(StudyReason.OUT_OF_MEMORY, "reading the series", rejected=False) from None
    except datafile.PARSE_ERRORS as error:
        detail = f"{type(error).__module__}.{type(error).__qualname__}"
        raise StudyError(StudyReason.INTERNAL_ERROR, detail, rejected=False) from error


def _read_volume(paths: Sequence[ArchiveFile], limits: ReadLimits) -> CtVolume:
    files, frames, n_other = _read_headers(paths, limits)
    stack = stack_slices(frames, n_other, limits.min_slices)
    frames, grid, orientation = stack.frames, stack.grid, stack.orientation
    slices = [frames[group[0]] for group in grid.groups]
    turn = body_axes(orientation)
    acquisition = common_acquisition([files[frame.file_index].dataset for frame in slices])
    hu, pixel_flags = _read_pixels(files, frames, grid, turn)
    pixel_spacing = stack.pixel_spacing_mm
    stored_shape = (frames[0].rows, frames[0].columns)
    affine = canonical_affine(grid, orientation, pixel_spacing, stored_shape, turn)
    in_plane = pixel_spacing[::-1] if turn.transpose else pixel_spacing
    spacing_mm = (grid.spacing_mm, in_plane[0], in_plane[1])
    flags = {
        *pixel_flags,
        *stack.flags,
        *series_flags(slices, grid.spacing_mm),
        *_file_flags([files[index] for index in sorted({f.file_index for f in frames})]),
    }
    if QualityFlag.UNSPECIFIED_RESCALE_TYPE in flags and not has_hounsfield_peaks(hu):
        detail = "RescaleType is US, and air or tissue does not have the values of HU"
        raise StudyError(StudyReason.NOT_HOUNSFIELD, detail)
    if acquisition.kernel is None:
        flags.add(QualityFlag.MISSING_KERNEL)
    digest = pixel_digest(hu, spacing_mm, affine)
    return CtVolume(hu, spacing_mm, affine, tuple(sorted(flags)), acquisition, digest)


def _read_headers(
    paths: Sequence[ArchiveFile], limits: ReadLimits
) -> tuple[list[_ImageFile], list[Frame], int]:
    """Read files and frames; return them, and the number of excluded files without a slice.

    The limits apply to the frames of all files together.
    """
    files: list[_ImageFile] = []
    frames: list[Frame] = []
    strays: list[Dataset] = []

    def add(dataset: Dataset) -> None:
        layout = pixel_layout(dataset, limits)
        n_pixels = sum(file.layout.n_pixels for file in files) + layout.n_pixels
        if n_pixels > limits.max_pixels or len(frames) + layout.n_frames > limits.max_slices:
            detail = f"more than {limits.max_pixels} pixels or {limits.max_slices} slices"
            raise StudyError(StudyReason.TOO_LARGE, detail)
        frames.extend(_frames(dataset, layout, len(files)))
        padding = declared_padding(dataset, layout.bits_allocated, layout.signed)
        files.append(_ImageFile(dataset, layout, padding))

    for dataset in datafile.read_files(paths, limits):
        if (datafile.text(dataset, "Modality") or "CT") != "CT":
            raise StudyError(StudyReason.NOT_HOUNSFIELD, "Modality is not CT")
        if _holds_no_slice(dataset):
            strays.append(dataset)
        else:
            add(dataset)
    if files:
        return files, frames, len(strays)
    for dataset in strays:  # without slices, the faults of the stray files give the reason
        add(dataset)
    if not frames:
        raise StudyError(StudyReason.TOO_FEW_SLICES, "no files")
    return files, frames, 0


def _frames(dataset: Dataset, layout: PixelLayout, file_index: int) -> list[Frame]:
    if is_enhanced(dataset):
        return enhanced_frames(dataset, layout, file_index)
    if layout.n_frames == 1:
        return [single_frame(dataset, layout, file_index)]
    detail = "several frames without functional groups"
    raise StudyError(StudyReason.MISSING_POSITION, detail)


def _holds_no_slice(dataset: Dataset) -> bool:
    """Whether a file is a localizer, or not a CT image by its SOP class.

    Such files often lack attributes of a slice, so they are excluded before these are checked.
    """
    sop_class = datafile.text(dataset, "SOPClassUID")
    if sop_class is not None and sop_class not in CT_IMAGE_CLASSES:
        return True
    return not is_enhanced(dataset) and is_localizer(datafile.text(dataset, "ImageType"))


def _read_pixels(
    files: Sequence[_ImageFile],
    frames: Sequence[Frame],
    grid: SliceGrid,
    turn: Reorientation,
) -> tuple[NDArray[np.int16], set[QualityFlag]]:
    """Read the HU volume in canonical orientation; slices at one position must be identical."""
    flags: set[QualityFlag] = set()
    readers: dict[int, FrameReader] = {}

    def read_slice(frame: Frame, plane: NDArray[np.int16]) -> None:
        file = files[frame.file_index]
        if frame.file_index not in readers:
            readers[frame.file_index] = FrameReader(file.dataset, file.layout)
        stored = readers[frame.file_index].stored(frame.frame_index)
        rescale, out = (frame.slope, frame.intercept), turn.stored(plane)
        _, replaced = to_hounsfield(stored, *rescale, file.padding, out)
        if replaced:
            flags.add(QualityFlag.PADDING_REPLACED)
        if file.layout.n_frames == 1:  # release the bytes: halves the peak memory
            del readers[frame.file_index], file.dataset.PixelData

    groups = grid.groups[::-1] if turn.reverse_slices else grid.groups
    shape = (frames[0].rows, frames[0].columns)
    volume = np.empty((len(groups), *(shape[::-1] if turn.transpose else shape)), np.int16)
    for index, group in enumerate(groups):
        read_slice(frames[group[0]], volume[index])
        for other in group[1:]:
            copy = np.empty_like(volume[index])
            read_slice(frames[other], copy)
            if not np.array_equal(volume[index], copy):
                detail = f"{len(group)} images at one position, different pixels, one acquisition"
                raise StudyError(StudyReason.DUPLICATE_POSITIONS, detail)
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
