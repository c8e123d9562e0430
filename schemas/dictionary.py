"""The data dictionary: every table and code of the warehouse, as JSON or Markdown."""

from __future__ import annotations

from schemas import codes
from schemas.canary import CANARIES
from schemas.delivery import DELIVERIES
from schemas.forgotten import FORGOTTEN
from schemas.instance import INSTANCES
from schemas.lesion import LESIONS
from schemas.linkage import EVENTS, FLOW, LINKAGES, MATCHES, QUARANTINE
from schemas.linked import LINKED
from schemas.preview import PREVIEWS
from schemas.reading import ASSIGNMENTS, SIGNED_READINGS
from schemas.registry import REGISTRY_TABLES
from schemas.results import ANALYSES, DISCREPANCIES, ESTIMATES
from schemas.run import RUNS
from schemas.score import SCORES
from schemas.series import SERIES
from schemas.table import ColumnSpec, TableSpec

#: All tables, in the order of the data flow.
TABLES: tuple[TableSpec, ...] = (
    INSTANCES,
    SERIES,
    SCORES,
    LESIONS,
    PREVIEWS,
    SIGNED_READINGS,
    ASSIGNMENTS,
    DELIVERIES,
    *REGISTRY_TABLES,
    QUARANTINE,
    MATCHES,
    FLOW,
    LINKED,
    EVENTS,
    LINKAGES,
    ESTIMATES,
    DISCREPANCIES,
    ANALYSES,
    RUNS,
    CANARIES,
    FORGOTTEN,
)

_CODES: tuple[type[codes.DescribedCode], ...] = (
    codes.Status,
    codes.FileReason,
    codes.SeriesReason,
    codes.StudyReason,
    codes.RowReason,
    codes.FlowStep,
    codes.QualityFlag,
    codes.CalciumClass,
    codes.PreviewChoice,
    codes.CalciumSite,
    codes.DiscrepancyCause,
    codes.ReadingKind,
    codes.DeliveryOutcome,
)


def dictionary(table: str | None = None) -> dict[str, object]:
    """Return all tables with their columns, and all codes with their meaning.

    Parameters
    ----------
    table : name of the only table to return, without the codes.
    """
    return {
        "tables": {
            spec.name: {
                "description": spec.description,
                "unique": list(spec.unique_together),
                "columns": [_column(column) for column in spec.columns],
            }
            for spec in _wanted(table)
        },
        "codes": {
            enum.__name__: {member.value: member.description for member in enum}
            for enum in (_CODES if table is None else ())
        },
    }


def dictionary_markdown(table: str | None = None) -> str:
    """Return the data dictionary, or only one table of it, as a Markdown document."""
    parts = ["# Data dictionary", ""] if table is None else []
    for spec in _wanted(table):
        parts += [f"## `{spec.name}`", "", spec.description, ""]
        if spec.unique_together:
            parts += [f"Unique: {', '.join(f'`{name}`' for name in spec.unique_together)}.", ""]
        parts += ["| column | type | unit | null | meaning | values |", "|---|---|---|---|---|---|"]
        parts += [_markdown_row(column) for column in spec.columns]
        parts.append("")
    for enum in _CODES if table is None else ():
        parts += [f"## Codes: {enum.__name__}", "", (enum.__doc__ or "").strip(), ""]
        parts += ["| code | meaning |", "|---|---|"]
        parts += [f"| `{member.value}` | {member.description} |" for member in enum]
        parts.append("")
    return "\n".join(parts)


def _wanted(table: str | None) -> list[TableSpec]:
    return [spec for spec in TABLES if table in (None, spec.name)]


def _column(column: ColumnSpec) -> dict[str, object]:
    return {
        "name": column.name,
        "type": str(column.type),
        "unit": column.unit,
        "nullable": column.nullable,
        "description": column.description,
        "values": list(column.allowed),
        "minimum": column.ge,
        "maximum": column.le,
    }


def _markdown_row(column: ColumnSpec) -> str:
    limits = []
    if column.allowed:
        limits.append(", ".join(f"`{code}`" for code in column.allowed))
    if column.ge is not None:
        limits.append(f"at least {column.ge:g}")
    if column.le is not None:
        limits.append(f"at most {column.le:g}")
    null = "yes" if column.nullable else "no"
    return (
        f"| `{column.name}` | {column.type} | {column.unit} | {null} | {column.description} "
        f"| {'; '.join(limits)} |"
    )
