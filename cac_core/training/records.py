"""What training writes down: records of runs, of the calibration and of an export (JSON)."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

#: Network to train: the heart mask, or the class of calcium.
Kind = Literal["heart", "calcium"]


class RunData(TypedDict):
    """Data of a training run, and the weights it started from."""

    table: str
    split_digest: str
    readers: list[str]
    network: str
    begun_from: str | None  # model id of the initial weights
    begun_from_network: str | None
    hosts: list[str]  # real chests and meshes in training, validation or the initial weights


class RunRecord(TypedDict):
    """Record of a training run, `record.json`; fields from `steps_done` on once it is finished."""

    kind: str
    architecture: str
    config: dict[str, Any]
    parameters: int
    settings: dict[str, Any]
    bfloat16: bool
    torch: str
    training_samples: int
    validation_samples: int
    samples_digest: str
    data: RunData | dict[str, Any]
    steps_done: NotRequired[int]
    stopped_early: NotRequired[bool]
    best_step: NotRequired[int]
    best_validation_loss: NotRequired[float]
    seconds: NotRequired[float]
    run: NotRequired[str]  # folder of the run, in the output of `cac train`
    mean_with: NotRequired[str]  # model id of weights averaged with, in a manifest


class ConfidenceRecord(TypedDict):
    """Fit of the confidence of a score, in a manifest.

    The log score is the mean logarithm of the chance of the class that the true score is in.
    """

    scans: int
    components: int
    log_score: float
    log_score_default: float  # with the parameters of weights without a fit


class CalibrationRecord(TypedDict):
    """The chosen class offsets and what was tried, in a manifest."""

    background_offset: float
    scans: int
    kappa_linear: float
    offset_of_least_disagreement: float
    kappa_by_offset: dict[str, float]
    coronary_offset: NotRequired[float]
    split_digest: NotRequired[str]
    confidence: NotRequired[ConfidenceRecord]
    data: NotRequired[dict[str, list[str]]]  # `hosts`: real chests of the validation part


class ExportResult(TypedDict):
    """Result of `cac train export`; `training` has a `RunRecord` per network and `calibration`."""

    weights: str
    model: str
    training: dict[str, Any]
