"""Weights verify byte by byte, load, and refuse what was altered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cac_core.errors import WeightsError
from cac_core.model.weights import load_network, verify_weights
from tests.builders.networks import SMALL_CALCIUM, random_network, write_random_weights


def test_round_trip(tmp_path: Path) -> None:
    manifest = write_random_weights(tmp_path, seed=3)
    assert verify_weights(tmp_path) == manifest
    network, x = load_network(manifest, "calcium"), torch.randn(3, 24, 24)
    place = torch.rand(1, 3, 24, 24)
    expected = random_network(SMALL_CALCIUM, 4)(x, 0, place)
    torch.testing.assert_close(network(x, 0, place), expected, rtol=0, atol=0)
    assert not network.training


@pytest.mark.parametrize("name", ["heart", "calcium"])
@pytest.mark.parametrize("where", [0, 200, -1])
def test_a_changed_byte_is_refused(tmp_path: Path, name: str, where: int) -> None:
    write_random_weights(tmp_path)
    file = tmp_path / f"{name}.safetensors"
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="altered"):
        verify_weights(tmp_path)


def test_a_changed_configuration_changes_the_digest(tmp_path: Path) -> None:
    before = write_random_weights(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["networks"]["heart"]["config"]["growth"] = 5
    path.write_text(json.dumps(manifest))
    after = verify_weights(tmp_path)
    assert after.digest != before.digest
    with pytest.raises(WeightsError, match="do not fit the architecture"):
        load_network(after, "heart")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"networks": {"heart": 1}}'])
def test_malformed_manifest(tmp_path: Path, content: str) -> None:
    write_random_weights(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(WeightsError, match="malformed"):
        verify_weights(tmp_path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No weights at"):
        verify_weights(tmp_path / "nowhere")
    write_random_weights(tmp_path)
    (tmp_path / "heart.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        verify_weights(tmp_path)


def test_the_shipped_weights_verify() -> None:
    manifest = verify_weights()
    assert manifest.training, "the manifest says what the weights were trained on"
    for name in ("heart", "calcium"):
        network = load_network(manifest, name)
        found = sum(p.numel() for p in network.parameters())
        assert found == manifest.networks[name]["parameters"]
