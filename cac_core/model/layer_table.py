"""The layers of a network as table rows: derived from its modules, stored in the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from cac_core.model.convlstm import ConvLSTMSegmenter

#: Parts of a network in the order of `ConvLSTMSegmenter`.
PARTS = ("trunk", "head 1", "ConvLSTM", "head 2", "attention head")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a convolution with its batch norm, or a ConvLSTM cell.

    `scale` is the ratio of the image size to the size of the output, along rows and columns;
    `parameters` counts trainable parameters, including those of batch norm.
    """

    part: str
    name: str
    kernel: int
    n_in: int
    n_out: int
    dilation: int
    scale: int
    parameters: int


def manifest_layers(entry: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Layers of a network from its entry in the manifest, in forward order.

    Does not import torch, unless the manifest was written without layers.

    Raises
    ------
    KeyError, TypeError
        If the entry lacks a size.
    """
    if "layers" in entry:
        return tuple(Layer(**row) for row in entry["layers"])
    from cac_core.model.convlstm import ConvLSTMSegmenter, NetworkConfig

    return module_layers(ConvLSTMSegmenter(NetworkConfig.from_manifest(entry["config"])))


def module_layers(network: ConvLSTMSegmenter) -> tuple[Layer, ...]:
    """Layers of a network from its modules, in forward order."""
    trunk = list(_trunk(network.trunk.blocks))
    return (
        *trunk,
        *_head("head 1", network.trunk_head, trunk[-1].scale),
        *(_cell(number, cell) for number, cell in enumerate(network.lstm, 1)),
        *_head("head 2", network.sequence_head, 1),
        *_head("attention head", network.attention_head, 1),
    )


def _trunk(blocks: nn.Sequential) -> Iterator[Layer]:
    from torch import nn

    from cac_core.model.convlstm import DenseLayer

    scale, stem, block, number = 1, 0, 1, 0
    children = list(blocks)
    for at, module in enumerate(children):
        if isinstance(module, DenseLayer):
            number += 1
            name = f"dense block {block}, layer {number}"
            *bottleneck, last = module.new
            for unit in bottleneck:
                yield _convolution("trunk", f"{name}, bottleneck", unit, scale)
            yield _convolution("trunk", name, last, scale)
        elif isinstance(module, nn.AvgPool2d):
            block, number = block + 1, 0
        elif at + 1 < len(children) and isinstance(children[at + 1], nn.AvgPool2d):
            scale *= 2
            yield _convolution("trunk", f"transition {block}, average pooling", module, scale)
        else:
            stem, scale = stem + 1, scale * _stride(module)
            yield _convolution("trunk", f"stem {stem}", module, scale)


def _head(part: str, head: nn.Sequential, scale: int) -> Iterator[Layer]:
    *units, classes = head
    for number, unit in enumerate(units, 1):
        yield _convolution(part, f"convolution {number}", unit, scale)
    yield _convolution(part, "classes", classes, scale)


def _first_convolution(module: nn.Module) -> nn.Conv2d:
    from torch import nn

    return next(part for part in module.modules() if isinstance(part, nn.Conv2d))


def _stride(module: nn.Module) -> int:
    return int(_first_convolution(module).stride[0])


def _convolution(part: str, name: str, module: nn.Module, scale: int) -> Layer:
    """A convolution, alone or with the batch norm that follows it."""
    convolution = _first_convolution(module)
    return Layer(
        part,
        name,
        kernel=convolution.kernel_size[0],
        n_in=convolution.in_channels,
        n_out=convolution.out_channels,
        dilation=int(convolution.dilation[0]),
        scale=scale,
        parameters=_count(module),
    )


def _cell(number: int, cell: nn.Module) -> Layer:
    """A ConvLSTM cell: four gates from the input (with bias) and the hidden state (without)."""
    gates = _first_convolution(cell)
    return Layer(
        "ConvLSTM",
        f"cell {number}",
        kernel=gates.kernel_size[0],
        n_in=gates.in_channels,
        n_out=gates.out_channels // 4,
        dilation=1,
        scale=1,
        parameters=_count(cell),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
