"""Table `series`: one row per series found, with the decision whether it is the study's CTAC."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import SeriesReason
from schemas.columns import (
    CTAC_ROLE,
    PATIENT_KEY,
    SHA256_PATTERN,
    STUDY_KEY,
    integer,
    number,
    pseudonym,
    text,
)
from schemas.table import ColumnSpec, TableSpec


def _count(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.int32(), description, unit="1", ge=0)


SERIES = TableSpec(
    "series",
    "One row per series found, CT or not (the others explain the study): header, geometry, and "
    "whether it was selected as the study's CTAC series or why not.",
    (
        STUDY_KEY,
        PATIENT_KEY,
        pseudonym(
            "SeriesInstanceUID",
            "pseudonym of SeriesInstanceUID; null for the study's files without one, together",
        ),
        pseudonym("FrameOfReferenceUID", "pseudonym of FrameOfReferenceUID"),
        ColumnSpec("study_date", pa.date32(), "StudyDate, or what stands in for it", nullable=True),
        text("Modality", "kind of equipment"),
        text("SOPClassUID", "kind of object"),
        text("TransferSyntaxUID", "encoding of header and pixels"),
        text("ImageType", "most frequent of the series, values joined by backslashes"),
        text("SeriesDescription", "description of the series; words that may identify are *"),
        text("StudyDescription", "description of the study; words that may identify are *"),
        text("ProtocolName", "acquisition protocol; words that may identify are *"),
        text("Manufacturer", "maker of the equipment"),
        text("ManufacturerModelName", "model of the equipment"),
        text("ConvolutionKernel", "reconstruction kernel, values joined by backslashes"),
        text("LossyImageCompression", "01 where the pixels were once lossily compressed"),
        integer("SeriesNumber", "number of the series"),
        integer("Rows", "rows of a slice"),
        integer("Columns", "columns of a slice"),
        number("KVP", "tube voltage", "kV"),
        number("XRayTubeCurrent", "tube current, median of the slices", "mA"),
        number("Exposure", "exposure, median of the slices", "mAs"),
        number("SliceThickness", "nominal slice thickness", "mm"),
        number("row_spacing_mm", "distance of neighbouring rows", "mm"),
        number("column_spacing_mm", "distance of neighbouring columns", "mm"),
        number("reconstruction_diameter_mm", "ReconstructionDiameter", "mm"),
        number(
            "slice_increment_mm",
            "median distance of neighbouring slices, from ImagePositionPatient on the normal",
            "mm",
            ge=0,
        ),
        number(
            "coverage_mm", "distance of the outermost slices plus one slice increment", "mm", ge=0
        ),
        number("axial_cosine", "cosine between slice normal and body axis", "1", ge=0),
        _count("n_files", "files with an instance of the series, duplicates left out"),
        _count("n_slices", "slices: frames of all instances"),
        _count("n_truncated", "files that end inside their header or pixel data"),
        _count("n_unusable", "files of the series that lack UIDs or a readable header"),
        ColumnSpec("has_contrast_agent", pa.bool_(), "a slice names a contrast agent"),
        ColumnSpec("has_gating", pa.bool_(), "a slice carries a mark of cardiac gating"),
        ColumnSpec(
            "instances_digest",
            pa.string(),
            "SHA-256 over pseudonyms, sizes, patient and date of the instances",
            pattern=SHA256_PATTERN,
        ),
        ColumnSpec(
            "acquisition_time_s",
            pa.float64(),
            "earliest AcquisitionTime (or SeriesTime) of the instances, since midnight",
            unit="s",
            nullable=True,
        ),
        ColumnSpec(
            "layout_digest",
            pa.string(),
            "SHA-256 over sizes, positions and numbers of the instances, without pseudonyms: "
            "breaks ties of the selection",
            nullable=True,
            pattern=SHA256_PATTERN,
        ),
        CTAC_ROLE,
        ColumnSpec("selected", pa.bool_(), "whether this is the CTAC series of the study"),
        ColumnSpec(
            "reason",
            pa.string(),
            "why it was not selected; null where it was",
            nullable=True,
            codes=SeriesReason,
        ),
        number("rank_score", "weight of the evidence; higher ranks first", "1"),
        ColumnSpec(
            "evidence", pa.string(), "names of the rules that fired, separated by semicolons"
        ),
    ),
    unique_together=("study_key", "SeriesInstanceUID"),
)
