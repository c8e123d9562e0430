"""What the networks are shown at each step: a function of samples, settings, seed and step only.

The heart network learns whole coarse slices. The calcium network learns patches centred near
components, small and large ones alike: coronary calcium, other calcium, and bright spots that are
none (noise, bone at the border). Its loss counts every voxel that can be a candidate, each
component by the root of its size, and a random share of the rest, which is the subset sampling of
the majority class that the paper speaks of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import label
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from cac_core.model.convlstm import NetworkConfig
from cac_core.model.preprocess import normalise
from cac_core.model.training.samples import CROP_MARGIN_PX, Sample

BRIGHT_HU = 130
_MIN_AREA_MM2 = 1.0
#: Classes that the patches of a batch are centred on, in turn: 1 coronary, 2 other, 0 neither.
_CENTRES = (1, 0, 2, 1, 0, 0)


@dataclass(frozen=True)
class Batch:
    """Stacks of three slices with what is asked of the middle one.

    `stacks` (n, 3, rows + 2 margin, columns + 2 margin), normalised; `target` (n, rows, columns),
    class indices; `weight` (n, rows, columns), 0 where a pixel does not count; `names` of the
    samples it was drawn from.
    """

    stacks: Tensor
    target: Tensor
    weight: Tensor
    margin: int
    names: tuple[str, ...]

    def to(self, device: str) -> Batch:
        """The same on another device."""
        return Batch(
            self.stacks.to(device),
            self.target.to(device),
            self.weight.to(device),
            self.margin,
            self.names,
        )


class NamedSamples(Protocol):
    """Samples by number, with the name of each for messages."""

    @property
    def names(self) -> Sequence[str]:
        """Names in order of their numbers."""
        ...

    def __getitem__(self, number: int) -> Sample: ...


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How batches are drawn and varied; `vary` is off for validation."""

    size: int
    patch_px: int
    background_share: float
    seed: int
    vary: bool = True


class HeartBatches:
    """Coarse slices of all samples alike, moved, turned, scaled, and varied in HU."""

    def __init__(self, samples: NamedSamples, config: NetworkConfig, settings: BatchSettings):
        self.samples, self.settings = samples, settings

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        stacks, targets, names = [], [], []
        for _ in range(self.settings.size):
            number = int(rng.integers(len(self.samples.names)))
            sample = self.samples[number]
            k = int(rng.integers(len(sample.heart_label)))
            stack = torch.from_numpy(sample.heart_stack[k : k + 3].astype(np.float32))
            goal = torch.from_numpy(sample.heart_label[k : k + 1].astype(np.float32) / 255)
            if self.settings.vary:
                both = _move(torch.cat([stack, goal]), rng)
                stack, goal = _vary(both[:3], rng, 0.15), both[3:]
            stacks.append(stack)
            targets.append((goal[0] >= 0.5).long())
            names.append(self.samples.names[number])
        target = torch.stack(targets)
        return Batch(torch.stack(stacks), target, torch.ones(target.shape), 0, tuple(names))


class CalciumBatches:
    """Patches at native resolution around components of each class."""

    def __init__(self, samples: NamedSamples, config: NetworkConfig, settings: BatchSettings):
        self.samples, self.settings = samples, settings
        self.margin = min(
            -(-config.receptive_field_px // config.stride) * config.stride, CROP_MARGIN_PX
        )
        self._components = lru_cache(maxsize=None)(self._find_components)

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        stacks, targets, weights, names = [], [], [], []
        for n in range(self.settings.size):
            number, centre = self._centre(_CENTRES[n % len(_CENTRES)], rng)
            stack, target, weight = self._patch(self.samples[number], centre, rng)
            stacks.append(_vary(stack, rng, 0.05) if self.settings.vary else stack)
            targets.append(torch.from_numpy(target))
            weights.append(torch.from_numpy(weight))
            names.append(self.samples.names[number])
        return Batch(
            torch.stack(stacks),
            torch.stack(targets),
            torch.stack(weights),
            self.margin,
            tuple(names),
        )

    def _find_components(self, number: int) -> tuple[NDArray[np.int16], ...]:
        """One voxel of each component that could be a candidate, by class; (n, 3) each."""
        sample = self.samples[number]
        bright = (sample.hu >= BRIGHT_HU) & (sample.inside > 0)
        plane = np.zeros((3, 3, 3), np.bool_)
        plane[1] = True
        centres = []
        for wanted in range(3):
            parts, count = label(bright & (sample.calcium == wanted), structure=plane)
            at = np.flatnonzero(parts)
            area = np.bincount(parts.ravel()[at], minlength=count + 1) * sample.pixel_mm2
            # The first voxel of each component stands for it.
            _, first = np.unique(parts.ravel()[at], return_index=True)
            kept = at[first][area[1:][: len(first)] >= _MIN_AREA_MM2]
            centres.append(np.stack(np.unravel_index(kept, parts.shape), 1).astype(np.int16))
        return tuple(centres)

    def _centre(self, wanted: int, rng: np.random.Generator) -> tuple[int, NDArray[np.int16]]:
        for _ in range(20):
            number = int(rng.integers(len(self.samples.names)))
            found = self._components(number)[wanted]
            if len(found):
                return number, found[rng.integers(len(found))]
        inside = np.argwhere(self.samples[number].inside > 0).astype(np.int16)
        return number, inside[rng.integers(len(inside))]

    def _patch(
        self, sample: Sample, centre: NDArray[np.int16], rng: np.random.Generator
    ) -> tuple[Tensor, NDArray[np.int64], NDArray[np.float32]]:
        """Three slices with margin, and target and weight of the middle one without it."""
        size, half, margin = self.settings.patch_px, self.settings.patch_px // 2, self.margin
        k = int(centre[0])
        jitter = rng.integers(-half + 8, half - 7, 2)
        r, c = (int(v) for v in centre[1:].astype(int) + jitter - half)
        planes = [sample.hu[np.clip(k + d, 0, len(sample.hu) - 1)] for d in (-1, 0, 1)]
        stack = np.stack(
            [_cut(plane, r - margin, c - margin, size + 2 * margin, 50) for plane in planes]
        )
        hu = stack[1, margin : margin + size, margin : margin + size]
        inside = _cut(sample.inside[k], r, c, size, 0)
        # Outside the heart nothing is asked of the network: the mask removes it.
        target = np.where(inside > 0, _cut(sample.calcium[k], r, c, size, 0), 0).astype(np.int64)
        weight = _candidate_weight((hu >= BRIGHT_HU) & (inside > 0), target, sample.pixel_mm2)
        rest = (weight == 0) & (hu < BRIGHT_HU)
        weight[rest & (target > 0) & (hu >= 100)] = 0.3
        weight[rest & (rng.random(hu.shape) < self.settings.background_share)] = 0.1
        return normalise(torch.from_numpy(stack)), target, weight


def _candidate_weight(
    bright: NDArray[np.bool_], target: NDArray[np.int64], pixel_mm2: float
) -> NDArray[np.float32]:
    """Weight of bright pixels: a component counts by the root of its size, not by its size.

    Agreement is decided by small lesions and small false alarms; in a plain mean a single
    confluent plaque outweighs dozens of them. Components below the minimum area never score.
    """
    weight = np.zeros(bright.shape, np.float32)
    for wanted in range(3):
        parts, count = label(bright & (target == wanted), structure=np.ones((3, 3)))
        if count:
            size = np.bincount(parts.ravel(), minlength=count + 1)
            share = np.where(size * pixel_mm2 >= _MIN_AREA_MM2, 2 / np.sqrt(np.maximum(size, 1)), 0)
            share[0] = 0
            weight += share[parts].astype(np.float32)
    return weight


def _move(planes: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn, scale and shift planes (n, rows, columns) alike; what comes in is air (or no heart)."""
    angle, scale = rng.normal(0, 0.09), np.exp(rng.normal(0, 0.1))
    stretch = np.exp(rng.normal(0, 0.05))
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    theta = torch.tensor(
        [
            [cos * stretch, -sin, rng.uniform(-0.18, 0.18)],
            [sin, cos / stretch, rng.uniform(-0.18, 0.18)],
        ],
        dtype=torch.float32,
    )
    grid = affine_grid(theta[None], [1, *planes.shape], align_corners=False)
    moved = grid_sample(planes[None], grid, padding_mode="border", align_corners=False)
    return moved[0]


def _vary(stack: Tensor, rng: np.random.Generator, noise: float) -> Tensor:
    """Small changes that scanners make: gain, offset and a little more noise."""
    gain, offset = 1 + 0.03 * rng.standard_normal(), 0.05 * rng.standard_normal()
    extra = torch.from_numpy(rng.standard_normal(tuple(stack.shape), dtype=np.float32))
    return stack * float(gain) + float(offset) + float(rng.uniform(0, noise)) * extra


def _cut(plane: NDArray[np.generic], row: int, column: int, size: int, fill: int) -> NDArray[Any]:
    out = np.full((size, size), fill, plane.dtype)
    r0, c0 = max(row, 0), max(column, 0)
    r1, c1 = min(row + size, plane.shape[0]), min(column + size, plane.shape[1])
    if r1 > r0 and c1 > c0:
        out[r0 - row : r1 - row, c0 - column : c1 - column] = plane[r0:r1, c0:c1]
    return out
