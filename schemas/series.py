"""Table `series`: one row per series, and whether it was selected as the CTAC of its study."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import SeriesReason
from schemas.columns import (
    CTAC_ROLE,
    DESCRIPTIONS,
    FRAME_OF_REFERENCE_UID,
    KVP,
    MODALITY,
    PATIENT_KEY,
    SERIES_NUMBER,
    SLICE_THICKNESS,
    SOP_CLASS_UID,
    STUDY_DATE,
    STUDY_KEY,
    TRANSFER_SYNTAX_UID,
    code,
    count,
    integer,
    number,
    pseudonym,
    sha256,
    text,
)
from schemas.table import ColumnSpec, TableSpec

SERIES = TableSpec(
    "series",
    "One row per series, CT or not (the others explain the study): header, geometry, and whether "
    "it was selected as the CTAC series of the study or why not.",
    (
        STUDY_KEY,
        PATIENT_KEY,
        pseudonym(
            "SeriesInstanceUID",
            "pseudonym of SeriesInstanceUID; null for all files of the study without one",
        ),
        FRAME_OF_REFERENCE_UID,
        STUDY_DATE,
        MODALITY,
        SOP_CLASS_UID,
        TRANSFER_SYNTAX_UID,
        text("ImageType", "most frequent value of the series, parts joined by backslashes"),
        *DESCRIPTIONS,
        SERIES_NUMBER,
        integer("Rows", "rows of a slice"),
        integer("Columns", "columns of a slice"),
        KVP,
        number("XRayTubeCurrent", "tube current, median of the slices", "mA"),
        number("Exposure", "exposure, median of the slices", "mAs"),
        SLICE_THICKNESS,
        number("row_spacing_mm", "distance between rows", "mm"),
        number("column_spacing_mm", "distance between columns", "mm"),
        number("reconstruction_diameter_mm", "ReconstructionDiameter", "mm"),
        number(
            "slice_increment_mm",
            "median distance between slices, from ImagePositionPatient along the normal",
            "mm",
            ge=0,
        ),
        number(
            "coverage_mm", "distance of the outermost slices plus one slice increment", "mm", ge=0
        ),
        number("axial_cosine", "cosine between slice normal and body axis", "1", ge=0),
        count("n_files", "files with an instance of the series, without duplicates"),
        count("n_slices", "slices: frames of all instances"),
        count("n_truncated", "truncated files: header or pixel data end early"),
        count("n_unusable", "files of the series that lack UIDs or a readable header"),
        ColumnSpec("has_contrast_agent", pa.bool_(), "a slice has a contrast agent in its header"),
        ColumnSpec("has_gating", pa.bool_(), "a slice has an attribute of cardiac gating"),
        sha256(
            "instances_digest", "SHA-256 over pseudonyms, sizes, patient and date of the instances"
        ),
        number(
            "acquisition_time_s",
            "earliest AcquisitionTime (or SeriesTime) of the instances, since midnight",
            "s",
        ),
        sha256(
            "layout_digest",
            "SHA-256 over sizes, positions and numbers of the instances, without pseudonyms: "
            "breaks ties of the selection",
            nullable=True,
        ),
        CTAC_ROLE,
        ColumnSpec("selected", pa.bool_(), "whether this is the CTAC series of the study"),
        code("reason", "why it was not selected; null where it was", SeriesReason, nullable=True),
        number("rank_score", "weight of the evidence; higher ranks first", "1"),
        ColumnSpec(
            "evidence", pa.string(), "names of the rules that matched, separated by semicolons"
        ),
    ),
    unique_together=("study_key", "SeriesInstanceUID"),
)
