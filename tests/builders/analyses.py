"""Analyses of the golden cohorts, as a warehouse would hold their tables."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa

from cac_core.analysis.plan import Plan, load_plan
from cac_core.analysis.run import analyse
from schemas.linkage import FLOW
from schemas.linked import LINKED
from tests.builders.golden import table

COMPONENTS = ("death", "mi", "unstable_angina", "revascularisation")
#: What makes a row of `estimates` one row.
KEY = ["analysis", "population", "outcome", "model", "term", "level", "statistic", "at"]


def plan(**changes: object) -> Plan:
    """The shipped plan with changes, by default without resamples."""
    values = load_plan(None).model_dump(mode="json") | {"resamples": 0} | changes
    return Plan.model_validate(values)


def linked_events(frame: pd.DataFrame) -> tuple[pa.Table, pa.Table]:
    """A golden table as `linked`, and the first event of each component as `events`."""
    found = [
        pd.DataFrame(
            {
                "patient_key": frame["patient_key"],
                "component": component,
                "days": frame[f"{component}_first_days"],
            }
        ).dropna()
        for component in COMPONENTS
    ]
    keys = pa.schema(
        [("patient_key", pa.string()), ("component", pa.string()), ("days", pa.int64())]
    )
    events = pa.Table.from_pandas(pd.concat(found), keys, preserve_index=False)
    known = {field.name: field for field in LINKED.arrow_schema}
    schema = pa.schema([known[name].with_nullable(True) for name in frame if name in known])
    return pa.Table.from_pandas(frame, schema, preserve_index=False), events


def analysed(frame: pd.DataFrame, wanted: Plan | None = None) -> pd.DataFrame:
    """The table `estimates` of a cohort."""
    linked, events = linked_events(frame)
    return analyse(linked, events, FLOW.empty(), wanted or plan()).to_pandas()


@cache
def golden_estimates(cohort: str) -> pd.DataFrame:
    """Estimates of a golden cohort by the shipped plan without resamples; do not change them."""
    return analysed(table(cohort))


def found(estimates: pd.DataFrame, **key: object) -> pd.DataFrame:
    """Rows with these columns; None asks for null."""
    mask = np.ones(len(estimates), bool)
    for column, wanted in key.items():
        values = estimates[column]
        mask &= values.isna() if wanted is None else values == wanted
    return estimates[mask]


def one(estimates: pd.DataFrame, **key: object) -> pd.Series:
    """The one row with these columns."""
    rows = found(estimates, **key)
    assert len(rows) == 1, rows
    return rows.iloc[0]
