"""`cac doctor`: whether this installation can do its work."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.cli.options import FAULT, ConfigOption, JsonOption, print_json, show

app = typer.Typer()


@app.command(epilog="Example: `cac doctor --config cac.toml`")
def doctor(
    config: ConfigOption = None,
    show_settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting with its value.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this installation: versions, decoders, weights, secret, memory and disk."""
    from flows.cli.tables import doctor_table
    from flows.doctor import checks, resolved_settings

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
