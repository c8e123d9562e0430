"""The `cac` command line. Commands that need neither Prefect nor torch import neither."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cac_core.errors import CacError
from flows.cohort_cli import app as cohort_app
from flows.cohort_cli import run_link, run_report
from flows.environment import prepare_caches
from flows.faults import debugging, what_happened
from flows.streams import discard_results, drain, settle_streams, silence_libraries
from flows.terminal import (
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
from flows.train_cli import app as train_app
from schemas.table import InvalidTableError

app = typer.Typer(
    name="cac",
    help="Scores coronary artery calcium on archived SPECT/CT attenuation scans, by the cohort.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
key_app = typer.Typer(help="Find out what a key stands for; works only where the secret is.")
app.add_typer(cohort_app)
app.add_typer(key_app, name="key")
app.add_typer(train_app, name="train")

FAULT, OVER_BUDGET = 1, 3
_interrupted = threading.Event()


def main() -> None:
    """Entry point: every fault becomes one line and an exit code."""
    settle_streams()
    if not debugging():
        silence_libraries()
    prepare_caches()
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, _interrupt)
    arrived = _note_signals()
    try:
        try:
            app()
        finally:
            drain()
    except (CacError, InvalidTableError) as error:
        complain(str(error))
        discard_results()
        sys.exit(getattr(error, "exit_code", FAULT))
    except (KeyboardInterrupt, SystemExit) as leaving:
        # typer turns Ctrl-C into a silent exit with the code that shells give it.
        if isinstance(leaving, SystemExit) and leaving.code != 128 + signal.SIGINT:
            raise
        _tell_interrupted()
    except BrokenPipeError:
        # The reader of our output went away (`cac schema | head`): not our fault, say nothing.
        discard_results()
    except Exception as error:  # the last resort: a line and an exit code instead of a traceback
        # The signal came while native code ran a callback, which makes another error of it (DuckDB:
        # "Query interrupted"), or while something was being undone that then could not be.
        if _interrupted.is_set() or arrived():
            _tell_interrupted()
        if debugging():
            raise
        complain(
            f"A fault of the program or its surroundings: {what_happened(error)}. What was "
            "finished is kept. Run `cac doctor`, or the same command with CAC_DEBUG=1 for details."
        )
        discard_results()
        sys.exit(FAULT)


def _note_signals() -> Callable[[], bool]:
    """Have signals noted below Python; gives a function that says whether one to stop came.

    Within a flow Prefect's handler takes the place of ours, and what it raises can get lost.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def arrived() -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool({signal.SIGTERM, signal.SIGINT} & set(os.read(read, 4096)))
        return False

    return arrived


def _interrupt(signum: int, frame: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def _tell_interrupted() -> NoReturn:
    complain("Interrupted. What was finished is kept; the same command goes on from there.")
    sys.exit(FAULT)


def _rescore(quiet: bool, archive: list[str], **parameters: Any) -> dict[str, Any]:
    """Check the request, then run the flow: a wrong argument costs no Prefect start."""
    from flows.environment import prefect_api, prepare_environment
    from flows.progress import RunProgress, showing
    from flows.request import Request, naming, prepare

    prepare(Request(tuple(archive), **parameters))
    progress = RunProgress(console, quiet=quiet)
    home = prepare_environment(progress.say)
    with prefect_api(home, progress.say) as ready, showing(progress), naming(archive):
        ready()
        from flows.rescore import nightly_rescore

        return nightly_rescore(**parameters)


def _strings(paths: list[Path] | None) -> list[str]:
    return [str(path) for path in paths or ()]


def _finish(summary: dict[str, Any], as_json: bool) -> None:
    from flows.tables import summary_table

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
        from flows.preview import preview_run

        _show_preview(preview_run(**parameters), as_json)
        return
    _finish(_rescore(quiet, **parameters), as_json)


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
    summary = _rescore(
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
    from flows.tables import preview_table

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
    from flows.preview import index_only
    from flows.progress import RunProgress
    from flows.tables import index_table

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
    from flows.preview import warehouse_status
    from flows.tables import status_table

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
    from flows.preview import lookup

    found = lookup(key, _strings(archive), None if config is None else str(config))
    if as_json:
        print_json({"key": key, "files": found})
    else:
        sys.stdout.write("".join(f"{path}\n" for path in found))


@app.command(epilog="Example: `cac phantom ./archive --studies 24 --seed 1`")
def phantom(
    out: Annotated[Path, typer.Argument(help="New or empty folder for the archive.")],
    studies: Annotated[int, typer.Option("--studies", help="Number of studies.", min=1)] = 24,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same archive.", min=0)] = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a synthetic SPECT/CT archive with known truth (OUT, and truth.parquet beside it)."""
    from flows.demo import make_phantom
    from flows.progress import RunProgress

    result = make_phantom(out, studies, seed, RunProgress(console, quiet=quiet))
    if as_json:
        print_json(result)
    else:
        show(f"{result['studies']} studies in {result['archive']}, truth in {result['truth']}")


@app.command(epilog="Example: `cac registry ./extracts --patients 2271 --dialect flat`")
def registry(
    out: Annotated[Path, typer.Argument(help="New or empty folder for the extracts.")],
    patients: Annotated[int, typer.Option("--patients", help="Patients to make up.", min=1)] = 2271,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="truth.parquet of a synthetic archive: its patients instead."),
    ] = None,
    dialect: Annotated[
        str, typer.Option("--dialect", help="abstracts, flat or columnar: how a site writes.")
    ] = "abstracts",
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same extracts.", min=0)] = 1,
    as_json: JsonOption = False,
) -> None:
    """Write the extracts of a synthetic registry, with mapping and truth, to try `cac link` on."""
    from flows.demo import make_extracts

    result = make_extracts(out, patients, truth, dialect, seed)
    if as_json:
        print_json(result)
    else:
        show(
            f"{result['patients']} patients; link them with: cac link --mapping "
            f"{result['mapping']}; truth in {result['truth']}",
        )


@app.command(epilog="Example: `cac demo --out demo`")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for archive and results.")] = Path(
        "demo"
    ),
    studies: Annotated[int, typer.Option("--studies", help="Number of studies.", min=1)] = 24,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same archive.", min=0)] = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a synthetic archive and registry, and do all three jobs: score, link, report.

    So few patients leave much of the report without an estimate; it says what and why.
    """
    from flows.demo import DEMO_SECRET, make_extracts, make_phantom
    from flows.environment import prefect_api, prepare_environment
    from flows.evaluation import compare_sources
    from flows.progress import RunProgress
    from flows.sources import Source, pair_sources
    from flows.tables import demo_tables

    # The demo alone brings a secret of its own: its patients do not exist.
    os.environ.setdefault("CAC_LINKAGE_KEY", DEMO_SECRET)
    warehouse = str(out / "warehouse")
    # One API for all flows: Prefect keeps the address of the first it meets.
    progress = RunProgress(console, quiet=quiet)
    with prefect_api(prepare_environment(progress.say), progress.say) as ready:
        made = make_phantom(out / "archive", studies, seed, progress)
        ready()
        summary = _rescore(quiet, archive=[made["archive"]], warehouse=warehouse)
        truth = Path(made["truth"])
        extracts = make_extracts(out / "registry", studies, truth, "abstracts", seed)
        linked = run_link(quiet, False, {"warehouse": warehouse, "mapping": extracts["mapping"]})
        report = run_report(quiet, {"warehouse": warehouse})
    pairs = pair_sources(warehouse, Source("model", summary["model"]), Source("truth"), truth=truth)
    agreement = compare_sources(pairs)
    if as_json:
        places = {"archive": made["archive"], "truth": made["truth"], "registry": extracts}
        done = {"agreement": agreement, "linkage": linked, "report": report}
        print_json(summary | places | done)
        return
    for part in demo_tables(summary, agreement, made, linked, extracts, report):
        show(part)


@app.command(epilog="Example: `cac evaluate --set external --by noise_hu --out evaluation`")
def evaluate(
    warehouse: WarehouseOption = None,
    source: Annotated[
        str, typer.Option("--source", help="model, model:ID, reader:NAME, visual:NAME or truth.")
    ] = "model",
    against: Annotated[
        str | None, typer.Option("--against", help="The reference: the same choices.")
    ] = None,
    readings: Annotated[
        Path | None, typer.Option("--readings", help="Table `readings`, CSV or Parquet.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="truth.parquet of a synthetic archive.")
    ] = None,
    test_set: Annotated[
        str | None,
        typer.Option("--set", help="A frozen test set: external, semi-synthetic, cross-generator."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of real chests, for semi-synthetic.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Folder to keep the scans of a set in.")
    ] = None,
    studies: Annotated[
        int | None, typer.Option("--studies", help="How many; default 20, or the whole set.", min=2)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first study.", min=0)] = 5000,
    by: Annotated[
        str | None, typer.Option("--by", help="Columns to group by, separated by commas.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for JSON, studies, estimates, pictures.")
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            help="Folder of weights. Several for semi-synthetic: each judges chests it never saw.",
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare two sources of scores, or the model with the truth of scans it never saw.

    With --warehouse, published scores with readings (`--against reader:NAME --readings FILE`) or
    with the truth of a synthetic archive (--truth); by scanner with `--by Manufacturer`. With
    --set, the model on a frozen test set; else on new synthetic scans, made and scored in memory.
    """
    from flows.evaluation import (
        compare_sources,
        evaluate_set,
        evaluate_unseen,
        require_evaluation_folder,
        write_evaluation,
    )
    from flows.progress import RunProgress
    from flows.sources import Source, pair_sources
    from flows.tables import agreement_tables

    if warehouse is None and (truth or readings or against):
        raise typer.BadParameter("--truth, --readings and --against need --warehouse")
    if warehouse is not None and against is None and truth is None:
        raise typer.BadParameter("--warehouse needs --against, or --truth")
    models: list[Path | None] = [*model] if model else [None]
    if len(models) > 1 and test_set != "semi-synthetic":
        raise typer.BadParameter("several --model are for --set semi-synthetic")
    if out is not None:
        require_evaluation_folder(out)
    progress = RunProgress(console, quiet=quiet)
    columns = tuple(part.strip() for part in by.split(",")) if by else ()
    if warehouse is not None:
        reference = Source.parse(against or "truth")
        pairs = pair_sources(warehouse, Source.parse(source), reference, readings, truth)
        result = compare_sources(pairs, columns)
    elif test_set is not None:
        result = evaluate_set(test_set, data, studies, models, columns, progress, keep)
    else:
        result = evaluate_unseen(studies or 20, seed, models[0], columns, progress)
    if out is not None:
        write_evaluation(out, result)
    if as_json:
        print_json(result)
        return
    for part in agreement_tables(result):
        show(part)


@app.command(epilog="Example: `cac doctor --config cac.toml`")
def doctor(
    config: ConfigOption = None,
    show_settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting with its value.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this installation: versions, decoders, weights, secret, memory and disk."""
    from flows.doctor import checks, resolved_settings
    from flows.tables import doctor_table

    if show_settings:
        sys.stdout.write(resolved_settings(config))
        return
    found = checks(config)
    if as_json:
        print_json({"checks": found, "ok": all(check["ok"] for check in found)})
    else:
        show(doctor_table(found))
    if not all(check["ok"] for check in found):
        raise typer.Exit(FAULT)
