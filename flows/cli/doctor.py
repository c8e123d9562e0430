"""`cac doctor`: checks of the installation."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.cli.options import (
    FAULT,
    ConfigOption,
    JsonOption,
    WarehouseOption,
    print_json,
    show,
)

app = typer.Typer()


@app.command(epilog="Example: `cac doctor --config cac.toml`")
def doctor(
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    show_settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting with its value.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this installation: versions, decoders, weights, secret, memory and disk.

    With a warehouse, the secret must be the one that it was made with.
    """
    from flows.cli.tables import doctor_table
    from flows.doctor import check_installation, resolved_settings

    if show_settings:
        sys.stdout.write(resolved_settings(config))
        return
    summary = check_installation(config, warehouse)
    if as_json:
        print_json(summary)
    else:
        show(doctor_table(summary))
    if not summary.ok:
        raise typer.Exit(FAULT)
