"""Table `canaries`: scored studies that are scored again each night, and compared."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import Status, StudyReason
from schemas.columns import PROTOCOL_DIGEST, STUDY_KEY, code, sha256, text
from schemas.table import ColumnSpec, TableSpec

CANARIES = TableSpec(
    "canaries",
    "One row per canary study and night: its result with the code and libraries of that night, "
    "compared bit for bit with the reference, the first result of the same files, model, protocol "
    "and version of the core.",
    (
        ColumnSpec("run_id", pa.string(), "run that scored it, or whose score is the reference"),
        ColumnSpec("checked_at", pa.timestamp("us", tz="UTC"), "time when the row was written"),
        STUDY_KEY,
        ColumnSpec("model_id", pa.string(), "name of the model"),
        ColumnSpec("model_digest", pa.string(), "SHA-256 of weights and configuration"),
        PROTOCOL_DIGEST,
        ColumnSpec("core_version", pa.string(), "version of the core"),
        sha256("instances_digest", "SHA-256 over the selected SOP instances"),
        ColumnSpec("is_reference", pa.bool_(), "whether later nights are compared with this row"),
        code("status", "outcome of scoring the study", Status),
        code("reason", "why there is no score; null where scored", StudyReason, nullable=True),
        ColumnSpec("agatston", pa.float64(), "Agatston score", "1", nullable=True, ge=0),
        ColumnSpec(
            "result", pa.string(), "JSON object: the compared columns of `scores` with their values"
        ),
        ColumnSpec(
            "drifted", pa.bool_(), "whether the result differs from the reference in any bit"
        ),
        text("differs", "columns that differ, in alphabetical order, separated by semicolons"),
    ),
    unique_together=("run_id", "study_key", "is_reference"),
)
