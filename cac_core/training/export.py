"""Export of trained networks as weights: averaging, calibration, confidence, manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cac_core.errors import UsageError
from cac_core.model.weights import (
    add_class_bias,
    average_weights,
    is_weights_folder,
    load_network,
    require_plain_name,
    save_weights,
    verify_weights,
)
from cac_core.processes import worker_pool
from cac_core.progress import Progress
from cac_core.scoring.confidence import ConfidenceModel
from cac_core.training.calibration import calibrate
from cac_core.training.comparison_networks import build_network
from cac_core.training.confidence import calibrate_confidence
from cac_core.training.loop import load_trained
from cac_core.training.records import CalibrationRecord, ExportResult, Kind, RunRecord
from cac_core.training.sample_store import TrainingData, prepare_samples
from cac_core.training.samples import SampleFiles
from cac_core.training.synthetic import hosts_of
from cac_core.training.table import read_training_table, rows_of, split_digest

_MAX_HEARTS = 9
_MODEL_NAME = "convlstm"
_BACKGROUND, _CORONARY = 0, 1


def export_weights(
    heart_runs: Sequence[Path],
    calcium_run: Path,
    data: TrainingData,
    out: Path,
    progress: Progress,
    *,
    coronary_bias: float = 0.0,
    mean_with: Path | None = None,
    version: str = "own",
) -> ExportResult:
    """Calibrate trained networks on the validation part and write them as weights.

    Parameters
    ----------
    heart_runs : folders of runs of heart networks, or of weights whose heart networks are kept;
        the probabilities of all are averaged.
    calcium_run : folder of the run of the calcium network.
    data : its table names the validation part.
    out : new folder for the weights.
    coronary_bias : added to the score of the coronary class before the calibration.
    mean_with : folder of the initial weights of the calcium network. The exported network is the
        mean of both, parameter by parameter, which keeps most of what either has learned
        (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
    version : version in the model id.

    Raises
    ------
    UsageError
        If `out` exists, there are too many heart networks, or `mean_with` is not the initial
        weights of the calcium network.
    TrainingError
        If a run is not finished.
    WeightsError
        If the version cannot be part of a model id.
    """
    if out.exists():
        raise UsageError(f"{out} exists already.", "Remove it, or name another folder.")
    require_plain_name(version, "version")
    networks, training = _load_runs(heart_runs, calcium_run)
    if mean_with is not None:
        _average_with(networks["calcium"], training["calcium"], mean_with, calcium_run)
    add_class_bias(networks["calcium"], _CORONARY, coronary_bias)
    table = read_training_table(data.table)
    rows = rows_of(table, "validation")
    held_out = prepare_samples(rows, data, progress)
    calibration, confidence = _calibrated(networks, training, held_out, out, progress)
    calibration["coronary_offset"] = coronary_bias
    calibration["split_digest"] = split_digest(table)
    calibration["data"] = {"hosts": hosts_of(rows)}
    training["calibration"] = calibration
    add_class_bias(networks["calcium"], _BACKGROUND, calibration["background_offset"])
    manifest = save_weights(
        out,
        networks,
        name=_MODEL_NAME,
        version=version,
        training=training,
        confidence=confidence.as_manifest(),
    )
    return ExportResult(weights=str(out), model=manifest.model_id, training=training)


def refit_confidence(
    model: Path | None, data: TrainingData, out: Path, progress: Progress
) -> ExportResult:
    """Fit the confidence of a score for finished weights, and write a copy with it.

    Parameters
    ----------
    model : folder of weights; None for the shipped ones.
    data : its table names the validation part, which must not have been used in training.
    out : new folder for the copy.

    Raises
    ------
    UsageError
        If `out` exists.
    """
    if out.exists():
        raise UsageError(f"{out} exists already.", "Remove it, or name another folder.")
    weights = verify_weights(model)
    held_out = prepare_samples(
        rows_of(read_training_table(data.table), "validation"), data, progress
    )
    with worker_pool(len(held_out.paths)) as pool:
        confidence, fit = calibrate_confidence(weights.folder, held_out, pool, progress)
    training = dict(weights.training)
    training["calibration"] = {**training.get("calibration", {}), "confidence": fit}
    manifest = save_weights(
        out,
        {name: load_network(weights, name) for name in (*weights.hearts, "calcium")},
        name=weights.name,
        version=weights.version,
        training=training,
        confidence=confidence.as_manifest(),
    )
    return ExportResult(weights=str(out), model=manifest.model_id, training=training)


def _load_runs(
    heart_runs: Sequence[Path], calcium_run: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Networks and records of finished runs, under the names of the manifest."""
    hearts = [found for run in heart_runs for found in _hearts_of(run)]
    if len(hearts) > _MAX_HEARTS:
        raise UsageError(f"{len(hearts)} heart networks are too many.", f"At most {_MAX_HEARTS}.")
    named = {f"heart-{n}" if n > 1 else "heart": each for n, each in enumerate(hearts, start=1)}
    named["calcium"] = _network_of_run("calcium", calcium_run)
    networks = {name: network for name, (network, _) in named.items()}
    return networks, {name: record for name, (_, record) in named.items()}


def _hearts_of(folder: Path) -> Iterator[tuple[Any, Any]]:
    """Heart networks of a run or of weights, each with the record of its training."""
    if not is_weights_folder(folder):
        yield _network_of_run("heart", folder)
        return
    weights = verify_weights(folder)
    for name in weights.hearts:
        yield load_network(weights, name), weights.training.get(name, {})


def _network_of_run(kind: Kind, run: Path) -> tuple[Any, Any]:
    """The network of a finished run and its record."""
    network = build_network("convlstm", kind, 0)
    return network, load_trained(run, network)


def _average_with(network: Any, record: RunRecord, mean_with: Path, run: Path) -> None:
    """Average the calcium network with its initial weights."""
    earlier = verify_weights(mean_with)
    before = load_network(earlier, "calcium")
    initial = record.get("data", {}).get("begun_from")
    if initial != earlier.model_id or before.config != network.config:
        raise UsageError(
            f"The calcium network in {run} was not trained further from {earlier.model_id}.",
            "Name its initial weights, of a network of the same width and depth.",
        )
    average_weights(network, before)
    record["mean_with"] = earlier.model_id


def _calibrated(
    networks: Mapping[str, Any],
    training: Mapping[str, Any],
    held_out: SampleFiles,
    out: Path,
    progress: Progress,
) -> tuple[CalibrationRecord, ConfidenceModel]:
    """Calibrate the networks; worker processes load them from a temporary folder beside `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder,
        worker_pool(len(held_out.paths)) as pool,
    ):
        uncalibrated = Path(folder)
        save_weights(
            uncalibrated, networks, name=_MODEL_NAME, version="uncalibrated", training=training
        )
        record = calibrate(uncalibrated, held_out, pool, progress)
        offset = record["background_offset"]
        confidence, fit = calibrate_confidence(uncalibrated, held_out, pool, progress, offset)
    record["confidence"] = fit
    return record, confidence
