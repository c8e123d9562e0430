"""Training of a network from annotated series, from random or earlier weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cac_core.errors import UsageError
from cac_core.model.weights import save_weights
from cac_core.training.comparison_networks import build_network
from cac_core.training.sample_store import TrainingData
from cac_core.training.settings import TrainingSettings
from cac_core.training.train import initial_weights, train
from flows.cli.options import console
from flows.runtime.progress import RunProgress

QUIET = RunProgress(console, quiet=True)


def test_both_networks_learn_from_annotated_series(folder: Path) -> None:
    settings = TrainingSettings(
        steps=2, batch=2, patch_px=32, validate_every=1, validation_batches=1
    )
    for kind in ("heart", "calcium"):
        record = train(
            kind,  # type: ignore[arg-type]
            TrainingData(folder / "table.csv", folder / "labels.toml"),
            folder / kind,
            QUIET,
            settings=settings,
        )
        assert (record["steps_done"], record["training_samples"]) == (2, 1)
        assert record["data"]["readers"] == ["A"]
        assert {p.name for p in (folder / kind).iterdir()} == {
            "checkpoint.pt",
            "network.pt",
            "curves.csv",
            "record.json",
        }


@pytest.mark.parametrize("number", [1, 2])
def test_training_continues_from_any_heart_network(folder: Path, number: int) -> None:
    hearts = [build_network("convlstm", "heart", seed) for seed in (5, 6)]
    earlier = save_weights(
        folder / "before",
        {
            "heart": hearts[0],
            "heart-2": hearts[1],
            "calcium": build_network("convlstm", "calcium", 5),
        },
        name="convlstm",
        version="before",
        training={},
    )
    # At no learning rate and no decay a network ends as it began.
    settings = TrainingSettings(
        steps=1, batch=2, learning_rate=0.0, weight_decay=0.0, validate_every=1
    )
    data = TrainingData(folder / "table.csv", folder / "labels.toml")
    record = train(
        "heart",
        data,
        folder / "run",
        QUIET,
        settings=settings,
        initial=initial_weights("heart", earlier.folder, number),
    )
    name = ("heart", "heart-2")[number - 1]
    assert record["data"]["begun_from_network"] == name
    after = torch.load(folder / "run" / "network.pt")
    for key, value in hearts[number - 1].named_parameters():
        torch.testing.assert_close(after[key], value.detach())
    with pytest.raises(UsageError, match="has 2 heart networks, none of number 3"):
        train(
            "heart",
            data,
            folder / "run-3",
            QUIET,
            settings=settings,
            initial=initial_weights("heart", earlier.folder, 3),
        )
    for kind, begin in (("heart", None), ("calcium", earlier.folder)):
        with pytest.raises(UsageError, match="one of several heart networks"):
            initial_weights(kind, begin, 2)  # type: ignore[arg-type]
