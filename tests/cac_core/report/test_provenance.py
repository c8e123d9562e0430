"""Data dictionary and provenance: every column, every digest; missing runs are gaps."""

from __future__ import annotations

import pyarrow as pa

from cac_core.report.cohort.provenance import dictionary_section, provenance_section
from cac_core.report.cohort.report import Report, ReportFacts
from cac_core.report.cohort.shown_estimates import ShownEstimates
from schemas.linked import linked_table
from schemas.results import ESTIMATES
from tests.builders.analyses import plan
from tests.builders.reports import behind


def report(linked: pa.Table, **facts: object) -> Report:
    return Report(ShownEstimates(ESTIMATES.empty()), plan(), ReportFacts(linked, **facts))


def test_every_column_of_the_tables_is_explained() -> None:
    linked = linked_table(("mace",)).empty()
    made = report(linked)
    assert dictionary_section(made).gaps == []
    rows = made.tables["dictionary-linked"].rows
    assert {str(row[0]) for row in rows} >= set(linked.column_names)
    assert all(row[1] and row[3] for row in rows)
    named = [str(row[0]) for row in made.tables["dictionary-estimates"].rows]
    assert named == ESTIMATES.empty().column_names


def test_runs_stand_with_their_digests() -> None:
    wanted = plan()
    made = report(pa.table({}), **behind(wanted))
    assert provenance_section(made).gaps == []
    shown = {str(cell) for table in made.tables.values() for row in table.rows for cell in row}
    assert {"run-001", "run-002", "link-1", "analysis-1", wanted.digest} <= shown


def test_runs_that_are_not_there_are_reported() -> None:
    assert provenance_section(report(pa.table({}))).gaps == [
        f"{title}: no run is recorded" for title in ("Rescoring", "Linkage", "Analysis")
    ]
