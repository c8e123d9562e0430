"""Rows of the layer table match the network, and reading them from a manifest needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from torch import nn

from cac_core.model.convlstm import PUBLISHED, ConvLSTMSegmenter, NetworkConfig
from cac_core.model.layer_table import PARTS, manifest_layers, module_layers
from cac_core.model.weights import load_network, verify_weights

CONFIGS = {
    "published": PUBLISHED,
    "small": NetworkConfig(n_classes=2),
    "position channels": NetworkConfig(
        n_classes=3, hidden=6, lstm_layers=3, position_channels=True
    ),
    "no dense layer": NetworkConfig(n_classes=2, dense_dilations=((),)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_layers_hold_the_parameters_of_the_network(config: NetworkConfig) -> None:
    network = ConvLSTMSegmenter(config)
    rows = module_layers(network)
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
    rows = [row for row in module_layers(network) if row.part in PARTS[:2]]
    assert [(row.kernel, row.n_in, row.n_out, row.dilation) for row in rows] == found
    assert rows[-1].scale == PUBLISHED.stride


def test_layers_of_a_deep_network_by_hand() -> None:
    rows = {(row.part, row.name): row for row in module_layers(ConvLSTMSegmenter(PUBLISHED))}
    assert len(rows) == 2 + 2 * (6 + 12) + 1 + 3 + 2 + 3 + 3
    stem = rows["trunk", "stem 2"]
    assert (stem.kernel, stem.n_in, stem.n_out, stem.scale) == (3, 32, 64, 4)
    narrow = rows["trunk", "dense block 1, layer 2, bottleneck"]
    assert (narrow.kernel, narrow.n_in, narrow.n_out, narrow.parameters) == (1, 96, 128, 12544)
    between = rows["trunk", "transition 1, average pooling"]
    assert (between.kernel, between.n_in, between.n_out, between.scale) == (1, 256, 128, 8)
    assert rows["trunk", "dense block 2, layer 12"].scale == 8
    cell = rows["ConvLSTM", "cell 2"]
    assert (cell.n_in, cell.n_out, cell.parameters) == (3, 3, 9 * 3 * 12 + 12 + 9 * 3 * 12)
    classes = rows["head 1", "classes"]
    assert (classes.kernel, classes.n_in, classes.n_out, classes.scale) == (1, 512, 3, 8)


def test_the_shipped_manifest_states_the_layers_of_the_shipped_networks() -> None:
    manifest = verify_weights()
    for name, entry in manifest.networks.items():
        rows = manifest_layers(entry)
        assert rows == module_layers(load_network(manifest, name))
        assert sum(row.parameters for row in rows) == entry["parameters"]


def test_a_manifest_without_layers_gives_those_of_its_configuration() -> None:
    for entry in verify_weights().networks.values():
        config = {name: entry[name] for name in entry if name != "layers"}
        assert manifest_layers(config) == manifest_layers(entry)


def test_reading_the_layers_of_a_manifest_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from cac_core.model.layer_table import manifest_layers\n"
        "from cac_core.model.weights import verify_weights\n"
        "assert all(manifest_layers(entry) for entry in verify_weights().networks.values())\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
