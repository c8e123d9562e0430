"""`cac deployment`: a site with a Prefect server of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from flows.cli.options import DryRunOption, JsonOption, console, print_json, show, show_planned

app = typer.Typer(
    no_args_is_help=True, help="Server, worker and deployments of a site with a Prefect server."
)

_Config = Annotated[Path, typer.Option("--config", "-c", help="Settings file.")]
_Runs = Annotated[
    int,
    typer.Option("--runs-at-once", min=1, help="Flow runs at the same time; the rest wait."),
]


@app.command(epilog="Example: `cac deployment units /root/cac-units --config /etc/cac/cac.toml`")
def units(
    folder: Annotated[Path, typer.Argument(help="Folder for the files.")],
    config: _Config,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            help="User of the worker: reads the archive, writes the warehouse.",
            show_default="who runs this command; for root: cac",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port of the server, on loopback.")
    ] = 4200,
    runs_at_once: _Runs = 2,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write systemd units of a Prefect server on PostgreSQL and of its worker.

    `install.sh` beside them installs both and registers the deployments; read it first.
    """
    from flows.deployment.units import UnitsRequest, units, write_units
    from flows.summaries import UnitsSummary

    request = UnitsRequest(folder, str(config.resolve()), user, port, runs_at_once)
    if dry_run:
        planned = [str(folder / name) for name in units(request)]
        from flows.summaries import PlannedWrites

        show_planned(PlannedWrites(planned), as_json)
        return
    files = write_units(request)
    if as_json:
        print_json(UnitsSummary(files))
        return
    for file in files:
        show(file)
    _say(f"As root: {files[-1]}")


@app.command(epilog="Example: `cac deployment register --config /etc/cac/cac.toml`")
def register(
    config: _Config,
    runs_at_once: _Runs = 2,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for a server that is starting.")
    ] = 0.0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Register pool, deployments, schedules and automations on the site's Prefect server.

    The server is that of `PREFECT_API_URL`. Run it again after each change of [schedule] and each
    new version: what is there is changed, and schedules that are no longer wanted are removed.
    """
    from flows.cli.operation_tables import deployment_table
    from flows.deployment.register import RegisterRequest, planned
    from flows.deployment.register import register as register_deployments

    if dry_run:
        show_planned(planned(str(config.resolve())), as_json)
        return
    request = RegisterRequest(str(config.resolve()), runs_at_once, wait)
    summary = register_deployments(request, _say)
    if as_json:
        print_json(summary)
    else:
        show(deployment_table(summary))


def _say(text: str) -> None:
    console.print(Text(text), highlight=False, soft_wrap=True)
