"""A run removes what the settings do not keep, and nothing else by default."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.settings import RetentionSettings
from flows.retention import apply_retention, keep_archive_page
from flows.runtime.known_folders import known_folders, remember_folder
from flows.runtime.results_folder import results_folder
from schemas.lesion import LESIONS
from schemas.score import SCORES
from tests.builders.rows import score_row

OLD = time.time() - 40 * 86400


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    """Old staged rows of two models, a half-written file, archive pages and three exports."""
    store = Warehouse(tmp_path / "wh")
    for model in ("now", "before"):
        store.stage(model, "1", SCORES.from_rows([score_row(1)]), LESIONS.empty())
    parts = tmp_path / "wh" / "_staging"
    (parts / "linkage" / "registry" / "deaths").mkdir(parents=True)
    (parts / "linkage" / "registry" / "deaths" / "x.parquet").touch()
    (parts / "write-1.tmp").touch()
    for path in parts.rglob("*"):
        os.utime(path, (OLD, OLD))
    (parts / "write-2.tmp").touch()
    store.write_page("archive/index.html", "page")
    for run in ("20240101T000000-a", "20240102T000000-b", "20240103T000000-c"):
        keep_archive_page(store, run)
    for number in range(3):
        out = tmp_path / f"out{number}"
        remember_folder(store, out, "export")
        with results_folder(out, "export", whole=False) as folder:
            (folder / "linked.csv").write_text(f"{number}")
        time.sleep(1.1)
    (tmp_path / "out0" / "mine.txt").touch()
    return store


def test_the_default_removes_leftovers_only(store: Warehouse, tmp_path: Path) -> None:
    before = _files(tmp_path)
    keep = RetentionSettings(archive_pages=3)
    assert apply_retention(store, keep, "now") == {"half-written files": 1}
    assert before - _files(tmp_path) == {"wh/_staging/write-1.tmp"}
    assert apply_retention(store, keep, "now") == {}


def test_what_is_old_goes(store: Warehouse, tmp_path: Path) -> None:
    before = _files(tmp_path)
    settings = RetentionSettings(archive_pages=1, exports=2, staging_days=30)
    found = apply_retention(store, settings, "now")
    assert found == {
        "half-written files": 1,
        "archive pages": 2,
        "exports": 1,
        "unpublished files": 4,
    }
    gone = before - _files(tmp_path)
    assert "out0/linked.csv" in gone
    assert "wh/reports/archive/run-20240101T000000-a.html" in gone
    assert "wh/_staging/linkage/registry/deaths/x.parquet" in gone
    assert {name for name in gone if "model=now" in name} == set()
    left = _files(tmp_path)
    assert {"out0/mine.txt", "out1/linked.csv", "wh/reports/archive/index.html"} <= left
    assert [item.path.name for item in known_folders(store)] == ["out1", "out2"]
