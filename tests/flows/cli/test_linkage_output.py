"""What `cac link` prints: each warning once, words unbroken, nothing cut off."""

from __future__ import annotations

import json

import pytest

from cac_core.cohort.set_aside import SetAside
from flows.cli.linkage_output import show_linkage
from flows.cli.linkage_tables import quarantine_tables
from flows.cli.options import show
from flows.linkage_summaries import (
    ExtractSummary,
    FaultCount,
    FlowCount,
    LinkageSummary,
    OutcomeCount,
    QuarantineSummary,
)

WARNING = "the deaths table of source deaths has no row"
LATER = FaultCount(None, "conflicting_rows", 7)
CHANGE = "`dates`: add " + "#" * 150


def _aside(reason: str, column: str | None, examples: list[str]) -> SetAside:
    return SetAside("encounters", "encounters/1", "encounters", column, reason, "", 1234, False,
                    examples, CHANGE)  # fmt: skip


SUMMARY = LinkageSummary(
    run_id="r", outcome="linked", warehouse="w", model="m", site="s",
    extracts=[ExtractSummary("deaths", "deaths", "deaths/1", "d.csv", 9, 2, 0, 0, [], [], False,
                             [LATER], 7)],
    patients=5, included=2,
    flow=[FlowCount("missing_covariate", "a covariate is missing", 3, {"age_years, sex": 3})],
    outcomes=[OutcomeCount("mace", 1, 0)], unknown_codes=[], matches=[], warnings=[WARNING],
    empty_because=[], seconds=1.0,
)  # fmt: skip


def test_a_warning_is_in_the_tables_once(capsys: pytest.CaptureFixture[str]) -> None:
    show_linkage(SUMMARY, as_json=False, quiet=False)
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count(WARNING[4:]) == 1
    assert WARNING[4:] in shown.out


@pytest.mark.parametrize("quiet", [False, True])
def test_beside_json_a_warning_is_a_line_on_standard_error(
    quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show_linkage(SUMMARY, as_json=True, quiet=quiet)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["warnings"] == [WARNING]
    assert shown.err == ("" if quiet else f"warning: {WARNING}\n")


def test_missing_covariates_and_later_faults_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_linkage(SUMMARY, as_json=False, quiet=False)
    shown = capsys.readouterr().out
    for text in ("age_years, sex", "conflicting_rows", "rows in quarantine"):
        assert text in shown, text


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_words_of_a_table_of_80_columns_are_whole_and_none_is_cut(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    items = [
        _aside("accession_outside_window", "accession_number", []),
        _aside("unparsed_date", "diagnosis_system", ["99/99/9999", "99AA", "A" * 24]),
        _aside("conflicting_rows", None, []),
    ]
    for part in quarantine_tables(QuarantineSummary("w", True, 3, 0, items)):
        show(part)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert max(map(len, lines[1:])) <= columns
    assert "…" not in shown and shown.count("#") == 3 * 150
    assert shown.count("A") == 26
    if columns >= 80:
        for word in ("unparsed_date", "accession_outside_window", "diagnosis_system", "99/99/9999"):
            assert word in shown, word
        changes = [line for line in lines if line.strip().startswith("`dates`")]
        assert len(changes) == 3
