"""The layers of a network as rows, from its configuration alone; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: Parts of a network in the order of `ConvLSTMSegmenter`.
PARTS = ("trunk", "head 1", "ConvLSTM", "head 2", "attention head")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a convolution with what follows it, or a cell of the ConvLSTM.

    `scale` says by how much its output is smaller than the image, along rows and columns;
    `parameters` counts trainable numbers, those of batch norm included.
    """

    part: str
    name: str
    kernel: int
    n_in: int
    n_out: int
    dilation: int
    scale: int
    parameters: int


def layers(config: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Layers of the network that a manifest of weights states, in the order data pass through.

    Parameters
    ----------
    config : fields of `cac_core.model.convlstm.NetworkConfig`.

    Raises
    ------
    KeyError
        If the configuration lacks a size.
    """
    trunk = list(_trunk(config))
    features, scale = _features(config), trunk[-1].scale
    hidden, classes = config["hidden"], config["n_classes"]
    return (
        *trunk,
        *_head("head 1", features, config["trunk_head"], classes, scale),
        *(
            _cell(number, hidden if number else 1, hidden)
            for number in range(config["lstm_layers"])
        ),
        *_head("head 2", hidden, config["sequence_head"], classes, 1),
        *_head("attention head", hidden, config["sequence_head"], classes, 1),
    )


def _trunk(config: Mapping[str, Any]) -> Iterator[Layer]:
    channels, scale = config["stem_channels"], 4
    # Manifests older than this choice do not state it.
    inputs = 4 if config.get("place", False) else 1
    yield _unit("trunk", "stem 1", 3, inputs, channels // 2, 1, 2)
    yield _unit("trunk", "stem 2", 3, channels // 2, channels, 1, scale)
    growth, wide = config["growth"], config["bottleneck"] * config["growth"]
    for block, dilations in enumerate(config["dense_dilations"], 1):
        if block > 1:
            name, scale = f"transition {block - 1}, average pooling", scale * 2
            yield _unit("trunk", name, 1, channels, channels // 2, 1, scale)
            channels //= 2
        for number, dilation in enumerate(dilations, 1):
            name = f"dense block {block}, layer {number}"
            if wide:
                yield _unit("trunk", f"{name}, bottleneck", 1, channels, wide, 1, scale)
            yield _unit("trunk", name, 3, wide or channels, growth, dilation, scale)
            channels += growth


def _features(config: Mapping[str, Any]) -> int:
    """Channels at the end of the trunk: each layer of a dense block adds to what it is given."""
    channels = config["stem_channels"]
    for block, dilations in enumerate(config["dense_dilations"]):
        channels = (channels // 2 if block else channels) + config["growth"] * len(dilations)
    return int(channels)


def _head(part: str, n_in: int, width: int, classes: int, scale: int) -> Iterator[Layer]:
    yield _unit(part, "convolution 1", 3, n_in, width, 1, scale)
    yield _unit(part, "convolution 2", 3, width, width, 1, scale)
    yield Layer(part, "classes", 1, width, classes, 1, scale, width * classes + classes)


def _unit(part: str, name: str, kernel: int, n_in: int, n_out: int, *at: int) -> Layer:
    """Convolution without bias, then batch norm with scale and shift."""
    dilation, scale = at
    parameters = kernel * kernel * n_in * n_out + 2 * n_out
    return Layer(part, name, kernel, n_in, n_out, dilation, scale, parameters)


def _cell(number: int, n_in: int, hidden: int) -> Layer:
    """Four gates, each from input (with bias) and hidden state (without)."""
    gates = 4 * hidden
    parameters = 9 * n_in * gates + gates + 9 * hidden * gates
    return Layer("ConvLSTM", f"cell {number + 1}", 3, n_in, hidden, 1, 1, parameters)
