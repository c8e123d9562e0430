"""The training loop of both networks: focal loss, sampled background, fixed seed.

The heart network learns whole coarse slices. The calcium network learns patches: half of them
around calcium, half around something bright that is none (noise, valve, bone at the border); its
loss counts every calcium voxel, every bright voxel in or near the heart, and a random share of the
rest, which is the subset sampling of the majority class that the paper speaks of.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cac_core.model.convlstm import ConvLSTMSegmenter, NetworkConfig, inner
from cac_core.model.preprocess import normalise
from cac_core.model.training.samples import Sample

#: Called after every report with (step, steps, loss).
Progress = Callable[[int, int, float], None]
_BRIGHT_HU = 130


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How long and how fast to train; `focal_gamma` as in Lin et al., ICCV 2017."""

    steps: int = 3000
    batch: int = 8
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    focal_gamma: float = 2.0
    patch_px: int = 96
    background_share: float = 0.03
    coronary_weight: float = 1.0
    seed: int = 1
    report_every: int = 50


def train_network(
    kind: str,
    samples: Sequence[Sample],
    config: NetworkConfig,
    settings: TrainingSettings,
    progress: Progress | None = None,
) -> tuple[ConvLSTMSegmenter, dict[str, Any]]:
    """Train one network from scratch.

    Parameters
    ----------
    kind : `heart` or `calcium`.

    Returns
    -------
    The network in inference mode, and a record: settings, sizes, loss curve, seconds.

    Raises
    ------
    ValueError
        If there is no sample, or none that has what the network is to learn.
    FloatingPointError
        If the loss is no longer finite.
    """
    if not samples:
        raise ValueError("no training samples")
    if kind == "calcium" and not any((s.calcium == 1).any() for s in samples):
        raise ValueError("no training sample holds coronary calcium")
    torch.manual_seed(settings.seed)
    network = ConvLSTMSegmenter(config).train()
    batches = _heart_batches if kind == "heart" else _calcium_batches
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    start, curve, recent = time.perf_counter(), [], []
    stream = batches(samples, config, settings, np.random.default_rng(settings.seed))
    for step, (scores, target, weight) in enumerate(
        ((_forward(network, batch), *batch[1:3]) for batch in stream), start=1
    ):
        loss = focal_loss(scores, target, weight, settings.focal_gamma)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        recent.append(float(loss.detach()))
        if step % settings.report_every == 0 or step == settings.steps:
            curve.append((step, float(np.mean(recent))))
            recent = []
            if progress:
                progress(step, settings.steps, curve[-1][1])
        if step == settings.steps:
            break
    record = {
        "kind": kind,
        "samples": len(samples),
        "settings": asdict(settings),
        "config": asdict(config),
        "parameters": sum(p.numel() for p in network.parameters()),
        "loss": curve,
        "seconds": round(time.perf_counter() - start, 1),
    }
    return network.eval(), record


def focal_loss(scores: Tensor, target: Tensor, weight: Tensor, gamma: float) -> Tensor:
    """Weighted mean of (1 - p)^gamma x cross entropy (Lin et al., ICCV 2017, eq. 5).

    Parameters
    ----------
    scores : (n, classes, rows, columns), before softmax.
    target : (n, rows, columns), class indices.
    weight : (n, rows, columns), 0 where a pixel does not count.
    """
    plain = cross_entropy(scores, target, reduction="none")
    certain = torch.exp(-plain)
    return ((1 - certain) ** gamma * plain * weight).sum() / weight.sum().clamp(min=1.0)


Batch = tuple[list[Tensor], Tensor, Tensor, int]


def _forward(network: ConvLSTMSegmenter, batch: Batch) -> Tensor:
    """Scores of a batch of stacks of three slices, all of the same size."""
    stacks, _, _, margin = batch
    x = torch.stack(stacks)  # (n, 3, rows, columns)
    single = network.single_slice(x[:, 1], margin)
    near = inner(x, margin)
    n = len(stacks)
    # Triples that are no neighbours cannot share features: each is a stack of its own.
    state: list[tuple[Tensor, Tensor] | None] = [None] * len(network.lstm)
    for step in (2, 1, 0):
        h = near[:, step][:, None]
        for layer, cell in enumerate(network.lstm):
            state[layer] = cell.step(cell.input_gates(h), state[layer])  # type: ignore[operator]
            h = state[layer][0]  # type: ignore[index]
    assert h.shape[0] == n
    return network.fuse(single, h)


def _heart_batches(
    samples: Sequence[Sample],
    config: NetworkConfig,
    settings: TrainingSettings,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    while True:
        stacks, targets = [], []
        for _ in range(settings.batch):
            sample = samples[int(rng.integers(len(samples)))]
            k = int(rng.integers(len(sample.heart_label)))
            stack = sample.heart_stack[k : k + 3].astype(np.float32)
            label = sample.heart_label[k].astype(np.float32)
            shift = (int(rng.integers(-10, 11)), int(rng.integers(-10, 11)))
            stack, label = np.roll(stack, shift, (1, 2)), np.roll(label, shift, (0, 1))
            stacks.append(_vary(stack, rng, 0.06))
            targets.append(torch.from_numpy((label >= 0.5).astype(np.int64)))
        target = torch.stack(targets)
        yield stacks, target, torch.ones(target.shape), 0


def _calcium_batches(
    samples: Sequence[Sample],
    config: NetworkConfig,
    settings: TrainingSettings,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    margin = -(-config.receptive_field_px // config.stride) * config.stride
    seeds = [_patch_seeds(sample) for sample in samples]
    while True:
        stacks, targets, weights = [], [], []
        for n in range(settings.batch):
            wanted = (1, 2, 0, 0)[n % 4]  # coronary, non-coronary, bright background twice
            sample, centre = _draw_centre(samples, seeds, wanted, rng)
            stack, target, weight = _patch(sample, centre, margin, settings, rng)
            stacks.append(_vary(stack, rng, 0.05))
            targets.append(torch.from_numpy(target))
            weights.append(torch.from_numpy(weight))
        yield stacks, torch.stack(targets), torch.stack(weights), margin


def _patch_seeds(sample: Sample) -> tuple[NDArray[np.int64], ...]:
    """Voxels to centre patches on, by class: bright background, coronary, non-coronary."""
    bright = (sample.hu >= _BRIGHT_HU) & (sample.inside > 0)
    return tuple(np.argwhere(bright & (sample.calcium == c)) for c in range(3))


def _draw_centre(
    samples: Sequence[Sample],
    seeds: Sequence[tuple[NDArray[np.int64], ...]],
    wanted: int,
    rng: np.random.Generator,
) -> tuple[Sample, NDArray[np.int64]]:
    for _ in range(20):
        n = int(rng.integers(len(samples)))
        if len(seeds[n][wanted]):
            return samples[n], seeds[n][wanted][rng.integers(len(seeds[n][wanted]))]
    inside = np.argwhere(samples[n].inside > 0)
    return samples[n], inside[rng.integers(len(inside))]


def _patch(
    sample: Sample,
    centre: NDArray[np.int64],
    margin: int,
    settings: TrainingSettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Three slices with margin, and target and weight of the middle one without it."""
    size, half = settings.patch_px, settings.patch_px // 2
    k = int(centre[0])
    jitter = rng.integers(-half + 8, half - 7, 2)
    r, c = (int(v) for v in centre[1:] + jitter - half)
    planes = [sample.hu[np.clip(k + d, 0, len(sample.hu) - 1)] for d in (-1, 0, 1)]
    stack = np.stack(
        [_cut(plane, r - margin, c - margin, size + 2 * margin, 50) for plane in planes]
    )
    hu = stack[1, margin : margin + size, margin : margin + size]
    calcium = _cut(sample.calcium[k], r, c, size, 0)
    inside = _cut(sample.inside[k], r, c, size, 0)
    bright = (hu >= _BRIGHT_HU) & (inside > 0)
    weight = bright | ((calcium > 0) & (hu >= 100) & (inside > 0))
    weight |= rng.random(hu.shape) < settings.background_share
    weights = weight.astype(np.float32)
    weights[calcium == 1] *= settings.coronary_weight
    # Outside the heart nothing is asked of the network: the mask removes it.
    target = np.where(inside > 0, calcium, 0).astype(np.int64)
    return normalise(torch.from_numpy(stack)).numpy(), target, weights


def _cut(plane: NDArray[np.generic], row: int, column: int, size: int, fill: int) -> NDArray[Any]:
    out = np.full((size, size), fill, plane.dtype)
    r0, c0 = max(row, 0), max(column, 0)
    r1, c1 = min(row + size, plane.shape[0]), min(column + size, plane.shape[1])
    if r1 > r0 and c1 > c0:
        out[r0 - row : r1 - row, c0 - column : c1 - column] = plane[r0:r1, c0:c1]
    return out


def _vary(stack: NDArray[np.float32], rng: np.random.Generator, noise: float) -> Tensor:
    """Small changes that scanners make: gain, offset and a little more noise."""
    gain, offset = 1 + 0.03 * rng.standard_normal(), 0.05 * rng.standard_normal()
    varied = torch.from_numpy(stack * np.float32(gain) + np.float32(offset))
    extra = torch.from_numpy(rng.standard_normal(stack.shape, dtype=np.float32))
    return varied + float(rng.uniform(0, noise)) * extra


def use_threads(threads: int) -> None:
    """Threads that torch uses in this process."""
    torch.set_num_threads(threads)


@torch.no_grad()
def favour_background(network: ConvLSTMSegmenter, offset: float) -> None:
    """Add `offset` to the score of class 0, for good.

    Training sees calcium far more often than an archive does, and focal loss leaves probabilities
    too close to one half; an offset chosen on held-out scans undoes both. It goes into the biases
    of both segmentation heads, whose weighted sum (the weights add to one) then holds it exactly.
    """
    for segmentation_head in (network.trunk_head, network.sequence_head):
        last = segmentation_head[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.bias[0] += offset
