"""Table `scores`: one row per study, model and protocol, whatever became of the study."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import CAC_CATEGORIES, Status, StudyReason
from schemas.columns import CTAC_ROLE, PATIENT_KEY, SHA256_PATTERN, STUDY_KEY
from schemas.table import ColumnSpec, TableSpec

SCORES = TableSpec(
    "scores",
    "One row per study x model x protocol: the Agatston score or the reason why there is none.",
    (
        STUDY_KEY,
        PATIENT_KEY,
        ColumnSpec("study_date", pa.date32(), "date of the study", nullable=True),
        ColumnSpec("status", pa.string(), "what became of the study", codes=Status),
        ColumnSpec(
            "reason",
            pa.string(),
            "why there is no score; null when scored",
            nullable=True,
            codes=StudyReason,
        ),
        ColumnSpec(
            "detail",
            pa.string(),
            "the numbers behind the reason, never an identifier",
            nullable=True,
        ),
        ColumnSpec(
            "agatston",
            pa.float64(),
            "Agatston score of coronary calcium inside the heart",
            unit="1",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "agatston_noncoronary",
            pa.float64(),
            "Agatston score of non-coronary calcium inside the heart (valves, aortic root)",
            unit="1",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "cac_category",
            pa.string(),
            "category of the Agatston score: below 1, up to 100, up to 400, above 400",
            nullable=True,
            codes=CAC_CATEGORIES,
        ),
        ColumnSpec(
            "calcium_volume_mm3",
            pa.float64(),
            "volume of the coronary lesions",
            unit="mm3",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "calcium_mass_mg",
            pa.float64(),
            "mass of the coronary lesions; null where no calibration is set",
            unit="mg",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "n_lesions",
            pa.int32(),
            "coronary lesions, counted slice by slice",
            unit="1",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "heart_volume_ml",
            pa.float64(),
            "volume of the heart mask",
            unit="ml",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "noise_hu",
            pa.float64(),
            "image noise in soft tissue of the heart; higher is worse",
            unit="HU",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "quality_flags",
            pa.string(),
            "flags that apply, separated by semicolons, in alphabetical order; empty when none",
        ),
        ColumnSpec(
            "threshold_hu", pa.float64(), "calcium threshold applied", unit="HU", nullable=True
        ),
        ColumnSpec("n_slices", pa.int32(), "slices of the scored volume", nullable=True, ge=1),
        ColumnSpec(
            "slice_increment_mm",
            pa.float64(),
            "distance of neighbouring slices, from ImagePositionPatient",
            unit="mm",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "row_spacing_mm",
            pa.float64(),
            "distance of neighbouring rows",
            unit="mm",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "column_spacing_mm",
            pa.float64(),
            "distance of neighbouring columns",
            unit="mm",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "slice_thickness_mm",
            pa.float64(),
            "SliceThickness of the header",
            unit="mm",
            nullable=True,
        ),
        ColumnSpec("Manufacturer", pa.string(), "DICOM Manufacturer", nullable=True),
        ColumnSpec("ManufacturerModelName", pa.string(), "DICOM scanner model", nullable=True),
        ColumnSpec("KVP", pa.float64(), "tube voltage", unit="kV", nullable=True),
        ColumnSpec("XRayTubeCurrent", pa.float64(), "tube current", unit="mA", nullable=True),
        ColumnSpec("ConvolutionKernel", pa.string(), "reconstruction kernel", nullable=True),
        ColumnSpec("TransferSyntaxUID", pa.string(), "encoding of the pixels", nullable=True),
        CTAC_ROLE,
        ColumnSpec(
            "instances_digest",
            pa.string(),
            "SHA-256 over the chosen SOP instances (of all instances where none was chosen)",
            pattern=SHA256_PATTERN,
        ),
        ColumnSpec(
            "pixel_digest",
            pa.string(),
            "SHA-256 over the HU values and geometry that were scored",
            nullable=True,
            pattern=SHA256_PATTERN,
        ),
        ColumnSpec("model_digest", pa.string(), "SHA-256 of weights and configuration"),
        ColumnSpec("protocol_digest", pa.string(), "digest of the scoring protocol"),
        ColumnSpec("core_version", pa.string(), "version of the core that scored"),
        ColumnSpec("run_id", pa.string(), "the run that wrote the row"),
        ColumnSpec("scored_at", pa.timestamp("us", tz="UTC"), "when the row was written"),
        ColumnSpec(
            "seconds_read",
            pa.float64(),
            "reading and assembling the volume",
            unit="s",
            nullable=True,
            ge=0,
        ),
        ColumnSpec("seconds_heart", pa.float64(), "heart network", unit="s", nullable=True, ge=0),
        ColumnSpec(
            "seconds_calcium", pa.float64(), "calcium network", unit="s", nullable=True, ge=0
        ),
        ColumnSpec(
            "seconds_model", pa.float64(), "both networks together", unit="s", nullable=True, ge=0
        ),
        ColumnSpec(
            "seconds_score",
            pa.float64(),
            "lesions, score and quality",
            unit="s",
            nullable=True,
            ge=0,
        ),
        ColumnSpec(
            "seconds_preview",
            pa.float64(),
            "pictures of the key slices; null where they are switched off",
            unit="s",
            nullable=True,
            ge=0,
        ),
    ),
    unique_together=("study_key", "protocol_digest"),
)
