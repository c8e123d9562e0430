"""Summaries of `cac link` and `cac quarantine`; `--json` prints the fields of the dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field

from cac_core.cohort.set_aside import SetAside
from flows.summaries import Count, Rows, RunRecord, empty_cohort, markdown_table, with_followers


@dataclass(frozen=True)
class FaultCount:
    """Rows in quarantine for one reason; `column` is None where the whole line is at fault."""

    column: str | None
    reason: str
    rows: int


@dataclass(frozen=True)
class CellCount:
    """Cells in quarantine for one reason, whose rows are used."""

    column: str | None
    reason: str
    cells: int


@dataclass(frozen=True)
class ExtractSummary:
    """One file of a registry extract.

    `faults` and `unusable` count what was found while reading it, `found_later` what the linkage
    itself set aside; `in_quarantine` counts the lines of both, as `cac quarantine` does.
    """

    source: str
    table: str
    label: str
    file: str
    lines: int
    rows: int
    unusable: int
    blank: int
    faults: list[FaultCount]
    cells: list[CellCount]
    read_before: bool
    found_later: list[FaultCount] = field(default_factory=list)
    in_quarantine: int = 0


@dataclass(frozen=True)
class FlowCount:
    """Patients that left the cohort at one step of the flow.

    `details` counts them by the missing covariates, or by the record of known disease.
    """

    step: str
    description: str
    patients: Count
    details: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class OutcomeCount:
    """Events of one outcome, and patients in whom it cannot be judged."""

    outcome: str
    events: Count
    patients_left_out: Count


@dataclass(frozen=True)
class UnknownCodeCount:
    """A code of an extract that no rule of the outcome definition knows."""

    source: str
    kind: str
    value: str
    rows: Count


@dataclass(frozen=True)
class LinkageSummary:
    """One registry linkage (`cac link`).

    `empty_because` says why no patient is in the analysis; without any reason if there are some.
    """

    run_id: str
    outcome: str
    warehouse: str
    model: str
    site: str
    extracts: list[ExtractSummary]
    patients: int
    included: int
    flow: list[FlowCount]
    outcomes: list[OutcomeCount]
    unknown_codes: list[UnknownCodeCount]
    matches: Rows
    warnings: list[str]
    empty_because: list[str]
    seconds: float
    followed_by: dict[str, str] = field(default_factory=dict)

    def as_markdown(self) -> str:
        """The artifact on the Prefect page of the run."""
        extracts = [
            (e.label, e.rows, e.in_quarantine, sum(c.cells for c in e.cells)) for e in self.extracts
        ]
        codes = [(code.source, code.kind, code.value, code.rows) for code in self.unknown_codes]
        outcomes = [(f"`{o.outcome}`", o.events, o.patients_left_out) for o in self.outcomes]
        lines = [f"# Registry linkage {self.run_id}", "", f"Outcome: {self.outcome}.", ""]
        if self.empty_because:
            lines += [f"The cohort is empty: {'; '.join(self.empty_because)}.", ""]
        lines += markdown_table(
            ("step", "patients"), [(f.description, f.patients) for f in self.flow]
        )
        lines += ["", *markdown_table(("outcome", "events", "left out"), outcomes), ""]
        lines += markdown_table(
            ("extract", "rows", "lines in quarantine", "cells in quarantine"), extracts
        )
        if codes:
            lines += ["", "Codes and types that no rule knows:", ""]
            lines += markdown_table(("source", "kind", "value", "rows"), codes)
        lines += ["", *(f"Warning: {text}." for text in self.warnings)]
        return "\n".join(lines)

    def record(self) -> RunRecord:
        """The log of the flow run, and its state."""
        rows = sum(extract.rows for extract in self.extracts)
        info = [
            f"{self.outcome}: {len(self.extracts)} extracts with {rows} rows, "
            f"{self.patients} patients, {self.included} included",
            *(f"{step.description}: {step.patients}" for step in self.flow),
        ]
        if not self.empty_because:
            return with_followers(RunRecord(info, self.warnings), self.followed_by)
        message = empty_cohort(self.empty_because)
        return RunRecord(info, [*self.warnings, message], "EmptyCohort", message)


@dataclass(frozen=True)
class ExtractFile:
    """One file that a linkage would read; `whole` if a dry run read all of it.

    `fault` is why it cannot be used as a whole; else `lines` and `rows` count what was read, and
    `unusable` the lines that reading set aside, `in_quarantine` these and those that the linkage
    itself would set aside.
    """

    source: str
    file: str
    table: str
    label: str
    whole: bool = True
    lines: int = 0
    rows: int = 0
    unusable: int = 0
    fault: str | None = None
    in_quarantine: int = 0


@dataclass(frozen=True)
class LinkageDryRun:
    """What a linkage would read and set aside (`cac link --dry-run`).

    `stops` are reasons why it would end without a result. `matches` are clinical rows with a study;
    empty if not all clinical rows were read.
    """

    dry_run: bool = field(default=True, init=False)
    warehouse: str
    model: str
    site: str
    outcomes: list[str]
    extracts: list[ExtractFile]
    set_aside: list[SetAside]
    unknown_codes: list[UnknownCodeCount]
    warnings: list[str]
    stops: list[str]
    matches: Rows = field(default_factory=list)


@dataclass(frozen=True)
class QuarantineSummary:
    """What a linkage set aside (`cac quarantine`).

    `published` is false if the rows are those of a linkage that stopped before it published.
    """

    warehouse: str
    published: bool
    rows: int
    cells: int
    set_aside: list[SetAside]
