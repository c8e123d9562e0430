"""Annotated studies, and worker pools as threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cac_core.training import export, synthetic
from cac_core.training import sample_store as prepare
from tests.builders.annotated_studies import write_annotated_studies


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes take seconds to start; `cac train` in test_main.py uses them."""
    for module in (prepare, export, synthetic):
        monkeypatch.setattr(module, "worker_pool", lambda tasks: ThreadPoolExecutor(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two annotated studies with `table.csv` and `labels.toml`."""
    write_annotated_studies(tmp_path)
    return tmp_path
