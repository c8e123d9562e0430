"""Table `instances`: one row per file of the archive.

Stored rows hold keys and pseudonyms only: no path, no UID of the archive, no PatientID. A file that
is not a usable instance keeps its row, with the reason, so that it is not opened again.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import FileReason
from schemas.columns import (
    DESCRIPTIONS,
    FRAME_OF_REFERENCE_UID,
    KVP,
    MODALITY,
    PATIENT_KEY,
    SERIES_NUMBER,
    SLICE_THICKNESS,
    SOP_CLASS_UID,
    STUDY_DATE,
    TRANSFER_SYNTAX_UID,
    code,
    integer,
    number,
    pseudonym,
    sha256,
    text,
)
from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec

#: Sources of the date of a study, best first.
DATE_SOURCES = ("StudyDate", "repaired", "SeriesDate", "AcquisitionDate", "ContentDate")


def _flag(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.bool_(), description, nullable=True)


INSTANCES = TableSpec(
    "instances",
    "One row per file of the archive: its DICOM header, or the reason why it is unusable.",
    (
        ColumnSpec(
            "path_key",
            pa.string(),
            "keyed pseudonym of the absolute path",
            unique=True,
            pattern=KEY_PATTERN,
        ),
        ColumnSpec("size_bytes", pa.int64(), "size of the file", unit="B", ge=0),
        ColumnSpec(
            "mtime_ns",
            pa.int64(),
            "modification time since 1970; in a store the seconds, and a digest of the ETag",
            unit="ns",
        ),
        code(
            "reason",
            "why the file is not a usable instance; null where it is",
            FileReason,
            nullable=True,
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
        FRAME_OF_REFERENCE_UID,
        SOP_CLASS_UID,
        TRANSFER_SYNTAX_UID,
        MODALITY,
        STUDY_DATE,
        code(
            "study_date_source",
            "attribute that study_date comes from; repaired: StudyDate in another form than DA",
            DATE_SOURCES,
            nullable=True,
        ),
        number(
            "acquisition_time_s",
            "AcquisitionTime, or SeriesTime where it is absent, since midnight",
            "s",
        ),
        text("ImageType", "values joined by backslashes"),
        *DESCRIPTIONS,
        SERIES_NUMBER,
        integer("AcquisitionNumber", "number of the acquisition"),
        integer("InstanceNumber", "number of the instance in its series"),
        integer("NumberOfFrames", "frames; null in single-frame objects"),
        integer("Rows", "rows of a frame"),
        integer("Columns", "columns of a frame"),
        integer("BitsAllocated", "bits per pixel as stored"),
        number("row_spacing_mm", "distance between rows (PixelSpacing, first value)", "mm"),
        number("column_spacing_mm", "distance between columns (PixelSpacing, second value)", "mm"),
        SLICE_THICKNESS,
        *(
            number(f"position_{axis}_mm", "ImagePositionPatient, first frame", "mm")
            for axis in "xyz"
        ),
        *(
            number(f"row_cosine_{axis}", "ImageOrientationPatient, direction along a row", "1")
            for axis in "xyz"
        ),
        *(
            number(f"column_cosine_{axis}", "ImageOrientationPatient, direction down a column", "1")
            for axis in "xyz"
        ),
        number(
            "frame_increment_mm", "median distance between frames of a multi-frame object", "mm"
        ),
        number(
            "frame_coverage_mm", "distance of the outermost frames of a multi-frame object", "mm"
        ),
        KVP,
        number("XRayTubeCurrent", "tube current", "mA"),
        number("Exposure", "exposure", "mAs"),
        number("ReconstructionDiameter", "diameter of the reconstructed field", "mm"),
        number("GantryDetectorTilt", "gantry tilt", "deg"),
        _flag("has_contrast_agent", "ContrastBolusAgent names an agent"),
        _flag("has_gating", "TriggerTime or another mark of cardiac gating is present"),
        code(
            "PatientSex",
            "PatientSex, where it is a defined term of DICOM",
            ("F", "M", "O"),
            nullable=True,
        ),
        integer("patient_birth_year", "year of PatientBirthDate; the day is not kept"),
        ColumnSpec(
            "pixel_data_offset",
            pa.int64(),
            "offset of the value of PixelData; null where the file does not contain it as such",
            unit="B",
            nullable=True,
            ge=0,
        ),
        sha256(
            "content_digest",
            "SHA-256 of the file; only where another file holds the same instance",
            nullable=True,
        ),
        text("text_policy", "digest of the rules that decide which words of the header are kept"),
    ),
)
