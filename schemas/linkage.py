"""What the linkage says of itself: rows in quarantine, the cohort flow, match rates."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import FlowStep, RowReason
from schemas.columns import text
from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec

QUARANTINE = TableSpec(
    "quarantine",
    "One row per row and column of an extract that could not be used, and why; never a value of "
    "an identifier.",
    (
        ColumnSpec("table", pa.string(), "canonical table the row was meant for"),
        ColumnSpec("source", pa.string(), "name of the source in the mapping"),
        ColumnSpec("source_file", pa.string(), "name of the extract's file"),
        ColumnSpec("source_line", pa.int64(), "line of the file", nullable=True, ge=1),
        text("column", "canonical column at fault; null where it is the whole row"),
        ColumnSpec("reason", pa.string(), "why the row is here", codes=RowReason),
        text("value_shape", "the value with A for letters and 9 for digits; null for identifiers"),
    ),
)

FLOW = TableSpec(
    "flow",
    "One row per patient: where it left the cohort, or that it is in the analysis.",
    (
        ColumnSpec(
            "patient_key",
            pa.string(),
            "keyed pseudonym of the patient",
            unique=True,
            pattern=KEY_PATTERN,
        ),
        ColumnSpec("step_number", pa.int8(), "order of the step", ge=1),
        ColumnSpec("step", pa.string(), "the step at which the patient left", codes=FlowStep),
        text("detail", "the covariate that is missing, or the record that told of known disease"),
        ColumnSpec("n_studies", pa.int32(), "CTAC studies of the patient in the archive", ge=0),
    ),
)

MATCHES = TableSpec(
    "matches",
    "How many clinical rows found their study, by year, site and source.",
    (
        ColumnSpec("study_year", pa.int32(), "year of the clinical row's study date"),
        ColumnSpec("site", pa.string(), "site of the mapping"),
        ColumnSpec("source_file", pa.string(), "name of the extract's file"),
        ColumnSpec("n_rows", pa.int64(), "clinical rows", ge=0),
        ColumnSpec("n_by_key_and_date", pa.int64(), "matched by patient and study date", ge=0),
        ColumnSpec("n_by_accession", pa.int64(), "matched by accession number", ge=0),
        ColumnSpec("n_unmatched", pa.int64(), "without a study", ge=0),
        ColumnSpec("match_rate", pa.float64(), "share of rows with a study", "1", ge=0, le=1),
    ),
)
