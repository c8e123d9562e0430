"""Frames of Enhanced CT and Legacy Converted Enhanced CT files, from their functional groups.

An attribute is in the per-frame item or in the shared item (PS3.3 C.7.6.16). Where a file has both,
against the standard, the per-frame item is used.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.frames import Frame, FrameSources, build_frame
from cac_core.dicom.pixels import PixelLayout
from cac_core.errors import StudyError
from schemas.codes import StudyReason

_DETAILS = "CTAcquisitionDetailsSequence"
#: Groups of converted files with the attributes of single frames that fit no other group.
_CONVERTED = (
    "UnassignedPerFrameConvertedAttributesSequence",
    "UnassignedSharedConvertedAttributesSequence",
)
_DESCRIBING = (
    "CTXRayDetailsSequence",
    "CTExposureSequence",
    "CTReconstructionSequence",
    "PixelMeasuresSequence",
    *_CONVERTED,
)


def is_enhanced(dataset: Dataset) -> bool:
    """Whether the file describes its frames by functional groups."""
    return datafile.holds(dataset, "PerFrameFunctionalGroupsSequence")


def enhanced_frames(dataset: Dataset, layout: PixelLayout, file_index: int) -> list[Frame]:
    """Return the frames of one multi-frame file, in stored order; raises as `build_frame`.

    Raises
    ------
    StudyError
        `pixel_header_mismatch` where the number of functional groups differs from the frames.
    """
    per_frame = datafile.items(dataset, "PerFrameFunctionalGroupsSequence")
    if len(per_frame) != layout.n_frames:
        detail = f"{len(per_frame)} functional groups for {layout.n_frames} frames"
        raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, detail)
    shared_items = datafile.items(dataset, "SharedFunctionalGroupsSequence")
    shared = shared_items[0] if shared_items else Dataset()
    return [
        build_frame(_sources(dataset, shared, own), layout, file_index, index)
        for index, own in enumerate(per_frame)
    ]


def group_values(dataset: Dataset) -> list[Dataset]:
    """Return the functional group items that describe the first frame, per-frame items first.

    Attributes such as tube voltage and kernel are read from the file itself, then from these.
    """
    groups = [
        *datafile.items(dataset, "PerFrameFunctionalGroupsSequence")[:1],
        *datafile.items(dataset, "SharedFunctionalGroupsSequence")[:1],
    ]
    return [
        item for group in groups for name in _DESCRIBING for item in datafile.items(group, name)
    ]


def _sources(dataset: Dataset, shared: Dataset, own: Dataset) -> FrameSources:
    frame_type = _group(own, shared, "CTImageFrameTypeSequence")
    geometry = [_group(own, shared, name) for name in (_DETAILS, *_CONVERTED)]
    return FrameSources(
        image=dataset,
        content=_group(own, shared, "FrameContentSequence"),
        plane=_group(own, shared, "PlanePositionSequence"),
        orientation=_group(own, shared, "PlaneOrientationSequence"),
        measures=_group(own, shared, "PixelMeasuresSequence"),
        transformation=_group(own, shared, "PixelValueTransformationSequence"),
        geometry=next((item for item in geometry if "GantryDetectorTilt" in item), dataset),
        image_type=datafile.text(frame_type, "FrameType") or datafile.text(dataset, "ImageType"),
    )


def _group(own: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """Return the item of a functional group macro, an empty data set where it is absent."""
    for source in (own, shared):
        found = datafile.items(source, keyword)
        if found:
            return found[0]
    return Dataset()
