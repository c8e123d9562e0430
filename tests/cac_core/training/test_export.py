"""Export of trained networks: the mean with their initial weights, and the real chests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cac_core.errors import UsageError
from cac_core.model.weights import SHIPPED_WEIGHTS, save_weights, verify_weights
from cac_core.training import export as module
from cac_core.training.comparison_networks import build_network
from cac_core.training.export import export_weights
from cac_core.training.sample_store import TrainingData
from cac_core.training.settings import TrainingSettings
from cac_core.training.train import initial_weights, train
from flows.cli.options import console
from flows.runtime.progress import RunProgress

QUIET = RunProgress(console, quiet=True)


def test_the_mean_of_a_network_and_its_initial_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_network("convlstm", "calcium", 5)
    shipped = save_weights(
        folder / "before",
        {"heart": build_network("convlstm", "heart", 5), "calcium": network},
        name="convlstm",
        version="before",
        training={},
    )
    data = TrainingData(folder / "table.csv", folder / "labels.toml")
    settings = TrainingSettings(
        steps=1, batch=2, patch_px=32, validate_every=1, validation_batches=1
    )
    for kind, begin in (("heart", None), ("calcium", shipped.folder)):
        train(
            kind,  # type: ignore[arg-type]
            data,
            folder / kind,
            QUIET,
            settings=settings,
            initial=initial_weights(kind, begin),  # type: ignore[arg-type]
        )
    offset = {"background_offset": 0.0}
    monkeypatch.setattr(module, "calibrate", lambda *_: dict(offset))
    # Chests of the calibration are excluded from evaluation as those of the training are.
    monkeypatch.setattr(module, "hosts_of", lambda rows: ["crop"] if rows else [])
    runs = ([folder / "heart"], folder / "calcium", data)
    result = export_weights(*runs, folder / "w", QUIET, mean_with=shipped.folder)
    assert result["training"]["calcium"]["mean_with"] == shipped.model_id
    assert result["training"]["calibration"]["data"] == {"hosts": ["crop"]}
    assert verify_weights(folder / "w").hosts == ("crop",)
    after = torch.load(folder / "calcium" / "network.pt")
    found = load_file(folder / "w" / "calcium.safetensors")
    for name, before in network.state_dict().items():
        if before.is_floating_point():
            torch.testing.assert_close(found[name], (before + after[name]) / 2)
    assert any((after[name] != before).any() for name, before in network.state_dict().items())
    # The heart network of earlier weights is kept as it is, with the record of its training.
    kept = export_weights([folder / "w"], folder / "calcium", data, folder / "w3", QUIET)
    first, second = (load_file(folder / w / "heart.safetensors") for w in ("w", "w3"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert kept["training"]["heart"] == result["training"]["heart"]
    with pytest.raises(UsageError, match="trained further"):
        export_weights(*runs, folder / "w2", QUIET, mean_with=SHIPPED_WEIGHTS)
