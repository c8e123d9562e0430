"""Data dictionary of the tables behind a report, and the runs that made them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from cac_core.report.cohort.report import Report, TableRow
from cac_core.report.cohort.sections import Block, ReportSection
from cac_core.report.page import Column, DataTable
from schemas.linkage import LINKAGES
from schemas.linked import LINKED
from schemas.results import ANALYSES, DISCREPANCIES, ESTIMATES
from schemas.run import RUNS
from schemas.table import ColumnSpec, TableSpec

_SHOWN = ("run_id", "started_at", "linkage_run_id", "model_id", "model_digest", "protocol_digest",
          "rules_digest", "inputs_digest", "plan_digest", "core_version")  # fmt: skip


def dictionary_section(report: Report) -> ReportSection:
    """Columns of the tables that the report is made from."""
    section = ReportSection("dictionary", "Data dictionary")
    for spec in (LINKED, ESTIMATES, DISCREPANCIES):
        block = Block()
        block.say("{}: {}", spec.name, spec.description)
        columns = {column.name: column for column in spec.columns}
        rows = [_column(column) for column in columns.values()]
        if spec is LINKED:
            # The definition of the linkage adds columns for its outcomes.
            rows += [
                _field(field) for field in report.facts.linked.schema if field.name not in columns
            ]
        table = DataTable(
            f"dictionary-{spec.name}",
            f"Columns of the table {spec.name}",
            tuple(Column(title) for title in ("Column", "Type", "Unit", "Meaning", "Values")),
            rows,
            sortable=False,
        )
        block.add(report.keep_table(table), f"Show the columns of {spec.name}")
        section.blocks.append(block)
    return section


def provenance_section(report: Report) -> ReportSection:
    """Runs of rescoring, linkage and analysis, with digests and versions."""
    section = ReportSection("provenance", "Versions and digests")
    linkage, analysis = report.facts.linkage_run, report.facts.analysis_run
    for title, spec, runs in (
        ("Rescoring", RUNS, report.facts.rescoring_runs),
        ("Linkage", LINKAGES, [linkage] if linkage else []),
        ("Analysis", ANALYSES, [analysis] if analysis else []),
    ):
        block = Block(title)
        section.blocks.append(block)
        if not runs:
            block.missing(["no run is recorded"])
            continue
        block.add(report.keep_table(_runs(spec, runs)), f"Show the runs of the table {spec.name}")
    return section


def _runs(spec: TableSpec, runs: Sequence[TableRow]) -> DataTable:
    names = [column for column in spec.columns if column.name in _SHOWN]
    return DataTable(
        f"provenance-{spec.name}",
        f"Runs in the table {spec.name}",
        tuple(Column(column.name, description=column.description) for column in names),
        [[str(run.get(column.name, "")) for column in names] for run in runs],
        filterable=len(runs) > 10,
    )


def _column(column: ColumnSpec) -> list[str]:
    return [column.name, str(column.type), column.unit, column.description,
            ", ".join(column.allowed)]  # fmt: skip


def _field(field: pa.Field) -> list[str]:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return [
        field.name,
        str(field.type),
        metadata.get("unit", ""),
        metadata.get("description", ""),
        "",
    ]
