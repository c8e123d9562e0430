"""The `cac` command line. Commands that need neither Prefect nor torch import neither."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

import typer

from cac_core.errors import CacError
from flows.cli.archive import app as archive_app
from flows.cli.archive import key_app
from flows.cli.cohort import app as cohort_app
from flows.cli.doctor import app as doctor_app
from flows.cli.evaluate import app as evaluate_app
from flows.cli.options import FAULT, complain
from flows.cli.streams import discard_results, drain, settle_streams, silence_libraries
from flows.cli.synthetic import app as synthetic_app
from flows.cli.train import app as train_app
from flows.runtime.environment import prepare_caches
from flows.runtime.faults import debugging, describe_fault
from schemas.table import InvalidTableError

app = typer.Typer(
    name="cac",
    help="Scores coronary artery calcium on archived SPECT/CT attenuation scans, by the cohort.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(archive_app)
app.add_typer(cohort_app)
app.add_typer(synthetic_app)
app.add_typer(doctor_app)
app.add_typer(key_app, name="key")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")

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
            f"A fault of the program or its surroundings: {describe_fault(error)}. What was "
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
