"""The network of both stages: a convolutional LSTM beside a dense single-slice trunk.

Read from top to bottom. The current slice goes through the first blocks of a dense network to
segmentation head 1; a network that is told its place also sees there where in the heart each pixel
lies, for a plaque and a calcified valve look alike. The slices next, current and previous go
through a convolutional LSTM, whose output feeds segmentation head 2 and the attention head. The
attention map weighs head 2, its complement head 1, and the sum is the output (Killekar et al.,
J Med Imaging 2022, arXiv 2104.00138; the fusion after Tao et al. 2020, arXiv 2005.10821).

Nothing here looks at more than `receptive_field_px` pixels to either side, and inference uses no
statistics of the image. A window cut with that margin, at a multiple of `stride` from the image's
first pixel, therefore gives exactly what the whole slice gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

#: Rows and columns: begin, end, begin, end.
Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Sizes of one network. `dense_dilations` has one entry per layer of a dense block.

    `branches` leaves parts out, to measure what they are worth: `single` is the trunk alone,
    `sequence` the LSTM branch alone, `mean` both with equal weight instead of attention. With
    `place` the trunk gets three more channels, see `preprocess.place_in_heart`; with `bright_tail`
    the input still rises above the HU window, see `preprocess.normalise`.
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
    branches: Literal["both", "single", "sequence", "mean"] = "both"
    place: bool = False
    bright_tail: bool = False

    @property
    def stride(self) -> int:
        """Pixels per feature of the trunk; windows begin at multiples of it."""
        return 4 << (len(self.dense_dilations) - 1)

    @property
    def sequence_field_px(self) -> int:
        """Pixels to either side that the LSTM branch sees: three steps, then two convolutions."""
        return self.lstm_layers + 2 + 2

    @property
    def receptive_field_px(self) -> int:
        """Pixels to either side that any output pixel depends on."""
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
    """Slices in, class scores out; `forward` segments every inner slice of a stack."""

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

    def forward(self, stack: Tensor, margin: int = 0, place: Tensor | None = None) -> Tensor:
        """Class scores of the inner slices of a stack of neighbouring slices.

        Parameters
        ----------
        stack : (slices + 2, rows, columns), normalised; the first and the last slice are only
            looked at as neighbours.
        margin : pixels on each side that are context of the trunk alone.
        place : (slices, 3, rows, columns), for a network that is told its place.

        Returns
        -------
        Scores before softmax, (slices, classes, rows - 2 margin, columns - 2 margin).
        """
        rows, columns = stack.shape[-2:]
        return self.window(stack, (margin, rows - margin, margin, columns - margin), place)

    def window(self, stack: Tensor, core: Window, place: Tensor | None = None) -> Tensor:
        """Class scores of a part of the inner slices; the rest of the stack is context.

        The LSTM branch sees less far than the trunk and runs only on what it needs.

        Parameters
        ----------
        stack : (slices + 2, rows, columns), normalised.
        core : rows and columns (begin, end, begin, end) that are asked for.
        place : (slices, 3, rows, columns), for a network that is told its place.

        Returns
        -------
        (slices, classes, rows of core, columns of core).
        """
        shape = stack.shape[-2:]
        whole = (0, shape[0], 0, shape[1])
        near = grow(core, self.config.sequence_field_px, 1, shape)
        single = crop(self.single_slice(stack[1:-1], place), whole, near)
        if self.config.branches == "single":
            return crop(single, near, core)
        return crop(self.fuse(single, self.sequence(crop(stack, whole, near))), near, core)

    def triples(self, stacks: Tensor, margin: int = 0, place: Tensor | None = None) -> Tensor:
        """Class scores of the middle slices of triples that are no neighbours: for training.

        (n, 3, rows, columns) and place (n, 3, rows, columns)
        -> (n, classes, rows - 2 margin, columns - 2 margin).
        """
        near = inner(stacks, margin)
        first = self.lstm[0]
        assert isinstance(first, ConvLSTMCell)
        gates = [first.input_gates(near[:, step : step + 1]) for step in (2, 1, 0)]
        single = self.single_slice(stacks[:, 1], place)
        return self.fuse(inner(single, margin), self._recur(gates))

    def single_slice(self, slices: Tensor, place: Tensor | None = None) -> Tensor:
        """Head 1 on each slice: (slices, rows, columns) -> (slices, classes, rows, columns)."""
        rows, columns = slices.shape[-2:]
        s = self.config.stride
        channels = [slices[:, None]] if place is None else [slices[:, None], place]
        whole = pad(torch.cat(channels, dim=1), (0, -columns % s, 0, -rows % s))  # R, C % s == 0
        features = self.trunk_head(self.trunk(whole))  # (n, classes, R / s, C / s)
        scores = interpolate(features, scale_factor=s, mode="bilinear", align_corners=False)
        return scores[..., :rows, :columns]

    def sequence(self, stack: Tensor) -> Tensor:
        """LSTM output per inner slice.

        (slices + 2, rows, columns) -> (slices, hidden, rows, columns).

        The recurrence runs from the next slice over the current one to the previous one. What a
        slice adds to the gates of the first layer is computed once and serves the three triples
        it belongs to; so does the first step, which starts from an empty state.
        """
        first = self.lstm[0]
        assert isinstance(first, ConvLSTMCell)
        gates = first.input_gates(stack[:, None])  # (slices + 2, 4 hidden, rows, columns)
        n = len(stack) - 2
        return self._recur([gates[step : step + n] for step in (2, 1, 0)])  # next to previous

    def _recur(self, steps: list[Tensor]) -> Tensor:
        """All layers over the input gates of three steps; gives the last hidden state."""
        state: list[tuple[Tensor, Tensor] | None] = [None] * len(self.lstm)
        for gates in steps:
            x = gates
            for layer, cell in enumerate(self.lstm):
                assert isinstance(cell, ConvLSTMCell)
                if layer:
                    x = cell.input_gates(x)
                state[layer] = cell.step(x, state[layer])
                x = state[layer][0]  # type: ignore[index]
        return x  # (slices, hidden, rows, columns)

    def fuse(self, single: Tensor, sequence: Tensor) -> Tensor:
        """Attention-weighted sum of both branches; all (slices, classes, rows, columns)."""
        if self.config.branches == "single":
            return single
        scores: Tensor = self.sequence_head(sequence)
        if self.config.branches == "sequence":
            return scores
        if self.config.branches == "mean":
            return (scores + single) / 2
        attention = torch.sigmoid(self.attention_head(sequence))
        return attention * scores + (1 - attention) * single


class ConvLSTMCell(nn.Module):
    """A convolutional LSTM cell (Shi et al., NeurIPS 2015) without peepholes."""

    def __init__(self, n_inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = nn.Conv2d(n_inputs, 4 * hidden, 3, padding=1)
        self.from_hidden = nn.Conv2d(hidden, 4 * hidden, 3, padding=1, bias=False)

    def input_gates(self, x: Tensor) -> Tensor:
        """Contribution of the input: (n, inputs, rows, columns) -> (n, 4 hidden, rows, columns)."""
        gates: Tensor = self.from_input(x)
        return gates

    def step(self, gates: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """One step from (hidden, cell) to the next; an absent state is zero."""
        if state is not None:
            gates = gates + self.from_hidden(state[0])
        i, f, o, g = gates.chunk(4, dim=1)  # each (n, hidden, rows, columns)
        cell = torch.sigmoid(i) * torch.tanh(g)
        if state is not None:
            cell = cell + torch.sigmoid(f) * state[1]
        return torch.sigmoid(o) * torch.tanh(cell), cell


class DenseTrunk(nn.Module):
    """The first blocks of a dense network (Huang et al., CVPR 2017), at a quarter of the size."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        half = config.stem_channels // 2
        channels = config.stem_channels
        blocks: list[nn.Module] = [
            unit(4 if config.place else 1, half, stride=2),  # (n, half, rows / 2, columns / 2)
            unit(half, channels, stride=2),  # (n, channels, rows / 4, columns / 4)
        ]
        for number, dilations in enumerate(config.dense_dilations):
            if number:
                blocks += [unit(channels, channels // 2, kernel=1), nn.AvgPool2d(2)]
                channels //= 2
            for dilation in dilations:
                blocks.append(DenseLayer(channels, config.growth, config.bottleneck, dilation))
                channels += config.growth
        self.blocks = nn.Sequential(*blocks)
        self.n_features = channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1 or 4, rows, columns) -> (n, features, rows / stride, columns / stride)."""
        features: Tensor = self.blocks(x)
        return features


class DenseLayer(nn.Module):
    """Adds `growth` features to what it is given."""

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
    """Convolution, batch norm, leaky ReLU; keeps the size at stride 1."""
    reach = dilation * (kernel // 2)
    convolution = nn.Conv2d(n_in, n_out, kernel, stride, reach, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.LeakyReLU(0.1, inplace=True))


def head(n_in: int, width: int, n_classes: int) -> nn.Sequential:
    """Twice (3 x 3 convolution, batch norm, leaky ReLU), then a 1 x 1 convolution."""
    return nn.Sequential(unit(n_in, width), unit(width, width), nn.Conv2d(width, n_classes, 1))


def grow(window: Window, margin: int, stride: int, shape: Sequence[int]) -> Window:
    """Add a margin, begin at a multiple of the stride, stay inside the image."""
    r0, r1, c0, c1 = window
    return (
        max(0, r0 - margin) // stride * stride,
        min(shape[0], r1 + margin),
        max(0, c0 - margin) // stride * stride,
        min(shape[1], c1 + margin),
    )


def crop(x: Tensor, outer: Window, part: Window) -> Tensor:
    """From pixels of `outer` to those of `part`; the last two dimensions are rows, columns."""
    r0, c0 = part[0] - outer[0], part[2] - outer[2]
    return x[..., r0 : r0 + part[1] - part[0], c0 : c0 + part[3] - part[2]]


def inner(x: Tensor, margin: int) -> Tensor:
    """Drop `margin` pixels on each side of the last two dimensions."""
    return x[..., margin:-margin, margin:-margin] if margin else x
