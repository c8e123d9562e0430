"""`cac score`, `retry`, `index`, `status`, `schema`, `key`: an archive and its warehouse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import (
    OVER_BUDGET,
    Archive,
    ConfigOption,
    JsonOption,
    LimitOption,
    ModelOption,
    QuietOption,
    WarehouseOption,
    complain,
    console,
    print_json,
    show,
)

app = typer.Typer()
key_app = typer.Typer(help="Find out what a key stands for; works only where the secret is.")


def run_score(quiet: bool, archive: list[str], **parameters: Any) -> dict[str, Any]:
    """Check the request, then run the flow: a wrong argument costs no Prefect start."""
    from flows.request import Request, naming, prepare
    from flows.runtime.environment import prefect_api, prepare_environment
    from flows.runtime.progress import RunProgress, showing

    prepare(Request(tuple(archive), **parameters))
    progress = RunProgress(console, quiet=quiet)
    home = prepare_environment(progress.say)
    with prefect_api(home, progress.say) as ready, showing(progress), naming(archive):
        ready()
        from flows.rescore import nightly_rescore

        result: dict[str, Any] = nightly_rescore(**parameters)
        return result


def _strings(paths: list[Path] | None) -> list[str]:
    return [str(path) for path in paths or ()]


def _finish(summary: dict[str, Any], as_json: bool) -> None:
    from flows.cli.tables import summary_table

    if as_json:
        print_json(summary)
    else:
        show(summary_table(summary))
    if summary["outcome"] == "over_budget":
        complain(
            f"{summary['failed']} studies failed, more than the failure budget allows. "
            "`cac status` lists the reasons, `cac retry` tries them again."
        )
        raise typer.Exit(OVER_BUDGET)


@app.command(epilog="Example: `cac score /archive/spect-ct -w /data/cac --limit 100`")
def score(
    archive: Archive = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    limit: LimitOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be scored; write nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score every study of the archive that has no score yet.

    Indexes the archive, chooses the CTAC series of each study, runs the cascade and the Agatston
    score, and writes one row per study. A second run on the same archive scores nothing.
    """
    parameters: dict[str, Any] = {
        "archive": _strings(archive),
        "warehouse": warehouse,
        "config": None if config is None else str(config),
        "model": None if model is None else str(model),
        "limit": limit,
    }
    if dry_run:
        from flows.inspection import preview_run

        _show_preview(preview_run(**parameters), as_json)
        return
    _finish(run_score(quiet, **parameters), as_json)


@app.command(epilog="Example: `cac retry /archive/spect-ct -w /data/cac`")
def retry(
    archive: Archive = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score the studies again whose last row has status `failed`, and any new ones."""
    summary = run_score(
        quiet,
        archive=_strings(archive),
        warehouse=warehouse,
        config=None if config is None else str(config),
        model=None if model is None else str(model),
        limit=limit,
        retry_failed=True,
    )
    _finish(summary, as_json)


def _show_preview(preview: dict[str, Any], as_json: bool) -> None:
    from flows.cli.tables import preview_table

    if as_json:
        print_json(preview)
    else:
        show(preview_table(preview))


@app.command(epilog="Example: `cac index /archive/spect-ct -w /data/cac`")
def index(
    archive: Archive = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read the headers of new and changed files and choose the CTAC series; score nothing."""
    from flows.cli.tables import index_table
    from flows.inspection import index_only
    from flows.runtime.progress import RunProgress

    result = index_only(
        _strings(archive),
        warehouse,
        None if config is None else str(config),
        RunProgress(console, quiet=quiet),
    )
    if as_json:
        print_json(result)
    else:
        show(index_table(result))


@app.command(epilog="Example: `cac status -w /data/cac`")
def status(
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="Also write the page of the archive (HTML) here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the warehouse holds: runs, scores by category, reasons; as a page with --page."""
    from flows.cli.tables import status_table
    from flows.inspection import warehouse_status

    result = warehouse_status(warehouse, None if config is None else str(config), page)
    if as_json:
        print_json(result)
    else:
        for part in status_table(result):
            show(part)


@app.command(epilog="Example: `cac schema --json | jq .tables.scores`")
def schema(as_json: JsonOption = False) -> None:
    """Print the data dictionary: every table, column, unit and code (Markdown, or JSON)."""
    from schemas.dictionary import dictionary, dictionary_markdown

    if as_json:
        print_json(dictionary())
    else:
        sys.stdout.write(dictionary_markdown())


@key_app.command("lookup", epilog="Example: `cac key lookup 0f3a... /archive/spect-ct`")
def key_lookup(
    key: Annotated[str, typer.Argument(help="A patient_key, study_key or path_key.")],
    archive: Archive = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the files behind a key. Prints paths of the archive: mind who sees the screen."""
    from flows.inspection import lookup

    found = lookup(key, _strings(archive), None if config is None else str(config))
    if as_json:
        print_json({"key": key, "files": found})
    else:
        sys.stdout.write("".join(f"{path}\n" for path in found))
