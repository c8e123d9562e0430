"""`cac evaluate`: agreement of two sources of scores, or of the model with a known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cac_core.errors import UsageError
from flows.cli.options import (
    JsonOption,
    QuietOption,
    WarehouseOption,
    complain,
    console,
    print_json,
    show,
)


class _FormerOptions(TyperGroup):
    """Takes the command line of earlier versions too, which had options in place of commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front that the options of an earlier version mean."""
        if args and args[0].startswith("-") and args[0] != "--help":
            args = _with_command(args)
            complain(f"This form of the command is outdated; write: cac evaluate {args[0]} ...")
        return super().parse_args(ctx, args)


def _with_command(args: list[str]) -> list[str]:
    """The arguments of an earlier version with their command in front."""
    if any(arg.startswith(("-w", "--warehouse")) for arg in args):
        return ["archive", *args]
    for place, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == "--set":
            rest = args[place + 1 :] if equals else args[place + 2 :]
            named = [value] if equals else args[place + 1 : place + 2]
            return ["set", *named, *args[:place], *rest]
    return ["synthetic", *args]


app = typer.Typer(
    cls=_FormerOptions,
    no_args_is_help=True,
    help="Compare scores with readings or with a known truth: kappa, r2, ICC, Bland-Altman.",
)

ByOption = Annotated[
    str | None, typer.Option("--by", help="Columns to group by, separated by commas.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for JSON, studies, estimates, pictures.")
]


@app.command(
    epilog="Example: `cac evaluate archive -w /data/cac --against reader:anna --readings r.csv`"
)
def archive(
    warehouse: WarehouseOption = None,
    source: Annotated[
        str, typer.Option("--source", help="model, model:ID, reader:NAME, visual:NAME or truth.")
    ] = "model",
    against: Annotated[
        str | None, typer.Option("--against", help="The reference: the same choices.")
    ] = None,
    readings: Annotated[
        Path | None, typer.Option("--readings", help="Table `readings`, CSV or Parquet.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="truth.parquet of a synthetic archive.")
    ] = None,
    by: ByOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the scores of a warehouse with readings, or with the truth of a synthetic archive.

    `--against reader:NAME --readings FILE` for readings, `--truth FILE` for a synthetic archive;
    by scanner with `--by Manufacturer`.
    """
    from cac_core.evaluation.evaluate import compare_sources
    from cac_core.evaluation.sources import Source, pair_sources

    if warehouse is None:
        raise UsageError("No warehouse is named.", "Name its folder with --warehouse.")
    if against is None and truth is None:
        raise typer.BadParameter("name the reference with --against, or --truth")
    _require_out(out)
    reference = Source.parse(against or "truth")
    pairs = pair_sources(warehouse, Source.parse(source), reference, readings, truth)
    _finish(compare_sources(pairs, _columns(by)), out, as_json)


@app.command("set", epilog="Example: `cac evaluate set external --by noise_hu --out evaluation`")
def frozen_set(
    name: Annotated[str, typer.Argument(help="external, semi-synthetic or cross-generator.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of real chests, for semi-synthetic.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Folder to keep the scans of the set in.")
    ] = None,
    studies: Annotated[
        int | None, typer.Option("--studies", help="How many; default: the whole set.", min=2)
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            "-m",
            help="Folder of weights. Several for semi-synthetic: each judges chests it never saw.",
        ),
    ] = None,
    by: ByOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare the model with the truth of a frozen test set, whose digest is checked."""
    from cac_core.evaluation.evaluate import evaluate_set
    from flows.runtime.progress import RunProgress

    models: list[Path | None] = [*model] if model else [None]
    if len(models) > 1 and name != "semi-synthetic":
        raise typer.BadParameter("several --model are for the set semi-synthetic")
    _require_out(out)
    progress = RunProgress(console, quiet=quiet)
    result = evaluate_set(name, data, studies, models, _columns(by), progress, keep)
    _finish(result, out, as_json)


@app.command(epilog="Example: `cac evaluate synthetic --studies 40 --seed 9000`")
def synthetic(
    studies: Annotated[int, typer.Option("--studies", help="How many.", min=2)] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first study.", min=0)] = 5000,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="Folder of weights; default: the shipped ones."),
    ] = None,
    by: ByOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare the model with the truth of new synthetic scans, made and scored in memory."""
    from cac_core.evaluation.evaluate import evaluate_unseen
    from flows.runtime.progress import RunProgress

    _require_out(out)
    progress = RunProgress(console, quiet=quiet)
    _finish(evaluate_unseen(studies, seed, model, _columns(by), progress), out, as_json)


def _columns(by: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in by.split(",")) if by else ()


def _require_out(out: Path | None) -> None:
    """Refuse a folder that the result cannot be written into, before hours are spent on it."""
    from flows.pages.evaluation import require_evaluation_folder

    if out is not None:
        require_evaluation_folder(out)


def _finish(result: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from flows.cli.tables import agreement_tables
    from flows.pages.evaluation import write_evaluation

    if out is not None:
        write_evaluation(out, result)
    if as_json:
        print_json(result)
        return
    for part in agreement_tables(result):
        show(part)
