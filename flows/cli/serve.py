"""`cac serve`: the schedules of the settings on one machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from flows.cli.options import console

app = typer.Typer()


@app.command(epilog="Example: `cac serve --config /etc/cac/cac.toml`")
def serve(
    config: Annotated[Path, typer.Option("--config", "-c", help="Settings file.")],
    unit: Annotated[
        bool, typer.Option("--unit", help="Only print a systemd unit that runs this command.")
    ] = False,
) -> None:
    """Score every night, link every week and report every month, as the settings say.

    Runs until it is stopped, and starts each job in a process of its own, one at a time. The
    schedules are under [schedule] of the settings; linkage and report need `linkage.mapping`.
    """
    from flows.serve import serve as serve_schedules
    from flows.serve import unit as unit_of

    place = str(config.resolve())
    if unit:
        sys.stdout.write(unit_of(place))
        return
    try:
        serve_schedules(place, _say)
    except KeyboardInterrupt:
        _say("stopped")


def _say(text: str) -> None:
    console.print(Text(text), highlight=False, soft_wrap=True)
