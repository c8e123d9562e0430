"""`cac train`: from a table of annotated studies to weights that `cac score` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.cli.options import (
    DryRunOption,
    JsonOption,
    ModelOption,
    QuietOption,
    complain,
    console,
    print_json,
    show,
    show_planned,
)
from flows.cli.train_options import (
    BalancedOption,
    BatchOption,
    BeginHeartOption,
    BeginOption,
    CalciumRunOption,
    CoronaryBiasOption,
    DataOption,
    DeviceOption,
    HeartRunsOption,
    HostOption,
    KeepOption,
    LowDoseOption,
    MappingOption,
    MeanWithOption,
    MeshOption,
    NetworkOption,
    OutOption,
    PatienceOption,
    PrecisionOption,
    RateOption,
    ReaderOption,
    SamplesOption,
    SeedOption,
    StepsOption,
    TableArgument,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from cac_core.training.settings import TrainingSettings
    from flows.runtime.progress import RunProgress

app = typer.Typer(
    help="Train the networks on your own annotated scans, or on synthetic scans.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


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
    dry_run: DryRunOption = False,
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
    _require_new(out)
    names = (
        implanted_names(synthetic, seed, host, mesh or ())
        if host
        else synthetic_names(synthetic, seed, low_dose=low_dose, balanced=balanced)
    )
    if dry_run:
        return _show_writes(out, {"studies": len(names)}, as_json)
    table = made_table(names, annotation, data, _progress(quiet))
    write_training_table(out, table)
    _report({"table": str(out), "studies": table.num_rows}, as_json)


@app.command("split", epilog="Example: `cac train split table.csv --out split.csv`")
def split_command(
    table: TableArgument,
    out: Annotated[Path, typer.Option("--out", help="Table to write, with the column `split`.")],
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same split.", min=0)] = 1,
    external_site: Annotated[
        list[str] | None,
        typer.Option(
            "--external-site",
            help="All studies of this site become external test; may be repeated.",
            show_default="no external test",
        ),
    ] = None,
    dry_run: DryRunOption = False,
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

    _require_new(out)
    done = split_table(read_training_table(table), seed=seed, external_sites=external_site or ())
    if not dry_run:
        write_training_table(out, done)
    counts = _counts(done)
    result = {"table": str(out), "digest": split_digest(done), "counts": counts}
    if dry_run:
        return _show_writes(out, result, as_json)
    if as_json:
        return print_json(result)
    shown = Table("part", *CAC_CATEGORIES, "all")
    for part, by_category in counts.items():
        shown.add_row(part, *map(str, by_category.values()), str(sum(by_category.values())))
    show(shown)
    show(f"{out}, digest {result['digest']}")


def _counts(table: pa.Table) -> dict[str, dict[str, int]]:
    """Studies of each part by category."""
    from schemas.codes import CAC_CATEGORIES
    from schemas.training import SPLITS

    rows = table.to_pylist()
    return {
        part: {
            category: sum(r["split"] == part and r["cac_category"] == category for r in rows)
            for category in CAC_CATEGORIES
        }
        for part in SPLITS
    }


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
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the network that the command is named after."""
    # Long, because every option has a line.
    from cac_core.training.sample_store import TrainingData
    from cac_core.training.train import initial_weights, train
    from flows.training_preview import preview_training

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
    initial = initial_weights(kind, begin, begin_heart)
    inputs = TrainingData(table, mapping, samples, data)
    if dry_run:
        planned = preview_training(kind, inputs, out, reader or (), settings, initial)
        return show_planned(planned, as_json)
    result = train(
        kind,
        inputs,
        out,
        _progress(quiet),
        readers=reader or (),
        network=network,
        settings=settings,
        initial=initial,
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
    dry_run: DryRunOption = False,
    favour_coronary: CoronaryBiasOption = 0.0,
    mean_with: MeanWithOption = None,
    version: Annotated[str, typer.Option("--name", help="Version name in the model id.")] = "own",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Calibrate the networks on the validation part and write weights for `cac score --model`."""
    from cac_core.training.export import export_weights
    from cac_core.training.sample_store import TrainingData
    from flows.training_preview import preview_export

    if context.info_name == "ship":
        complain("`cac train ship` is deprecated; use `cac train export` with the same options.")
    inputs = TrainingData(table, mapping, samples, data)
    if dry_run:
        return show_planned(preview_export(heart, calcium, inputs, out), as_json)
    result = export_weights(
        heart,
        calcium,
        inputs,
        out,
        _progress(quiet),
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
    model: ModelOption = None,
    mapping: MappingOption = None,
    samples: SamplesOption = None,
    data: DataOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit how sure a score is on the validation part, for weights that exist; writes a copy."""
    from cac_core.training.export import refit_confidence
    from cac_core.training.sample_store import TrainingData
    from flows.training_preview import preview_confidence

    inputs = TrainingData(table, mapping, samples, data)
    if dry_run:
        return show_planned(preview_confidence(model, inputs, out), as_json)
    result = refit_confidence(model, inputs, out, _progress(quiet))
    _report(result, as_json)


def _report(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        if not isinstance(value, dict | list):
            show(f"{name}: {value}")


def _require_new(out: Path) -> None:
    from flows.runtime.results_folder import require_new

    require_new(out)


def _show_writes(out: Path, facts: Mapping[str, Any], as_json: bool) -> None:
    from flows.summaries import PlannedWrites

    show_planned(PlannedWrites([str(out)], dict(facts)), as_json)


def _progress(quiet: bool) -> RunProgress:
    from flows.runtime.progress import RunProgress

    return RunProgress(console, quiet=quiet)
