"""Dry runs say what would be written, and write nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from cac_core.errors import UsageError
from cac_core.training.sample_store import TrainingData
from cac_core.training.settings import default_settings
from flows.index import index
from flows.runtime.progress import RunProgress
from flows.synthetic import make_extracts, make_phantom
from flows.training_preview import preview_confidence, preview_export, preview_training
from tests.builders.ct_series import write_ct_series


@pytest.fixture
def progress() -> RunProgress:
    return RunProgress(Console(file=io.StringIO()), quiet=True)


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_index(tmp_path: Path, progress: RunProgress) -> None:
    archive = tmp_path / "archive"
    write_ct_series(archive, n_slices=3, header={"SeriesDescription": "CTAC"})
    before, warehouse = files(tmp_path), str(tmp_path / "wh")
    planned = index([str(archive)], warehouse, None, progress, dry_run=True)
    assert planned.dry_run
    assert files(tmp_path) == before
    written = index([str(archive)], warehouse, None, progress)
    assert (written.files, written.series) == (planned.files, planned.series) == (3, 1)


def test_synthetic_data(tmp_path: Path, progress: RunProgress) -> None:
    planned = make_phantom(tmp_path / "a", 3, 1, progress, dry_run=True)
    assert planned.truth == str(tmp_path / "truth.parquet")
    assert make_extracts(tmp_path / "r", 5, None, "flat", 1, dry_run=True).patients >= 5
    assert not files(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").touch()
    with pytest.raises(UsageError, match="not empty"):
        make_phantom(tmp_path / "a", 3, 1, progress, dry_run=True)


def test_training(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    parts = ("training", "training", "validation")
    rows = [f"synthetic:{n},truth,truth,P{n},{part}" for n, part in enumerate(parts, start=1)]
    table.write_text("\n".join(["study,annotation,reader,patient,split", *rows]) + "\n")
    data, out = TrainingData(table, None, None, None), tmp_path / "run"
    planned = preview_training("heart", data, out, (), default_settings("heart"), None)
    assert planned.writes == [str(tmp_path / "samples"), str(out)]
    assert (planned.facts["training studies"], planned.facts["validation studies"]) == (2, 1)
    assert planned.facts["resumes"] is False
    assert preview_confidence(None, data, out).facts["validation studies"] == 1
    with pytest.raises(UsageError, match="no run in"):
        preview_export([tmp_path / "none"], tmp_path / "none", data, out)
    assert files(tmp_path) == {table}
