"""Training batches: a function of samples, settings, seed and step only.

The heart network is trained on whole coarse slices; missing a pixel of the heart costs more than
a spare one beside it. The calcium network is trained on patches
centred near components, small and large ones with equal probability: coronary calcium, other
calcium, and bright background (noise, bone at the border). Its loss includes every voxel that can
be a candidate, with each component weighted by the square root of its size, and a random share of
the other voxels: the paper's subset sampling of the majority class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from cac_core.components import label_in_plane, reaches_area
from cac_core.model.convlstm import NetworkConfig
from cac_core.model.preprocess import (
    HEART_FIELD_MM,
    HEART_PIXELS,
    heart_frame,
    heart_position,
    normalise,
)
from cac_core.protocol import ScoringProtocol
from cac_core.training.augmentation import (
    axis_aligned_square,
    transform_planes,
    transformed_square,
    vary_frame,
    vary_heart,
    vary_scanner,
    vary_texture,
    vary_tissue,
)
from cac_core.training.samples import CROP_MARGIN_PX, Sample

BRIGHT_HU = int(ScoringProtocol().threshold_hu)
_MIN_AREA_MM2 = ScoringProtocol().min_area_mm2
#: Class at the centre of each patch of a batch, in turn: 1 coronary, 2 other calcium, 0 neither.
_CENTRES = (1, 2, 0, 1, 2, 0)
#: Share of training patches whose position channels are set to zero: otherwise the network relies
#: on the position and ignores the surroundings of a calcification.
_POSITION_DROPOUT = 0.3

#: Loss weights of the heart network: pixels of the heart within a distance of its border and near
#: coronary calcium, and pixels outside within a distance of the border; all others weigh 1. A
#: missing pixel can hold a plaque, a spare one holds fat.
_RIM_MM, _RIM_WEIGHT = 12.0, 2.0
_CORONARY_WEIGHT = 4.0
_OUTSIDE_MM, _OUTSIDE_WEIGHT = 10.0, 0.5


@dataclass(frozen=True)
class Batch:
    """Stacks of three slices with target and loss weight of the middle one.

    `stacks` (n, 3, rows + 2 margin, columns + 2 margin), normalised; `target` (n, rows, columns),
    class indices; `weight` (n, rows, columns), 0 where a pixel does not contribute to the loss;
    `names` of the source samples; `position` (n, 3, rows + 2 margin, columns + 2 margin), for a
    network with position channels.
    """

    stacks: Tensor
    target: Tensor
    weight: Tensor
    margin: int
    names: tuple[str, ...]
    position: Tensor | None = None

    def to(self, device: str) -> Batch:
        """A copy on another device."""
        return Batch(
            self.stacks.to(device),
            self.target.to(device),
            self.weight.to(device),
            self.margin,
            self.names,
            None if self.position is None else self.position.to(device),
        )


class NamedSamples(Protocol):
    """Samples by number, with names for messages."""

    @property
    def names(self) -> Sequence[str]:
        """Names in order of their numbers."""
        ...

    def __getitem__(self, number: int) -> Sample: ...


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Sampling and augmentation of batches; `vary` (augmentation) is off for validation."""

    size: int
    patch_px: int
    background_share: float
    seed: int
    vary: bool = True


class HeartBatches:
    """Coarse slices drawn uniformly from all samples, with geometric and intensity augmentation."""

    def __init__(self, samples: NamedSamples, config: NetworkConfig, settings: BatchSettings):
        self.samples, self.settings = samples, settings

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        stacks, targets, weights, names = [], [], [], []
        for _ in range(self.settings.size):
            number = int(rng.integers(len(self.samples.names)))
            sample = self.samples[number]
            k = int(rng.integers(len(sample.heart_label)))
            stack = torch.from_numpy(sample.heart_stack[k : k + 3].astype(np.float32))
            near = np.clip([k - 1, k, k + 1], 0, len(sample.heart_label) - 1)
            goal = torch.from_numpy(sample.heart_label[near].astype(np.float32) / 255)
            coronary = torch.from_numpy(sample.heart_coronary[k : k + 1].astype(np.float32) / 255)
            if self.settings.vary:
                moved = transform_planes(torch.cat([stack, goal, coronary]), rng)
                goal, coronary = moved[3:6].clamp(0, 1), moved[6:]
                stack = vary_tissue(vary_scanner(vary_heart(moved[:3], goal, rng), rng, 0.2), rng)
            stacks.append(stack)
            heart = goal[1] >= 0.5
            targets.append(heart.long())
            weights.append(
                torch.from_numpy(_heart_weight(heart.numpy(), coronary[0].numpy() >= 0.5))
            )
            names.append(self.samples.names[number])
        return Batch(
            torch.stack(stacks), torch.stack(targets), torch.stack(weights), 0, tuple(names)
        )


class CalciumBatches:
    """Patches at native resolution around components of each class."""

    def __init__(self, samples: NamedSamples, config: NetworkConfig, settings: BatchSettings):
        self.samples, self.config, self.settings = samples, config, settings
        self.margin = min(
            -(-config.receptive_field_px // config.stride) * config.stride, CROP_MARGIN_PX
        )
        self._components = lru_cache(maxsize=None)(self._find_components)
        self._frame = lru_cache(maxsize=None)(lambda n: heart_frame(self.samples[n].inside == 2))

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        stacks, targets, weights, positions, names = [], [], [], [], []
        for n in range(self.settings.size):
            number, centre = self._centre(_CENTRES[n % len(_CENTRES)], rng)
            stack, target, weight, position = self._patch(number, centre, rng)
            positions.append(position)
            stacks.append(stack)
            targets.append(torch.from_numpy(target))
            weights.append(torch.from_numpy(weight))
            names.append(self.samples.names[number])
        return Batch(
            torch.stack(stacks),
            torch.stack(targets),
            torch.stack(weights),
            self.margin,
            tuple(names),
            torch.stack(positions) if self.config.position_channels else None,
        )

    def _find_components(self, number: int) -> tuple[NDArray[np.int16], ...]:
        """One voxel of each component that could be a candidate, by class; (n, 3) each."""
        sample = self.samples[number]
        bright = (sample.hu >= BRIGHT_HU) & (sample.inside > 0)
        centres = []
        for wanted in range(3):
            parts, n_pixels = label_in_plane(bright & (sample.calcium == wanted))
            at = np.flatnonzero(parts)
            # The first voxel of each component represents it.
            _, first = np.unique(parts.ravel()[at], return_index=True)
            kept = at[first][reaches_area(n_pixels[1:], sample.pixel_mm2, _MIN_AREA_MM2)]
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
        self, number: int, centre: NDArray[np.int16], rng: np.random.Generator
    ) -> tuple[Tensor, NDArray[np.int64], NDArray[np.float32], Tensor]:
        """Three slices with margin, target and weight of the middle one, position channels."""
        sample = self.samples[number]
        size, margin = self.settings.patch_px, self.margin
        k, reach = int(centre[0]), size // 2 - 8
        middle = np.asarray(centre[1:] + rng.integers(-reach, reach + 1, 2), np.float64)
        planes = self._planes(sample, k, rng)
        if self.settings.vary and rng.random() < 0.6:
            square = transformed_square(middle, size + 2 * margin, rng)
        else:
            square = axis_aligned_square(middle, size + 2 * margin)
        stack = square.cut(sample.hu[planes].astype(np.float32), 50.0)
        classes = np.stack([sample.inside[k], sample.calcium[k]]).astype(np.float32)
        labels = square.cut(classes, 0.0, nearest=True)
        frame = self._frame(number)
        if self.settings.vary:
            stack = vary_texture(stack, rng)
            frame = vary_frame(frame, rng)
        core = np.s_[margin : margin + size, margin : margin + size]
        hu, inside, calcium = stack[1][core], labels[0][core], labels[1][core]
        # Outside the heart every voxel is background: the heart mask removes it at inference.
        target = np.where(inside > 0, calcium, 0).astype(np.int64)
        weight = _candidate_weight((hu >= BRIGHT_HU) & (inside > 0), target, sample.pixel_mm2)
        rest = (weight == 0) & (hu < BRIGHT_HU)
        weight[rest & (target > 0) & (hu >= 100)] = 0.3
        weight[rest & (rng.random(hu.shape) < self.settings.background_share)] = 0.1
        position = heart_position(
            frame,
            torch.full((1, 1, 1), float(k)),
            torch.from_numpy(square.row),
            torch.from_numpy(square.column),
        )[0]
        if self.settings.vary and rng.random() < _POSITION_DROPOUT:
            position = torch.zeros_like(position)
        bright_tail = self.config.bright_tail
        return normalise(torch.from_numpy(stack), bright_tail=bright_tail), target, weight, position

    def _planes(self, sample: Sample, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Indices of the previous, current and next slice; in random direction if varied."""
        step = 1
        if self.settings.vary:
            # Neighbours two thin slices away imitate a scan with thick slices.
            thin = sample.spacing_mm[0] <= 3.0 and rng.random() < 0.15
            step = int(rng.choice([-1, 1], p=[0.25, 0.75])) * (2 if thin else 1)
        return np.clip([k - step, k, k + step], 0, len(sample.hu) - 1)


def _heart_weight(heart: NDArray[np.bool_], coronary: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Loss weight of the pixels of a coarse slice, by distance to the border of the heart."""
    weight = np.ones(heart.shape, np.float32)
    if not heart.any():
        return weight
    pixel_mm = HEART_FIELD_MM / HEART_PIXELS
    # The border lies half a pixel from the centres of the pixels beside it.
    within = (distance_transform_edt(heart) - 0.5) * pixel_mm
    outside = (distance_transform_edt(~heart) - 0.5) * pixel_mm
    weight[heart & (within <= _RIM_MM)] = _RIM_WEIGHT
    weight[heart & coronary] = _CORONARY_WEIGHT
    weight[~heart & (outside <= _OUTSIDE_MM)] = _OUTSIDE_WEIGHT
    return weight


def _candidate_weight(
    bright: NDArray[np.bool_], target: NDArray[np.int64], pixel_mm2: float
) -> NDArray[np.float32]:
    """Loss weight of bright pixels: each component weighs the square root of its size.

    Agreement depends on small lesions and small false positives; in an unweighted mean one
    confluent plaque outweighs dozens of them. Components below the minimum area weigh nothing.
    """
    weight = np.zeros(bright.shape, np.float32)
    for wanted in range(3):
        parts, n_pixels = label_in_plane(bright & (target == wanted))
        if len(n_pixels) > 1:
            large = reaches_area(n_pixels, pixel_mm2, _MIN_AREA_MM2)
            share = np.where(large, 2 / np.sqrt(np.maximum(n_pixels, 1)), 0)
            weight += share[parts].astype(np.float32)
    return weight
