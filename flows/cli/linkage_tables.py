"""Terminal tables of `cac link` and `cac quarantine`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cac_core.cohort.set_aside import SetAside
from flows.cli.tables import columns_table, pairs_table
from flows.linkage_summaries import (
    ExtractSummary,
    LinkageDryRun,
    LinkageSummary,
    QuarantineSummary,
    UnknownCodeCount,
)
from flows.runtime.progress import format_seconds
from flows.summaries import Rows

#: Blanks between columns, least width of the examples, and the column of counts.
_GAP, _EXAMPLES, _COUNTS = 2, 10, 3


def linkage_tables(result: LinkageSummary | LinkageDryRun) -> list[RenderableType]:
    """Extracts, matches, cohort flow and outcomes of a linkage; or what a dry run would read."""
    if isinstance(result, LinkageDryRun):
        return dry_run_tables(result)
    flow = columns_table("Cohort flow", ("step",), ("patients",))
    for step in result.flow:
        flow.add_row(step.description, str(step.patients))
        for detail, patients in step.details.items():
            flow.add_row(f"  {detail}", str(patients))
    flow.add_row("all", str(result.patients), style="bold")
    outcomes = columns_table("Outcomes", ("outcome",), ("events", "patients left out"))
    for item in result.outcomes:
        outcomes.add_row(item.outcome, str(item.events), str(item.patients_left_out))
    end = pairs_table(f"Linkage {result.run_id}: {result.outcome}")
    end.add_row("patients in the analysis", str(result.included))
    end.add_row("rows in quarantine", str(sum(item.in_quarantine for item in result.extracts)))
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
        table.add_row(item.label, item.file, str(item.rows), str(item.in_quarantine))
        for fault in (*item.faults, *item.found_later):
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


def dry_run_tables(plan: LinkageDryRun) -> list[RenderableType]:
    """What a linkage would read, set aside and warn of."""
    table = pairs_table("Dry run: nothing is written")
    table.add_row("warehouse", plan.warehouse)
    table.add_row("model", plan.model)
    table.add_row("site", plan.site)
    table.add_row("outcomes", ", ".join(plan.outcomes))
    files = columns_table("Extracts", ("extract", "table", "file"), ("rows", "in quarantine"))
    for extract in plan.extracts:
        name = extract.file if extract.whole else f"{extract.file} (first {extract.lines} lines)"
        counts = (str(extract.rows), str(extract.in_quarantine))
        files.add_row(
            extract.label, extract.table, name, *(counts if not extract.fault else ("", ""))
        )
    parts: list[RenderableType] = [table, files]
    if plan.set_aside:
        parts.append(SetAsideTable("Would go to quarantine", plan.set_aside))
    if plan.unknown_codes:
        parts.append(_unknown_codes_table(plan.unknown_codes))
    if plan.matches:
        parts.append(_matches_table(plan.matches))
    if plan.warnings:
        parts.append(_panel("Warnings", plan.warnings, "yellow"))
    if plan.stops:
        parts.append(_panel("The linkage would stop", plan.stops, "red"))
    return parts


def quarantine_tables(summary: QuarantineSummary) -> list[RenderableType]:
    """What was set aside, and what to change."""
    counts = f"{summary.rows} rows and {summary.cells} cells of kept rows are in quarantine."
    if not summary.published:
        counts += " They are of a linkage that stopped; the published tables are older."
    if not summary.set_aside:
        return [counts]
    return [counts, SetAsideTable("Set aside", summary.set_aside)]


class SetAsideTable:
    """What was set aside, two lines or more per reason: counts and examples, and what to change.

    The first line is a row of columns; the change below has the whole width.
    """

    def __init__(self, title: str, items: Sequence[SetAside]) -> None:
        self.title = title
        self.items = items

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the rows out in columns of one width."""
        rows = [("extract", "column", "reason", "rows", "examples")]
        rows += [
            (
                item.file,
                item.column or "",
                item.reason,
                f"{item.rows}{' cells' if item.row_kept else ''}",
                "  ".join(item.examples),
            )
            for item in self.items
        ]
        widths = [max(cell_len(row[at]) for row in rows) for at in range(len(rows[0]))]
        fits = sum(widths[:-1]) + _GAP * len(widths) + min(widths[-1], _EXAMPLES) <= (
            options.max_width
        )
        yield Text(self.title, style="table.title")
        for number, row in enumerate(rows):
            grid = Table.grid(padding=(0, _GAP, 0, 0))
            for at, width in enumerate(widths):
                fixed = width if fits and at < len(widths) - 1 else None
                right = "right" if at == _COUNTS else "left"
                grid.add_column(width=fixed, overflow="fold", justify=right)  # type: ignore[arg-type]
            grid.add_row(*row, style="" if number else "table.header")
            yield grid
            if number:
                change = Text(self.items[number - 1].change)
                yield Padding(change, (0, 0, 0, _GAP), expand=False)
        yield Text()


def _panel(title: str, texts: Sequence[str], colour: str) -> Panel:
    body = Text("\n".join(f"- {text[:1].upper()}{text[1:]}" for text in texts))
    return Panel(body, title=title, title_align="left", border_style=colour)
