"""`cac train`: from a table of annotated studies to weights that `cac score` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.cli.options import JsonOption, QuietOption, complain, console, print_json, show
from flows.runtime.progress import RunProgress
from flows.runtime.results_folder import require_new

if TYPE_CHECKING:
    from cac_core.training.settings import TrainingSettings

app = typer.Typer(
    help="Train the networks on your own annotated scans, or on synthetic scans.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_ADVANCED = "Advanced"

TableArgument = Annotated[
    Path, typer.Argument(help="Training table (CSV or Parquet); see docs/training.md.")
]
MappingOption = Annotated[
    Path | None, typer.Option("--mapping", help="TOML file that maps your labels to ours.")
]
SamplesOption = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        help="Folder for prepared samples; default: beside the table.",
        rich_help_panel=_ADVANCED,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder of real chests, for implanted studies.", rich_help_panel=_ADVANCED
    ),
]


class Keep(StrEnum):
    """Weights at the end of a run: of the best validation, or the last."""

    BEST = "best"
    LAST = "last"


OutOption = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
ReaderOption = Annotated[
    list[str] | None,
    typer.Option("--reader", help="Use the annotations of this reader only; may be repeated."),
]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Training steps.", min=1)]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Random seed.", min=0)]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda.")]
NetworkOption = Annotated[
    str,
    typer.Option(
        "--network",
        help="convlstm, or one to compare with: unet, single, mean, ...",
        rich_help_panel=_ADVANCED,
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option("--batch", help="Samples per step.", min=1, rich_help_panel=_ADVANCED),
]
RateOption = Annotated[
    float | None,
    typer.Option("--learning-rate", help="Peak rate.", min=0, rich_help_panel=_ADVANCED),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        "--patience",
        help="Validations without a lower loss before training stops.",
        rich_help_panel=_ADVANCED,
    ),
]
KeepOption = Annotated[
    Keep | None,
    typer.Option(
        "--keep",
        help="Weights to keep: of the best validation, or the last.",
        rich_help_panel=_ADVANCED,
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", help="auto, float32 or bfloat16.", rich_help_panel=_ADVANCED),
]
BeginOption = Annotated[
    Path | None,
    typer.Option(
        "--begin",
        help="Folder of weights to continue training from.",
        rich_help_panel=_ADVANCED,
    ),
]
BeginHeartOption = Annotated[
    int,
    typer.Option(
        "--begin-heart",
        min=1,
        help="Number of the heart network in --begin, if it has several.",
        rich_help_panel=_ADVANCED,
    ),
]
LowDoseOption = Annotated[
    bool,
    typer.Option(
        "--low-dose",
        help="Slices of 5 mm at 20 mA, the highest noise.",
        rich_help_panel=_ADVANCED,
    ),
]
BalancedOption = Annotated[
    bool,
    typer.Option(
        "--balanced",
        "--teaching",
        help="Many plaques of any shape, in all arteries equally.",
        rich_help_panel=_ADVANCED,
    ),
]
CoronaryBiasOption = Annotated[
    float,
    typer.Option(
        "--favour-coronary",
        help="Added to the score of the coronary class.",
        rich_help_panel=_ADVANCED,
    ),
]
MeanWithOption = Annotated[
    Path | None,
    typer.Option(
        "--mean-with",
        help="Initial weights of the calcium network: export the mean of both.",
        rich_help_panel=_ADVANCED,
    ),
]
HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", help="Implant calcium in this real chest; may be repeated."),
]
MeshOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mesh",
        help="Replace the heart of each --host by this mesh (female, male, rodero); repeatable.",
    ),
]
HeartRunsOption = Annotated[
    list[Path],
    typer.Option(
        "--heart",
        help="Folder of a heart network's run, or of weights to keep theirs; several are averaged.",
    ),
]
CalciumRunOption = Annotated[
    Path, typer.Option("--calcium", help="Folder of the calcium network's run.")
]


@app.command("table", epilog="Example: `cac train table own/table.csv --synthetic 600`")
def table_command(
    out: Annotated[Path, typer.Argument(help="Training table to write (.csv or .parquet).")],
    synthetic: Annotated[int, typer.Option("--synthetic", help="Number of studies.", min=1)] = 600,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first study.", min=0)] = 300_000,
    annotation: Annotated[
        str, typer.Option("--annotation", help="`truth`, or `reader` for a simulated reader.")
    ] = "truth",
    low_dose: LowDoseOption = False,
    balanced: BalancedOption = False,
    host: HostOption = None,
    mesh: MeshOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a training table of synthetic or implanted studies, without a split."""
    from cac_core.training.synthetic import implanted_names, made_table, synthetic_names
    from cac_core.training.table import write_training_table

    if host and (low_dose or balanced):
        raise typer.BadParameter("--low-dose and --balanced cannot be used with --host")
    if mesh and not host:
        raise typer.BadParameter("--mesh needs a --host, the chest around the heart")
    require_new(out)
    names = (
        implanted_names(synthetic, seed, host, mesh or ())
        if host
        else synthetic_names(synthetic, seed, low_dose=low_dose, balanced=balanced)
    )
    table = made_table(names, annotation, data, RunProgress(console, quiet=quiet))
    write_training_table(out, table)
    _report({"table": str(out), "studies": table.num_rows}, as_json)


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
    """Split by patient: a tenth each for validation and internal test, equal per CAC category."""
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
    help="Train the heart network. The same command resumes an interrupted run.",
    epilog="Example: `cac train heart split.csv --out runs/heart`",
)
@app.command(
    "calcium",
    help="Train the calcium network. The same command resumes an interrupted run.",
    epilog="Example: `cac train calcium split.csv --out runs/calcium`",
)
def network_command(
    context: typer.Context,
    table: TableArgument,
    out: OutOption,
    mapping: MappingOption = None,
    reader: ReaderOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    begin: BeginOption = None,
    begin_heart: BeginHeartOption = 1,
    learning_rate: RateOption = None,
    batch: BatchOption = None,
    patience: PatienceOption = None,
    keep: KeepOption = None,
    precision: PrecisionOption = None,
    network: NetworkOption = "convlstm",
    samples: SamplesOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the network that the command is named after."""
    # Long, because every option has a line.
    from cac_core.training.sample_store import TrainingData
    from cac_core.training.train import initial_weights, train

    kind: Any = context.info_name
    settings = _settings(
        kind,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        patience=patience,
        seed=seed,
        keep=keep and keep.value,
        device=device,
        precision=precision,
    )
    result = train(
        kind,
        TrainingData(table, mapping, samples, data),
        out,
        RunProgress(console, quiet=quiet),
        readers=reader or (),
        network=network,
        settings=settings,
        initial=initial_weights(kind, begin, begin_heart),
    )
    _report(result, as_json)


def _settings(kind: Any, **given: Any) -> TrainingSettings:
    """Default settings of a network, changed by the options that were given."""
    from cac_core.training.settings import default_settings

    return replace(
        default_settings(kind), **{name: v for name, v in given.items() if v is not None}
    )


@app.command(
    "export", epilog="Example: `cac train export split.csv --heart H --calcium C --out weights`"
)
@app.command(
    "ship",
    hidden=True,
    epilog="Example: `cac train export split.csv --heart H --calcium C --out weights`",
)
def export_command(
    context: typer.Context,
    table: TableArgument,
    heart: HeartRunsOption,
    calcium: CalciumRunOption,
    out: Annotated[Path, typer.Option("--out", help="New folder for the weights.")],
    mapping: MappingOption = None,
    samples: SamplesOption = None,
    data: DataOption = None,
    favour_coronary: CoronaryBiasOption = 0.0,
    mean_with: MeanWithOption = None,
    version: Annotated[str, typer.Option("--name", help="Version name in the model id.")] = "own",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Calibrate the networks on the validation part and write weights for `cac score --model`."""
    from cac_core.training.export import export_weights
    from cac_core.training.sample_store import TrainingData

    if context.info_name == "ship":
        complain("`cac train ship` is deprecated; use `cac train export` with the same options.")
    result = export_weights(
        heart,
        calcium,
        TrainingData(table, mapping, samples, data),
        out,
        RunProgress(console, quiet=quiet),
        coronary_bias=favour_coronary,
        mean_with=mean_with,
        version=version,
    )
    _report(result, as_json)


@app.command(
    "confidence",
    epilog="Example: `cac train confidence split.csv --model weights --out weights-refitted`",
)
def confidence_command(
    table: TableArgument,
    out: Annotated[Path, typer.Option("--out", help="New folder for the weights.")],
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="Folder of weights; default: the shipped ones."),
    ] = None,
    mapping: MappingOption = None,
    samples: SamplesOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit how sure a score is on the validation part, for weights that exist; writes a copy."""
    from cac_core.training.export import refit_confidence
    from cac_core.training.sample_store import TrainingData

    progress = RunProgress(console, quiet=quiet)
    result = refit_confidence(model, TrainingData(table, mapping, samples, data), out, progress)
    _report(result, as_json)


def _report(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        if not isinstance(value, dict | list):
            show(f"{name}: {value}")
