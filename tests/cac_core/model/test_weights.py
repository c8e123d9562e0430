"""Weights verify byte by byte, load, and refuse what was altered."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cac_core.errors import WeightsError
from cac_core.model.weights import (
    initialise_from,
    load_network,
    save_weights,
    verify_weights,
)
from tests.builders.networks import SMALL_CALCIUM, random_network, write_random_weights


def test_round_trip(tmp_path: Path) -> None:
    manifest = write_random_weights(tmp_path, seed=3)
    assert verify_weights(tmp_path) == manifest
    network, x = load_network(manifest, "calcium"), torch.randn(3, 24, 24)
    position = torch.rand(1, 3, 24, 24)
    expected = random_network(SMALL_CALCIUM, 4)(x, 0, position)
    torch.testing.assert_close(network(x, 0, position), expected, rtol=0, atol=0)
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../../outside"),
        ("name", ".."),
        ("version", "a/b"),
        ("version", "x" * 61),
        ("name", ""),
    ],
)
def test_a_model_id_names_one_folder(tmp_path: Path, key: str, value: str) -> None:
    write_random_weights(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {key: value}))
    with pytest.raises(WeightsError, match=f"The {key} of the weights"):
        verify_weights(tmp_path)


def test_a_manifest_names_files_of_its_own_folder(tmp_path: Path) -> None:
    write_random_weights(tmp_path / "weights")
    path = tmp_path / "weights" / "manifest.json"
    (tmp_path / "heart.safetensors").write_bytes(
        (tmp_path / "weights" / "heart.safetensors").read_bytes()
    )
    path.write_text(path.read_text().replace("heart.safetensors", "../heart.safetensors"))
    with pytest.raises(WeightsError, match="another folder"):
        verify_weights(tmp_path / "weights")


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


@pytest.mark.parametrize(
    ("name", "mean", "pixel"),
    [
        ("heart", [1.20912, -4.06956], [1.0103, -4.81983]),
        ("heart-2", [2.80403, -1.50827], [5.04065, -1.87998]),
        ("calcium", [3.83414, -0.52225, -0.44161], [3.85488, -1.41452, -0.61243]),
    ],
)
def test_the_shipped_networks_keep_their_scores(
    name: str, mean: list[float], pixel: list[float]
) -> None:
    manifest = verify_weights()
    assert manifest.model_id == "convlstm-s11-625ae798"
    rng = np.random.default_rng(4)
    stack = torch.from_numpy(rng.normal(0, 1, (4, 64, 64)).astype(np.float32))
    position = torch.from_numpy(rng.uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32))
    network = load_network(manifest, name)
    scores = network(stack, 0, position if network.config.position_channels else None).double()
    np.testing.assert_allclose(scores.mean(dim=(0, 2, 3)), mean, atol=1e-4)
    np.testing.assert_allclose(scores[1, :, 20, 31], pixel, atol=1e-4)


def test_saved_weights_have_the_digest_of_the_same_weights_before(tmp_path: Path) -> None:
    shipped = verify_weights()
    networks = {name: load_network(shipped, name) for name in shipped.networks}
    again = save_weights(
        tmp_path,
        networks,
        name="convlstm",
        version="s11",
        training=shipped.training,
        confidence=shipped.confidence,
    )
    assert (again.model_id, again.digest) == (shipped.model_id, shipped.digest)
    assert again.networks["calcium"]["layers"] == shipped.networks["calcium"]["layers"]


def test_a_network_without_one_of_its_branches_is_refused(tmp_path: Path) -> None:
    write_random_weights(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["networks"]["calcium"]["config"]["branches"] = "single"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="do not fit the architecture"):
        load_network(verify_weights(tmp_path), "calcium")


def test_a_wider_network_starts_with_the_output_of_a_smaller_one() -> None:
    small = random_network(SMALL_CALCIUM, 1)
    wide = random_network(dataclasses.replace(SMALL_CALCIUM, dense_dilations=((1, 2, 4, 4),)), 2)
    stack, position = torch.randn(4, 48, 48), torch.rand(2, 3, 48, 48)
    assert not torch.allclose(wide(stack, 0, position), small(stack, 0, position))
    assert initialise_from(wide, small)
    torch.testing.assert_close(wide(stack, 0, position), small(stack, 0, position))


def test_a_network_that_does_not_fit_changes_nothing() -> None:
    placeless, network = random_network(), random_network(SMALL_CALCIUM, 2)
    narrow = random_network(dataclasses.replace(SMALL_CALCIUM, trunk_head=4), 3)
    single = random_network(dataclasses.replace(SMALL_CALCIUM, dense_dilations=((1,),)), 4)
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    assert not initialise_from(narrow, network)
    assert not initialise_from(single, network)
    for name, value in narrow.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert initialise_from(network, placeless)  # position channels start with zero weights


def test_parameters_of_the_confidence_are_part_of_the_digest(tmp_path: Path) -> None:
    shipped = verify_weights()
    networks = {name: load_network(shipped, name) for name in shipped.networks}
    given: tuple[dict[str, float] | None, ...] = (None, {"shift_sd": 0.5}, {"shift_sd": 0.25})
    found = [
        save_weights(
            tmp_path / str(n), networks, name="n", version="0", training={}, confidence=confidence
        )
        for n, confidence in enumerate(given)
    ]
    assert tuple(weights.confidence for weights in found) == given
    assert len({weights.digest for weights in found}) == 3
    manifest = tmp_path / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.5", '"much"'))
    with pytest.raises(WeightsError, match="malformed"):
        verify_weights(tmp_path / "1")
