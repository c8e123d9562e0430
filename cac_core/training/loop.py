"""The training loop of both networks: focal loss, checkpoints, early stopping, a record.

The batch of a step depends on the seed and the step number only, and a checkpoint holds all other
state. A run that was interrupted and resumed therefore ends with the same weights as one that was
not, on the same machine with the same number of threads.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cac_core.errors import TrainingDataError, TrainingError
from cac_core.model.convlstm import NetworkConfig
from cac_core.training.batches import Batch, BatchSettings, CalciumBatches, HeartBatches
from cac_core.training.records import Kind, RunData, RunRecord
from cac_core.training.samples import SampleFiles
from cac_core.training.settings import TrainingSettings

#: Called after each validation with (step, steps, training loss, validation loss).
Progress = Callable[[int, int, float, float], None]
CHECKPOINT, WEIGHTS, RECORD, CURVES = "checkpoint.pt", "network.pt", "record.json", "curves.csv"


@dataclass
class _State:
    """All state that the next step depends on."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    step: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    waited: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    def stored(self, identity: str) -> dict[str, Any]:
        plain = ("step", "best_loss", "best_step", "best", "waited", "seconds", "curve")
        return {
            "identity": identity,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            **{name: getattr(self, name) for name in plain},
        }

    def restore(self, stored: dict[str, Any]) -> None:
        for name, value in stored.items():
            if name in ("network", "optimiser", "schedule"):
                getattr(self, name).load_state_dict(value)
            elif name != "identity":
                setattr(self, name, value)


def train_network(
    kind: Kind,
    network: nn.Module,
    training: SampleFiles,
    validation: SampleFiles,
    settings: TrainingSettings,
    folder: Path,
    *,
    data: RunData | None = None,
    progress: Progress | None = None,
) -> RunRecord:
    """Train a network, or resume an interrupted run in `folder`.

    Parameters
    ----------
    kind : `heart` trains on the heart mask, `calcium` on the class of bright voxels.
    network : network with its initial weights; `config` states its sizes and receptive field.
    folder : folder for checkpoint, weights, curves and record.
    data : description of the samples for the record.

    Returns
    -------
    The record of the run. The network has the weights to keep, in inference mode; they are also in
    `folder`/network.pt.

    Raises
    ------
    TrainingDataError
        If a part has no samples, or none of a class that the network is trained on.
    TrainingError
        If the loss is not finite, the disk is full, or the folder holds another run. The last
        valid checkpoint is kept.
    """
    _check(kind, training, validation)
    record = _record_of(kind, network, training, validation, settings, data)
    identity = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    state = _initial_state(network, settings)
    _resume(state, folder, identity)
    source = HeartBatches if kind == "heart" else CalciumBatches
    config: NetworkConfig = network.config  # type: ignore[assignment]
    _optimise(
        state,
        source(training, config, _batch_settings(settings)).draw,
        source(validation, config, _batch_settings(settings, vary=False)).draw,
        settings,
        checkpoint=lambda: _write(folder / CHECKPOINT, state.stored(identity)),
        progress=progress,
    )
    if settings.keep == "best":
        network.load_state_dict(state.best)
    network.eval()
    return _finish(folder, state, record)


def _optimise(
    state: _State,
    draw: Callable[[int], Batch],
    draw_held: Callable[[int], Batch],
    settings: TrainingSettings,
    *,
    checkpoint: Callable[[], None],
    progress: Progress | None,
) -> None:
    """Run the remaining steps, with a validation and a checkpoint every `validate_every` steps."""
    started = time.perf_counter() - state.seconds
    recent: list[float] = []
    for batch in _prefetched(draw, state.step, _last_step(state, settings)):
        recent.append(_step(state, batch, settings))
        if state.step % settings.validate_every and state.step != settings.steps:
            continue
        loss = _validate(state.network, draw_held, settings)
        state.seconds = time.perf_counter() - started
        state.curve.append((state.step, sum(recent) / len(recent), loss))
        recent = []
        _keep_best(state, loss)
        checkpoint()
        if progress:
            progress(state.step, settings.steps, state.curve[-1][1], loss)
        if state.waited >= settings.patience:
            break


def _initial_state(network: nn.Module, settings: TrainingSettings) -> _State:
    # Not channels_last: oneDNN then returns NaN gradients of dilated bfloat16 convolutions.
    network.to(settings.device)
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.1
    )
    return _State(network, optimiser, schedule)


def focal_loss(scores: Tensor, target: Tensor, weight: Tensor, gamma: float) -> Tensor:
    """Weighted mean of (1 - p)^gamma x cross entropy (Lin et al., ICCV 2017, eq. 5).

    Parameters
    ----------
    scores : (n, classes, rows, columns), before softmax.
    target : (n, rows, columns), class indices.
    weight : (n, rows, columns), 0 for pixels that do not contribute.
    """
    plain = cross_entropy(scores, target, reduction="none")
    certain = torch.exp(-plain)
    return ((1 - certain) ** gamma * plain * weight).sum() / weight.sum().clamp(min=1.0)


def uses_bfloat16(settings: TrainingSettings) -> bool:
    """Whether to multiply in bfloat16: on request, or where the hardware supports it."""
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    if settings.device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def load_trained(folder: Path, network: nn.Module) -> RunRecord:
    """Load the weights of a finished run into a network; returns the record of the run.

    Raises
    ------
    TrainingError
        If the folder holds no finished run of such a network.
    """
    try:
        record: RunRecord = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        network.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"{folder} holds no finished training run ({type(error).__name__}).",
            "Run the training command again; it resumes where it stopped.",
        ) from None
    network.eval()
    return record


def use_threads(threads: int) -> None:
    """Set the number of threads that torch uses in this process."""
    torch.set_num_threads(threads)


def _check(kind: Kind, training: SampleFiles, validation: SampleFiles) -> None:
    for part, samples in (("training", training), ("validation", validation)):
        if not samples.names:
            raise TrainingDataError(
                f"The {part} part of the split holds no study.",
                "Check the column `split` of the training table, or create a new split.",
            )
        if kind != "calcium":
            continue
        for number, word in ((1, "coronary"), (2, "non-coronary")):
            if not any((samples[i].calcium == number).any() for i in range(len(samples.names))):
                raise TrainingDataError(
                    f"No study of the {part} part holds {word} calcium.",
                    "Add annotated studies with such calcium, or check the label mapping.",
                )


def _record_of(
    kind: Kind,
    network: nn.Module,
    training: SampleFiles,
    validation: SampleFiles,
    settings: TrainingSettings,
    data: RunData | None,
) -> RunRecord:
    record = {
        "kind": kind,
        "architecture": type(network).__name__,
        "config": network.config.as_manifest(),  # type: ignore[operator, union-attr]
        "parameters": sum(p.numel() for p in network.parameters()),
        "settings": dataclasses.asdict(settings),
        "bfloat16": uses_bfloat16(settings),
        "torch": torch.__version__,
        "training_samples": len(training.names),
        "validation_samples": len(validation.names),
        "samples_digest": hashlib.sha256(
            "\n".join([*training.names, "", *validation.names]).encode()
        ).hexdigest(),
        "data": data or {},
    }
    stored: RunRecord = json.loads(json.dumps(record))
    return stored


def _batch_settings(settings: TrainingSettings, vary: bool = True) -> BatchSettings:
    return BatchSettings(
        settings.batch,
        settings.patch_px,
        settings.background_share,
        # Validation uses a separate random stream, the same at every validation.
        settings.seed if vary else settings.seed + 1_000_000,
        vary,
    )


def _last_step(state: _State, settings: TrainingSettings) -> int:
    return state.step if state.waited >= settings.patience else settings.steps


def _prefetched(draw: Callable[[int], Batch], begin: int, end: int) -> Iterator[Batch]:
    """Batches of steps begin + 1 to end, each prepared during the step before."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(draw, begin + 1) if begin < end else None
        for step in range(begin + 1, end + 1):
            assert coming is not None
            batch = coming.result()
            coming = pool.submit(draw, step + 1) if step < end else None
            yield batch


def _step(state: _State, batch: Batch, settings: TrainingSettings) -> float:
    """One step of gradient descent; returns the loss."""
    state.network.train()
    loss = _loss(state.network, batch, settings)
    value = float(loss.detach())
    if not torch.isfinite(loss):
        raise TrainingError(
            f"The loss is {value} at step {state.step + 1}; the batch held "
            f"{', '.join(sorted(set(batch.names)))}.",
            "Check these studies, or lower the learning rate; the last valid checkpoint is kept.",
        )
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimiser.step()
    state.schedule.step()
    state.step += 1
    return value


def _loss(network: nn.Module, batch: Batch, settings: TrainingSettings) -> Tensor:
    batch = batch.to(settings.device)
    with torch.autocast(
        torch.device(settings.device).type, torch.bfloat16, enabled=uses_bfloat16(settings)
    ):
        scores = network.triples(batch.stacks, batch.margin, batch.position)  # type: ignore[operator]
    return focal_loss(scores.float(), batch.target, batch.weight, settings.focal_gamma)


@torch.inference_mode()
def _validate(
    network: nn.Module, draw: Callable[[int], Batch], settings: TrainingSettings
) -> float:
    network.eval()
    losses = [_loss(network, draw(n), settings) for n in range(settings.validation_batches)]
    return float(torch.stack(losses).mean())


def _keep_best(state: _State, loss: float) -> None:
    if loss < state.best_loss:
        state.best_loss, state.best_step, state.waited = loss, state.step, 0
        state.best = {k: v.detach().clone().cpu() for k, v in state.network.state_dict().items()}
    else:
        state.waited += 1


def _resume(state: _State, folder: Path, identity: str) -> None:
    path = folder / CHECKPOINT
    if not path.exists():
        return
    try:
        stored = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}).",
            "Remove the folder to start again, or name another one.",
        ) from None
    if stored["identity"] != identity:
        raise TrainingError(
            f"{folder} holds a run with other data, settings or network.",
            "Name another folder, or repeat the command that started this run.",
        )
    state.restore(stored)


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write to a temporary file, flush, rename: a checkpoint is always complete."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    _replace(path, buffer.getvalue())


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_suffix(".part")
    try:
        with aside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise TrainingError(
            f"{path} cannot be written ({error.strerror}).",
            "Free disk space and repeat the command; it resumes from the last checkpoint.",
        ) from None


def _finish(folder: Path, state: _State, record: RunRecord) -> RunRecord:
    record["steps_done"] = state.step
    record["stopped_early"] = state.waited > 0 and state.step < record["settings"]["steps"]
    record["best_step"] = state.best_step
    record["best_validation_loss"] = state.best_loss
    record["seconds"] = round(state.seconds, 1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "training_loss", "validation_loss"])
    writer.writerows(state.curve)
    _replace(folder / CURVES, text.getvalue().encode())
    _write(folder / WEIGHTS, {k: v.cpu() for k, v in state.network.state_dict().items()})
    _replace(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    return record
