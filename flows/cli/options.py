"""What all commands share: options, and where words and numbers go."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.text import Text

#: Exit codes: a fault, and a run with more failed studies than the failure budget allows. Wrong
#: usage is 2, as with other commands.
FAULT, OVER_BUDGET = 1, 3

#: Words for people; standard output is for results.
console = Console(stderr=True)

Archive = Annotated[
    list[Path] | None, typer.Argument(help="Folders (or files) of DICOM studies, any layout.")
]
WarehouseOption = Annotated[
    str | None, typer.Option("--warehouse", "-w", help="Folder or fsspec URL of the results.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file, usually cac.toml.")
]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", "-m", help="Folder with the weights; default: the shipped ones."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output; all else on stderr.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", help="Score at most this many studies.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def complain(text: str) -> None:
    """One line about a fault."""
    console.print(Text.assemble(("cac:", "bold red"), " ", text), highlight=False, soft_wrap=True)


def show(part: RenderableType) -> None:
    """A result for people on standard output, as it is: paths may hold signs of rich's markup."""
    plain = isinstance(part, str)
    Console(markup=False, emoji=False).print(part, highlight=not plain, soft_wrap=plain)


def print_json(value: object) -> None:
    """Print one JSON object; of a summary, its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
