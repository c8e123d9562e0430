"""Training batches: a function of samples, settings, seed and step only.

The heart network is trained on whole coarse slices. The calcium network is trained on patches
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
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from cac_core.components import label_in_plane, reaches_area
from cac_core.model.convlstm import NetworkConfig
from cac_core.model.preprocess import HeartFrame, heart_frame, heart_position, normalise
from cac_core.protocol import ScoringProtocol
from cac_core.training.samples import CROP_MARGIN_PX, Sample

Floats = NDArray[np.float32]

BRIGHT_HU = int(ScoringProtocol().threshold_hu)
_MIN_AREA_MM2 = ScoringProtocol().min_area_mm2
#: Class at the centre of each patch of a batch, in turn: 1 coronary, 2 other calcium, 0 neither.
_CENTRES = (1, 2, 0, 1, 2, 0)
#: Share of training patches whose position channels are set to zero: otherwise the network relies
#: on the position and ignores the surroundings of a calcification.
_POSITION_DROPOUT = 0.3


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
        stacks, targets, names = [], [], []
        for _ in range(self.settings.size):
            number = int(rng.integers(len(self.samples.names)))
            sample = self.samples[number]
            k = int(rng.integers(len(sample.heart_label)))
            stack = torch.from_numpy(sample.heart_stack[k : k + 3].astype(np.float32))
            near = np.clip([k - 1, k, k + 1], 0, len(sample.heart_label) - 1)
            goal = torch.from_numpy(sample.heart_label[near].astype(np.float32) / 255)
            if self.settings.vary:
                both = _move(torch.cat([stack, goal]), rng)
                goal = both[3:].clamp(0, 1)
                stack = _tone(_vary(_another_heart(both[:3], goal, rng), rng, 0.2), rng)
            stacks.append(stack)
            targets.append((goal[1] >= 0.5).long())
            names.append(self.samples.names[number])
        target = torch.stack(targets)
        return Batch(torch.stack(stacks), target, torch.ones(target.shape), 0, tuple(names))


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
            # The first voxel of each component stands for it.
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
        step = 1
        if self.settings.vary:
            # Neighbours two thin slices away imitate a scan with thick slices.
            thin = sample.spacing_mm[0] <= 3.0 and rng.random() < 0.15
            step = int(rng.choice([-1, 1], p=[0.25, 0.75])) * (2 if thin else 1)
        planes = np.clip([k - step, k, k + step], 0, len(sample.hu) - 1)
        if self.settings.vary and rng.random() < 0.6:
            cut = _turned(middle, size + 2 * margin, rng)
        else:
            cut = _upright(middle, size + 2 * margin)
        stack = cut.out_of(sample.hu[planes].astype(np.float32), 50.0)
        classes = np.stack([sample.inside[k], sample.calcium[k]]).astype(np.float32)
        labels = cut.out_of(classes, 0.0, nearest=True)
        frame = self._frame(number)
        if self.settings.vary:
            stack = _texture(stack, rng)
            frame = _another_frame(frame, rng)
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
            torch.from_numpy(cut.row),
            torch.from_numpy(cut.column),
        )[0]
        if self.settings.vary and rng.random() < _POSITION_DROPOUT:
            position = torch.zeros_like(position)
        bright_tail = self.config.bright_tail
        return normalise(torch.from_numpy(stack), bright_tail=bright_tail), target, weight, position


def _another_frame(frame: HeartFrame, rng: np.random.Generator) -> HeartFrame:
    """A shifted and scaled frame, as from an inaccurate heart mask."""
    shift, scale = rng.normal(0, (0.15, 0.12, 0.12)), np.exp(rng.normal(0, (0.12, 0.1, 0.1)))
    parts = zip(frame.centre, frame.half, shift, scale, strict=True)
    moved = [(c + h * by, h * times) for c, h, by, times in parts]
    (z, depth), (y, height), (x, width) = moved
    return HeartFrame((z, y, x), (depth, height, width))


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


def _move(planes: Tensor, rng: np.random.Generator) -> Tensor:
    """Random affine and elastic transform of planes (n, rows, columns); borders are extended."""
    angle, scale = rng.normal(0, 0.1), np.exp(rng.normal(0, 0.13))
    stretch = np.exp(rng.normal(0, 0.07))
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    theta = torch.tensor(
        [
            [cos * stretch, -sin, rng.uniform(-0.18, 0.18)],
            [sin, cos / stretch, rng.uniform(-0.18, 0.18)],
        ],
        dtype=torch.float32,
    )
    grid = affine_grid(theta[None], [1, *planes.shape], align_corners=False)
    knots = torch.from_numpy(rng.normal(0, 0.03, (1, 2, 6, 6)).astype(np.float32))
    bend = interpolate(knots, size=planes.shape[1:], mode="bicubic", align_corners=True)
    grid = grid + bend.permute(0, 2, 3, 1)
    moved = grid_sample(planes[None], grid, padding_mode="border", align_corners=False)
    return moved[0]


def _another_heart(stack: Tensor, heart: Tensor, rng: np.random.Generator) -> Tensor:
    """A heart with less fat and less structure, brighter or darker than the liver beside it.

    Fat livers are darker than blood, others brighter; lean people have next to no epicardial fat;
    without contrast agent muscle and blood are alike. What is left to go by is the outline.
    Both planes (3, rows, columns); `heart` is the share of each pixel inside, 0 to 1.
    """
    if rng.random() < 0.6 and heart.any():
        soft = stack[(heart > 0.5) & (stack > -0.4) & (stack < 1.0)]
        level = soft.median() if len(soft) else stack.new_zeros(())
        grain = torch.from_numpy(rng.standard_normal(tuple(stack.shape), dtype=np.float32))
        bright = ((stack - level) > 0.6).float()  # calcium and metal stay
        share = heart * (1 - bright) * float(rng.uniform(0.3, 1.0))
        stack = stack + share * (level + 0.06 * grain - stack)
    knots = torch.from_numpy(rng.normal(0, 0.06, (1, 1, 9, 9)).astype(np.float32))
    blotches = interpolate(knots, size=stack.shape[1:], mode="bicubic", align_corners=True)[0]
    return stack + (float(rng.normal(0, 0.1)) + blotches) * heart


def _vary(stack: Tensor, rng: np.random.Generator, noise: float) -> Tensor:
    """Small changes that scanners make: gain, offset and a little more noise."""
    gain, offset = 1 + 0.03 * rng.standard_normal(), 0.05 * rng.standard_normal()
    extra = torch.from_numpy(rng.standard_normal(tuple(stack.shape), dtype=np.float32))
    return stack * float(gain) + float(offset) + float(rng.uniform(0, noise)) * extra


def _tone(stack: Tensor, rng: np.random.Generator) -> Tensor:
    """Another brightness of lung, fat, muscle and bone, and slow shading over the picture."""
    levels = np.array([-2.0, -1.0, 0.0, 1.0, 4.0])
    moved = levels + rng.normal(0, (0.15, 0.12, 0.06, 0.12, 0.4))
    toned = torch.from_numpy(np.interp(stack.numpy(), levels, np.sort(moved)).astype(np.float32))
    knots = torch.from_numpy(rng.normal(0, 0.05, (1, 1, 4, 4)).astype(np.float32))
    shade = interpolate(knots, size=stack.shape[1:], mode="bicubic", align_corners=True)
    return toned + shade[0]


def _texture(stack: Floats, rng: np.random.Generator) -> Floats:
    """Another kernel, a little more grain, another gain: HU (3, rows, columns)."""
    kernel = rng.random()
    if kernel < 0.3:
        width = float(rng.uniform(0.3, 0.9))
        stack = gaussian_filter(stack, (0, width, width), truncate=3)
    elif kernel < 0.55:
        soft = gaussian_filter(stack, (0, 1.2, 1.2), truncate=3)
        stack = stack + np.float32(rng.uniform(0.1, 0.7)) * np.clip(stack - soft, -150, 150)
    if rng.random() < 0.5:
        width = float(rng.uniform(0.3, 1.3))
        grain = rng.standard_normal(stack.shape, dtype=np.float32)
        grain = gaussian_filter(grain, (0, width, width), truncate=3)
        stack = stack + grain * np.float32(rng.uniform(0, 12) / grain.std())
    gain, offset = 1 + 0.05 * rng.standard_normal(), 6 * rng.standard_normal()
    return np.asarray((stack - 50) * np.float32(gain) + np.float32(50 + offset), np.float32)


@dataclass(frozen=True)
class _Cut:
    """A square to cut out of planes: row and column of the planes at each of its pixels.

    `row` and `column` broadcast to (size, size).
    """

    row: NDArray[np.float64]
    column: NDArray[np.float64]

    def out_of(self, planes: Floats, fill: float, *, nearest: bool = False) -> Floats:
        """The square out of planes (n, rows, columns), with `fill` outside of them."""
        height, width = planes.shape[1:]
        row, column = np.broadcast_arrays(self.row, self.column)
        grid = np.stack([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1], -1)
        taken = grid_sample(
            torch.from_numpy(planes - np.float32(fill))[None],
            torch.from_numpy(grid[None].astype(np.float32)),
            mode="nearest" if nearest else "bilinear",
            padding_mode="zeros",
            align_corners=True,
        )
        return np.asarray(taken[0].numpy() + np.float32(fill))


class _UprightCut(_Cut):
    """Rows and columns as they are: copied, not interpolated."""

    def out_of(self, planes: Floats, fill: float, *, nearest: bool = False) -> Floats:
        """The square out of planes (n, rows, columns), with `fill` outside of them."""
        row, column, size = int(self.row[0, 0]), int(self.column[0, 0]), self.row.size
        out = np.full((len(planes), size, size), fill, np.float32)
        r0, c0 = max(row, 0), max(column, 0)
        r1, c1 = min(row + size, planes.shape[1]), min(column + size, planes.shape[2])
        if r1 > r0 and c1 > c0:
            out[:, r0 - row : r1 - row, c0 - column : c1 - column] = planes[:, r0:r1, c0:c1]
        return out


def _upright(middle: NDArray[np.float64], size: int) -> _Cut:
    """A square about the middle, as it lies."""
    at = np.arange(size, dtype=np.float64) - size // 2
    return _UprightCut(int(middle[0]) + at[:, None], int(middle[1]) + at[None, :])


def _turned(middle: NDArray[np.float64], size: int, rng: np.random.Generator) -> _Cut:
    """A square about the middle, turned, scaled and stretched."""
    angle, scale, stretch = rng.normal(0, 0.25), rng.normal(0, 0.12), rng.normal(0, 0.08)
    rows, columns = np.exp(scale + stretch), np.exp(scale - stretch)
    cos, sin = np.cos(angle), np.sin(angle)
    at = np.arange(size, dtype=np.float64) - size // 2
    y, x = at[:, None], at[None, :]
    row = middle[0] + rows * (cos * y + sin * x)
    column = middle[1] + columns * (cos * x - sin * y)
    return _Cut(row, column)
