"""Table `series`: one row per series found, with the decision whether it is the study's CTAC."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import SeriesReason
from schemas.instance import PSEUDONYM_PATTERN
from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec


def _text(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.string(), description, nullable=True)


def _number(name: str, description: str, unit: str, ge: float | None = None) -> ColumnSpec:
    return ColumnSpec(name, pa.float64(), description, unit=unit, nullable=True, ge=ge)


def _integer(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.int32(), description, nullable=True)


def _count(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.int32(), description, unit="1", ge=0)


SERIES = TableSpec(
    "series",
    "One row per series found, CT or not (the others explain the study): header, geometry, and "
    "whether it was selected as the study's CTAC series or why not.",
    (
        ColumnSpec("study_key", pa.string(), "keyed pseudonym of the study", pattern=KEY_PATTERN),
        ColumnSpec(
            "patient_key",
            pa.string(),
            "keyed pseudonym of the patient; null where PatientID is absent",
            nullable=True,
            pattern=KEY_PATTERN,
        ),
        ColumnSpec(
            "SeriesInstanceUID",
            pa.string(),
            "pseudonym of SeriesInstanceUID; null for the study's files without one, together",
            nullable=True,
            pattern=PSEUDONYM_PATTERN,
        ),
        ColumnSpec(
            "FrameOfReferenceUID",
            pa.string(),
            "pseudonym of FrameOfReferenceUID",
            nullable=True,
            pattern=PSEUDONYM_PATTERN,
        ),
        ColumnSpec("study_date", pa.date32(), "StudyDate", nullable=True),
        _text("Modality", "kind of equipment"),
        _text("SOPClassUID", "kind of object"),
        _text("TransferSyntaxUID", "encoding of header and pixels"),
        _text("ImageType", "most frequent of the series, values joined by backslashes"),
        _text("SeriesDescription", "description of the series, scrubbed of the patient"),
        _text("StudyDescription", "description of the study, scrubbed of the patient"),
        _text("ProtocolName", "acquisition protocol, scrubbed of the patient"),
        _text("Manufacturer", "maker of the equipment"),
        _text("ManufacturerModelName", "model of the equipment"),
        _text("ConvolutionKernel", "reconstruction kernel, values joined by backslashes"),
        _text("LossyImageCompression", "01 where the pixels were once lossily compressed"),
        _integer("SeriesNumber", "number of the series"),
        _integer("Rows", "rows of a slice"),
        _integer("Columns", "columns of a slice"),
        _number("KVP", "tube voltage", "kV"),
        _number("XRayTubeCurrent", "tube current, median of the slices", "mA"),
        _number("Exposure", "exposure, median of the slices", "mAs"),
        _number("SliceThickness", "nominal slice thickness", "mm"),
        _number("row_spacing_mm", "distance of neighbouring rows", "mm"),
        _number("column_spacing_mm", "distance of neighbouring columns", "mm"),
        _number("reconstruction_diameter_mm", "ReconstructionDiameter", "mm"),
        _number(
            "slice_increment_mm",
            "median distance of neighbouring slices, from ImagePositionPatient on the normal",
            "mm",
            ge=0,
        ),
        _number(
            "coverage_mm", "distance of the outermost slices plus one slice increment", "mm", ge=0
        ),
        _number("axial_cosine", "cosine between slice normal and body axis", "1", ge=0),
        _count("n_files", "files with an instance of the series, duplicates left out"),
        _count("n_slices", "slices: frames of all instances"),
        _count("n_truncated", "files that end inside their header or pixel data"),
        _count("n_unusable", "files of the series that lack UIDs or a readable header"),
        ColumnSpec("has_contrast_agent", pa.bool_(), "a slice names a contrast agent"),
        ColumnSpec("has_gating", pa.bool_(), "a slice carries a mark of cardiac gating"),
        ColumnSpec(
            "instances_digest",
            pa.string(),
            "SHA-256 over the sorted SOPInstanceUID pseudonyms and file sizes",
            pattern=r"^[0-9a-f]{64}$",
        ),
        ColumnSpec(
            "ctac_role",
            pa.string(),
            "rest or stress acquisition, where the description says so",
            nullable=True,
            codes=("rest", "stress"),
        ),
        ColumnSpec("selected", pa.bool_(), "whether this is the CTAC series of the study"),
        ColumnSpec(
            "reason",
            pa.string(),
            "why it was not selected; null where it was",
            nullable=True,
            codes=SeriesReason,
        ),
        _number("rank_score", "weight of the evidence; higher ranks first", "1"),
        ColumnSpec(
            "evidence", pa.string(), "names of the rules that fired, separated by semicolons"
        ),
    ),
    unique_together=("study_key", "SeriesInstanceUID"),
)
