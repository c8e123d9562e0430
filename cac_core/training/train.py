"""Training of one network from a training table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cac_core.errors import UsageError
from cac_core.model.weights import (
    WeightsManifest,
    initialise_from,
    load_network,
    verify_weights,
)
from cac_core.progress import Progress
from cac_core.training.comparison_networks import build_network
from cac_core.training.loop import train_network, use_threads
from cac_core.training.records import Kind, RunData, RunRecord
from cac_core.training.sample_store import TrainingData, prepare_samples
from cac_core.training.settings import TrainingSettings, default_settings
from cac_core.training.synthetic import hosts_of
from cac_core.training.table import read_training_table, rows_of, split_digest


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """Weights to continue training from.

    Parameters
    ----------
    folder : folder of weights; training starts from its network of the same kind.
    heart : which of its heart networks, from 1.
    """

    folder: Path
    heart: int = 1


def initial_weights(kind: Kind, folder: Path | None, heart: int = 1) -> InitialWeights | None:
    """Initial weights from the options `--begin` and `--begin-heart`; None without `--begin`.

    Raises
    ------
    UsageError
        If a heart network is selected without a folder or for the calcium network.
    """
    if heart > 1 and (kind == "calcium" or folder is None):
        raise UsageError(
            "--begin-heart selects one of several heart networks in --begin.",
            "Name the weights with --begin, or leave it out.",
        )
    return InitialWeights(folder, heart) if folder else None


def train(
    kind: Kind,
    data: TrainingData,
    out: Path,
    progress: Progress,
    *,
    readers: Sequence[str] = (),
    network: str = "convlstm",
    settings: TrainingSettings | None = None,
    initial: InitialWeights | None = None,
) -> RunRecord:
    """Train one network on the training part of the table, validated on its validation part.

    Parameters
    ----------
    out : folder of the run; the same call resumes a run that was interrupted.
    readers : use the annotations of these readers only; default: all.
    network : one of `cac_core.training.comparison_networks.NETWORKS`.
    initial : weights to continue from; default: random weights.

    Raises
    ------
    UsageError
        If the initial weights do not have such a network, or it does not fit.
    TrainingDataError, TrainingError
        See `prepare_samples` and `train_network`.
    """
    earlier = _earlier_network(kind, initial) if initial else None
    table = read_training_table(data.table)
    parts = {part: rows_of(table, part, readers) for part in ("training", "validation")}
    samples = {part: prepare_samples(rows, data, progress) for part, rows in parts.items()}
    settings = settings or default_settings(kind)
    _use_all_threads()
    counts = ", ".join(f"{len(found.names)} {part} samples" for part, found in samples.items())
    progress.say(f"{kind}: {network}, {counts}, {settings.steps} steps")
    record = train_network(
        kind,
        _initial_network(network, kind, settings.seed, earlier),
        samples["training"],
        samples["validation"],
        settings,
        out,
        data=RunData(
            table=data.table.name,
            split_digest=split_digest(table),
            readers=sorted(readers) or sorted(set(table["reader"].to_pylist())),
            network=network,
            begun_from=earlier.weights.model_id if earlier else None,
            begun_from_network=earlier.name if earlier else None,
            hosts=_hosts(parts, earlier),
        ),
        progress=lambda step, steps, loss, held: progress.say(
            f"{kind}: step {step}/{steps}, loss {loss:.4f}, validation {held:.4f}"
        ),
    )
    record["run"] = str(out)
    return record


@dataclass(frozen=True, slots=True)
class _EarlierNetwork:
    """A network of earlier weights, by its name in their manifest."""

    weights: WeightsManifest
    name: str


def _earlier_network(kind: Kind, initial: InitialWeights) -> _EarlierNetwork:
    weights = verify_weights(initial.folder)
    if kind == "calcium":
        return _EarlierNetwork(weights, kind)
    if initial.heart > len(weights.hearts):
        raise UsageError(
            f"{weights.model_id} has {len(weights.hearts)} heart networks, "
            f"none of number {initial.heart}.",
            "Name one of them with --begin-heart.",
        )
    return _EarlierNetwork(weights, weights.hearts[initial.heart - 1])


def _hosts(
    parts: Mapping[str, Sequence[dict[str, str]]], earlier: _EarlierNetwork | None
) -> list[str]:
    """Real chests of the samples and of the initial weights: none is fit for evaluation."""
    own = {host for rows in parts.values() for host in hosts_of(rows)}
    return sorted(own | set(earlier.weights.hosts if earlier else ()))


def _use_all_threads() -> None:
    """Use `OMP_NUM_THREADS` threads, or all available processors."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    use_threads(max(1, int(wanted)) if wanted.isdecimal() else len(os.sched_getaffinity(0)))


def _initial_network(name: str, kind: Kind, seed: int, earlier: _EarlierNetwork | None) -> Any:
    """A network with random weights, or with those of an earlier network."""
    network = build_network(name, kind, seed)
    if earlier is None:
        return network
    if not initialise_from(network, load_network(earlier.weights, earlier.name)):
        raise UsageError(
            f"The {earlier.name} network in {earlier.weights.folder} is no smaller version of "
            f"{name}.",
            "Name weights of the same network, or train without --begin.",
        )
    return network
