"""Layers by configuration: the same parameters and channels as the networks themselves."""

from __future__ import annotations

import dataclasses

import pytest
from torch import nn

from cac_core.model.convlstm import PUBLISHED, ConvLSTMSegmenter, NetworkConfig
from cac_core.model.layer_table import PARTS, layers
from cac_core.model.weights import verify_weights

CONFIGS = {
    "published": PUBLISHED,
    "small": NetworkConfig(n_classes=2),
    "told its place": NetworkConfig(n_classes=3, hidden=6, lstm_layers=3, place=True),
    "no dense layer": NetworkConfig(n_classes=2, dense_dilations=((),)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_layers_hold_the_parameters_of_the_network(config: NetworkConfig) -> None:
    network = ConvLSTMSegmenter(config)
    rows = layers(dataclasses.asdict(config))
    parts = (network.trunk, network.trunk_head, network.lstm, network.sequence_head,
             network.attention_head)  # fmt: skip
    for name, module in zip(PARTS, parts, strict=True):
        counted = sum(row.parameters for row in rows if row.part == name)
        assert counted == sum(item.numel() for item in module.parameters()), name


def test_kernels_channels_and_dilations_are_those_of_the_convolutions() -> None:
    network = ConvLSTMSegmenter(PUBLISHED)
    found = [
        (one.kernel_size[0], one.in_channels, one.out_channels, one.dilation[0])
        for part in (network.trunk, network.trunk_head)
        for one in part.modules()
        if isinstance(one, nn.Conv2d)
    ]
    rows = [row for row in layers(dataclasses.asdict(PUBLISHED)) if row.part in PARTS[:2]]
    assert [(row.kernel, row.n_in, row.n_out, row.dilation) for row in rows] == found
    assert rows[-1].scale == PUBLISHED.stride


def test_the_shipped_manifest_states_as_many_parameters() -> None:
    for entry in verify_weights().networks.values():
        assert sum(row.parameters for row in layers(entry["config"])) == entry["parameters"]
