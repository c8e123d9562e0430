"""Tables of the analysis: `estimates`, `discrepancies` and `analyses`."""

from __future__ import annotations

import pyarrow as pa

from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec


def _text(name: str, description: str, nullable: bool = True) -> ColumnSpec:
    return ColumnSpec(name, pa.string(), description, nullable=nullable)


ESTIMATES = TableSpec(
    "estimates",
    "One row per estimated number, with its interval, test and method.",
    (
        _text("analysis", "which analysis, for instance `cox_multivariable`", nullable=False),
        _text("population", "which population"),
        _text("outcome", "which outcome definition"),
        _text("model", "which model or score source"),
        _text("term", "covariate or contrast"),
        _text("level", "level of the term"),
        _text("statistic", "name of the statistic", nullable=False),
        ColumnSpec(
            "at",
            pa.float64(),
            "where on its axis: day of a curve, threshold, mean predicted risk, landmark",
            nullable=True,
        ),
        ColumnSpec("value", pa.float64(), "the estimate; null where not estimable", nullable=True),
        ColumnSpec("ci_low", pa.float64(), "lower limit of the interval", nullable=True),
        ColumnSpec("ci_high", pa.float64(), "upper limit of the interval", nullable=True),
        ColumnSpec("p_value", pa.float64(), "two-sided p value", nullable=True, ge=0, le=1),
        ColumnSpec("n", pa.int64(), "observations used", nullable=True, ge=0),
        ColumnSpec("n_events", pa.int64(), "events among them", nullable=True, ge=0),
        _text("method", "how it was computed, and why not where it is null"),
    ),
)

DISCREPANCIES = TableSpec(
    "discrepancies",
    "One row per patient and pair of readings that differ in the presence of calcium or by two "
    "categories or more.",
    (
        ColumnSpec("study_key", pa.string(), "keyed pseudonym of the study", pattern=KEY_PATTERN),
        _text("compared", "score source that is compared", nullable=False),
        _text("reference", "score source that it is compared with", nullable=False),
        _text("compared_category", "category by the first", nullable=False),
        _text("reference_category", "category by the second", nullable=False),
        ColumnSpec(
            "compared_agatston", pa.float64(), "Agatston score by the first", "1", True, ge=0
        ),
        ColumnSpec(
            "reference_agatston", pa.float64(), "Agatston score by the second", "1", True, ge=0
        ),
        ColumnSpec("categories_apart", pa.int64(), "categories of the first above the second"),
    ),
    unique_together=("study_key", "compared", "reference"),
)

ANALYSES = TableSpec(
    "analyses",
    "One row per analysis run: what went in, what came of it, and every digest behind it.",
    (
        ColumnSpec("run_id", pa.string(), "start time and a random suffix", unique=True),
        ColumnSpec("started_at", pa.timestamp("us", tz="UTC"), "start of the run"),
        ColumnSpec("finished_at", pa.timestamp("us", tz="UTC"), "end of the run"),
        ColumnSpec("model_id", pa.string(), "model whose scores were linked"),
        ColumnSpec("inputs_digest", pa.string(), "SHA-256 over tables, plan and core version"),
        ColumnSpec("plan_digest", pa.string(), "SHA-256 of the plan"),
        ColumnSpec("linkage_run_id", pa.string(), "run of the linkage that made the tables"),
        ColumnSpec("patients", pa.int64(), "patients in the table `linked`", ge=0),
        ColumnSpec("estimates", pa.int64(), "rows of the table `estimates`", ge=0),
        ColumnSpec("not_estimable", pa.int64(), "rows among them without a value", ge=0),
        ColumnSpec("seconds", pa.float64(), "wall time of the run", unit="s", ge=0),
        ColumnSpec("core_version", pa.string(), "version of the core"),
        ColumnSpec("plan", pa.string(), "JSON object: the plan as it was read"),
        ColumnSpec("versions", pa.string(), "JSON object: Python and library versions"),
    ),
)
