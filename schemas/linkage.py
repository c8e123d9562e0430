"""Tables about the linkage itself: quarantine, cohort flow, match rates, events, runs."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import FlowStep, RowReason
from schemas.columns import text
from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec

QUARANTINE = TableSpec(
    "quarantine",
    "One row per unusable row or cell of an extract, with the reason; never a value of an "
    "identifier. If only a cell is unusable, its row is used without it.",
    (
        ColumnSpec("table", pa.string(), "canonical table of the row"),
        ColumnSpec("source", pa.string(), "name of the source in the mapping"),
        ColumnSpec("source_file", pa.string(), "source, and the number of the file in it"),
        ColumnSpec("source_line", pa.int64(), "line of the file", nullable=True, ge=1),
        text("column", "canonical column at fault; null for the whole row"),
        ColumnSpec("reason", pa.string(), "reason", codes=RowReason),
        text(
            "value_shape",
            "the value, A for letters and 9 for digits, or a code word; no identifier",
        ),
        ColumnSpec(
            "row_kept",
            pa.bool_(),
            "whether the row is used without this cell; null in older tables",
            nullable=True,
        ),
    ),
)

FLOW = TableSpec(
    "flow",
    "One row per patient: the step at which it left the cohort, or its inclusion.",
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
        text("detail", "the missing covariate, or the record of known disease"),
        ColumnSpec("n_studies", pa.int32(), "CTAC studies of the patient in the archive", ge=0),
    ),
)

MATCHES = TableSpec(
    "matches",
    "Clinical rows with a matching study, by year, site and source.",
    (
        ColumnSpec("study_year", pa.int32(), "year of the clinical row's study date"),
        ColumnSpec("site", pa.string(), "site of the mapping"),
        ColumnSpec("source_file", pa.string(), "source, and the number of the file in it"),
        ColumnSpec("n_rows", pa.int64(), "clinical rows", ge=0),
        ColumnSpec("n_by_key_and_date", pa.int64(), "matched by patient and study date", ge=0),
        ColumnSpec("n_by_accession", pa.int64(), "matched by accession number", ge=0),
        ColumnSpec("n_unmatched", pa.int64(), "without a study", ge=0),
        ColumnSpec("match_rate", pa.float64(), "share of rows with a study", "1", ge=0, le=1),
    ),
)

EVENTS = TableSpec(
    "events",
    "One row per component event of a patient in the analysis, from scan to end of follow-up.",
    (
        ColumnSpec(
            "patient_key", pa.string(), "keyed pseudonym of the patient", pattern=KEY_PATTERN
        ),
        ColumnSpec("component", pa.string(), "component of the outcome definition"),
        ColumnSpec("event_date", pa.date32(), "day of the event, or first day of its episode"),
        ColumnSpec("days", pa.int32(), "days from the scan", "d", ge=1),
    ),
    unique_together=("patient_key", "component", "event_date"),
)

LINKAGES = TableSpec(
    "linkages",
    "One row per linkage: inputs, results, digests and versions.",
    (
        ColumnSpec("run_id", pa.string(), "start time and a random suffix", unique=True),
        ColumnSpec("started_at", pa.timestamp("us", tz="UTC"), "start of the run"),
        ColumnSpec("finished_at", pa.timestamp("us", tz="UTC"), "end of the run"),
        ColumnSpec("site", pa.string(), "site of the mapping"),
        ColumnSpec("model_id", pa.string(), "model whose scores were linked"),
        ColumnSpec("inputs_digest", pa.string(), "SHA-256 over everything the linkage depends on"),
        ColumnSpec("extracts", pa.int64(), "files of extracts", ge=1),
        ColumnSpec("extracts_read", pa.int64(), "files that were read in this run", ge=0),
        ColumnSpec("rows", pa.int64(), "usable rows of all extracts", ge=0),
        ColumnSpec("rows_unusable", pa.int64(), "lines of extracts in quarantine", ge=0),
        ColumnSpec("studies", pa.int64(), "studies of the model in the archive", ge=0),
        ColumnSpec("patients", pa.int64(), "patients in archive or clinical table", ge=0),
        ColumnSpec("included", pa.int64(), "patients in the analysis", ge=0),
        ColumnSpec(
            "empty_because",
            pa.string(),
            "JSON array: why no patient is in the analysis; empty if there are some",
            nullable=True,
        ),
        ColumnSpec("outcomes", pa.string(), "JSON object: outcome to number of events"),
        ColumnSpec("seconds", pa.float64(), "wall time of the run", unit="s", ge=0),
        ColumnSpec("core_version", pa.string(), "version of the core"),
        ColumnSpec("mapping", pa.string(), "JSON object: the mapping, without file names"),
        ColumnSpec("definition", pa.string(), "JSON object: the outcome definition"),
        ColumnSpec("versions", pa.string(), "JSON object: Python and library versions"),
    ),
)
