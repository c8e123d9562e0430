"""What the networks are compared with, and built by name: a U-Net, and ours with parts left out.

The U-Net is that of MONAI (`pip install 'cac-cohort[train]'`), with the three slices as channels
and batch norm in place of instance norm: statistics over the image would make a window differ from
the whole slice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cac_core.errors import TrainingError
from cac_core.model.convlstm import (
    PUBLISHED,
    ConvLSTMSegmenter,
    NetworkConfig,
    Window,
    inner,
)

Kind = Literal["heart", "calcium"]
#: Sizes of the networks that ship. The calcium network has the harder task and gets more.
HEART = NetworkConfig(n_classes=2)
CALCIUM = NetworkConfig(
    n_classes=3,
    hidden=6,
    sequence_head=12,
    stem_channels=48,
    growth=24,
    dense_dilations=((1, 1, 2, 2, 4, 4),),
    trunk_head=64,
    place=True,
    bright_tail=True,
)


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """Sizes of the U-Net; the defaults of MONAI's BasicUNet."""

    n_classes: int
    place: bool = False
    bright_tail: bool = False
    features: tuple[int, ...] = (32, 32, 64, 128, 256, 32)

    @property
    def stride(self) -> int:
        """Four halvings of the image."""
        return 16

    @property
    def receptive_field_px(self) -> int:
        """Pixels to either side.

        Two 3 x 3 convolutions at each of the scales 1 to 16 on the way down and 8 to 1 on the way
        up, pooling and upsampling between; rounded up to the stride.
        """
        return 112


class UNetSegmenter(nn.Module):
    """MONAI's BasicUNet on triples of slices, with the methods of `ConvLSTMSegmenter`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        from monai.networks.nets.basic_unet import BasicUNet

        self.config = config
        self.net = BasicUNet(
            spatial_dims=2,
            in_channels=6 if config.place else 3,
            out_channels=config.n_classes,
            features=config.features,
            norm=("batch", {"affine": True}),
        )

    def forward(self, stack: Tensor, margin: int = 0, place: Tensor | None = None) -> Tensor:
        """(slices + 2, rows, columns) -> (slices, classes, rows - 2 margin, columns - 2 margin)."""
        triples = torch.stack([stack[:-2], stack[1:-1], stack[2:]], dim=1)
        return self.triples(triples, margin, place)

    def triples(self, stacks: Tensor, margin: int = 0, place: Tensor | None = None) -> Tensor:
        """(n, 3, rows, columns) -> (n, classes, rows - 2 margin, columns - 2 margin)."""
        rows, columns = stacks.shape[-2:]
        s = self.config.stride
        channels = stacks if place is None else torch.cat([stacks, place], dim=1)
        scores: Tensor = self.net(pad(channels, (0, -columns % s, 0, -rows % s)))
        return inner(scores[..., :rows, :columns], margin)

    def window(self, stack: Tensor, core: Window, place: Tensor | None = None) -> Tensor:
        """Class scores of a part of the inner slices; the rest of the stack is context."""
        r0, r1, c0, c1 = core
        scores: Tensor = self(stack, 0, place)
        return scores[..., r0:r1, c0:c1]


def _ours(**changes: Any) -> Callable[[Kind], nn.Module]:
    def build(kind: Kind) -> nn.Module:
        base = HEART if kind == "heart" else CALCIUM
        return ConvLSTMSegmenter(dataclasses.replace(base, **changes))

    return build


#: Networks by name: what ships, ours with parts or the place left out, the published sizes, and
#: the U-Net.
NETWORKS: dict[str, Callable[[Kind], nn.Module]] = {
    "convlstm": _ours(),
    "single": _ours(branches="single"),
    "sequence": _ours(branches="sequence"),
    "mean": _ours(branches="mean"),
    "placeless": _ours(place=False),
    "published": lambda kind: ConvLSTMSegmenter(
        dataclasses.replace(PUBLISHED, n_classes=2 if kind == "heart" else 3)
    ),
    "unet": lambda kind: UNetSegmenter(
        UNetConfig(n_classes=2) if kind == "heart" else UNetConfig(3, place=True, bright_tail=True)
    ),
}


def build_network(name: str, kind: Kind, seed: int) -> nn.Module:
    """A new network with random weights; the same seed gives the same ones.

    Raises
    ------
    TrainingError
        If there is no network of this name, or its package is not installed.
    """
    if name not in NETWORKS:
        raise TrainingError(f"There is no network {name!r}.", f"There are: {', '.join(NETWORKS)}.")
    torch.manual_seed(seed)
    try:
        return NETWORKS[name](kind)
    except ImportError:
        raise TrainingError(
            f"The network {name} needs the optional packages for training.",
            "Install them: pip install 'cac-cohort[train]'.",
        ) from None
