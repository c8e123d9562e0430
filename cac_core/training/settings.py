"""Settings of a training run, with the defaults of both networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cac_core.errors import UsageError
from cac_core.training.records import Kind

Keep = Literal["best", "last"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Length, rate and sampling of a training run; `focal_gamma` as in Lin et al., ICCV 2017.

    `patience` is the number of validations without a lower loss before training stops early.
    `keep` selects the weights at the end: those of the best validation, or the last ones. In a
    short run from earlier weights the last ones, trained at the lowest rate, are better.

    Raises
    ------
    UsageError
        If `keep` or `precision` is unknown.
    """

    steps: int = 5000
    batch: int = 6
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    focal_gamma: float = 2.0
    patch_px: int = 144
    background_share: float = 0.03
    validate_every: int = 250
    validation_batches: int = 24
    patience: int = 12
    keep: Keep = "best"
    precision: Precision = "auto"
    device: str = "cpu"
    seed: int = 1

    def __post_init__(self) -> None:
        """Check the options with a fixed set of values."""
        for name, known in (("keep", Keep), ("precision", Precision)):
            value = getattr(self, name)
            if value not in get_args(known):
                raise UsageError(
                    f"Unknown {name} {value!r}.", f"Choose from {', '.join(get_args(known))}."
                )


HEART_SETTINGS = TrainingSettings(steps=3000, batch=12)
CALCIUM_SETTINGS = TrainingSettings()


def default_settings(kind: Kind) -> TrainingSettings:
    """Default settings of a network."""
    return HEART_SETTINGS if kind == "heart" else CALCIUM_SETTINGS
