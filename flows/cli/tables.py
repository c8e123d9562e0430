"""Terminal tables of the commands: they format summaries and count nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from flows.runtime.progress import format_seconds
from flows.summaries import (
    DoctorSummary,
    IndexSummary,
    PhantomSummary,
    PlannedWrites,
    RegistrySummary,
    ScoredRegistrySummary,
    ScoringDryRun,
    ScoringSummary,
    StatusSummary,
)

if TYPE_CHECKING:  # each of them takes a second to import
    from cac_core.analysis.key_estimates import KeyEstimate
    from cac_core.report.comparison import ComparisonSummary
    from flows.analysis import AnalysisDryRun, AnalysisSummary
    from flows.report import ReportSummary


def scoring_table(summary: ScoringSummary) -> Table:
    """Outcome of a rescoring run."""
    table = pairs_table(f"Run {summary.run_id}")
    table.add_row("studies in the archive", str(summary.studies))
    table.add_row("scored", str(summary.scored))
    if summary.scored:
        table.add_row("of these, need review", str(summary.needs_review))
    _add_counts(table, "review", summary.review_reasons)
    table.add_row("rejected", str(summary.rejected))
    table.add_row("failed", str(summary.failed))
    table.add_row("skipped, done before", str(summary.skipped))
    if summary.left:
        table.add_row("left for the next run", str(summary.left))
    _add_counts(table, "study", summary.reasons)
    _add_counts(table, "file", summary.file_reasons)
    table.add_row("time", format_seconds(summary.seconds))
    table.add_row("studies per second", f"{summary.studies_per_second:.2f}")
    if summary.canaries:
        table.add_row("canaries that drifted", f"{summary.drifted} of {summary.canaries}")
    table.add_row("model", summary.model)
    table.add_row("warehouse", summary.warehouse)
    if summary.archive_page:
        table.add_row("archive page", summary.archive_page)
    return table


def scoring_dry_run_table(plan: ScoringDryRun) -> Table:
    """What a rescoring run would do."""
    table = pairs_table("Dry run: nothing is written")
    table.add_row("files", str(plan.files))
    _add_counts(table, "file", plan.file_reasons)
    table.add_row("studies", str(plan.studies))
    table.add_row("to score", str(plan.to_score))
    _add_counts(table, "to reject", plan.to_reject)
    if plan.left:
        table.add_row("left for the next run", str(plan.left))
    table.add_row("skipped, done before", str(plan.skipped))
    table.add_row("model", plan.model)
    table.add_row("warehouse", plan.warehouse)
    return table


def planned_table(planned: PlannedWrites) -> Table:
    """What a command would write."""
    table = pairs_table("Dry run: nothing is written")
    for name, value in planned.facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(name.replace("_", " "), text)
    for name in planned.writes:
        table.add_row("would write", name)
    return table


def index_table(summary: IndexSummary) -> Table:
    """Contents of an archive."""
    title = "Dry run: nothing is written" if summary.dry_run else "Archive index"
    table = pairs_table(title)
    table.add_row("files", str(summary.files))
    table.add_row("files opened", str(summary.files_opened))
    _add_counts(table, "file", summary.file_reasons)
    table.add_row("studies", str(summary.studies))
    table.add_row("series", str(summary.series))
    table.add_row("CTAC series selected", str(summary.selected))
    _add_counts(table, "series", summary.series_reasons)
    table.add_row("headers per second", f"{summary.headers_per_second:.0f}")
    table.add_row("warehouse", summary.warehouse)
    return table


def status_tables(summary: StatusSummary) -> list[RenderableType]:
    """Scores per model, the last runs, and a warning if another secret is set."""
    tables: list[RenderableType] = []
    for model, rows in summary.models.items():
        older = summary.older_rows.get(model)
        table = Table(
            title=f"Scores of {model}",
            title_justify="left",
            caption=f"{older} older rows, of other protocols, are not counted." if older else None,
            caption_justify="left",
        )
        for name in ("status", "reason", "CAC category"):
            table.add_column(name)
        table.add_column("studies", justify="right")
        table.add_column("need review", justify="right")
        for row in rows:
            table.add_row(
                row["status"],
                row["reason"] or "",
                row["cac_category"] or "",
                str(row["studies"]),
                str(row["need_review"]) if row["status"] == "scored" else "",
            )
        tables.append(table)
    counts = ("scored", "rejected", "failed", "skipped")
    runs = Table(title="Last runs", title_justify="left", box=SIMPLE)
    runs.add_column("started (UTC)")
    runs.add_column("outcome")
    for name in (*counts, "time"):
        runs.add_column(name, justify="right")
    for row in summary.runs:
        runs.add_row(
            f"{row['started_at']:%Y-%m-%d %H:%M}",
            row["outcome"] + ("" if row["job"] == "nightly-rescore" else f", {row['job']}"),
            *(str(row[name]) for name in counts),
            format_seconds(row["seconds"]),
        )
    tables.append(runs)
    if summary.secret == "another":
        tables.append("The linkage secret that is set is not the one of this warehouse.")
    return tables


def analysis_dry_run_table(summary: AnalysisDryRun) -> Table:
    """What an analysis would do."""
    table = pairs_table("Dry run: nothing is written")
    for name in ("warehouse", "model", "patients", "plan_digest"):
        table.add_row(name.replace("_", " "), str(getattr(summary, name)))
    for step in summary.steps:
        table.add_row("step", step)
    return table


def analysis_tables(summary: AnalysisSummary) -> list[Table]:
    """Key estimates, what could not be estimated, and counts of the run."""
    parts = [_headline_table(summary.headline)]
    if summary.reasons:
        reasons = columns_table("Not estimable", ("analysis", "reason"), ("rows",))
        for item in summary.reasons:
            reason = item.reason.removeprefix("not estimable: ")
            reasons.add_row(item.analysis, reason, str(item.rows))
        parts.append(reasons)
    end = pairs_table(f"Analysis {summary.run_id}: {summary.outcome}")
    for name in ("patients", "estimates", "model", "warehouse"):
        end.add_row(name, str(getattr(summary, name)))
    end.add_row("time", format_seconds(summary.seconds))
    return [*parts, end]


def report_tables(summary: ReportSummary) -> list[Table]:
    """Key estimates, what is missing in the report, and where it is."""
    parts = [_headline_table(summary.headline)]
    if summary.gaps:
        missing = columns_table("Missing in the report", ("section", "why"), ())
        for title, reasons in summary.gaps.items():
            for reason in reasons:
                missing.add_row(title, reason)
        parts.append(missing)
    end = pairs_table(f"Cohort report: {summary.outcome}")
    for name in ("patients", "estimates", "tables", "figures", "study_pages", "analysis", "page"):
        end.add_row(name.replace("_", " "), str(getattr(summary, name)))
    end.add_row("time", format_seconds(summary.seconds))
    return [*parts, end]


def _headline_table(headline: list[KeyEstimate]) -> Table:
    table = columns_table("First numbers", ("",), ("estimate", "confidence interval", "p"))
    for row in headline:
        table.add_row(row.name, row.shown or "not estimable", row.interval, _p_text(row.p_value))
    return table


def comparison_table(summary: ComparisonSummary) -> Table:
    """What changed between two runs."""
    table = pairs_table("What changed")
    for name in ("old", "new", "studies_in_both", "studies_gone", "studies_added"):
        table.add_row(name.replace("_", " "), str(getattr(summary, name)))
    table.add_row("studies in another category", str(summary.category_changed))
    table.add_row("studies with another score", str(summary.score_changed))
    for reason, count in sorted(summary.reasons.items()):
        table.add_row(f"  {reason}", str(count))
    table.add_row("estimates in both", str(summary.estimates_in_both))
    table.add_row("estimates that differ", str(summary.estimates_changed))
    table.add_row("  intervals that do not overlap", str(summary.estimates_apart))
    for gap in summary.gaps.values():
        table.add_row("missing", gap)
    table.add_row("page", summary.page)
    return table


def _p_text(p_value: float | None) -> str:
    if p_value is None:
        return ""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def columns_table(title: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    """An empty table with columns of text, then of numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def demo_tables(
    summary: ScoringSummary,
    evaluation: Sequence[Table],
    made: PhantomSummary,
    linkage: Sequence[RenderableType],
    extracts: RegistrySummary,
    report: ReportSummary,
) -> list[RenderableType]:
    """End of the demo: counts, agreement, first numbers, and where everything is."""
    places = pairs_table("Where it is")
    places.add_row("DICOM archive", made.archive)
    places.add_row("truth", made.truth)
    places.add_row("scores", f"{summary.warehouse}/scores/model={summary.model}/")
    places.add_row("registry extracts", extracts.extracts)
    places.add_row("one row per patient", f"{summary.warehouse}/linked/")
    places.add_row("archive page", f"{summary.warehouse}/reports/archive/index.html")
    places.add_row("cohort report", report.page)
    places.add_row("show it", f"cac status -w {summary.warehouse}")
    return [
        scoring_table(summary),
        *evaluation,
        *linkage,
        _headline_table(report.headline),
        places,
    ]


def full_demo_tables(
    made: ScoredRegistrySummary, linkage: Sequence[RenderableType], report: ReportSummary
) -> list[RenderableType]:
    """End of the full demo: cohort, report, and where everything is."""
    places = pairs_table("Where it is")
    places.add_row("drawn scores", f"{made.warehouse}/scores/model={made.model}/")
    places.add_row("registry extracts", made.registry.extracts)
    places.add_row("truth", made.registry.truth)
    places.add_row("one row per patient", f"{made.warehouse}/linked/")
    places.add_row("cohort report", report.page)
    return [*linkage, *report_tables(report), places]


def doctor_table(summary: DoctorSummary) -> Table:
    """Result of the checks, one line each."""
    table = Table(title="Installation", title_justify="left")
    table.add_column("check")
    table.add_column("")
    table.add_column("found")
    for check in summary.checks:
        mark = Text("ok", "green") if check.ok else Text("fault", "red")
        table.add_row(check.name, mark, check.found)
    return table


def _add_counts(table: Table, what: str, counts: Mapping[str, int]) -> None:
    """Add a row per reason, indented under the total above."""
    for reason, count in sorted(counts.items()):
        table.add_row(f"  {what}: {reason}", str(count))


def pairs_table(title: str) -> Table:
    """An empty table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("")
    return table
