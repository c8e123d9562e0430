"""`cac init`: the settings file of a site, from options or from answers."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import DryRunOption, JsonOption, complain, print_json, show

app = typer.Typer()


class ClusterKind(StrEnum):
    """Where the studies are scored."""

    LOCAL = "local"
    ADDRESS = "address"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"


@app.command(
    "init",
    epilog="Example: `cac init --archive /archive/spect-ct -w /data/cac --key-file linkage.key "
    "--make-key`",
)
def init_command(
    settings: Annotated[Path, typer.Argument(help="Settings file to write.")] = Path("cac.toml"),
    archive: Annotated[
        list[str] | None,
        typer.Option(
            "--archive",
            help="Folder or URL of DICOM studies; may be repeated.",
            show_default="not set",
        ),
    ] = None,
    warehouse: Annotated[
        str | None,
        typer.Option(
            "--warehouse",
            "-w",
            help="Folder or fsspec URL for the tables.",
            show_default="not set",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            help="File with the linkage secret.",
            show_default="not set: the variable CAC_LINKAGE_KEY",
        ),
    ] = None,
    make_key: Annotated[
        bool, typer.Option("--make-key", help="Make the key file, with a new secret, mode 0600.")
    ] = False,
    cluster: Annotated[
        ClusterKind | None,
        typer.Option("--cluster", help="Where studies are scored.", show_default="local"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", help="Dask scheduler, for --cluster address.", show_default="not set"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", help="Worker processes.", min=1, show_default="one per usable core"
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping", help="Description of the registry extracts.", show_default="not set"
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a settings file with every key, its comment and its default.

    On a terminal, asks for what no option gives; elsewhere such keys stay at their defaults.
    Nothing is overwritten.
    """
    from flows.setup import InitRequest, prepare_settings, write_settings

    given = _Answers(archive, warehouse, key_file, make_key)
    if sys.stdin.isatty() and not (as_json or dry_run):
        given.ask(settings)
    values: dict[str, Any] = {
        "archive": [_absolute(place) for place in given.archive or ()],
        "warehouse": _absolute(given.warehouse),
        "key_file": given.key_file and str(given.key_file.absolute()),
        "cluster": {"kind": cluster and cluster.value, "address": address, "workers": workers},
        "linkage": {"mapping": mapping and str(mapping.absolute())},
    }
    request = InitRequest(settings, _set(values), given.make_key)
    if dry_run:
        text = prepare_settings(request)
        if as_json:
            print_json({"dry_run": True, "settings": str(settings), "text": text})
        else:
            sys.stdout.write(text)
        return
    done = write_settings(request)
    if as_json:
        print_json(done)
        return
    show(f"{done.settings} is written; check it with: cac doctor --config {done.settings}")
    if done.made_key:
        show(
            f"{done.key_file} holds a new secret. Back it up: no key can be made again without it."
        )
    from cac_core.storage import is_url

    for place in given.archive or ():
        if not (is_url(place) or Path(place).exists()):
            complain(f"The archive {place} does not exist yet.")


class _Answers:
    """What the options say, completed by what a person answers."""

    def __init__(
        self,
        archive: list[str] | None,
        warehouse: str | None,
        key_file: Path | None,
        make_key: bool,
    ) -> None:
        self.archive, self.warehouse = archive, warehouse
        self.key_file, self.make_key = key_file, make_key

    def ask(self, settings: Path) -> None:
        """Ask for each key without a value; an empty answer leaves it at its default."""
        if not self.archive:
            folder = _ask("Folder of the DICOM studies")
            self.archive = [folder] if folder else None
        if self.warehouse is None:
            self.warehouse = _ask("Folder for the tables (warehouse)") or None
        if self.key_file is None:
            named = _ask("File with the linkage secret", str(settings.with_name("linkage.key")))
            self.key_file = Path(named) if named else None
        if self.key_file and not self.key_file.exists() and not self.make_key:
            self.make_key = typer.confirm(f"Make {self.key_file} now?", default=True, err=True)


def _ask(question: str, default: str = "") -> str:
    answer: str = typer.prompt(question, default=default, show_default=bool(default), err=True)
    return str(Path(answer).expanduser()) if answer.startswith("~") else answer.strip()


def _absolute(place: str | None) -> str | None:
    from cac_core.storage import is_url

    if place is None or is_url(place):
        return place
    return str(Path(place).absolute())


def _set(values: dict[str, Any]) -> dict[str, Any]:
    """Values without those that are not given."""
    kept = {
        name: _set(value) if isinstance(value, dict) else value for name, value in values.items()
    }
    return {name: value for name, value in kept.items() if value not in (None, [], {})}
