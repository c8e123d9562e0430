"""Frames of a series with their geometry and rescale, from single-frame or multi-frame files."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.pixels import PixelLayout
from cac_core.errors import StudyError
from schemas.codes import StudyReason

#: Slopes and intercepts outside these limits cannot give HU: CT uses slopes from about 0.01 to 16,
#: and intercepts down to -32768 - 1024.
_MAX_SLOPE = 100.0
_MIN_SLOPE = 0.001
_MAX_INTERCEPT = 70_000.0
#: Values of ImageType that mark a localizer.
_LOCALIZER = frozenset(("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "REF_SURVIEW"))


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice, as described by its header.

    Parameters
    ----------
    file_index : index of the file in the series.
    frame_index : index of the frame in that file.
    position, orientation : ImagePositionPatient (3), ImageOrientationPatient (6).
    pixel_spacing_mm : between rows, between columns.
    slope, intercept : rescale of stored values to HU.
    rescale_type : HU, US (unspecified), or None where RescaleType is absent.
    has_decimal_comma : the header has numbers with a decimal comma.
    """

    file_index: int
    frame_index: int
    rows: int
    columns: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    slope: float
    intercept: float
    rescale_type: str | None
    has_decimal_comma: bool
    is_localizer: bool
    tilt_deg: float
    frame_of_reference: str | None
    acquisition_number: int | None
    instance_number: int | None
    slice_thickness_mm: float | None
    spacing_attribute_mm: float | None
    instance_uid: str


@dataclass(frozen=True, slots=True)
class FrameSources:
    """The data sets that hold the attributes of one frame.

    In a single-frame file each is the file itself; in a multi-frame file they are items of the
    functional groups.
    """

    image: Dataset
    content: Dataset
    plane: Dataset
    orientation: Dataset
    measures: Dataset
    transformation: Dataset
    geometry: Dataset
    image_type: str | None

    @classmethod
    def of_single_frame(cls, dataset: Dataset) -> FrameSources:
        """Use the file itself as the source of all attributes."""
        image_type = datafile.text(dataset, "ImageType")
        return cls(dataset, dataset, dataset, dataset, dataset, dataset, dataset, image_type)


def is_localizer(image_type: str | None) -> bool:
    """Whether ImageType marks a localizer."""
    return not _LOCALIZER.isdisjoint(
        part.strip() for part in (image_type or "").upper().split("\\")
    )


def single_frame(dataset: Dataset, layout: PixelLayout, file_index: int) -> Frame:
    """Return the frame of a single-frame CT file; raises as `build_frame`."""
    return build_frame(FrameSources.of_single_frame(dataset), layout, file_index, 0)


def build_frame(
    sources: FrameSources, layout: PixelLayout, file_index: int, frame_index: int
) -> Frame:
    """Collect and check the attributes of one frame.

    Raises
    ------
    StudyError
        `missing_position`, `missing_orientation`, `missing_pixel_spacing`,
        `missing_rescale`, `not_hounsfield` or `invalid_geometry`.
    """
    position = _vector(sources.plane, "ImagePositionPatient", 3, StudyReason.MISSING_POSITION)
    orientation = _vector(
        sources.orientation, "ImageOrientationPatient", 6, StudyReason.MISSING_ORIENTATION
    )
    slope, intercept = _rescale(sources.transformation)
    is_single = sources.plane is sources.image
    acquisition = "AcquisitionNumber" if is_single else "FrameAcquisitionNumber"
    return Frame(
        file_index=file_index,
        frame_index=frame_index,
        rows=layout.rows,
        columns=layout.columns,
        position=position,
        orientation=orientation,
        pixel_spacing_mm=_pixel_spacing(sources.measures),
        slope=slope,
        intercept=intercept,
        rescale_type=_rescale_type(sources.transformation),
        has_decimal_comma=_has_decimal_comma(sources),
        is_localizer=is_localizer(sources.image_type),
        tilt_deg=_tilt(sources.geometry),
        frame_of_reference=datafile.text(sources.image, "FrameOfReferenceUID"),
        acquisition_number=datafile.integer(sources.content, acquisition),
        instance_number=datafile.integer(sources.image, "InstanceNumber") if is_single else None,
        slice_thickness_mm=datafile.number(sources.measures, "SliceThickness"),
        spacing_attribute_mm=datafile.number(sources.measures, "SpacingBetweenSlices"),
        instance_uid=datafile.text(sources.image, "SOPInstanceUID") or "",
    )


def _has_decimal_comma(sources: FrameSources) -> bool:
    return (
        datafile.has_decimal_comma(sources.plane, "ImagePositionPatient")
        or datafile.has_decimal_comma(sources.orientation, "ImageOrientationPatient")
        or datafile.has_decimal_comma(sources.measures, "PixelSpacing", "SliceThickness")
        or datafile.has_decimal_comma(sources.transformation, "RescaleSlope", "RescaleIntercept")
        or datafile.has_decimal_comma(sources.image, "KVP")
    )


def _vector(dataset: Dataset, keyword: str, length: int, missing: StudyReason) -> tuple[float, ...]:
    if datafile.value(dataset, keyword) is None and keyword not in dataset:
        raise StudyError(missing)
    values = datafile.numbers(dataset, keyword)
    if values is None or len(values) != length or not all(map(math.isfinite, values)):
        empty = keyword in dataset and _is_empty(dataset, keyword)
        reason = missing if empty else StudyReason.INVALID_GEOMETRY
        raise StudyError(reason, f"{keyword} is {'empty' if empty else 'not usable'}")
    return tuple(values)


def _is_empty(dataset: Dataset, keyword: str) -> bool:
    try:
        element = dataset[keyword]
    except datafile.PARSE_ERRORS:
        return False
    return element.is_empty


def _pixel_spacing(dataset: Dataset) -> tuple[float, float]:
    values = datafile.numbers(dataset, "PixelSpacing")
    if values is None or len(values) != 2 or any(value <= 0 for value in values):
        raise StudyError(StudyReason.MISSING_PIXEL_SPACING)
    if not all(map(math.isfinite, values)):
        raise StudyError(StudyReason.INVALID_GEOMETRY, "PixelSpacing is not usable")
    return values[0], values[1]


def _rescale(dataset: Dataset) -> tuple[float, float]:
    slope = datafile.number(dataset, "RescaleSlope")
    intercept = datafile.number(dataset, "RescaleIntercept")
    if not slope or intercept is None:
        raise StudyError(StudyReason.MISSING_RESCALE)
    if not _MIN_SLOPE <= abs(slope) <= _MAX_SLOPE or abs(intercept) > _MAX_INTERCEPT:
        detail = f"slope {slope:g}, intercept {intercept:g}"
        raise StudyError(StudyReason.MISSING_RESCALE, detail)
    return slope, intercept


def _rescale_type(transformation: Dataset) -> str | None:
    """Return HU or US; None where RescaleType is absent: CT means HU then (PS3.3 C.8.2.1)."""
    kind = datafile.text(transformation, "RescaleType")
    if kind is not None and kind.upper() not in ("HU", "US"):
        raise StudyError(StudyReason.NOT_HOUNSFIELD, "RescaleType is not HU")
    return None if kind is None else kind.upper()


def _tilt(dataset: Dataset) -> float:
    """Return GantryDetectorTilt in degrees from -180 to 180; 0 where absent."""
    tilt = datafile.number(dataset, "GantryDetectorTilt") or 0.0
    return (tilt + 180.0) % 360.0 - 180.0
