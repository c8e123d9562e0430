"""The network of both stages: a convolutional LSTM beside a dense single-slice trunk.

Read from top to bottom. The current slice passes through the first blocks of a dense network to
segmentation head 1. With position channels, the trunk also sees where in the heart each pixel
lies, because a plaque and a calcified valve look alike. The next, current and previous slices pass
through a convolutional LSTM, whose output feeds segmentation head 2 and the attention head. The
attention map weights head 2, its complement weights head 1, and the sum is the output (Killekar et
al., J Med Imaging 2022, arXiv 2104.00138; fusion after Tao et al. 2020, arXiv 2005.10821).

No output pixel depends on input more than `receptive_field_px` pixels away, and inference uses no
statistics of the image. A window cut with that margin, starting at a multiple of `stride` from the
first pixel of the image, therefore gives exactly the scores of the whole slice.

Shapes in comments: n slices or triples, R rows, C columns, s stride, K classes, H hidden channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

#: Rows and columns: start, stop, start, stop.
Window = tuple[int, int, int, int]


#: Reach of a head in pixels of its input: two 3 x 3 convolutions.
HEAD_REACH = 2
#: Manifest entries that are not fields: `place` states `position_channels`, `branches` is fixed.
_MANIFEST_ONLY = ("branches", "place")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Sizes of one network.

    `dense_dilations` has one tuple per dense block and one dilation per layer. `position_channels`
    adds three input channels to the trunk, see `preprocess.heart_position`. With `bright_tail` the
    input keeps rising above the HU window, see `preprocess.normalise`.
    """

    n_classes: int
    hidden: int = 3
    lstm_layers: int = 2
    stem_channels: int = 32
    growth: int = 16
    bottleneck: int = 0
    dense_dilations: tuple[tuple[int, ...], ...] = ((1, 1, 2, 2),)
    trunk_head: int = 48
    sequence_head: int = 8
    position_channels: bool = False
    bright_tail: bool = False

    @classmethod
    def from_manifest(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """The configuration that `as_manifest` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a size is missing, unknown or malformed.
        """
        sizes = {name: value for name, value in values.items() if name not in _MANIFEST_ONLY}
        dilations = tuple(tuple(int(d) for d in block) for block in sizes.pop("dense_dilations"))
        position = bool(values.get("place", False))
        return cls(**sizes, dense_dilations=dilations, position_channels=position)

    def as_manifest(self) -> dict[str, Any]:
        """The configuration under the names of the manifest, which the model digest covers."""
        values = dataclasses.asdict(self)
        return values | {"place": values.pop("position_channels")}

    @property
    def stride(self) -> int:
        """Pixels per feature of the trunk; windows start at multiples of it."""
        return 4 << (len(self.dense_dilations) - 1)

    @property
    def sequence_field_px(self) -> int:
        """Reach of the LSTM branch in pixels: three time steps, then two convolutions."""
        return self.lstm_layers + 2 + 2

    @property
    def receptive_field_px(self) -> int:
        """Reach of the whole network in pixels: no output pixel depends on more distant input."""
        field, scale = 1 + 2, 4  # two stem convolutions at scales 1 and 2
        for number, dilations in enumerate(self.dense_dilations):
            if number:
                field, scale = field + scale, scale * 2  # average pooling
            field += scale * sum(dilations)
        # Two convolutions of the head, then bilinear upsampling between neighbouring features.
        return field + 2 * scale + 2 * scale


#: The sizes that the group published: DenseNet-121 through its second block, 3 hidden channels.
PUBLISHED = NetworkConfig(
    n_classes=3,
    stem_channels=64,
    growth=32,
    bottleneck=4,
    dense_dilations=((1,) * 6, (1,) * 12),
    trunk_head=512,
    sequence_head=3,
)


class ConvLSTMSegmenter(nn.Module):
    """Class scores of every inner slice of a stack of neighbouring slices."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = DenseTrunk(config)
        self.trunk_head = head(self.trunk.n_features, config.trunk_head, config.n_classes)
        self.lstm = nn.ModuleList(
            ConvLSTMCell(config.hidden if layer else 1, config.hidden)
            for layer in range(config.lstm_layers)
        )
        self.sequence_head = head(config.hidden, config.sequence_head, config.n_classes)
        self.attention_head = head(config.hidden, config.sequence_head, config.n_classes)

    def forward(self, stack: Tensor, margin: int = 0, position: Tensor | None = None) -> Tensor:
        """Class scores of the inner slices of a stack.

        Parameters
        ----------
        stack : (slices + 2, rows, columns), normalised; the first and last slice serve as
            neighbours only.
        margin : pixels on each side that are context for the trunk only.
        position : (slices, 3, rows, columns), if the network has position channels.

        Returns
        -------
        Scores before softmax, (slices, classes, rows - 2 margin, columns - 2 margin).
        """
        rows, columns = stack.shape[-2:]
        return self.window(stack, (margin, rows - margin, margin, columns - margin), position)

    def window(self, stack: Tensor, core: Window, position: Tensor | None = None) -> Tensor:
        """Class scores of a window of the inner slices; the rest of the stack is context.

        The LSTM branch has a shorter reach than the trunk and runs on a smaller window.

        Parameters
        ----------
        stack : (slices + 2, rows, columns), normalised.
        core : window to score, rows and columns of the stack.
        position : (slices, 3, rows, columns), if the network has position channels.

        Returns
        -------
        Scores before softmax, (slices, classes, rows of core, columns of core).
        """
        shape = stack.shape[-2:]
        near = grow(core, self.config.sequence_field_px, 1, shape)
        single = self.single_slice(stack[1:-1], position, near)  # (n, K, near)
        sequence = self.sequence(crop(stack, (0, shape[0], 0, shape[1]), near))  # (n, H, near)
        return crop(self.fuse(single, sequence), near, core)  # (n, K, core)

    def triples(self, stacks: Tensor, margin: int = 0, position: Tensor | None = None) -> Tensor:
        """Class scores of the middle slices of separate triples, for training.

        (n, 3, rows, columns) and position (n, 3, rows, columns)
        -> (n, classes, rows - 2 margin, columns - 2 margin).
        """
        near = inner(stacks, margin)  # (n, 3, R - 2 margin, C - 2 margin)
        first = self._cells[0]
        gates = [first.input_gates(near[:, step : step + 1]) for step in (2, 1, 0)]
        single = self.single_slice(stacks[:, 1], position)  # (n, K, R, C)
        return self.fuse(inner(single, margin), self._recur(gates))

    def single_slice(
        self, slices: Tensor, position: Tensor | None = None, part: Window | None = None
    ) -> Tensor:
        """Head 1 on each slice: (slices, rows, columns) -> (slices, classes, rows, columns).

        With `part`, only the scores of that window of each slice are computed and returned.
        """
        rows, columns = slices.shape[-2:]
        s, part = self.config.stride, part or (0, rows, 0, columns)
        channels = [slices[:, None]] if position is None else [slices[:, None], position]
        x = torch.cat(channels, dim=1)  # (n, 1 or 4, R, C)
        x = pad(x, (0, -columns % s, 0, -rows % s))  # R and C rounded up to multiples of s
        grid = (x.shape[-2] // s, x.shape[-1] // s)
        # Bilinear upsampling reads the features on both sides of a pixel.
        read = clip((*_read(part[0], part[1], s), *_read(part[2], part[3], s)), grid)
        wanted = grow(read, HEAD_REACH, 1, grid)
        scores = crop(self.trunk_head(self.trunk(x, wanted)), wanted, read)
        scores = interpolate(scores, scale_factor=s, mode="bilinear", align_corners=False)
        pixels = (read[0] * s, read[1] * s, read[2] * s, read[3] * s)
        return crop(scores, pixels, part)  # (n, K, rows and columns of the part)

    def sequence(self, stack: Tensor) -> Tensor:
        """LSTM output per inner slice.

        (slices + 2, rows, columns) -> (slices, hidden, rows, columns).

        The recurrence runs from the next slice over the current one to the previous one. The input
        gates of the first layer are computed once per slice and shared by the three triples that
        contain it.
        """
        gates = self._cells[0].input_gates(stack[:, None])  # (n + 2, 4 H, R, C)
        n = len(stack) - 2
        return self._recur([gates[step : step + n] for step in (2, 1, 0)])  # next to previous

    @property
    def _cells(self) -> list[ConvLSTMCell]:
        return cast("list[ConvLSTMCell]", list(self.lstm))

    def _recur(self, steps: Sequence[Tensor]) -> Tensor:
        """Last hidden state (n, H, R, C) after three steps of first-layer input gates."""
        states: list[tuple[Tensor, Tensor] | None] = [None] * len(self.lstm)
        for x in steps:  # (n, 4 H, R, C)
            for layer, cell in enumerate(self._cells):
                gates = cell.input_gates(x) if layer else x
                states[layer] = state = cell.step(gates, states[layer])
                x = state[0]  # (n, H, R, C)
        return x

    def fuse(self, single: Tensor, sequence: Tensor) -> Tensor:
        """Attention-weighted sum of both branches.

        (slices, classes, rows, columns) and (slices, hidden, rows, columns)
        -> (slices, classes, rows, columns).
        """
        scores: Tensor = self.sequence_head(sequence)  # (n, K, R, C)
        attention = torch.sigmoid(self.attention_head(sequence))  # (n, K, R, C), one per class
        return attention * scores + (1 - attention) * single


class ConvLSTMCell(nn.Module):
    """A convolutional LSTM cell (Shi et al., NeurIPS 2015) without peepholes."""

    def __init__(self, n_inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = nn.Conv2d(n_inputs, 4 * hidden, 3, padding=1)
        self.from_hidden = nn.Conv2d(hidden, 4 * hidden, 3, padding=1, bias=False)

    def input_gates(self, x: Tensor) -> Tensor:
        """Input part of all gates: (n, inputs, rows, columns) -> (n, 4 hidden, rows, columns)."""
        gates: Tensor = self.from_input(x)
        return gates

    def step(self, gates: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """One step: gates (n, 4 hidden, rows, columns) and (hidden, cell), zero if None."""
        if state is not None:
            gates = gates + self.from_hidden(state[0])
        i, f, o, g = gates.chunk(4, dim=1)  # each (n, H, R, C)
        cell = torch.sigmoid(i) * _tanh(g)
        if state is not None:
            cell = cell + torch.sigmoid(f) * state[1]
        return torch.sigmoid(o) * _tanh(cell), cell


def _tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent; `torch.tanh` takes four times as long as a sigmoid on a CPU."""
    return 2 * torch.sigmoid(2 * x) - 1


class DenseTrunk(nn.Module):
    """Stem at stride 4 and dense blocks (Huang et al., CVPR 2017)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        half = config.stem_channels // 2
        channels = config.stem_channels
        blocks: list[nn.Module] = [
            unit(4 if config.position_channels else 1, half, stride=2),  # (n, half, R / 2, C / 2)
            unit(half, channels, stride=2),  # (n, channels, R / 4, C / 4)
        ]
        for number, dilations in enumerate(config.dense_dilations):
            if number:
                # Transition: half the channels, half the rows and columns.
                blocks += [unit(channels, channels // 2, kernel=1), nn.AvgPool2d(2)]
                channels //= 2
            for dilation in dilations:
                blocks.append(DenseLayer(channels, config.growth, config.bottleneck, dilation))
                channels += config.growth
        self.blocks = nn.Sequential(*blocks)
        self.n_features = channels

    def forward(self, x: Tensor, wanted: Window | None = None) -> Tensor:
        """(n, 1 or 4, rows, columns) -> (n, features, rows / stride, columns / stride).

        With `wanted`, only those rows and columns of the features: each block then runs on what the
        blocks after it need of its output.
        """
        if wanted is None:
            features: Tensor = self.blocks(x)
            return features
        here = (0, x.shape[-2], 0, x.shape[-1])
        for block, needed in zip(self.blocks, self._needed(here, wanted), strict=True):
            x = block(crop(x, here, needed))
            stride = _steps(block)[0]
            here = (needed[0] // stride, 0, needed[2] // stride, 0)
            here = (here[0], here[0] + x.shape[-2], here[2], here[2] + x.shape[-1])
        return crop(x, here, wanted)

    def _needed(self, image: Window, wanted: Window) -> list[Window]:
        """Window of its input that each block needs for the wanted window of the features."""
        steps = [_steps(block) for block in self.blocks]
        sizes = [(image[1], image[3])]
        for stride, _ in steps[:-1]:
            sizes.append((sizes[-1][0] // stride, sizes[-1][1] // stride))
        windows: list[Window] = []
        for (stride, reach), size in zip(reversed(steps), reversed(sizes), strict=True):
            r0, r1, c0, c1 = (edge * stride for edge in wanted)
            wanted = grow((r0, r1 - stride + 1, c0, c1 - stride + 1), reach, stride, size)
            windows.append(wanted)
        return windows[::-1]


def _steps(block: nn.Module) -> tuple[int, int]:
    """Stride of a block of the trunk, and its reach in pixels of its input."""
    if isinstance(block, nn.AvgPool2d):
        return 2, 1
    convolution = next(m for m in reversed(list(block.modules())) if isinstance(m, nn.Conv2d))
    return int(convolution.stride[0]), int(convolution.padding[0])


def _read(begin: int, end: int, stride: int) -> tuple[int, int]:
    """Features that bilinear upsampling reads for pixels begin to end - 1; may exceed the grid."""
    return (2 * begin + 1 - stride) // (2 * stride), (2 * end - 1 - stride) // (2 * stride) + 2


class DenseLayer(nn.Module):
    """Concatenates `growth` new features to its input."""

    def __init__(self, channels: int, growth: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        wide = bottleneck * growth
        narrow = [unit(channels, wide, kernel=1)] if wide else []
        self.new = nn.Sequential(*narrow, unit(wide or channels, growth, dilation=dilation))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, rows, columns) -> (n, channels + growth, rows, columns)."""
        return torch.cat([x, self.new(x)], dim=1)


def unit(
    n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Module:
    """Convolution, batch norm, leaky ReLU; stride 1 keeps rows and columns."""
    reach = dilation * (kernel // 2)
    convolution = nn.Conv2d(n_in, n_out, kernel, stride, reach, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.LeakyReLU(0.1, inplace=True))


def head(n_in: int, width: int, n_classes: int) -> nn.Sequential:
    """Twice (3 x 3 convolution, batch norm, leaky ReLU), then a 1 x 1 convolution."""
    return nn.Sequential(unit(n_in, width), unit(width, width), nn.Conv2d(width, n_classes, 1))


def grow(window: Window, margin: int, stride: int, shape: Sequence[int]) -> Window:
    """Add a margin, start at a multiple of the stride, stay inside the image."""
    r0, r1, c0, c1 = window
    return (
        max(0, r0 - margin) // stride * stride,
        min(shape[0], r1 + margin),
        max(0, c0 - margin) // stride * stride,
        min(shape[1], c1 + margin),
    )


def crop(x: Tensor, outer: Window, part: Window) -> Tensor:
    """Crop pixels of window `outer` to window `part`; the last two dimensions are rows, columns."""
    r0, c0 = part[0] - outer[0], part[2] - outer[2]
    return x[..., r0 : r0 + part[1] - part[0], c0 : c0 + part[3] - part[2]]


def clip(window: Window, shape: Sequence[int]) -> Window:
    """The part of a window that lies in the image."""
    return grow(window, 0, 1, shape)


def inner(x: Tensor, margin: int) -> Tensor:
    """Drop `margin` pixels on each side of the last two dimensions."""
    return x[..., margin:-margin, margin:-margin] if margin else x
