"""The training deployment: from a plan to weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from cac_core.model.weights import load_network, save_weights, verify_weights
from cac_core.training import export
from cac_core.training import sample_store as prepare
from cac_core.training.comparison_networks import build_network
from flows import train_networks as module
from tests.builders.annotated_studies import write_annotated_studies

PLAN = """
table = "table.csv"
mapping = "labels.toml"
out = "run"
name = "lab-1"
favour_coronary = 0.3
mean_with = "before"

[[heart]]
steps = 1
batch = 2

[[heart]]
begin = "before"
begin_heart = 2
steps = 1
batch = 2
learning_rate = 0.0
weight_decay = 0

[calcium]
begin = "before"
steps = 1
batch = 2
patch_px = 32
validation_batches = 1
keep = "last"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Annotated studies, earlier weights in `before`, and a plan."""
    for part in (prepare, export):
        monkeypatch.setattr(part, "worker_pool", lambda tasks: ThreadPoolExecutor(1))
    write_annotated_studies(tmp_path)
    save_weights(
        tmp_path / "before",
        {
            "heart": build_network("convlstm", "heart", 5),
            "heart-2": build_network("convlstm", "heart", 6),
            "calcium": build_network("convlstm", "calcium", 5),
        },
        name="convlstm",
        version="before",
        training={},
    )
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    return tmp_path


def test_a_plan_makes_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = []
    monkeypatch.setattr(
        module, "create_markdown_artifact", lambda text, key: published.append((key, text))
    )
    result = module.train_networks.fn(str(folder / "plan.toml"))
    before, made = verify_weights(folder / "before"), verify_weights(folder / "run" / "weights")
    assert result["model"] == made.model_id
    assert made.model_id.startswith("convlstm-lab-1-")
    assert made.hearts == ("heart", "heart-2")
    runs = made.training
    assert runs["heart"]["data"]["begun_from"] is None
    assert runs["heart-2"]["data"]["begun_from_network"] == "heart-2"
    assert runs["calcium"]["mean_with"] == before.model_id
    assert runs["calibration"]["coronary_offset"] == 0.3
    # Without a learning rate the second heart network keeps its initial weights.
    for kept, initial in zip(
        load_network(made, "heart-2").parameters(),
        load_network(before, "heart-2").parameters(),
        strict=True,
    ):
        assert torch.equal(kept, initial)
    assert published[0][0] == "training"
    assert "| | heart | heart-2 | calcium |" in published[0][1]
    assert "| steps_done | 1 | 1 | 1 |" in published[0][1]
