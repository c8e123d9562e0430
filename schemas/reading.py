"""Tables `signed_readings` and `reading_assignments`: what people read, and who is to read what.

Rows are only ever added. `signed_readings` is not `readings`, which holds the readings that a
registry extract brings.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import CAC_CATEGORIES, DiscrepancyCause, ReadingKind
from schemas.columns import (
    PATIENT_KEY,
    PROTOCOL_DIGEST,
    STUDY_KEY,
    code,
    number,
    pixel_digest,
    sha256,
    text,
)
from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec

#: Name of a reader: letters, digits and signs of names; no path and no markup.
READER_PATTERN = r"^[^\W_](?:[\w .'-]{0,62}[\w.])?$"
#: Vessels with a score of their own, and the columns of it.
VESSEL_SCORES = ("agatston_lm", "agatston_lad", "agatston_lcx", "agatston_rca")


def _count(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.int32(), description, unit="1", ge=0)


def _agatston(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.float64(), description, unit="1", ge=0)


_READER = ColumnSpec("reader", pa.string(), "name of the reader", pattern=READER_PATTERN)

SIGNED_READINGS = TableSpec(
    "signed_readings",
    "One row per signed reading of a scored study; a correction is a new row. Its masks lie in "
    "`reading_masks/<study_key>/<reading_id>.dcm` as DICOM SEG.",
    (
        ColumnSpec(
            "reading_id", pa.string(), "random id of the reading", unique=True, pattern=KEY_PATTERN
        ),
        STUDY_KEY,
        PATIENT_KEY,
        _READER,
        code("kind", "how the reading came about", ReadingKind),
        ColumnSpec(
            "amends",
            pa.string(),
            "reading of the same reader that this one replaces",
            nullable=True,
            pattern=KEY_PATTERN,
        ),
        ColumnSpec("opened_at", pa.timestamp("us", tz="UTC"), "when the study was opened"),
        ColumnSpec("signed_at", pa.timestamp("us", tz="UTC"), "when the reading was signed"),
        ColumnSpec(
            "seconds_active",
            pa.float64(),
            "time with the study in view, without pauses of more than a minute",
            unit="s",
            ge=0,
        ),
        text("reason", "why the score was changed or confirmed, in the words of the reader"),
        code("cause", "cause of a discrepancy", DiscrepancyCause, nullable=True),
        _agatston("agatston", "Agatston score after the reading"),
        code("cac_category", "category of `agatston`", CAC_CATEGORIES),
        _agatston("agatston_lm", "part of the left main"),
        _agatston("agatston_lad", "part of the left anterior descending"),
        _agatston("agatston_lcx", "part of the left circumflex"),
        _agatston("agatston_rca", "part of the right coronary artery"),
        _agatston("agatston_unassigned", "part of coronary calcium without a named vessel"),
        _agatston("agatston_noncoronary", "Agatston score of non-coronary calcium in the heart"),
        number("calcium_volume_mm3", "volume of the coronary lesions", "mm3", ge=0),
        _count("n_lesions", "coronary lesions, counted slice by slice"),
        number("heart_volume_ml", "volume of the heart mask", "ml", ge=0),
        _count("n_corrections", "corrections between opening and signing"),
        ColumnSpec("changed", pa.bool_(), "whether the coronary score differs from the model's"),
        text("corrections", "JSON list: the corrections in their order"),
        ColumnSpec("model_id", pa.string(), "model whose score was read"),
        _agatston("model_agatston", "Agatston score of the model in the table `scores`"),
        code("model_category", "category of `model_agatston`", CAC_CATEGORIES),
        _agatston("rescored_agatston", "score of the model when the study was opened"),
        number("threshold_hu", "calcium threshold applied", "HU"),
        PROTOCOL_DIGEST,
        pixel_digest("digest over the HU values and geometry that were read"),
        sha256("masks_digest", "SHA-256 of the file of the masks"),
        ColumnSpec("core_version", pa.string(), "version of the core that scored the reading"),
    ),
)

ASSIGNMENTS = TableSpec(
    "reading_assignments",
    "One row per study and reader to whom it was assigned.",
    (
        ColumnSpec(
            "assignment_id",
            pa.string(),
            "random id of the assignment",
            unique=True,
            pattern=KEY_PATTERN,
        ),
        STUDY_KEY,
        _READER,
        ColumnSpec("assigned_by", pa.string(), "reader who assigned it", pattern=READER_PATTERN),
        ColumnSpec("assigned_at", pa.timestamp("us", tz="UTC"), "when it was assigned"),
    ),
)
