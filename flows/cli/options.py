"""What all commands share: options, exit codes, and output."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.text import Text

#: Exit codes: a fault; a run with more failed studies than the failure budget allows; a report
#: that lacks something its plan requires. Wrong usage is 2, as with other commands.
FAULT, OVER_BUDGET, INCOMPLETE = 1, 3, 3

#: Messages; standard output is for results.
console = Console(stderr=True)

Archive = Annotated[
    list[Path] | None, typer.Argument(help="Folders (or files) of DICOM studies, any layout.")
]
WarehouseOption = Annotated[
    str | None, typer.Option("--warehouse", "-w", help="Folder or fsspec URL of the warehouse.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file, usually cac.toml.")
]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", "-m", help="Folder of weights; default: the shipped weights."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", help="Largest number of studies to score.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def as_text(path: Path | None) -> str | None:
    """A path as flows take it: Prefect stores parameters as JSON."""
    return None if path is None else str(path)


def complain(text: str) -> None:
    """Write an error message to standard error."""
    console.print(Text.assemble(("cac:", "bold red"), " ", text), highlight=False, soft_wrap=True)


def show(part: RenderableType) -> None:
    """Print a result as it is: paths can contain characters of Rich's markup."""
    plain = isinstance(part, str)
    Console(markup=False, emoji=False).print(part, highlight=not plain, soft_wrap=plain)


def print_json(value: object) -> None:
    """Print one JSON object; of a summary, its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
