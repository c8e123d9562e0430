"""From what readers signed to new weights, by the commands that the export prints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cac_core.model.weights import verify_weights
from tests.flows.conftest import Cac, Scored
from tests.flows.reading.served import served
from tests.flows.reading.test_server import given

pytest.importorskip("highdicom", reason="the extra `pacs` is not installed")
pytestmark = pytest.mark.slow


def test_weights_from_signed_readings(
    scored: Scored, environment: dict[str, str], cac: Cac, tmp_path: Path
) -> None:
    warehouse, own = tmp_path / "wh", tmp_path / "own"
    shutil.copytree(scored.warehouse, warehouse)
    with served(scored.archive, warehouse, environment) as server:
        ann = server.enter("Ann")
        listed = server.ask("GET", "/api/studies?limit=100", **ann)[1]["rows"]
        for row in listed:
            path = f"/api/studies/{row['study_key']}"
            assert server.ask("GET", f"{path}/draft", **ann)[0] == 200
            assert server.ask("POST", f"{path}/readings", given(path), **ann)[0] == 200
    export = ("review", "-w", warehouse, "--archive", scored.archive, "--export-training", own)
    made = cac(*export, "--json", PREFECT_API_URL=None).json
    assert made["studies"] == len(listed) and made["parts"]["validation"] >= 1
    mapping = ("--mapping", own / "labels.toml")
    for kind in ("heart", "calcium"):
        run = tmp_path / kind
        done = cac(
            "train", kind, own / "table.csv", *mapping, "--out", run, "--steps", "2", "--json",
            timeout=600,
        )  # fmt: skip
        assert done.code == 0, done.err
        assert done.json["steps_done"] == 2
    parts = ("--heart", tmp_path / "heart", "--calcium", tmp_path / "calcium")
    weights = tmp_path / "weights"
    command = ("train", "export", own / "table.csv", *mapping, *parts, "--out", weights, "--json")
    done = cac(*command, timeout=600)
    assert done.code == 0, done.err
    assert verify_weights(weights).model_id == done.json["model"]
