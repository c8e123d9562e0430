"""Summaries that the commands return; `--json` prints the fields of the dataclass as an object.

`docs/operation.md` lists the fields of each; a field list is a contract with users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: A count, or `<5` or `suppressed` where small counts are hidden.
Count = int | str
#: Rows of a table of the warehouse, as dictionaries.
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class RunRecord:
    """Lines of the log of a flow run, without identifiers and paths; the state of a bad end."""

    info: list[str]
    warnings: list[str] = field(default_factory=list)
    failure: str | None = None
    failure_message: str = ""


@dataclass(frozen=True)
class ScoringSummary:
    """One rescoring run (`cac score`, `cac retry`)."""

    run_id: str
    outcome: str
    studies: int
    scored: int
    rejected: int
    failed: int
    skipped: int
    left: int
    reasons: dict[str, int]
    needs_review: int
    review_reasons: dict[str, int]
    file_reasons: dict[str, int]
    seconds: float
    seconds_scoring: float
    warehouse: str
    model: str
    archive_page: str | None
    studies_per_second: float
    canaries: int = 0
    drifted: int = 0
    followed_by: dict[str, str] = field(default_factory=dict)

    def as_markdown(self) -> str:
        """The artifact on the Prefect page of the run."""
        rows = [
            ("studies in the archive", self.studies),
            ("scored", self.scored),
            ("scores that need review", self.needs_review),
            ("rejected", self.rejected),
            ("failed", self.failed),
            ("skipped, already in the ledger", self.skipped),
            ("left for the next run", self.left),
            ("seconds", f"{self.seconds:.0f}"),
            ("studies per second", f"{self.studies_per_second:.2f}"),
            ("model", f"`{self.model}`"),
            ("outcome", self.outcome),
            ("canaries that drifted", f"{self.drifted} of {self.canaries}"),
            ("archive page", f"`{self.archive_page}`" if self.archive_page else "not written"),
        ]
        lines = [f"# Rescoring run {self.run_id}", "", *markdown_table(("", ""), rows)]
        for title, counts in (
            ("Studies by reason", self.reasons),
            ("Scores that need review by reason", self.review_reasons),
            ("Files by reason", self.file_reasons),
        ):
            if counts:
                by_reason = [(f"`{name}`", n) for name, n in sorted(counts.items())]
                lines += ["", f"## {title}", "", *markdown_table(("reason", "n"), by_reason)]
        return "\n".join(lines)

    def record(self) -> RunRecord:
        """The log of the flow run, and its state."""
        counts = f"{self.scored} scored, {self.rejected} rejected, {self.failed} failed"
        info = [
            f"{self.studies} studies in the archive: {counts}, {self.skipped} in the ledger, "
            f"{self.left} left; {self.seconds:.0f} s, {self.studies_per_second:.2f} studies/s"
        ]
        warnings = [
            f"{title}: {_listed(by_reason)}"
            for title, by_reason in (
                ("studies by reason", self.reasons),
                ("scores that need review", self.review_reasons),
                ("files by reason", self.file_reasons),
            )
            if by_reason
        ]
        if self.archive_page is None:
            warnings.append("the archive page is not written")
        if self.outcome != "over_budget":
            return with_followers(RunRecord(info, warnings), self.followed_by)
        message = (
            f"{self.failed} of {self.scored + self.rejected + self.failed} studies failed, more "
            f"than the failure budget allows: {_listed(self.reasons)}. The scores are published; "
            "`cac retry` scores these studies again."
        )
        return RunRecord(info, [*warnings, message], "OverBudget", message)


@dataclass(frozen=True)
class ScoringDryRun:
    """What a rescoring run would do (`cac score --dry-run`)."""

    dry_run: bool = field(default=True, init=False)
    files: int
    file_reasons: dict[str, int]
    studies: int
    to_score: int
    to_reject: dict[str, int]
    left: int
    skipped: int
    warehouse: str
    model: str


@dataclass(frozen=True)
class InitSummary:
    """A settings file (`cac init`); `key_file` is what it names, `made_key` whether it is new."""

    settings: str
    key_file: str | None
    made_key: bool


@dataclass(frozen=True)
class PlannedWrites:
    """What a command would write with these arguments (`--dry-run`).

    `writes` are tables of a warehouse, files or folders; `facts` what is known beforehand.
    """

    dry_run: bool = field(default=True, init=False)
    writes: list[str]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexSummary:
    """One index of an archive (`cac index`)."""

    files: int
    files_opened: int
    file_reasons: dict[str, int]
    studies: int
    series: int
    selected: int
    series_reasons: dict[str, int]
    seconds: float
    headers_per_second: float
    warehouse: str
    dry_run: bool = False


@dataclass(frozen=True)
class StatusSummary:
    """Contents of a warehouse (`cac status`): scores by model, and the last runs.

    `secret` compares the linkage secret that is set with that of the warehouse: `same`, `another`,
    `not_given`, or `no_fingerprint` if the warehouse keeps none yet. Of each study the newest row
    counts; `older_rows` has the number of the others, which are of other protocols.
    """

    warehouse: str
    models: Mapping[str, Rows]
    runs: Rows
    secret: str
    older_rows: Mapping[str, int]


@dataclass(frozen=True)
class ReviewList:
    """Studies that a person should look at (`cac status --review`)."""

    warehouse: str
    model: str
    studies: Rows
    pages: str | None


@dataclass(frozen=True)
class NightCheck:
    """Whether the last night was good (`cac status --check`).

    A night is good if a run of all studies was completed within the failure budget. `done` and
    `failed` are those of the last run, `canaries` and `drifted` of its newest check.
    """

    ok: bool
    problems: list[str]
    hours_since_success: float | None
    outcome: str | None
    done: int
    failed: int
    failure_budget: float
    canaries: int
    drifted: int
    warehouse: str


@dataclass(frozen=True)
class ForgetSummary:
    """A removal of withdrawn patients (`cac forget`).

    `rows` counts removed rows by table (with `--dry-run`, rows to be removed); `to_make_again` are
    folders whose report or export was removed; `left` names files in which something was found
    afterwards, and `not_searched` damaged ones, both with keys masked.
    """

    run_id: str
    dry_run: bool
    patients: int
    studies: int
    rows: dict[str, int]
    files_removed: int
    to_make_again: list[str]
    searched: int
    left: list[str]
    not_searched: list[str]
    warehouse: str
    seconds: float


@dataclass(frozen=True)
class StudyExplanation:
    """Why a study has a score or none (`cac status --explain`).

    `state` is `done`, `wanted` (the next run scores it), `failed`, `rejected` or `skipped` (no file
    of it is in the last index). `files` counts its unusable files by reason.
    """

    study_key: str
    state: str
    because: list[str]
    what_to_do: str
    model: str
    reason: str | None = None
    detail: str | None = None
    files: dict[str, int] = field(default_factory=dict)
    series: Rows = field(default_factory=list)
    scores: Rows = field(default_factory=list)


@dataclass(frozen=True)
class KeyLookup:
    """Files behind a key (`cac key lookup`)."""

    key: str
    files: list[str]


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export."""

    file: str
    rows: int


@dataclass(frozen=True)
class ExportSummary:
    """One export of the linked tables (`cac export`); `run_id` is that of the linkage."""

    run_id: str
    files: list[ExportedFile]
    scripts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ResultsSummary:
    """Scores as DICOM objects (`cac export --dicom`): `made`, `sent`, `not_made`, `not_sent`.

    `receiver` is `stow` or `dimse` where they were sent; `studies` has a row per study.
    """

    model: str
    folder: str | None
    receiver: str | None
    counts: dict[str, int]
    studies: Rows

    @property
    def complete(self) -> bool:
        """Whether every study has its objects where they were to go."""
        return not {"not_made", "not_sent"} & set(self.counts)


@dataclass(frozen=True)
class CopySummary:
    """De-identified copies (`cac export --deidentify`): files copied, and others by reason."""

    folder: str
    studies: int
    copied: int
    reasons: dict[str, int]


@dataclass(frozen=True)
class Check:
    """One check of the installation."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True)
class DoctorSummary:
    """All checks of the installation (`cac doctor`)."""

    checks: list[Check]
    ok: bool


@dataclass(frozen=True)
class RegisteredDeployment:
    """A deployment on the Prefect server, its cron line with time zone, and schedules removed."""

    name: str
    schedule: str | None
    schedules_removed: int


@dataclass(frozen=True)
class DeploymentSummary:
    """What is registered on the site's Prefect server (`cac deployment register`)."""

    server: str
    work_pool: str
    work_pool_created: bool
    runs_at_once: int
    deployments: list[RegisteredDeployment]
    automations: list[str]


@dataclass(frozen=True)
class UnitsSummary:
    """Files of a site with a Prefect server (`cac deployment units`)."""

    files: list[str]


@dataclass(frozen=True)
class PhantomSummary:
    """A synthetic archive (`cac phantom`)."""

    archive: str
    truth: str
    studies: int
    seed: int


@dataclass(frozen=True)
class RegistrySummary:
    """Extracts of a synthetic registry (`cac registry`)."""

    extracts: str
    mapping: str
    truth: str
    patients: int


@dataclass(frozen=True)
class ScoredRegistrySummary:
    """A synthetic registry whose scores are in a warehouse (`cac demo --full`)."""

    warehouse: str
    model: str
    studies: int
    seed: int
    registry: RegistrySummary


def markdown_table(header: tuple[str, ...], rows: list[Any]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def empty_cohort(reasons: Sequence[str]) -> str:
    """Message about a cohort without patients."""
    return (
        f"The cohort is empty: {'; '.join(reasons)}. Correct the mapping, its coverage or the "
        "extracts, and link again (docs/linkage.md explains the steps)."
    )


def with_followers(record: RunRecord, followed_by: Mapping[str, str]) -> RunRecord:
    """The record of a run whose follower may have ended badly."""
    bad = {name: state for name, state in followed_by.items() if state != "Completed"}
    if not bad:
        return record
    listed = ", ".join(f"{name} ({state})" for name, state in bad.items())
    message = f"The results of this run are published, but what follows ended badly: {listed}."
    return RunRecord(record.info, [*record.warnings, message], "FollowUpFailed", message)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
