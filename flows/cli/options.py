"""What all commands share: options, exit codes, and output."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cac_core.errors import CacError
from flows.cli.streams import discard_results, flush_results

if TYPE_CHECKING:
    from flows.summaries import PlannedWrites

#: Exit codes: a fault; a run with more failed studies than the failure budget allows; a report
#: that lacks something its plan requires. Wrong usage is 2, as with other commands.
FAULT, OVER_BUDGET, INCOMPLETE = 1, 3, 3

#: Messages; standard output is for results.
console = Console(stderr=True)
#: Holds an element once a JSON object was printed: an error after it must not add a second one.
_printed: list[bool] = []

Archive = Annotated[
    list[str] | None,
    typer.Argument(
        help="Folders, files or URLs (s3://) of DICOM studies, any layout.",
        show_default="those of the settings",
    ),
]
WarehouseOption = Annotated[
    str | None,
    typer.Option(
        "--warehouse",
        "-w",
        help="Folder or URL (s3://BUCKET/PATH) of the warehouse.",
        show_default="that of the settings",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Settings file; `cac init` writes one.",
        show_default="no file: the defaults",
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        metavar="ID|FOLDER",
        help="Model: the id of the shipped weights, or a folder of weights.",
        show_default="the shipped weights",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", help="Largest number of studies to score.", show_default="all"),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


ProposeOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--propose",
        metavar="FILE...",
        help="Only draft a mapping from these extracts, or from all in a folder.",
        show_default="link",
    ),
]
MoreExtracts = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILE]...", help="More extracts of --propose.", hidden=True),
]
DraftOption = Annotated[
    Path | None,
    typer.Option("--out", help="File for the draft of --propose.", show_default="standard output"),
]
ScheduledOption = Annotated[
    bool,
    typer.Option(
        "--scheduled",
        help="Wait, try again and go on as [schedule] of the settings says.",
    ),
]


def as_text(path: Path | None) -> str | None:
    """A path as flows take it: Prefect stores parameters as JSON."""
    return None if path is None else str(path)


def complain(text: str) -> None:
    """Write an error message to standard error."""
    console.print(Text.assemble(("cac:", "bold red"), " ", text), highlight=False, soft_wrap=True)


def fail(what: str, hint: str = "", code: int = FAULT, shown: str | None = None) -> NoReturn:
    """End with an error: a line on standard error and, with `--json`, an object on standard output.

    Parameters
    ----------
    shown : the line for people; default: `what` and `hint`. Empty if it has been shown.
    """
    line = f"{what} {hint}".strip() if shown is None else shown
    if line:
        complain(line)
    with contextlib.suppress(CacError, BrokenPipeError):
        if "--json" in sys.argv and not _printed:
            print_json({"error": what, "hint": hint, "exit_code": code})
            flush_results()
    discard_results()
    sys.exit(code)


def require_followers(followed_by: Mapping[str, str]) -> None:
    """End with an error if a job that followed this one ended badly; its message was shown."""
    bad = {state for state in followed_by.values() if state != "Completed"}
    if bad:
        raise typer.Exit(FAULT if "Failed" in bad else INCOMPLETE)


def show(part: RenderableType) -> None:
    """Print a result as it is: paths can contain characters of Rich's markup."""
    plain = isinstance(part, str)
    if isinstance(part, Table):
        for column in part.columns:  # a narrow terminal wraps a cell and cuts nothing off
            column.overflow, column.no_wrap = "fold", False
    Console(markup=False, emoji=False).print(part, highlight=not plain, soft_wrap=plain)


def show_planned(planned: PlannedWrites, as_json: bool) -> None:
    """Print the result of a dry run."""
    if as_json:
        print_json(planned)
        return
    from flows.cli.tables import planned_table

    show(planned_table(planned))


def print_json(value: object) -> None:
    """Print one JSON object; of a summary, its fields."""
    _printed.append(True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
