"""Terminal tables of `cac status --explain`, `--review`, `--check`, `cac forget`, `deployment`."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table

from flows.cli.tables import columns_table, pairs_table
from flows.runtime.progress import format_seconds
from flows.summaries import (
    DeploymentSummary,
    ForgetSummary,
    NightCheck,
    ReviewList,
    StudyExplanation,
)

#: Longest list of studies on a terminal.
_MOST_STUDIES = 50


def explanation_tables(summary: StudyExplanation) -> list[RenderableType]:
    """Why a study has a score or none, its series, and its scores."""
    table = pairs_table(f"Study {summary.study_key}: {summary.state}")
    if summary.reason:
        table.add_row("reason", summary.reason)
    for text in summary.because:
        table.add_row("because", text)
    if summary.detail:
        table.add_row("detail", summary.detail)
    table.add_row("what to do", summary.what_to_do)
    table.add_row("model", summary.model)
    for reason, files in sorted(summary.files.items()):
        table.add_row(f"files: {reason}", str(files))
    parts: list[RenderableType] = [table]
    if summary.series:
        series = columns_table("Series", ("description", "kind", "chosen, or why not"), ("slices",))
        for row in summary.series:
            why = "chosen" if row["selected"] else f"{row['reason']}: {row['meaning']}"
            texts = (row["SeriesDescription"] or "", row["Modality"] or "", why)
            series.add_row(*texts, str(row["n_slices"]))
        parts.append(series)
    if summary.scores:
        scores = columns_table("Scores", ("scored (UTC)", "model", "status"), ("Agatston",))
        for row in summary.scores:
            shown = "" if row["agatston"] is None else f"{row['agatston']:.1f}"
            when = f"{row['scored_at']:%Y-%m-%d %H:%M}"
            scores.add_row(when, row["model"], row["reason"] or row["status"], shown)
        parts.append(scores)
    return parts


def review_tables(summary: ReviewList) -> list[RenderableType]:
    """The studies to look at, with their scores and the reasons, and where their pages are."""
    table = Table(title=f"Studies to look at, {summary.model}", title_justify="left")
    for name in ("study", "why"):
        table.add_column(name)
    for name in ("Agatston", "90 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in summary.studies[:_MOST_STUDIES]:
        low, high = row["agatston_low"], row["agatston_high"]
        interval = "" if low is None else f"{low:.0f} to {high:.0f}"
        reasons = row["review_reasons"].replace(";", ", ")
        table.add_row(row["study_key"][:12], reasons, f"{row['agatston']:.1f}", interval)
    parts: list[RenderableType] = [table]
    left = len(summary.studies) - _MOST_STUDIES
    if left > 0:
        parts.append(f"{left} more; --json lists all.")
    if summary.pages:
        parts.append(f"Their pages are in {summary.pages}, one per study key.")
    return parts


def check_table(summary: NightCheck) -> Table:
    """Whether the last night was good, and what was not."""
    table = pairs_table("Last night: good" if summary.ok else "Last night: not good")
    for problem in summary.problems:
        table.add_row("problem", problem)
    hours = summary.hours_since_success
    table.add_row("last good night", "none" if hours is None else f"{hours:.1f} h ago")
    table.add_row("outcome of the last run", summary.outcome or "no run")
    table.add_row("failed", f"{summary.failed} of {summary.done}")
    table.add_row("canaries that drifted", f"{summary.drifted} of {summary.canaries}")
    table.add_row("warehouse", summary.warehouse)
    return table


def forget_table(summary: ForgetSummary) -> Table:
    """What was removed, and whether anything is left."""
    table = pairs_table("Dry run: nothing is removed" if summary.dry_run else "Forgotten")
    table.add_row("patients", str(summary.patients))
    table.add_row("studies", str(summary.studies))
    for name, rows in summary.rows.items():
        table.add_row(f"  rows of {name}", str(rows))
    if not summary.rows:
        table.add_row("rows", "none: the warehouse does not know these patients")
    for folder in summary.to_make_again:
        table.add_row("would be removed" if summary.dry_run else "make again", folder)
    if not summary.dry_run:
        table.add_row("files removed", str(summary.files_removed))
        table.add_row("files searched", str(summary.searched))
        for name in summary.left:
            table.add_row("something left in", name)
        for name in summary.not_searched:
            table.add_row("could not be searched", name)
        if not summary.left and not summary.not_searched:
            table.add_row("left", "nothing")
    table.add_row("time", format_seconds(summary.seconds))
    return table


def deployment_table(summary: DeploymentSummary) -> Table:
    """What is registered on the Prefect server."""
    table = pairs_table(f"Registered at {summary.server}")
    made = "made" if summary.work_pool_created else "kept"
    table.add_row(f"work pool {summary.work_pool} ({made})", f"{summary.runs_at_once} at once")
    for one in summary.deployments:
        removed = f"; {one.schedules_removed} removed" if one.schedules_removed else ""
        table.add_row(one.name, f"{one.schedule or 'no schedule'}{removed}")
    for name in summary.automations:
        table.add_row("automation", name)
    return table
