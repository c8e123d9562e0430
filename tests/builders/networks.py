"""Small networks with random weights, whose outputs differ everywhere; results of a cascade."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cac_core.model.cascade import Segmentation
from cac_core.model.convlstm import ConvLSTMSegmenter, NetworkConfig
from cac_core.model.weights import WeightsManifest, save_weights

#: Small enough for a test, with every kind of part that the shipped networks have.
SMALL = NetworkConfig(
    n_classes=3,
    stem_channels=8,
    growth=4,
    dense_dilations=((1, 2),),
    trunk_head=8,
    sequence_head=4,
)
#: The same with the inputs of the shipped calcium network.
SMALL_CALCIUM = dataclasses.replace(SMALL, position_channels=True, bright_tail=True)


def random_network(config: NetworkConfig = SMALL, seed: int = 0) -> ConvLSTMSegmenter:
    """A network in inference mode with random weights and random batch statistics."""
    torch.manual_seed(seed)
    network = ConvLSTMSegmenter(config).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    _spread(network)
    return network.requires_grad_(False)


def _spread(network: ConvLSTMSegmenter) -> None:
    """Scale both heads so that on noise no class wins everywhere."""
    noise = torch.randn(6, 64, 64)
    seen = noise[:, None]
    if network.config.position_channels:
        seen = torch.cat([seen, torch.rand(6, 3, 64, 64) * 2 - 1], dim=1)
    with torch.no_grad():
        for head, features in (
            (network.trunk_head, network.trunk(seen)),
            (network.sequence_head, network.sequence(noise)),
        ):
            scores, last = head(features), head[-1]
            assert isinstance(last, torch.nn.Conv2d) and last.bias is not None
            spread = scores.std(dim=(0, 2, 3))
            last.bias.data = (last.bias - scores.mean(dim=(0, 2, 3))) / spread
            last.weight.data /= spread[:, None, None, None]


def write_random_weights(folder: Path, seed: int = 0) -> WeightsManifest:
    """A folder of weights that verify, of untrained small networks."""
    heart = random_network(dataclasses.replace(SMALL, n_classes=2), seed)
    networks = {"heart": heart, "calcium": random_network(SMALL_CALCIUM, seed + 1)}
    return save_weights(folder, networks, name="random", version="0", training={"seed": seed})


def whole_segmentation(
    heart_mask: NDArray[np.bool_], classes: NDArray[np.uint8], lead: float = 10.0
) -> Segmentation:
    """Result of a cascade that is sure: the classes lead by so many logits, the hearts agree."""
    possible = classes > 0
    scores = np.zeros((int(possible.sum()), 3), np.float32)
    scores[np.arange(len(scores)), classes[possible]] = lead
    return Segmentation(heart_mask, classes, possible, scores, 1.0, 0.1, 0.2)
