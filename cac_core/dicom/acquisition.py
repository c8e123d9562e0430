"""Acquisition of a series: header values that help to interpret a score."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.enhanced import group_values, is_enhanced


@dataclass(frozen=True, slots=True)
class AcquisitionInfo:
    """Acquisition of a volume, from its first slice; None where the header has no usable value.

    Holds no identifiers, and no free text except names of scanner and kernel.
    """

    manufacturer: str | None
    model: str | None
    kvp: float | None
    tube_current_ma: float | None
    exposure_mas: float | None
    kernel: str | None
    slice_thickness_mm: float | None
    patient_position: str | None
    transfer_syntax_uid: str
    n_slices: int


def read_acquisition(dataset: Dataset, n_slices: int) -> AcquisitionInfo:
    """Read the acquisition values of a single-frame or multi-frame file."""
    sources = [dataset, *(group_values(dataset) if is_enhanced(dataset) else [])]

    def first_number(*keywords: str) -> float | None:
        found = (datafile.number(source, name) for source in sources for name in keywords)
        return next((number for number in found if number is not None), None)

    def first_text(keyword: str) -> str | None:
        found = (datafile.text(source, keyword) for source in sources)
        return next((text for text in found if text is not None), None)

    return AcquisitionInfo(
        manufacturer=first_text("Manufacturer"),
        model=first_text("ManufacturerModelName"),
        kvp=first_number("KVP"),
        tube_current_ma=first_number("XRayTubeCurrent", "XRayTubeCurrentInmA"),
        exposure_mas=first_number("Exposure", "ExposureInmAs"),
        kernel=first_text("ConvolutionKernel"),
        slice_thickness_mm=first_number("SliceThickness"),
        patient_position=first_text("PatientPosition"),
        transfer_syntax_uid=str(datafile.transfer_syntax(dataset)),
        n_slices=n_slices,
    )
