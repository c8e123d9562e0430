"""Table `instances`: one row per file of the archive, as the index found it.

The table at rest holds keys and pseudonyms only: no path, no raw UID of the archive, no PatientID.
A file that is no usable instance keeps its row, with the reason, so that it is not opened again.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import FileReason
from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec

#: Replacement UIDs made by `cac_core.keys.Keyring.pseudonym_uid`.
PSEUDONYM_PATTERN = r"^2\.25\.[0-9]{1,39}$"


def _text(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.string(), description, nullable=True)


def _number(name: str, description: str, unit: str) -> ColumnSpec:
    return ColumnSpec(name, pa.float64(), description, unit=unit, nullable=True)


def _integer(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.int32(), description, nullable=True)


def _key(name: str, description: str, pattern: str = KEY_PATTERN) -> ColumnSpec:
    return ColumnSpec(name, pa.string(), description, nullable=True, pattern=pattern)


def _flag(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.bool_(), description, nullable=True)


INSTANCES = TableSpec(
    "instances",
    "One row per file of the archive: its DICOM header, or the reason why it has none to use.",
    (
        ColumnSpec(
            "path_key",
            pa.string(),
            "keyed pseudonym of the absolute path",
            unique=True,
            pattern=KEY_PATTERN,
        ),
        ColumnSpec("size_bytes", pa.int64(), "size of the file", unit="B", ge=0),
        ColumnSpec("mtime_ns", pa.int64(), "modification time since 1970", unit="ns"),
        ColumnSpec(
            "reason",
            pa.string(),
            "why the file is no usable instance; null where it is one",
            nullable=True,
            codes=FileReason,
        ),
        _key("study_key", "keyed pseudonym of the study; null where StudyInstanceUID is unknown"),
        _key("patient_key", "keyed pseudonym of the patient; null where PatientID is absent"),
        _key("SeriesInstanceUID", "pseudonym of SeriesInstanceUID", PSEUDONYM_PATTERN),
        _key("SOPInstanceUID", "pseudonym of SOPInstanceUID", PSEUDONYM_PATTERN),
        _key("FrameOfReferenceUID", "pseudonym of FrameOfReferenceUID", PSEUDONYM_PATTERN),
        _text("SOPClassUID", "kind of object"),
        _text("TransferSyntaxUID", "encoding of header and pixels"),
        _text("Modality", "kind of equipment"),
        ColumnSpec("study_date", pa.date32(), "StudyDate", nullable=True),
        _text("ImageType", "values joined by backslashes"),
        _text("SeriesDescription", "description of the series, scrubbed of the patient"),
        _text("StudyDescription", "description of the study, scrubbed of the patient"),
        _text("ProtocolName", "acquisition protocol, scrubbed of the patient"),
        _text("Manufacturer", "maker of the equipment"),
        _text("ManufacturerModelName", "model of the equipment"),
        _text("ConvolutionKernel", "reconstruction kernel, values joined by backslashes"),
        _text("LossyImageCompression", "01 where the pixels were once lossily compressed"),
        _integer("SeriesNumber", "number of the series"),
        _integer("AcquisitionNumber", "number of the acquisition"),
        _integer("InstanceNumber", "number of the instance in its series"),
        _integer("NumberOfFrames", "frames; null in single-frame objects"),
        _integer("Rows", "rows of a frame"),
        _integer("Columns", "columns of a frame"),
        _integer("BitsAllocated", "bits per pixel as stored"),
        _number("row_spacing_mm", "distance of neighbouring rows (PixelSpacing, first)", "mm"),
        _number(
            "column_spacing_mm", "distance of neighbouring columns (PixelSpacing, second)", "mm"
        ),
        _number("SliceThickness", "nominal slice thickness", "mm"),
        _number("position_x_mm", "ImagePositionPatient, first frame", "mm"),
        _number("position_y_mm", "ImagePositionPatient, first frame", "mm"),
        _number("position_z_mm", "ImagePositionPatient, first frame", "mm"),
        _number("row_cosine_x", "ImageOrientationPatient, direction along a row", "1"),
        _number("row_cosine_y", "ImageOrientationPatient, direction along a row", "1"),
        _number("row_cosine_z", "ImageOrientationPatient, direction along a row", "1"),
        _number("column_cosine_x", "ImageOrientationPatient, direction down a column", "1"),
        _number("column_cosine_y", "ImageOrientationPatient, direction down a column", "1"),
        _number("column_cosine_z", "ImageOrientationPatient, direction down a column", "1"),
        _number(
            "frame_increment_mm", "median distance of neighbouring frames of a multi-frame", "mm"
        ),
        _number("frame_coverage_mm", "distance of the outermost frames of a multi-frame", "mm"),
        _number("KVP", "tube voltage", "kV"),
        _number("XRayTubeCurrent", "tube current", "mA"),
        _number("Exposure", "exposure", "mAs"),
        _number("ReconstructionDiameter", "diameter of the reconstructed field", "mm"),
        _number("GantryDetectorTilt", "gantry tilt", "deg"),
        _flag("has_contrast_agent", "ContrastBolusAgent names an agent"),
        _flag("has_gating", "TriggerTime or another mark of cardiac gating is present"),
        ColumnSpec(
            "pixel_data_offset",
            pa.int64(),
            "where the value of PixelData begins; null where not in the file as such",
            unit="B",
            nullable=True,
            ge=0,
        ),
    ),
)
