"""`cac link`, `analyse`, `report`, `export`: from scores and registry extracts to the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import (
    ConfigOption,
    JsonOption,
    QuietOption,
    WarehouseOption,
    console,
    print_json,
    show,
)

if TYPE_CHECKING:
    from flows.analysis import AnalysisDryRun, AnalysisSummary
    from flows.report import ReportSummary

app = typer.Typer(rich_markup_mode="markdown")

#: Exit code of a report that is written, but lacks something the plan asks for.
INCOMPLETE = 3


@app.command("link", epilog="Example: `cac link -w /data/cac --mapping site.toml`")
def link_command(
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    mapping: Annotated[
        Path | None, typer.Option("--mapping", help="TOML that says what the extracts hold.")
    ] = None,
    outcomes: Annotated[
        Path | None, typer.Option("--outcomes", help="Outcome definitions; default: the paper's.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Id of the model whose scores are linked.")
    ] = None,
    propose: Annotated[
        Path | None, typer.Option("--propose", help="Draft a mapping from this extract; no more.")
    ] = None,
    suppress: Annotated[
        bool | None,
        typer.Option("--suppress/--no-suppress", help="Show no count from 1 to 4."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check mapping and headers; write nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Link the scores with registry extracts: one row per patient, every exclusion counted.

    Reads the extracts that the mapping names, sets unusable rows aside with their reason, joins the
    scores, finds the outcomes, and writes the tables `linked`, `flow` and `matches`. A second run
    on the same files recomputes nothing.
    """
    if propose is not None:
        from cac_core.cohort.propose import propose_mapping

        sys.stdout.write(propose_mapping(propose))
        return
    parameters: dict[str, Any] = {
        "warehouse": warehouse,
        "config": None if config is None else str(config),
        "mapping": None if mapping is None else str(mapping),
        "outcomes": None if outcomes is None else str(outcomes),
        "model": model,
        "suppress": suppress,
    }
    result = run_link(quiet, dry_run, parameters)
    if as_json:
        print_json(result)
        return
    from flows.cli.tables import linkage_tables

    for part in linkage_tables(result):
        show(part)


def run_link(quiet: bool, dry_run: bool, parameters: dict[str, Any]) -> dict[str, Any]:
    """Link the cohort; gives the summary that `--json` prints."""
    from flows.runtime.environment import site_reporting
    from flows.runtime.progress import RunProgress, showing

    progress = RunProgress(console, quiet=quiet)
    with site_reporting() as ask_site, showing(progress):
        from flows.linkage import (
            LinkageRequest,
            link_cohort,
            prepare_linkage,
            preview_linkage,
            registry_linkage,
        )

        request = LinkageRequest(**parameters)
        if dry_run:
            return preview_linkage(request)
        if ask_site is None:
            return link_cohort(request)
        prepare_linkage(request)
        ask_site()
        return registry_linkage(**parameters)


@app.command(epilog="Example: `cac analyse -w /data/cac`")
def analyse(
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Analysis plan (TOML); default: the paper's.")
    ] = None,
    show_plan: Annotated[
        bool, typer.Option("--show-plan", help="Print the shipped plan, to start from; no more.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the plan and list its steps; write nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Estimate everything the plan asks for: description, agreement, survival, added value.

    Reads the tables of the last linkage and writes `estimates`, one row per number, and
    `discrepancies`. What cannot be estimated is a row with the reason. A second run on the same
    tables and plan computes nothing.
    """
    if show_plan:
        from cac_core.analysis.plan import shipped_plan_text

        sys.stdout.write(shipped_plan_text())
        return
    parameters: dict[str, Any] = {
        "warehouse": warehouse,
        "config": None if config is None else str(config),
        "plan": None if plan is None else str(plan),
    }
    result = _analyse(quiet, dry_run, parameters)
    if as_json:
        print_json(result)
        return
    from flows.analysis import AnalysisDryRun
    from flows.cli.tables import analysis_dry_run_table, analysis_tables

    if isinstance(result, AnalysisDryRun):
        show(analysis_dry_run_table(result))
        return
    for part in analysis_tables(result):
        show(part)


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

        request = AnalysisRequest(**parameters)
        if dry_run:
            return preview_analysis(prepare_analysis(request))
        if ask_site is None:
            return analyse_here(request)
        prepare_analysis(request)
        ask_site()
        summary: AnalysisSummary = analyse_cohort(**parameters)
        return summary


@app.command("report", epilog="Example: `cac report -w /data/cac`")
def report_command(
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Analysis plan (TOML); default: the paper's.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the report; default: reports/cohort there."),
    ] = None,
    reviews: Annotated[
        Path | None,
        typer.Option("--reviews", help="CSV of study_key and cause, for discrepant cases."),
    ] = None,
    suppress: Annotated[
        bool | None,
        typer.Option("--suppress/--no-suppress", help="Hide counts from 1 to 4 and single cases."),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="OLD NEW",
            help="Instead: what changed between two warehouses, or two models of one.",
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the cohort report: one page, a PDF, every table and figure as files.

    Analyses the linked cohort first where something has changed. Exit code 3 says that the report
    is written but something the plan asks for is missing; the page says what and why.
    """
    if compare is not None:
        if plan or reviews or suppress:
            raise typer.BadParameter("--compare takes --warehouse, --config and --out alone")
        _compare(compare, out, warehouse, config, as_json)
        return
    parameters: dict[str, Any] = {
        "warehouse": warehouse,
        "config": None if config is None else str(config),
        "plan": None if plan is None else str(plan),
        "out": None if out is None else str(out),
        "reviews": None if reviews is None else str(reviews),
        "suppress": suppress,
    }
    result = run_report(quiet, parameters)
    if as_json:
        print_json(result)
    else:
        from flows.cli.tables import report_tables

        for part in report_tables(result):
            show(part)
    if result.gaps:
        raise typer.Exit(INCOMPLETE)


def _compare(
    sides: tuple[str, str],
    out: Path | None,
    warehouse: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    from flows.cli.tables import comparison_table
    from flows.pages.comparison import run_comparison

    result = run_comparison(
        *sides, out or Path("comparison"), warehouse, None if config is None else str(config)
    )
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
        from flows.report import ReportRequest, cohort_report, prepare_report, write_report

        prepared = prepare_report(ReportRequest(**parameters))
        if ask_site is None:
            return write_report(prepared, progress)
        ask_site()
        summary: ReportSummary = cohort_report(**parameters)
        return summary


@app.command(epilog="Example: `cac export -w /data/cac --shape adtte --format xport --out adtte`")
def export(
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    shape: Annotated[
        list[str] | None, typer.Option("--shape", help="linked, events, adtte or omop; repeatable.")
    ] = None,
    file_format: Annotated[
        str, typer.Option("--format", help="parquet, csv, stata or xport (SAS transport).")
    ] = "parquet",
    as_json: JsonOption = False,
) -> None:
    """Write the linked tables for other programs: CDISC ADTTE, OMOP, Stata, SAS, CSV."""
    from flows.export import export_linked

    result = export_linked(
        warehouse,
        None if config is None else str(config),
        shape or ["linked"],
        file_format,
        out,
    )
    if as_json:
        print_json(result)
        return
    for item in result["files"]:
        show(f"{item['file']}: {item['rows']} rows")
