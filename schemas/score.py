"""Table `scores`: one row per study, model and protocol, scored or not."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import CAC_CATEGORIES, Status, StudyReason
from schemas.columns import (
    CTAC_ROLE,
    KVP,
    PATIENT_KEY,
    PROTOCOL_DIGEST,
    STUDY_KEY,
    code,
    integer,
    number,
    pixel_digest,
    sha256,
    text,
)
from schemas.table import ColumnSpec, TableSpec

#: Columns of the chance of each category, in the order of `CAC_CATEGORIES`.
CATEGORY_CHANCES = ("p_category_0", "p_category_1_100", "p_category_101_400", "p_category_over_400")
#: Columns that say how sure a score is, also in the table `linked`.
CERTAINTY_COLUMNS = (
    *CATEGORY_CHANCES, "agatston_low", "agatston_high", "needs_review", "review_reasons",
)  # fmt: skip

SCORES = TableSpec(
    "scores",
    "One row per study x model x protocol: the Agatston score, or the reason for none.",
    (
        STUDY_KEY,
        PATIENT_KEY,
        ColumnSpec("study_date", pa.date32(), "date of the study", nullable=True),
        code("status", "outcome of scoring the study", Status),
        code("reason", "why there is no score; null where scored", StudyReason, nullable=True),
        text("detail", "numbers that explain the reason, never an identifier"),
        number("agatston", "Agatston score of coronary calcium inside the heart", "1", ge=0),
        number(
            "agatston_noncoronary",
            "Agatston score of non-coronary calcium inside the heart (valves, aortic root)",
            "1",
            ge=0,
        ),
        code(
            "cac_category",
            "category of the Agatston score: below 1, up to 100, up to 400, above 400",
            CAC_CATEGORIES,
            nullable=True,
        ),
        *(
            ColumnSpec(name, pa.float64(), f"chance of category {category}", "1", True, ge=0, le=1)
            for name, category in zip(CATEGORY_CHANCES, CAC_CATEGORIES, strict=True)
        ),
        number(
            "agatston_low",
            "lower limit of the 90 % interval of the true score; contains the score",
            "1",
            ge=0,
        ),
        number("agatston_high", "upper limit of that interval", "1", ge=0),
        ColumnSpec(
            "needs_review",
            pa.bool_(),
            "whether a person should look at the score; null without a score, and in rows of "
            "earlier versions",
            nullable=True,
        ),
        text(
            "review_reasons",
            "reasons in alphabetical order, separated by semicolons; empty where there are none, "
            "null where `needs_review` is",
        ),
        number("calcium_volume_mm3", "volume of the coronary lesions", "mm3", ge=0),
        number(
            "calcium_mass_mg",
            "mass of the coronary lesions; null where no calibration is set",
            "mg",
            ge=0,
        ),
        integer("n_lesions", "coronary lesions, counted slice by slice", "1", ge=0),
        number("heart_volume_ml", "volume of the heart mask", "ml", ge=0),
        number("noise_hu", "image noise in soft tissue of the heart; higher is worse", "HU", ge=0),
        ColumnSpec(
            "quality_flags",
            pa.string(),
            "flags in alphabetical order, separated by semicolons; empty where there are none",
        ),
        number("threshold_hu", "calcium threshold applied", "HU"),
        integer("n_slices", "slices of the scored volume", ge=1),
        number(
            "slice_increment_mm", "distance between slices, from ImagePositionPatient", "mm", ge=0
        ),
        number("row_spacing_mm", "distance between rows", "mm", ge=0),
        number("column_spacing_mm", "distance between columns", "mm", ge=0),
        number("slice_thickness_mm", "SliceThickness of the header", "mm"),
        text("Manufacturer", "DICOM Manufacturer"),
        text("ManufacturerModelName", "DICOM scanner model"),
        KVP,
        number("XRayTubeCurrent", "tube current", "mA"),
        text("ConvolutionKernel", "reconstruction kernel"),
        text("TransferSyntaxUID", "encoding of the pixels"),
        CTAC_ROLE,
        sha256(
            "instances_digest",
            "SHA-256 over the selected SOP instances (over all where no series is selected)",
        ),
        pixel_digest("digest over the HU values and geometry that were scored", nullable=True),
        text(
            "files_digest",
            "digest over sizes and modification times of the files of the selected series when it "
            "was scored; null without one, and in rows of earlier versions",
        ),
        ColumnSpec("model_digest", pa.string(), "SHA-256 of weights and configuration"),
        PROTOCOL_DIGEST,
        ColumnSpec("core_version", pa.string(), "version of the core that scored"),
        ColumnSpec("run_id", pa.string(), "run that wrote the row"),
        ColumnSpec("scored_at", pa.timestamp("us", tz="UTC"), "time when the row was written"),
        number("seconds_read", "reading and assembling the volume", "s", ge=0),
        number("seconds_heart", "heart network", "s", ge=0),
        number("seconds_calcium", "calcium network", "s", ge=0),
        number("seconds_model", "both networks together", "s", ge=0),
        number("seconds_score", "lesions, score and quality", "s", ge=0),
        number(
            "seconds_preview",
            "images of the key slices; null where they are switched off",
            "s",
            ge=0,
        ),
    ),
    unique_together=("study_key", "protocol_digest"),
)
