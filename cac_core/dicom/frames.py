"""The frames of a series with what geometry and HU need, whatever kind of file they lie in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.pixels import PixelLayout
from cac_core.errors import StudyError
from schemas.codes import StudyReason

#: Largest pixel spacing that can be meant; CTAC matrices of 128 x 128 have 4 mm.
_MAX_PIXEL_SPACING_MM = 25.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice as its header describes it.

    Parameters
    ----------
    file_index : index of the file in the series.
    frame_index : index of the frame in that file.
    position, orientation : ImagePositionPatient (3), ImageOrientationPatient (6).
    pixel_spacing_mm : between rows, between columns.
    slope, intercept : of the rescale to HU.
    has_rescale_type : RescaleType is there, and says HU.
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
    has_rescale_type: bool
    is_localizer: bool
    tilt_deg: float
    frame_of_reference: str | None
    acquisition_number: int | None
    instance_number: int | None
    slice_thickness_mm: float | None
    spacing_attribute_mm: float | None


@dataclass(frozen=True, slots=True)
class FrameSources:
    """The data sets that hold the attributes of one frame.

    In a single-frame file all are the file itself; in a multi-frame file they are items of
    the functional groups.
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
        """Name the file itself as the source of everything."""
        image_type = datafile.text(dataset, "ImageType")
        return cls(dataset, dataset, dataset, dataset, dataset, dataset, dataset, image_type)


def single_frame(dataset: Dataset, layout: PixelLayout, file_index: int) -> Frame:
    """Return the frame of a single-frame CT file; raises as `build_frame`."""
    return build_frame(FrameSources.of_single_frame(dataset), layout, file_index, 0)


def build_frame(
    sources: FrameSources, layout: PixelLayout, file_index: int, frame_index: int
) -> Frame:
    """Collect and check one frame's attributes.

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
        has_rescale_type=_has_rescale_type(sources.transformation),
        is_localizer="LOCALIZER" in (sources.image_type or "").upper(),
        tilt_deg=_tilt(sources.geometry),
        frame_of_reference=datafile.text(sources.image, "FrameOfReferenceUID"),
        acquisition_number=datafile.integer(sources.content, acquisition),
        instance_number=datafile.integer(sources.image, "InstanceNumber") if is_single else None,
        slice_thickness_mm=datafile.number(sources.measures, "SliceThickness"),
        spacing_attribute_mm=datafile.number(sources.measures, "SpacingBetweenSlices"),
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
    if values is None or len(values) != 2 or not all(value > 0 for value in values):
        raise StudyError(StudyReason.MISSING_PIXEL_SPACING)
    if not max(values) <= _MAX_PIXEL_SPACING_MM:
        raise StudyError(StudyReason.INVALID_GEOMETRY, "PixelSpacing is not usable")
    return values[0], values[1]


def _rescale(dataset: Dataset) -> tuple[float, float]:
    slope = datafile.number(dataset, "RescaleSlope")
    intercept = datafile.number(dataset, "RescaleIntercept")
    if not slope or intercept is None:
        raise StudyError(StudyReason.MISSING_RESCALE)
    return slope, intercept


def _has_rescale_type(transformation: Dataset) -> bool:
    """Tell whether RescaleType says HU; False where absent: CT means HU (PS3.3 C.8.2.1)."""
    kind = datafile.text(transformation, "RescaleType")
    if kind is not None and kind.upper() != "HU":
        raise StudyError(StudyReason.NOT_HOUNSFIELD, "RescaleType is not HU")
    return kind is not None


def _tilt(dataset: Dataset) -> float:
    """Return GantryDetectorTilt in degrees from -180 to 180; 0 where absent."""
    tilt = datafile.number(dataset, "GantryDetectorTilt") or 0.0
    return (tilt + 180.0) % 360.0 - 180.0
