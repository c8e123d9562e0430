"""The deployments of prefect.yaml fit the flows that they name."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

_TEXT = (Path(__file__).parents[2] / "prefect.yaml").read_text("utf-8")
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load(_TEXT)["deployments"]


def test_there_is_one_for_each_job_of_a_site() -> None:
    names = [one["name"] for one in DEPLOYMENTS]
    assert names == [
        "nightly-rescore", "registry-linkage", "cohort-report", "backfill", "train-networks",
    ]  # fmt: skip


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["name"])
def test_a_deployment_fits_its_flow(deployment: dict[str, Any]) -> None:
    # Modules of the installation, which need no checkout.
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert flow.name == deployment["name"]
    inspect.signature(flow.fn).bind_partial(**deployment["parameters"])
    assert deployment["work_pool"] == {"name": "cac"} and deployment["tags"] == ["cac"]
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    # What runs by itself waits for the warehouse instead of failing at once.
    assert bool(deployment.get("schedules")) == deployment["parameters"].get("scheduled", False)
