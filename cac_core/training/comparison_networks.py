"""Networks by name: the shipped one, its ablations and a U-Net, for comparison.

The U-Net is MONAI's BasicUNet (`pip install 'cac-cohort[train]'`) on the three slices as channels,
with batch norm in place of instance norm: statistics over the image would make a window differ from
the whole slice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cac_core.errors import TrainingError
from cac_core.model.convlstm import (
    PUBLISHED,
    ConvLSTMSegmenter,
    NetworkConfig,
    Window,
    crop,
    inner,
)
from cac_core.training.records import Kind

#: Sizes of the shipped networks. The calcium network has the harder task and is larger.
HEART = NetworkConfig(n_classes=2)
CALCIUM = NetworkConfig(
    n_classes=3,
    hidden=6,
    sequence_head=12,
    stem_channels=48,
    growth=24,
    dense_dilations=((1, 1, 2, 2, 4, 4),),
    trunk_head=64,
    position_channels=True,
    bright_tail=True,
)


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """Sizes of the U-Net; the defaults of MONAI's BasicUNet."""

    n_classes: int
    position_channels: bool = False
    bright_tail: bool = False
    features: tuple[int, ...] = (32, 32, 64, 128, 256, 32)

    @property
    def stride(self) -> int:
        """Four halvings of the image."""
        return 16

    @property
    def receptive_field_px(self) -> int:
        """Reach in pixels, rounded up to the stride.

        Two 3 x 3 convolutions at each of the scales 1 to 16 in the encoder and 8 to 1 in the
        decoder, with pooling and upsampling between.
        """
        return 112

    def as_manifest(self) -> dict[str, Any]:
        """The configuration under the names that training records use for all networks."""
        values = dataclasses.asdict(self)
        return values | {"place": values.pop("position_channels")}


class UNetSegmenter(nn.Module):
    """MONAI's BasicUNet on triples of slices, with the methods of `ConvLSTMSegmenter`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        from monai.networks.nets.basic_unet import BasicUNet

        self.config = config
        self.net = BasicUNet(
            spatial_dims=2,
            in_channels=6 if config.position_channels else 3,
            out_channels=config.n_classes,
            features=config.features,
            norm=("batch", {"affine": True}),
        )

    def forward(self, stack: Tensor, margin: int = 0, position: Tensor | None = None) -> Tensor:
        """(slices + 2, rows, columns) -> (slices, classes, rows - 2 margin, columns - 2 margin)."""
        triples = torch.stack([stack[:-2], stack[1:-1], stack[2:]], dim=1)
        return self.triples(triples, margin, position)

    def triples(self, stacks: Tensor, margin: int = 0, position: Tensor | None = None) -> Tensor:
        """(n, 3, rows, columns) -> (n, classes, rows - 2 margin, columns - 2 margin)."""
        rows, columns = stacks.shape[-2:]
        s = self.config.stride
        channels = stacks if position is None else torch.cat([stacks, position], dim=1)
        scores: Tensor = self.net(pad(channels, (0, -columns % s, 0, -rows % s)))
        return inner(scores[..., :rows, :columns], margin)

    def window(self, stack: Tensor, core: Window, position: Tensor | None = None) -> Tensor:
        """Class scores of a window of the inner slices; see `ConvLSTMSegmenter.window`."""
        r0, r1, c0, c1 = core
        scores: Tensor = self(stack, 0, position)
        return scores[..., r0:r1, c0:c1]


class SingleSliceSegmenter(ConvLSTMSegmenter):
    """The trunk alone: no LSTM branch. Its unused layers stay, so that parameters are equal."""

    def window(self, stack: Tensor, core: Window, position: Tensor | None = None) -> Tensor:
        """Class scores of a window of the inner slices; see `ConvLSTMSegmenter.window`."""
        shape = stack.shape[-2:]
        return crop(self.single_slice(stack[1:-1], position), (0, shape[0], 0, shape[1]), core)

    def fuse(self, single: Tensor, sequence: Tensor) -> Tensor:
        """Scores of the trunk."""
        return single


class SequenceSegmenter(ConvLSTMSegmenter):
    """The LSTM branch alone."""

    def fuse(self, single: Tensor, sequence: Tensor) -> Tensor:
        """Scores of the LSTM branch."""
        scores: Tensor = self.sequence_head(sequence)
        return scores


class MeanSegmenter(ConvLSTMSegmenter):
    """Both branches with equal weight instead of attention."""

    def fuse(self, single: Tensor, sequence: Tensor) -> Tensor:
        """Mean of the scores of both branches."""
        scores: Tensor = self.sequence_head(sequence)
        return (scores + single) / 2


def _convlstm(
    architecture: type[ConvLSTMSegmenter] = ConvLSTMSegmenter, **changes: Any
) -> Callable[[Kind], nn.Module]:
    def build(kind: Kind) -> nn.Module:
        base = HEART if kind == "heart" else CALCIUM
        return architecture(dataclasses.replace(base, **changes))

    return build


#: Constructors by name: the shipped network, its ablations, the published sizes, the U-Net.
NETWORKS: dict[str, Callable[[Kind], nn.Module]] = {
    "convlstm": _convlstm(),
    "single": _convlstm(SingleSliceSegmenter),
    "sequence": _convlstm(SequenceSegmenter),
    "mean": _convlstm(MeanSegmenter),
    "placeless": _convlstm(position_channels=False),
    "published": lambda kind: ConvLSTMSegmenter(
        dataclasses.replace(PUBLISHED, n_classes=2 if kind == "heart" else 3)
    ),
    "unet": lambda kind: UNetSegmenter(
        UNetConfig(n_classes=2)
        if kind == "heart"
        else UNetConfig(3, position_channels=True, bright_tail=True)
    ),
}


def build_network(name: str, kind: Kind, seed: int) -> nn.Module:
    """A network with random weights; the same seed gives the same weights.

    Raises
    ------
    TrainingError
        If the name is unknown, or the package of the network is not installed.
    """
    if name not in NETWORKS:
        raise TrainingError(f"Unknown network {name!r}.", f"Choose one of {', '.join(NETWORKS)}.")
    torch.manual_seed(seed)
    try:
        return NETWORKS[name](kind)
    except ImportError:
        raise TrainingError(
            f"The network {name} needs the optional packages for training.",
            "Install them: pip install 'cac-cohort[train]'.",
        ) from None
