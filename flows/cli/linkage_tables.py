"""Terminal tables of `cac link` and `cac quarantine`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cac_core.cohort.set_aside import SetAside
from flows.cli.tables import columns_table, pairs_table
from flows.runtime.progress import format_seconds
from flows.summaries import (
    ExtractSummary,
    LinkageDryRun,
    LinkageSummary,
    QuarantineSummary,
    Rows,
    UnknownCodeCount,
)


def linkage_tables(result: LinkageSummary | LinkageDryRun) -> list[Table | Panel]:
    """Extracts, matches, cohort flow and outcomes of a linkage; or what a dry run would read."""
    if isinstance(result, LinkageDryRun):
        return dry_run_tables(result)
    flow = columns_table("Cohort flow", ("step",), ("patients",))
    for step in result.flow:
        flow.add_row(step.description, str(step.patients))
    flow.add_row("all", str(result.patients), style="bold")
    outcomes = columns_table("Outcomes", ("outcome",), ("events", "patients left out"))
    for item in result.outcomes:
        outcomes.add_row(item.outcome, str(item.events), str(item.patients_left_out))
    end = pairs_table(f"Linkage {result.run_id}: {result.outcome}")
    end.add_row("patients in the analysis", str(result.included))
    end.add_row("model", result.model)
    end.add_row("time", format_seconds(result.seconds))
    end.add_row("warehouse", result.warehouse)
    codes = [_unknown_codes_table(result.unknown_codes)] if result.unknown_codes else []
    warnings = [_panel("Warnings", result.warnings, "yellow")] if result.warnings else []
    return [
        _extracts_table(result.extracts),
        *codes,
        _matches_table(result.matches),
        flow,
        outcomes,
        end,
        *warnings,
    ]


def _extracts_table(extracts: Sequence[ExtractSummary]) -> Table:
    table = columns_table("Extracts", ("extract", "file"), ("rows", "in quarantine"))
    for item in extracts:
        table.add_row(item.label, item.file, str(item.rows), str(item.unusable))
        for fault in item.faults:
            what = " ".join(filter(None, [fault.column, fault.reason]))
            table.add_row("", f"  {what}", "", str(fault.rows))
        for cell in item.cells:
            table.add_row("", f"  {cell.column} {cell.reason} (cells)", "", str(cell.cells))
    return table


def _unknown_codes_table(codes: Sequence[UnknownCodeCount]) -> Table:
    table = columns_table(
        "Codes and types that no rule knows", ("source", "kind", "value"), ("rows",)
    )
    for item in codes:
        table.add_row(item.source, item.kind, item.value, str(item.rows))
    return table


def _matches_table(matches: Rows) -> Table:
    table = columns_table(
        "Clinical rows and studies",
        ("extract", "year"),
        ("rows", "by patient and date", "by accession", "unmatched", "rate"),
    )
    for row in matches:
        rate = "" if row["match_rate"] is None else f"{row['match_rate']:.1%}"
        counts = ("n_rows", "n_by_key_and_date", "n_by_accession", "n_unmatched")
        table.add_row(
            row["source_file"], str(row["study_year"]), *(str(row[n]) for n in counts), rate
        )
    return table


def dry_run_tables(plan: LinkageDryRun) -> list[Table | Panel]:
    """What a linkage would read, set aside and warn of."""
    table = pairs_table("Dry run: nothing is written")
    table.add_row("warehouse", plan.warehouse)
    table.add_row("model", plan.model)
    table.add_row("site", plan.site)
    table.add_row("outcomes", ", ".join(plan.outcomes))
    files = columns_table("Extracts", ("extract", "table", "file"), ("rows", "in quarantine"))
    for extract in plan.extracts:
        name = extract.file if extract.whole else f"{extract.file} (first {extract.lines} lines)"
        counts = (str(extract.rows), str(extract.unusable))
        files.add_row(
            extract.label, extract.table, name, *(counts if not extract.fault else ("", ""))
        )
    parts: list[Table | Panel] = [table, files]
    if plan.set_aside:
        parts.append(_set_aside_table("Would go to quarantine", plan.set_aside))
    if plan.unknown_codes:
        parts.append(_unknown_codes_table(plan.unknown_codes))
    if plan.warnings:
        parts.append(_panel("Warnings", plan.warnings, "yellow"))
    if plan.stops:
        parts.append(_panel("The linkage would stop", plan.stops, "red"))
    return parts


def quarantine_tables(summary: QuarantineSummary) -> list[Table | str]:
    """What was set aside, and what to change."""
    counts = f"{summary.rows} rows and {summary.cells} cells of kept rows are in quarantine."
    if not summary.published:
        counts += " They are of a linkage that stopped; the published tables are older."
    if not summary.set_aside:
        return [counts]
    return [counts, _set_aside_table("Set aside", summary.set_aside)]


def _set_aside_table(title: str, items: Sequence[SetAside]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for name in ("extract", "column", "reason", "examples"):
        table.add_column(name, overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("change", overflow="fold", ratio=1)
    for item in items:
        rows = f"{item.rows}{'' if not item.row_kept else ' cells'}"
        table.add_row(
            item.file, item.column or "", item.reason, "  ".join(item.examples), rows, item.change
        )
    return table


def _panel(title: str, texts: Sequence[str], colour: str) -> Panel:
    body = Text("\n".join(f"- {text[:1].upper()}{text[1:]}" for text in texts))
    return Panel(body, title=title, title_align="left", border_style=colour)
