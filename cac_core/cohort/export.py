"""Export of the linked tables in standard shapes.

Shapes: `linked` and `events` unchanged, `adtte` (CDISC ADaM time to event, with the subject-level
data set `adsl`), and `omop` (tables of the OMOP CDM). Rows contain keys, never identifiers.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from cac_core.cohort.adam import adsl, adtte
from cac_core.cohort.database import sql_text
from cac_core.cohort.export_columns import annotated_as
from cac_core.cohort.outcomes import OutcomeDefinition
from cac_core.errors import UsageError
from schemas.linked import linked_table

SHAPES = ("linked", "events", "adtte", "omop")
OMOP_TABLES = (
    "person", "measurement", "observation_period", "condition_occurrence", "death",
    "procedure_occurrence",
)  # fmt: skip


def export_tables(
    linked: pa.Table, events: pa.Table, outcomes: OutcomeDefinition, shape: str, study: str
) -> dict[str, pa.Table]:
    """The tables of a shape by file name.

    Parameters
    ----------
    linked, events : the published tables of a linkage.
    outcomes : the definition that they were made with.
    study : identifier of the study, for ADaM.

    Raises
    ------
    UsageError
        If there is no such shape.
    """
    if shape not in SHAPES:
        raise UsageError(f"There is no shape {shape!r}.", f"There are: {', '.join(SHAPES)}.")
    if shape == "linked":
        return {shape: annotated_as(linked, linked_table(tuple(outcomes.outcome)))}
    if shape == "events":
        return {shape: events}
    with duckdb.connect(":memory:") as connection:
        for name, table in (("linked", linked), ("events", events)):
            connection.register(name, table)
        if shape == "adtte":
            return {
                "adtte": adtte(connection, outcomes, study),
                "adsl": adsl(connection, study),
            }
        concepts = [
            {"component": name, "kind": item.kind, "concept_id": item.omop_concept_id}
            for name, item in outcomes.component.items()
        ]
        connection.register("concepts", pa.Table.from_pylist(concepts))
        connection.execute(sql_text("export_omop"))
        return {name: connection.table(f"omop_{name}").to_arrow_table() for name in OMOP_TABLES}
