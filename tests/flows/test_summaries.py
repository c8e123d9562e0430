"""Summaries: the documented field lists are those of the dataclasses."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from flows import linkage_summaries, summaries
from flows.backfill import BackfillSummary

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "operation.md"


def documented_fields(kind: type) -> str:
    """The fields of a summary as the page lists them."""
    hints = typing.get_type_hints(kind)
    names = []
    for field in dataclasses.fields(kind):
        items = [a for a in typing.get_args(hints[field.name]) if dataclasses.is_dataclass(a)]
        nested = f" [{documented_fields(items[0])}]" if items else ""
        names.append(f"`{field.name}`{nested}")
    return ", ".join(names)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("`cac score`, `cac retry`", summaries.ScoringSummary),
        ("`cac backfill`", BackfillSummary),
        ("`cac score --dry-run`", summaries.ScoringDryRun),
        ("`cac index`", summaries.IndexSummary),
        ("`cac status`", summaries.StatusSummary),
        ("`cac status --explain`", summaries.StudyExplanation),
        ("`cac status --review`", summaries.ReviewList),
        ("`cac status --check`", summaries.NightCheck),
        ("`cac forget`", summaries.ForgetSummary),
        ("`cac key lookup`", summaries.KeyLookup),
        ("`cac link`", linkage_summaries.LinkageSummary),
        ("`cac link --dry-run`", linkage_summaries.LinkageDryRun),
        ("`cac quarantine`", linkage_summaries.QuarantineSummary),
        ("`cac export`", summaries.ExportSummary),
        ("`cac doctor`", summaries.DoctorSummary),
        ("`cac phantom`", summaries.PhantomSummary),
        ("`cac registry`", summaries.RegistrySummary),
        ("`cac init`", summaries.InitSummary),
        ("`cac deployment units`", summaries.UnitsSummary),
        ("`cac deployment register`", summaries.DeploymentSummary),
        (
            "other commands with `--dry-run`",
            summaries.PlannedWrites,
        ),
    ],
)
def test_the_page_lists_the_fields(command: str, kind: type) -> None:
    row = rf"^\| {re.escape(command)} \| (.*) \|$"
    (found,) = re.findall(row, _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found == documented_fields(kind)
