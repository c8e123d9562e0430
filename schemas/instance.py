"""Table `instances`: one row per file of the archive, as the index found it.

The table at rest holds keys and pseudonyms only: no path, no raw UID of the archive, no PatientID.
A file that is no usable instance keeps its row, with the reason, so that it is not opened again.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import FileReason
from schemas.columns import PATIENT_KEY, SHA256_PATTERN, integer, number, pseudonym, text
from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec

#: Where the date of a study may come from, the best first.
DATE_SOURCES = ("StudyDate", "repaired", "SeriesDate", "AcquisitionDate", "ContentDate")


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
        pseudonym(
            "study_key",
            "keyed pseudonym of the study; null where StudyInstanceUID is unknown",
            KEY_PATTERN,
        ),
        PATIENT_KEY,
        pseudonym("accession_key", "keyed pseudonym of AccessionNumber", KEY_PATTERN),
        pseudonym("SeriesInstanceUID", "pseudonym of SeriesInstanceUID"),
        pseudonym("SOPInstanceUID", "pseudonym of SOPInstanceUID"),
        pseudonym("FrameOfReferenceUID", "pseudonym of FrameOfReferenceUID"),
        text("SOPClassUID", "kind of object"),
        text("TransferSyntaxUID", "encoding of header and pixels"),
        text("Modality", "kind of equipment"),
        ColumnSpec("study_date", pa.date32(), "StudyDate, or what stands in for it", nullable=True),
        ColumnSpec(
            "study_date_source",
            pa.string(),
            "attribute that study_date comes from; repaired: StudyDate written otherwise",
            nullable=True,
            codes=DATE_SOURCES,
        ),
        ColumnSpec(
            "acquisition_time_s",
            pa.float64(),
            "AcquisitionTime, or SeriesTime where it is absent, since midnight",
            unit="s",
            nullable=True,
        ),
        text("ImageType", "values joined by backslashes"),
        text("SeriesDescription", "description of the series; words that may identify are *"),
        text("StudyDescription", "description of the study; words that may identify are *"),
        text("ProtocolName", "acquisition protocol; words that may identify are *"),
        text("Manufacturer", "maker of the equipment"),
        text("ManufacturerModelName", "model of the equipment"),
        text("ConvolutionKernel", "reconstruction kernel, values joined by backslashes"),
        text("LossyImageCompression", "01 where the pixels were once lossily compressed"),
        integer("SeriesNumber", "number of the series"),
        integer("AcquisitionNumber", "number of the acquisition"),
        integer("InstanceNumber", "number of the instance in its series"),
        integer("NumberOfFrames", "frames; null in single-frame objects"),
        integer("Rows", "rows of a frame"),
        integer("Columns", "columns of a frame"),
        integer("BitsAllocated", "bits per pixel as stored"),
        number("row_spacing_mm", "distance of neighbouring rows (PixelSpacing, first)", "mm"),
        number(
            "column_spacing_mm", "distance of neighbouring columns (PixelSpacing, second)", "mm"
        ),
        number("SliceThickness", "nominal slice thickness", "mm"),
        number("position_x_mm", "ImagePositionPatient, first frame", "mm"),
        number("position_y_mm", "ImagePositionPatient, first frame", "mm"),
        number("position_z_mm", "ImagePositionPatient, first frame", "mm"),
        number("row_cosine_x", "ImageOrientationPatient, direction along a row", "1"),
        number("row_cosine_y", "ImageOrientationPatient, direction along a row", "1"),
        number("row_cosine_z", "ImageOrientationPatient, direction along a row", "1"),
        number("column_cosine_x", "ImageOrientationPatient, direction down a column", "1"),
        number("column_cosine_y", "ImageOrientationPatient, direction down a column", "1"),
        number("column_cosine_z", "ImageOrientationPatient, direction down a column", "1"),
        number(
            "frame_increment_mm", "median distance of neighbouring frames of a multi-frame", "mm"
        ),
        number("frame_coverage_mm", "distance of the outermost frames of a multi-frame", "mm"),
        number("KVP", "tube voltage", "kV"),
        number("XRayTubeCurrent", "tube current", "mA"),
        number("Exposure", "exposure", "mAs"),
        number("ReconstructionDiameter", "diameter of the reconstructed field", "mm"),
        number("GantryDetectorTilt", "gantry tilt", "deg"),
        _flag("has_contrast_agent", "ContrastBolusAgent names an agent"),
        _flag("has_gating", "TriggerTime or another mark of cardiac gating is present"),
        ColumnSpec(
            "PatientSex",
            pa.string(),
            "PatientSex, where it is one of DICOM's terms",
            nullable=True,
            codes=("F", "M", "O"),
        ),
        integer("patient_birth_year", "year of PatientBirthDate; the day is not kept"),
        ColumnSpec(
            "pixel_data_offset",
            pa.int64(),
            "where the value of PixelData begins; null where not in the file as such",
            unit="B",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "content_digest",
            pa.string(),
            "SHA-256 of the file; only where another file holds the same instance",
            nullable=True,
            pattern=SHA256_PATTERN,
        ),
        ColumnSpec(
            "text_policy",
            pa.string(),
            "digest of what decides which words of the header are kept",
            nullable=True,
        ),
    ),
)
