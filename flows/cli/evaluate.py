"""`cac evaluate`: agreement of two sources of scores, or of the model with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cac_core.errors import UsageError
from flows.cli.options import (
    JsonOption,
    ModelOption,
    QuietOption,
    WarehouseOption,
    complain,
    console,
    print_json,
    show,
)


class _FormerOptions(TyperGroup):
    """Accepts the command line of earlier versions, which had options instead of commands."""

    # Typer has no public name for the type of a context of its own Click.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command that the options of an earlier version imply."""
        if args and args[0].startswith("-") and args[0] != "--help":
            args = _with_command(args)
            complain(f"This form of the command is deprecated; use: cac evaluate {args[0]} ...")
        return super().parse_args(ctx, args)


def _with_command(args: list[str]) -> list[str]:
    """The arguments of an earlier version, with the command inserted."""
    if any(arg.startswith(("-w", "--warehouse")) for arg in args):
        return ["archive", *args]
    for at, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == "--set":
            rest = args[at + 1 :] if equals else args[at + 2 :]
            named = [value] if equals else args[at + 1 : at + 2]
            return ["set", *named, *args[:at], *rest]
    return ["synthetic", *args]


app = typer.Typer(
    cls=_FormerOptions,
    no_args_is_help=True,
    help="Compare scores with readings or with the truth: kappa, r2, ICC, Bland-Altman.",
    epilog="Example: `cac evaluate set external --by noise_hu --out evaluation`",
)

ByOption = Annotated[
    str | None,
    typer.Option(
        "--by", help="Columns to group by, separated by commas.", show_default="no groups"
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for JSON, studies, estimates, figures.",
        show_default="nothing is written",
    ),
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
        str | None,
        typer.Option(
            "--against",
            help="The reference; same choices as --source.",
            show_default="truth, with --truth",
        ),
    ] = None,
    readings: Annotated[
        Path | None,
        typer.Option(
            "--readings",
            help="Table `readings`, CSV or Parquet; needed for readers and visual grades.",
            show_default="none",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="truth.parquet of a synthetic archive.", show_default="none"),
    ] = None,
    by: ByOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the scores of a warehouse with readings, or with the truth of a synthetic archive.

    Use `--against reader:NAME --readings FILE` for readings, `--truth FILE` for a synthetic
    archive, and `--by Manufacturer` to group by scanner.
    """
    from cac_core.evaluation.agreement import compare_sources
    from cac_core.evaluation.sources import Source, pair_sources

    if warehouse is None:
        raise UsageError("No warehouse is named.", "Name its folder with --warehouse.")
    _require_out(out)
    reference = Source.parse(_reference(against, truth))
    pairs = pair_sources(warehouse, Source.parse(source), reference, readings, truth)
    _finish(compare_sources(pairs, _columns(by)), out, as_json)


def _reference(against: str | None, truth: Path | None) -> str:
    if against is None and truth is None:
        raise UsageError(
            "There is nothing to compare the scores with.",
            "Name a reader and the table of readings (--against reader:NAME --readings FILE), or "
            "the truth.parquet of a synthetic archive (--truth FILE).",
        )
    return against or "truth"


@app.command("set", epilog="Example: `cac evaluate set external --by noise_hu --out evaluation`")
def frozen_set(
    name: Annotated[
        str, typer.Argument(help="external, semi-synthetic, cross-generator or mesh-hearts.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of real chests, for semi-synthetic and mesh-hearts.",
            show_default="none",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            help="Folder to cache the scans of the set in.",
            show_default="not kept",
        ),
    ] = None,
    studies: Annotated[
        int | None,
        typer.Option("--studies", help="Number of studies.", min=2, show_default="the whole set"),
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="ID|FOLDER",
            help="Model: the id of the shipped weights, or a folder of weights; several for "
            "semi-synthetic and mesh-hearts, each judging what it has not seen.",
            show_default="the shipped weights",
        ),
    ] = None,
    by: ByOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare the model with the truth of a frozen test set and check the digest of the set."""
    from cac_core.evaluation.evaluate import evaluate_set
    from cac_core.phantom.heldout.frozen_sets import anatomy_of_case
    from flows.runtime.progress import RunProgress

    models: list[Path | None] = [*model] if model else [None]
    if len(models) > 1 and not anatomy_of_case(name, 0):
        raise typer.BadParameter("only semi-synthetic and mesh-hearts take several --model")
    _require_out(out)
    progress = RunProgress(console, quiet=quiet)
    result = evaluate_set(
        name, progress, data=data, limit=studies, models=models, by=_columns(by), keep=keep
    )
    _finish(result, out, as_json)


@app.command(epilog="Example: `cac evaluate synthetic --studies 40 --seed 9000`")
def synthetic(
    studies: Annotated[int, typer.Option("--studies", help="Number of studies.", min=2)] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first study.", min=0)] = 5000,
    model: ModelOption = None,
    by: ByOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare the model with the truth of new synthetic scans, generated in memory."""
    from cac_core.evaluation.evaluate import evaluate_unseen
    from flows.runtime.progress import RunProgress

    _require_out(out)
    progress = RunProgress(console, quiet=quiet)
    result = evaluate_unseen(progress, studies=studies, seed=seed, model=model, by=_columns(by))
    _finish(result, out, as_json)


def _columns(by: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in by.split(",")) if by else ()


def _require_out(out: Path | None) -> None:
    """Check that the result can be written into the folder, before a long evaluation."""
    from flows.pages.evaluation import require_evaluation_folder

    if out is not None:
        require_evaluation_folder(out)


def _finish(result: Mapping[str, Any], out: Path | None, as_json: bool) -> None:
    from flows.cli.evaluation_tables import agreement_tables
    from flows.pages.evaluation import write_evaluation

    if out is not None:
        write_evaluation(out, dict(result))
    if as_json:
        print_json(result)
        return
    for part in agreement_tables(dict(result)):
        show(part)
