"""Prefect tasks of the cohort report: estimates become a page, its PDF, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence

from cac_core.report.cohort.assemble import Assembled, Builder, assemble
from cac_core.report.cohort.report import Report
from tasks.step import step


@step("assemble-report")
def assemble_report(report: Report, more: Sequence[Builder] = ()) -> Assembled:
    """Every section of the report, and the files it consists of."""
    return assemble(report, more)
