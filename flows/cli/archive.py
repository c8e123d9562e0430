"""`cac score`, `retry`, `index`, `schema`, `key`: an archive and its warehouse."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from cac_core.errors import UsageError
from flows.cli.options import (
    OVER_BUDGET,
    Archive,
    ConfigOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    ModelOption,
    QuietOption,
    ScheduledOption,
    WarehouseOption,
    as_text,
    complain,
    console,
    print_json,
    require_followers,
    show,
)

if TYPE_CHECKING:
    from flows.backfill import BackfillSummary
    from flows.request import ScoringRequest
    from flows.summaries import ScoringSummary

#: What a run imports at its first use, and can as well import while it waits for the Prefect API.
_NEEDED_SOON = (
    "prefect.flow_engine",
    "prefect.task_engine",
    "fastapi.encoders",
    "pandera.pyarrow",
    "pandera.backends.narwhals.container",
    "cac_core.sources.listing",
    "duckdb",
)

ScoringDryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be scored; write nothing.")
]

app = typer.Typer()
key_app = typer.Typer(
    help="Look up keys in the archive; needs the linkage secret.", no_args_is_help=True
)


PortionOption = Annotated[
    int | None,
    typer.Option(
        "--portion",
        min=1,
        help="Studies after which other runs can write.",
        show_default="that of the settings, 200",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Worker processes, to leave room for other runs.",
        show_default="those of the settings",
    ),
]


def run_score(request: ScoringRequest, *, quiet: bool) -> ScoringSummary:
    """Check the request, then run the flow, so that a wrong argument does not start Prefect."""
    with _prefect(request, quiet, "flows.rescore"):
        from flows.rescore import nightly_rescore
        from flows.runtime.states import run_flow

        summary: ScoringSummary = run_flow(
            nightly_rescore,
            request.warehouse,
            request.config,
            request.model,
            request.limit,
            request.retry_failed,
            list(request.reasons) or None,
            request.scheduled,
        )
        return summary


def run_backfill(request: ScoringRequest, portion: int | None, *, quiet: bool) -> BackfillSummary:
    """Check the request, then run the flow."""
    with _prefect(request, quiet, "flows.backfill"):
        from flows.backfill import backfill
        from flows.runtime.states import run_flow

        summary: BackfillSummary = run_flow(
            backfill,
            request.warehouse,
            request.config,
            request.model,
            request.limit,
            portion,
            request.workers,
        )
        return summary


@contextlib.contextmanager
def _prefect(request: ScoringRequest, quiet: bool, module: str) -> Iterator[None]:
    """Check the request, and provide the Prefect API and the progress of its flow run.

    The module of the flow, whose import takes seconds, is imported while the API starts.
    """
    from flows.request import archive_of_run, prepare_scoring
    from flows.runtime.environment import prefect_api, prepare_environment
    from flows.runtime.progress import RunProgress, showing
    from flows.runtime.worker_server import start_early

    # A scheduled run may find a fault that passes, and tries again.
    prepared = None if request.scheduled else prepare_scoring(request)
    progress = RunProgress(console, quiet=quiet)
    home = prepare_environment(progress.say)

    def meanwhile() -> None:
        import_module(module)
        if prepared is not None:
            start_early(prepared.settings.cluster)
        for name in _NEEDED_SOON:
            with contextlib.suppress(ImportError):
                import_module(name)

    with (
        prefect_api(home, progress.say, meanwhile) as ready,
        showing(progress),
        archive_of_run(request.archive),
    ):
        ready()
        yield


def _score(request: ScoringRequest, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Run a request, or only show what it would do."""
    if not dry_run:
        _finish(run_score(request, quiet=quiet), as_json)
        return
    from flows.cli.tables import scoring_dry_run_table
    from flows.planning import dry_run as plan_only
    from flows.runtime.progress import RunProgress

    plan = plan_only(request, RunProgress(console, quiet=quiet))
    if as_json:
        print_json(plan)
    else:
        show(scoring_dry_run_table(plan))


def _finish(summary: ScoringSummary, as_json: bool) -> None:
    from flows.cli.tables import scoring_table

    if as_json:
        print_json(summary)
    else:
        show(scoring_table(summary))
    if summary.outcome == "over_budget":
        complain(
            f"{summary.failed} studies failed, more than the failure budget allows. "
            "`cac status` lists the reasons; `cac retry` scores these studies again."
        )
        raise typer.Exit(OVER_BUDGET)
    require_followers(summary.followed_by)


@app.command(epilog="Example: `cac score /archive/spect-ct -w /data/cac --limit 100`")
def score(
    archive: Archive = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    limit: LimitOption = None,
    scheduled: ScheduledOption = False,
    dry_run: ScoringDryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score every study of the archive that has no score yet.

    Indexes the archive, selects the CTAC series of each study, runs the cascade, computes the
    Agatston score, and writes one row per study. A second run on the same archive scores nothing.
    """
    from flows.request import ScoringRequest

    request = ScoringRequest(
        tuple(archive or ()),
        warehouse,
        as_text(config),
        as_text(model),
        limit,
        scheduled=scheduled,
    )
    _score(request, dry_run, as_json, quiet)


@app.command(epilog="Example: `cac retry /archive/spect-ct -w /data/cac`")
def retry(
    archive: Archive = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    limit: LimitOption = None,
    reason: Annotated[
        list[str] | None,
        typer.Option(
            "--reason",
            help="Only studies that failed for this reason; can be repeated.",
            show_default="any reason",
        ),
    ] = None,
    dry_run: ScoringDryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score studies whose last row has status `failed` again, and any new ones."""
    from flows.request import ScoringRequest

    request = ScoringRequest(
        tuple(archive or ()),
        warehouse,
        as_text(config),
        as_text(model),
        limit,
        retry_failed=True,
        reasons=tuple(reason or ()),
    )
    _score(request, dry_run, as_json, quiet)


@app.command("backfill", epilog="Example: `cac backfill -c cac.toml --model new --portion 500`")
def backfill_command(
    archive: Archive = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    limit: LimitOption = None,
    portion: PortionOption = None,
    workers: WorkersOption = None,
    dry_run: ScoringDryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score a new model or protocol over the whole archive, in portions beside the nightly run.

    The warehouse is free between two portions, and a portion waits for other runs. Stop it at any
    time; it goes on where it was. It ends with exit code 3 after a portion over the failure budget.
    """
    from flows.request import ScoringRequest

    request = ScoringRequest(
        tuple(archive or ()),
        warehouse,
        as_text(config),
        as_text(model),
        limit,
        workers=workers,
        job="backfill",
    )
    if dry_run:
        return _score(request, dry_run, as_json, quiet)
    _finish_backfill(run_backfill(request, portion, quiet=quiet), as_json)


def _finish_backfill(summary: BackfillSummary, as_json: bool) -> None:
    record = summary.record()
    if as_json:
        print_json(summary)
    else:
        show("\n".join([*record.info, *record.warnings]))
    if record.failure:
        complain(record.failure_message)
        raise typer.Exit(OVER_BUDGET)


@app.command("index", epilog="Example: `cac index /archive/spect-ct -w /data/cac`")
def index_command(
    archive: Archive = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read the headers of new and changed files and select the CTAC series; score nothing."""
    from flows.cli.tables import index_table
    from flows.index import index
    from flows.runtime.progress import RunProgress

    progress = RunProgress(console, quiet=quiet)
    summary = index(tuple(archive or ()), warehouse, as_text(config), progress, dry_run=dry_run)
    if as_json:
        print_json(summary)
    else:
        show(index_table(summary))


@app.command(epilog="Example: `cac schema clinical`")
def schema(
    table: Annotated[
        str | None, typer.Argument(help="One table.", show_default="all tables, and all codes")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the data dictionary: every table, column, unit and code, in Markdown or JSON."""
    from schemas.dictionary import TABLES, dictionary, dictionary_markdown

    known = [spec.name for spec in TABLES]
    if table is not None and table not in known:
        raise UsageError(f"There is no table {table}.", f"Tables are {', '.join(known)}.")
    if as_json:
        print_json(dictionary(table))
    else:
        sys.stdout.write(dictionary_markdown(table))


@key_app.command("lookup", epilog="Example: `cac key lookup 0f3a91c2 /archive/spect-ct`")
def key_lookup(
    key: Annotated[
        str, typer.Argument(help="A patient_key, study_key or path_key, or its first digits.")
    ],
    archive: Archive = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the files behind a key.

    Prints paths of the archive, which can contain patient names. With --warehouse, checks first
    that the secret is the one that its keys were made with.
    """
    from flows.key_lookup import lookup_key

    found = lookup_key(key, tuple(archive or ()), as_text(config), warehouse)
    if as_json:
        print_json(found)
    else:
        sys.stdout.write("".join(f"{path}\n" for path in found.files))
