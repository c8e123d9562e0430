"""Augmentation of training batches: geometry, scanner, tissue, heart, kernel and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from cac_core.model.preprocess import HeartFrame

Floats = NDArray[np.float32]


def vary_frame(frame: HeartFrame, rng: np.random.Generator) -> HeartFrame:
    """A shifted and scaled frame, as from an inaccurate heart mask."""
    shift, scale = rng.normal(0, (0.15, 0.12, 0.12)), np.exp(rng.normal(0, (0.12, 0.1, 0.1)))
    parts = zip(frame.centre, frame.half, shift, scale, strict=True)
    moved = [(c + h * by, h * times) for c, h, by, times in parts]
    (z, depth), (y, height), (x, width) = moved
    return HeartFrame((z, y, x), (depth, height, width))


def transform_planes(planes: Tensor, rng: np.random.Generator) -> Tensor:
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


def vary_heart(stack: Tensor, heart: Tensor, rng: np.random.Generator) -> Tensor:
    """A heart with less fat and internal structure, brighter or darker than the liver.

    Fatty livers are darker than blood, others brighter; lean people have little epicardial fat;
    without contrast medium, muscle and blood have similar HU. The network then has to rely on the
    outline.

    Parameters
    ----------
    stack : normalised planes (3, rows, columns).
    heart : fraction of each pixel inside the heart, 0 to 1, of the same shape.
    """
    if rng.random() < 0.6 and heart.any():
        soft = stack[(heart > 0.5) & (stack > -0.4) & (stack < 1.0)]
        level = soft.median() if len(soft) else stack.new_zeros(())
        noise = torch.from_numpy(rng.standard_normal(tuple(stack.shape), dtype=np.float32))
        bright = ((stack - level) > 0.6).float()  # calcium and metal are kept
        share = heart * (1 - bright) * float(rng.uniform(0.3, 1.0))
        stack = stack + share * (level + 0.06 * noise - stack)
    knots = torch.from_numpy(rng.normal(0, 0.06, (1, 1, 9, 9)).astype(np.float32))
    blotches = interpolate(knots, size=stack.shape[1:], mode="bicubic", align_corners=True)[0]
    return stack + (float(rng.normal(0, 0.1)) + blotches) * heart


def vary_scanner(stack: Tensor, rng: np.random.Generator, noise: float) -> Tensor:
    """Scanner variation of normalised planes: gain, offset, additional noise up to `noise`."""
    gain, offset = 1 + 0.03 * rng.standard_normal(), 0.05 * rng.standard_normal()
    extra = torch.from_numpy(rng.standard_normal(tuple(stack.shape), dtype=np.float32))
    return stack * float(gain) + float(offset) + float(rng.uniform(0, noise)) * extra


def vary_tissue(stack: Tensor, rng: np.random.Generator) -> Tensor:
    """Variation of the HU of lung, fat, muscle and bone, and slow shading, of normalised planes."""
    levels = np.array([-2.0, -1.0, 0.0, 1.0, 4.0])
    moved = levels + rng.normal(0, (0.15, 0.12, 0.06, 0.12, 0.4))
    toned = torch.from_numpy(np.interp(stack.numpy(), levels, np.sort(moved)).astype(np.float32))
    knots = torch.from_numpy(rng.normal(0, 0.05, (1, 1, 4, 4)).astype(np.float32))
    shade = interpolate(knots, size=stack.shape[1:], mode="bicubic", align_corners=True)
    return toned + shade[0]


def vary_texture(stack: Floats, rng: np.random.Generator) -> Floats:
    """Variation of kernel, noise and gain of planes (3, rows, columns) in HU."""
    kernel = rng.random()
    if kernel < 0.3:
        width = float(rng.uniform(0.3, 0.9))
        stack = gaussian_filter(stack, (0, width, width), truncate=3)
    elif kernel < 0.55:
        soft = gaussian_filter(stack, (0, 1.2, 1.2), truncate=3)
        stack = stack + np.float32(rng.uniform(0.1, 0.7)) * np.clip(stack - soft, -150, 150)
    if rng.random() < 0.5:
        width = float(rng.uniform(0.3, 1.3))
        noise = rng.standard_normal(stack.shape, dtype=np.float32)
        noise = gaussian_filter(noise, (0, width, width), truncate=3)
        stack = stack + noise * np.float32(rng.uniform(0, 12) / noise.std())
    gain, offset = 1 + 0.05 * rng.standard_normal(), 6 * rng.standard_normal()
    return np.asarray((stack - 50) * np.float32(gain) + np.float32(50 + offset), np.float32)


@dataclass(frozen=True)
class Square:
    """A square to sample from planes.

    `row` and `column` are the coordinates of its pixels, broadcast to (size, size).
    """

    row: NDArray[np.float64]
    column: NDArray[np.float64]

    def cut(self, planes: Floats, fill: float, *, nearest: bool = False) -> Floats:
        """The square (n, size, size) from planes (n, rows, columns), with `fill` outside."""
        height, width = planes.shape[1:]
        row, column = np.broadcast_arrays(self.row, self.column)
        grid = np.stack([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1], -1)
        sampled = grid_sample(
            torch.from_numpy(planes - np.float32(fill))[None],
            torch.from_numpy(grid[None].astype(np.float32)),
            mode="nearest" if nearest else "bilinear",
            padding_mode="zeros",
            align_corners=True,
        )
        return np.asarray(sampled[0].numpy() + np.float32(fill))


class _AxisAlignedSquare(Square):
    """A square along rows and columns: copied, not interpolated."""

    def cut(self, planes: Floats, fill: float, *, nearest: bool = False) -> Floats:
        """The square (n, size, size) from planes (n, rows, columns), with `fill` outside."""
        row, column, size = int(self.row[0, 0]), int(self.column[0, 0]), self.row.size
        out = np.full((len(planes), size, size), fill, np.float32)
        r0, c0 = max(row, 0), max(column, 0)
        r1, c1 = min(row + size, planes.shape[1]), min(column + size, planes.shape[2])
        if r1 > r0 and c1 > c0:
            out[:, r0 - row : r1 - row, c0 - column : c1 - column] = planes[:, r0:r1, c0:c1]
        return out


def axis_aligned_square(middle: NDArray[np.float64], size: int) -> Square:
    """A square about a pixel, along rows and columns."""
    at = np.arange(size, dtype=np.float64) - size // 2
    return _AxisAlignedSquare(int(middle[0]) + at[:, None], int(middle[1]) + at[None, :])


def transformed_square(middle: NDArray[np.float64], size: int, rng: np.random.Generator) -> Square:
    """A square about a pixel, randomly rotated, scaled and stretched."""
    angle, scale, stretch = rng.normal(0, 0.25), rng.normal(0, 0.12), rng.normal(0, 0.08)
    rows, columns = np.exp(scale + stretch), np.exp(scale - stretch)
    cos, sin = np.cos(angle), np.sin(angle)
    at = np.arange(size, dtype=np.float64) - size // 2
    y, x = at[:, None], at[None, :]
    row = middle[0] + rows * (cos * y + sin * x)
    column = middle[1] + columns * (cos * x - sin * y)
    return Square(row, column)
