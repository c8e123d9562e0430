"""Options of `cac train`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_ADVANCED = "Advanced"

TableArgument = Annotated[
    Path, typer.Argument(help="Training table (CSV or Parquet); see docs/training.md.")
]
MappingOption = Annotated[
    Path | None,
    typer.Option(
        "--mapping",
        help="TOML file that maps your labels to ours.",
        show_default="the labels are ours",
    ),
]
SamplesOption = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        help="Folder for prepared samples.",
        show_default="samples, beside the table",
        rich_help_panel=_ADVANCED,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of real chests; needed for implanted studies only.",
        show_default="none",
        rich_help_panel=_ADVANCED,
    ),
]


class Keep(StrEnum):
    """Weights at the end of a run: of the best validation, or the last."""

    BEST = "best"
    LAST = "last"


OutOption = Annotated[Path, typer.Option("--out", help="Folder of the run, new or interrupted.")]
ReaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--reader",
        help="Use the annotations of this reader only; may be repeated.",
        show_default="all readers",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", help="Training steps.", min=1, show_default="heart 3000, calcium 5000"),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="Seed of initial weights and sampling; same seed, same run.",
        min=0,
        show_default="1",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="Where to train: cpu or cuda.", show_default="cpu"),
]
NetworkOption = Annotated[
    str,
    typer.Option(
        "--network",
        help="convlstm (the one that `cac score` takes), or one to compare with: single, "
        "sequence, mean, placeless, published, unet.",
        rich_help_panel=_ADVANCED,
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch",
        help="Samples per step.",
        min=1,
        show_default="heart 12, calcium 6",
        rich_help_panel=_ADVANCED,
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        help="Highest learning rate of the run.",
        min=0,
        show_default="0.003",
        rich_help_panel=_ADVANCED,
    ),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        "--patience",
        help="Validations without a lower loss before training stops.",
        show_default="12",
        rich_help_panel=_ADVANCED,
    ),
]
KeepOption = Annotated[
    Keep | None,
    typer.Option(
        "--keep",
        help="Weights to keep: of the best validation, or the last.",
        show_default="best",
        rich_help_panel=_ADVANCED,
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Numbers of the training: float32, bfloat16, or auto by the device.",
        show_default="auto",
        rich_help_panel=_ADVANCED,
    ),
]
BeginOption = Annotated[
    Path | None,
    typer.Option(
        "--begin",
        metavar="ID|FOLDER",
        help="Model to continue from: the id of the shipped weights, or a folder of weights.",
        show_default="random weights",
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
        metavar="ID|FOLDER",
        help="Model that the calcium network began from: export the mean of both.",
        show_default="the trained network alone",
        rich_help_panel=_ADVANCED,
    ),
]
HostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        help="Implant calcium in this real chest; may be repeated.",
        show_default="synthetic scans",
    ),
]
MeshOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mesh",
        help="Replace the heart of each --host by this mesh (female, male, rodero); repeatable.",
        show_default="the heart of the host",
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
