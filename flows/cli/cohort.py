"""`cac link`, `analyse`, `report`: from scores and registry extracts to the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.linkage_output import propose as draft_mapping
from flows.cli.linkage_output import show_linkage
from flows.cli.options import (
    INCOMPLETE,
    ConfigOption,
    DraftOption,
    DryRunOption,
    JsonOption,
    MoreExtracts,
    ProposeOption,
    QuietOption,
    ScheduledOption,
    WarehouseOption,
    as_text,
    complain,
    console,
    print_json,
    require_followers,
    show,
    show_planned,
)

if TYPE_CHECKING:
    from flows.analysis import AnalysisDryRun, AnalysisSummary
    from flows.linkage_summaries import LinkageDryRun, LinkageSummary
    from flows.report import ReportSummary
    from flows.request import LinkageRequest
    from flows.summaries import PlannedWrites

app = typer.Typer(rich_markup_mode="markdown")

MappingOption = Annotated[
    Path | None,
    typer.Option(
        "--mapping",
        help="TOML file that describes the extracts.",
        show_default="that of the settings",
    ),
]
OutcomesOption = Annotated[
    Path | None,
    typer.Option("--outcomes", help="Outcome definitions (TOML).", show_default="the paper's"),
]
ModelIdOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="ID|FOLDER",
        help="Model whose scores are linked: its id, or its folder of weights.",
        show_default="the only one in the warehouse",
    ),
]
ReportOutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder of the report.",
        show_default="reports/cohort in the warehouse; comparison, for --compare",
    ),
]
ReviewsOption = Annotated[
    Path | None,
    typer.Option(
        "--reviews",
        help="CSV with study_key and cause of discrepant cases.",
        show_default="that of the settings, if any",
    ),
]
CompareOption = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--compare",
        metavar="OLD NEW",
        help="Compare two warehouses, or two models of one, instead.",
        show_default="write the report",
    ),
]
PlanOption = Annotated[
    Path | None, typer.Option("--plan", help="Analysis plan (TOML).", show_default="the paper's")
]
ScoresOption = Annotated[
    str | None,
    typer.Option(
        "--scores",
        metavar="model|reviewed|both",
        help="Scores of the model, those after review (`cac review`), or both.",
        show_default="model",
    ),
]


@app.command("link", epilog="Example: `cac link -w /data/cac --mapping site.toml`")
def link_command(
    more: MoreExtracts = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    mapping: MappingOption = None,
    outcomes: OutcomesOption = None,
    model: ModelIdOption = None,
    propose: ProposeOption = None,
    out: DraftOption = None,
    suppress: Annotated[
        bool | None, typer.Option("--suppress/--no-suppress", help="Hide counts from 1 to 4.")
    ] = None,
    scheduled: ScheduledOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the extracts, say what is wrong; write nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Link the scores with registry extracts: one row per patient, every exclusion counted.

    Reads the extracts that the mapping names, puts unusable rows into quarantine with a reason,
    joins the scores, derives the outcomes, and writes the tables `linked`, `events`, `flow` and
    `matches`. A second run on the same files computes nothing. Exit code 3 means that no patient
    is left for the analysis; the message says why.
    """
    if propose:
        return draft_mapping([*propose, *(more or [])], out)
    if more or out:
        raise typer.BadParameter("files and --out belong to --propose")
    from flows.request import LinkageRequest

    request = LinkageRequest(
        warehouse, as_text(config), as_text(mapping), as_text(outcomes), model, suppress, scheduled
    )
    if dry_run:
        plan = _dry_run_link(request)
        show_linkage(plan, as_json=as_json, quiet=quiet)
        if plan.stops:
            raise typer.Exit(INCOMPLETE)
        return
    summary = run_link(request, quiet=quiet)
    show_linkage(summary, as_json=as_json, quiet=quiet)
    _require_patients(summary.empty_because)
    require_followers(summary.followed_by)


def _require_patients(empty_because: Sequence[str]) -> None:
    """Say why a cohort is empty, and leave with exit code 3."""
    if empty_because:
        from flows.summaries import empty_cohort

        complain(empty_cohort(empty_because))
        raise typer.Exit(INCOMPLETE)


@app.command(epilog="Example: `cac quarantine -w /data/cac`")
def quarantine(
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the last linkage set aside: by extract, column and reason, with what to change.

    Values are shown with A for letters and 9 for digits; common code words (ja, nein) as they are.
    If a later linkage stopped before it published its tables, its rows are shown.
    """
    from flows.quarantine import quarantined

    result = quarantined(warehouse, as_text(config))
    if as_json:
        print_json(result)
        return
    from flows.cli.linkage_tables import quarantine_tables

    for part in quarantine_tables(result):
        show(part)


def _dry_run_link(request: LinkageRequest) -> LinkageDryRun:
    from flows.runtime.environment import site_reporting

    with site_reporting():
        from flows.linkage_preview import dry_run

        return dry_run(request)


def run_link(request: LinkageRequest, *, quiet: bool) -> LinkageSummary:
    """Link the cohort, reporting to the site's Prefect API if there is one."""
    from flows.runtime.environment import site_reporting
    from flows.runtime.progress import RunProgress, showing

    progress = RunProgress(console, quiet=quiet)
    with site_reporting() as ask_site, showing(progress):
        from flows.linkage import link_cohort, prepare_linkage, registry_linkage
        from flows.runtime.states import run_flow

        if ask_site is None:
            return link_cohort(request)
        if not request.scheduled:
            prepare_linkage(request)
        ask_site()
        summary: LinkageSummary = run_flow(registry_linkage, **vars(request))
        return summary


@app.command(epilog="Example: `cac analyse -w /data/cac`")
def analyse(
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    plan: PlanOption = None,
    scores: ScoresOption = None,
    show_plan: Annotated[
        bool, typer.Option("--show-plan", help="Only print the shipped plan, as a starting point.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the plan and list its steps; write nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Estimate everything in the plan: description, agreement, survival, added value.

    Reads the tables of the last linkage and writes `estimates`, one row per number, and
    `discrepancies`. A number that cannot be estimated has a row with the reason. A second run on
    the same tables and plan computes nothing. Exit code 3 means that the cohort is empty.
    """
    if show_plan:
        from cac_core.analysis.plan import shipped_plan_text

        sys.stdout.write(shipped_plan_text())
        return
    parameters: dict[str, Any] = {
        "warehouse": warehouse,
        "config": as_text(config),
        "plan": as_text(plan),
        "scores": scores,
    }
    result = _analyse(quiet, dry_run, parameters)
    from flows.analysis import AnalysisDryRun
    from flows.cli.tables import analysis_dry_run_table, analysis_tables

    if as_json:
        print_json(result)
    elif isinstance(result, AnalysisDryRun):
        show(analysis_dry_run_table(result))
    else:
        for part in analysis_tables(result):
            show(part)
    if not isinstance(result, AnalysisDryRun):
        _require_patients(result.empty_because)


def _analyse(
    quiet: bool, dry_run: bool, parameters: dict[str, Any]
) -> AnalysisSummary | AnalysisDryRun:
    from flows.runtime.environment import site_reporting
    from flows.runtime.progress import RunProgress, showing

    progress = RunProgress(console, quiet=quiet)
    with site_reporting() as ask_site, showing(progress):
        from flows.analysis import (
            AnalysisRequest,
            analyse_cohort,
            prepare_analysis,
            preview_analysis,
        )
        from flows.analysis import analyse as analyse_here
        from flows.runtime.states import run_flow

        request = AnalysisRequest(**parameters)
        if dry_run:
            return preview_analysis(prepare_analysis(request))
        if ask_site is None:
            return analyse_here(request)
        prepare_analysis(request)
        ask_site()
        summary: AnalysisSummary = run_flow(analyse_cohort, **parameters)
        return summary


@app.command("report", epilog="Example: `cac report -w /data/cac`")
def report_command(
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    plan: PlanOption = None,
    scores: ScoresOption = None,
    out: ReportOutOption = None,
    reviews: ReviewsOption = None,
    suppress: Annotated[
        bool | None,
        typer.Option("--suppress/--no-suppress", help="Hide counts from 1 to 4 and single cases."),
    ] = None,
    journal: Annotated[
        bool | None,
        typer.Option("--journal/--no-journal", help="Figures also for two columns and as TIFF."),
    ] = None,
    compare: CompareOption = None,
    scheduled: ScheduledOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the cohort report: one page, a PDF, every table and figure as files.

    Analyses the linked cohort first if something has changed. Exit code 3 means that the report is
    written but lacks something the plan requires; the page lists what is missing and why.
    """
    if compare is not None:
        if plan or reviews or suppress or journal or scores:
            raise typer.BadParameter("--compare allows only --warehouse, --config and --out")
        return _compare(compare, out, warehouse, config, dry_run, as_json)
    parameters: dict[str, Any] = {
        "warehouse": warehouse,
        "config": as_text(config),
        "plan": as_text(plan),
        "out": as_text(out),
        "reviews": as_text(reviews),
        "suppress": suppress,
        "journal": journal,
        "scheduled": scheduled,
        "scores": scores,
    }
    if dry_run:
        return show_planned(_preview_report(parameters), as_json)
    _finish_report(run_report(quiet, parameters), as_json)


def _preview_report(parameters: dict[str, Any]) -> PlannedWrites:
    from flows.runtime.environment import site_reporting

    with site_reporting():
        from flows.report import ReportRequest, prepare_report, preview_report

        return preview_report(prepare_report(ReportRequest(**parameters)))


def _finish_report(result: ReportSummary, as_json: bool) -> None:
    from flows.cli.tables import report_tables

    if as_json:
        print_json(result)
    else:
        for part in report_tables(result):
            show(part)
    _require_patients(result.empty_because)
    if result.gaps:
        raise typer.Exit(INCOMPLETE)


def _compare(
    sides: tuple[str, str],
    out: Path | None,
    warehouse: str | None,
    config: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from flows.cli.tables import comparison_table
    from flows.pages.comparison import run_comparison

    place = out or Path("comparison")
    result = run_comparison(*sides, place, warehouse, as_text(config), dry_run=dry_run)
    if as_json:
        print_json(result)
    else:
        show(comparison_table(result))


def run_report(quiet: bool, parameters: dict[str, Any]) -> ReportSummary:
    """Write the report and return the summary that `--json` prints."""
    from flows.runtime.environment import site_reporting
    from flows.runtime.progress import RunProgress, showing

    progress = RunProgress(console, quiet=quiet)
    with site_reporting() as ask_site, showing(progress):
        from flows.report import ReportRequest, cohort_report, prepare_report, report_cohort
        from flows.runtime.states import run_flow

        if ask_site is None:
            return report_cohort(**parameters)
        if not parameters.get("scheduled"):
            prepare_report(ReportRequest(**parameters))
        ask_site()
        summary: ReportSummary = run_flow(cohort_report, **parameters)
        return summary
