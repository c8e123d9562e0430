"""Table `runs`: one row per run of a job, with counts, versions and resolved settings."""

from __future__ import annotations

import pyarrow as pa

from schemas.table import ColumnSpec, TableSpec

#: Jobs that score an archive; `forget` removes withdrawn patients and has counts in `reasons` only.
SCORING_JOBS = ("nightly-rescore", "retry", "backfill")
JOBS = (*SCORING_JOBS, "forget")

RUNS = TableSpec(
    "runs",
    "One row per run: job, counts, digests and versions.",
    (
        ColumnSpec("run_id", pa.string(), "start time and a random suffix", unique=True),
        ColumnSpec("job", pa.string(), "command of the run", codes=JOBS),
        ColumnSpec("started_at", pa.timestamp("us", tz="UTC"), "start of the run"),
        ColumnSpec("finished_at", pa.timestamp("us", tz="UTC"), "end of the run"),
        ColumnSpec(
            "outcome",
            pa.string(),
            "completed, over the failure budget, or interrupted",
            codes=("completed", "over_budget", "interrupted"),
        ),
        ColumnSpec("files", pa.int64(), "files found in the archive", ge=0),
        ColumnSpec("files_opened", pa.int64(), "files whose header was read in this run", ge=0),
        ColumnSpec("studies", pa.int64(), "studies found in the archive", ge=0),
        ColumnSpec("scored", pa.int64(), "studies scored in this run", ge=0),
        ColumnSpec("rejected", pa.int64(), "studies rejected in this run", ge=0),
        ColumnSpec("failed", pa.int64(), "studies that failed in this run", ge=0),
        ColumnSpec("skipped", pa.int64(), "studies already in the ledger", ge=0),
        ColumnSpec("reasons", pa.string(), "JSON object: reason to number of studies"),
        ColumnSpec("file_reasons", pa.string(), "JSON object: reason to number of files"),
        ColumnSpec("seconds", pa.float64(), "wall time of the run", unit="s", ge=0),
        ColumnSpec("model_id", pa.string(), "name of the model"),
        ColumnSpec("model_digest", pa.string(), "SHA-256 of weights and configuration"),
        ColumnSpec("protocol_digest", pa.string(), "digest of the scoring protocol"),
        ColumnSpec("rules_digest", pa.string(), "digest of the series selection rules"),
        ColumnSpec("core_version", pa.string(), "version of the core"),
        ColumnSpec("settings", pa.string(), "JSON object: the resolved settings, without secrets"),
        ColumnSpec("versions", pa.string(), "JSON object: Python and library versions"),
    ),
)
