"""`cac train`: from a table of annotated studies to weights that `cac score` takes."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.cli.options import JsonOption, QuietOption, console, print_json, show
from flows.runtime.progress import RunProgress
from flows.runtime.results_folder import require_new

app = typer.Typer(
    help="Train the networks on your own annotated scans, or on synthetic ones.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

TableArgument = Annotated[
    Path, typer.Argument(help="Training table (CSV or Parquet); see docs/training.md.")
]
MappingOption = Annotated[
    Path | None, typer.Option("--mapping", help="TOML that maps your labels to ours.")
]
SamplesOption = Annotated[
    Path | None,
    typer.Option("--samples", help="Folder for prepared scans; default: beside the table."),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of real chests, for implanted studies.")
]


class Keep(StrEnum):
    """Which weights a run ends with."""

    BEST = "best"
    LAST = "last"


@app.command("table", epilog="Example: `cac train table own/table.csv --synthetic 600`")
def table_command(
    out: Annotated[Path, typer.Argument(help="Training table to write (.csv or .parquet).")],
    synthetic: Annotated[int, typer.Option("--synthetic", help="Number of studies.", min=1)] = 600,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first study.", min=0)] = 300_000,
    annotation: Annotated[
        str, typer.Option("--annotation", help="`truth`, or `reader` for a simulated reader.")
    ] = "truth",
    low_dose: Annotated[
        bool, typer.Option("--low-dose", help="All scans at 5 mm and 20 mA, the noisiest.")
    ] = False,
    teaching: Annotated[
        bool,
        typer.Option("--teaching", help="Many plaques, of every artery as many, of any shape."),
    ] = False,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="Implant them in this real chest instead; may be repeated."),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a training table of synthetic studies, or implanted ones, without a split."""
    from cac_core.training.synthetic import implanted_names, made_table, synthetic_names
    from cac_core.training.table import write_training_table

    if host and (low_dose or teaching):
        raise typer.BadParameter("--low-dose and --teaching are for synthetic people, not --host")
    require_new(out)
    names = (
        implanted_names(synthetic, seed, host)
        if host
        else synthetic_names(synthetic, seed, low_dose=low_dose, teaching=teaching)
    )
    table = made_table(names, annotation, data, RunProgress(console, quiet=quiet))
    write_training_table(out, table)
    _tell({"table": str(out), "studies": table.num_rows}, as_json)


@app.command("split", epilog="Example: `cac train split table.csv --out split.csv`")
def split_command(
    table: TableArgument,
    out: Annotated[Path, typer.Option("--out", help="Table to write, with the column `split`.")],
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same split.", min=0)] = 1,
    external_site: Annotated[
        list[str] | None,
        typer.Option("--external-site", help="All studies of this site become external test."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Split by patient: a tenth each to validation and internal test, equal per CAC category."""
    from cac_core.training.table import (
        read_training_table,
        split_digest,
        split_table,
        write_training_table,
    )
    from schemas.codes import CAC_CATEGORIES
    from schemas.training import SPLITS

    require_new(out)
    done = split_table(read_training_table(table), seed=seed, external_sites=external_site or ())
    write_training_table(out, done)
    rows = done.to_pylist()
    counts = {
        part: {
            category: sum(r["split"] == part and r["cac_category"] == category for r in rows)
            for category in CAC_CATEGORIES
        }
        for part in SPLITS
    }
    result = {"table": str(out), "digest": split_digest(done), "counts": counts}
    if as_json:
        print_json(result)
        return
    shown = Table("part", *CAC_CATEGORIES, "all")
    for part, by_category in counts.items():
        shown.add_row(part, *map(str, by_category.values()), str(sum(by_category.values())))
    show(shown)
    show(f"{out}, digest {result['digest']}")


@app.command(
    "heart",
    help="Train the heart network. The same command goes on where a killed run stopped.",
    epilog="Example: `cac train heart split.csv --out runs/heart`",
)
@app.command(
    "calcium",
    help="Train the calcium network. The same command goes on where a killed run stopped.",
    epilog="Example: `cac train calcium split.csv --out runs/calcium`",
)
def network_command(
    context: typer.Context,
    table: TableArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    mapping: MappingOption = None,
    samples: SamplesOption = None,
    data: DataOption = None,
    reader: Annotated[
        list[str] | None, typer.Option("--reader", help="Learn from this reader only.")
    ] = None,
    network: Annotated[
        str, typer.Option("--network", help="convlstm, or a baseline: unet, single, mean, ...")
    ] = "convlstm",
    steps: Annotated[int | None, typer.Option("--steps", min=1)] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", min=0)] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Validations without gain before it stops.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0)] = None,
    begin: Annotated[
        Path | None, typer.Option("--begin", help="Weights whose network is trained further.")
    ] = None,
    begin_heart: Annotated[
        int,
        typer.Option("--begin-heart", min=1, help="Which of the hearts in --begin, of several."),
    ] = 1,
    keep: Annotated[
        Keep | None,
        typer.Option("--keep", help="Weights to end with: of the best validation, or the last."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda.")] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="auto, float32 or bfloat16.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the network that the command is named after."""
    from cac_core.training.loop import CALCIUM_SETTINGS, HEART_SETTINGS
    from cac_core.training.run import train

    given: dict[str, Any] = {
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "patience": patience,
        "seed": seed,
        "keep": keep and keep.value,
        "device": device,
        "precision": precision,
    }
    kind: Any = context.info_name
    settings = replace(
        HEART_SETTINGS if kind == "heart" else CALCIUM_SETTINGS,
        **{name: value for name, value in given.items() if value is not None},
    )
    result = train(
        kind,
        table,
        out,
        RunProgress(console, quiet=quiet),
        mapping_path=mapping,
        samples=samples,
        readers=reader or (),
        network=network,
        settings=settings,
        begin=begin,
        begin_heart=begin_heart,
        data=data,
    )
    _tell(result, as_json)


@app.command(
    "ship", epilog="Example: `cac train ship split.csv --heart H --calcium C --out weights`"
)
def ship_command(
    table: TableArgument,
    heart: Annotated[
        list[Path],
        typer.Option("--heart", help="Folder of a heart network's run; several are averaged."),
    ],
    calcium: Annotated[Path, typer.Option("--calcium", help="Folder of the calcium network's.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the weights.")],
    mapping: MappingOption = None,
    samples: SamplesOption = None,
    data: DataOption = None,
    favour_coronary: Annotated[
        float,
        typer.Option("--favour-coronary", help="Added to the score of the coronary class."),
    ] = 0.0,
    mean_with: Annotated[
        Path | None,
        typer.Option(
            "--mean-with", help="Weights that the calcium network began from: ship both's mean."
        ),
    ] = None,
    version: Annotated[str, typer.Option("--name", help="Version name in the model id.")] = "own",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Calibrate both networks on the validation part and write weights for `cac score --model`."""
    from cac_core.training.run import ship

    result = ship(
        heart,
        calcium,
        table,
        out,
        RunProgress(console, quiet=quiet),
        mapping_path=mapping,
        samples=samples,
        favour_coronary=favour_coronary,
        mean_with=mean_with,
        version=version,
        data=data,
    )
    _tell(result, as_json)


def _tell(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        if not isinstance(value, dict | list):
            show(f"{name}: {value}")
