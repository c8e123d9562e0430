"""Table `forgotten`: patients and studies that were withdrawn, and must not come back."""

from __future__ import annotations

import pyarrow as pa

from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec

FORGOTTEN = TableSpec(
    "forgotten",
    "One row per withdrawn patient and per study of one. The keys are keyed hashes of patient_key "
    "and study_key: they show whether a file belongs to a withdrawn patient, and name nobody.",
    (
        ColumnSpec(
            "suppression_key",
            pa.string(),
            "keyed hash of a patient_key or study_key",
            unique=True,
            pattern=KEY_PATTERN,
        ),
        ColumnSpec("run_id", pa.string(), "run of `cac forget` that added it"),
    ),
)
