"""The `cac` command line. Commands import Prefect and torch only if they need them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from cac_core.errors import CacError
from cac_core.version import __version__
from flows.cli.archive import app as archive_app
from flows.cli.archive import key_app
from flows.cli.cohort import app as cohort_app
from flows.cli.deployment import app as deployment_app
from flows.cli.doctor import app as doctor_app
from flows.cli.evaluate import app as evaluate_app
from flows.cli.export import app as export_app
from flows.cli.operation import app as operation_app
from flows.cli.options import FAULT, fail, show
from flows.cli.reading import app as reading_app
from flows.cli.serve import app as serve_app
from flows.cli.setup import app as setup_app
from flows.cli.start import INTERRUPTED, STOPPING, stop_at_once
from flows.cli.streams import discard_results, flush_results, prepare_streams, silence_libraries
from flows.cli.synthetic import app as synthetic_app
from flows.cli.train import app as train_app
from flows.runtime.environment import prepare_caches
from flows.runtime.faults import debugging, describe_fault
from schemas.invalid import InvalidTableError

app = typer.Typer(
    name="cac",
    help="Score coronary artery calcium on archived SPECT/CT attenuation scans, for whole cohorts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(setup_app)
app.add_typer(archive_app)
app.add_typer(operation_app)
app.add_typer(reading_app)
app.add_typer(cohort_app)
app.add_typer(export_app)
app.add_typer(serve_app)
app.add_typer(deployment_app, name="deployment")
app.add_typer(synthetic_app)
app.add_typer(doctor_app)
app.add_typer(key_app, name="key")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")

_interrupted = threading.Event()


def _print_version(wanted: bool) -> None:
    if wanted:
        show(f"cac {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Score coronary artery calcium on archived SPECT/CT attenuation scans, for whole cohorts."""


def main() -> None:
    """Entry point: turns every error into one line and an exit code; with `--json`, an object."""
    prepare_streams()
    if not debugging():
        silence_libraries()
    prepare_caches()
    arrived = _record_signals()
    try:
        _run()
    except (CacError, InvalidTableError) as error:
        what, hint = getattr(error, "what", str(error)), getattr(error, "hint", "")
        fail(what, hint, getattr(error, "exit_code", FAULT))
    except typer.TyperException as error:
        _refuse(error)
    except (KeyboardInterrupt, typer.Abort):
        _exit_interrupted()
    except BrokenPipeError:
        # The reader of the output has exited (`cac schema | head`): not an error.
        discard_results()
    except Exception as error:  # last resort: a line and an exit code instead of a traceback
        # A signal during a callback from native code arrives as another error (DuckDB: "Query
        # interrupted"), as does one during clean-up.
        if _interrupted.is_set() or arrived():
            _exit_interrupted()
        if debugging():
            raise
        fail(
            f"A fault of the program or its environment: {describe_fault(error)}. Finished work "
            "is kept.",
            "Run `cac doctor`, or the same command with CAC_DEBUG=1 for details.",
        )


def _run() -> None:
    """Run the command and write its result; ends with its exit code."""
    for stop in STOPPING:
        signal.signal(stop, _interrupt)
    try:
        code = app(standalone_mode=False)
    finally:
        stop_at_once()  # a second signal, or one while Python shuts down
        flush_results()
    # Typer turns Ctrl-C into the code that shells use for it.
    if code == 128 + signal.SIGINT:
        _exit_interrupted()
    if isinstance(code, int) and code:
        sys.exit(code)


def _refuse(error: typer.TyperException) -> NoReturn:
    """Report wrong usage as Typer does, with the usage of the command."""
    from typer.rich_utils import rich_format_error

    rich_format_error(error)  # type: ignore[arg-type]
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "cac"
    fail(error.format_message(), f"`{command} --help` lists what it takes.", error.exit_code, "")


def _record_signals() -> Callable[[], bool]:
    """Record signals below Python and return a function that reports whether one to stop arrived.

    Inside a flow, Prefect's handler replaces ours, and its exception can get lost.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def arrived() -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(set(STOPPING) & set(os.read(read, 4096)))
        return False

    return arrived


def _interrupt(signum: int, frame: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def _exit_interrupted() -> NoReturn:
    fail(INTERRUPTED)
