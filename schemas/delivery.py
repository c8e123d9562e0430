"""Table `deliveries`: what became of the DICOM objects that were to be sent to a PACS."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import DeliveryOutcome
from schemas.columns import PROTOCOL_DIGEST, STUDY_KEY, code, count, pixel_digest
from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec

DELIVERIES = TableSpec(
    "deliveries",
    "One row per attempt to send the DICOM objects of a study; rows are only added.",
    (
        ColumnSpec("delivery_id", pa.string(), "random id", unique=True, pattern=KEY_PATTERN),
        STUDY_KEY,
        ColumnSpec("model_id", pa.string(), "model of the score"),
        PROTOCOL_DIGEST,
        ColumnSpec("core_version", pa.string(), "version of the core that scored the study"),
        pixel_digest("digest over the HU values and geometry that were scored"),
        ColumnSpec("kinds", pa.string(), "kinds of objects, sorted, with commas between them"),
        ColumnSpec(
            "receiver",
            pa.string(),
            "first 16 digits of the SHA-256 of the address of the receiver",
            pattern="^[0-9a-f]{16}$",
        ),
        code("outcome", "what became of them", DeliveryOutcome),
        count("n_objects", "objects that were made"),
        ColumnSpec("tried_at", pa.timestamp("us", tz="UTC"), "when it was tried"),
    ),
)
