"""Table `estimates`: every number a report prints, one row each."""

from __future__ import annotations

import pyarrow as pa

from schemas.table import ColumnSpec, TableSpec


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
        ColumnSpec("value", pa.float64(), "the estimate; null where not estimable", nullable=True),
        ColumnSpec("ci_low", pa.float64(), "lower limit of the interval", nullable=True),
        ColumnSpec("ci_high", pa.float64(), "upper limit of the interval", nullable=True),
        ColumnSpec("p_value", pa.float64(), "two-sided p value", nullable=True, ge=0, le=1),
        ColumnSpec("n", pa.int64(), "observations used", nullable=True, ge=0),
        ColumnSpec("n_events", pa.int64(), "events among them", nullable=True, ge=0),
        _text("method", "how it was computed, and why not where it is null"),
    ),
)
