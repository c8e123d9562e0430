"""A warehouse of an earlier version, kept beside the tests, is read by this one.

`tests/golden/warehouse-2026-11-29` was written by `cac score` of that day for 16 synthetic studies
(`cac phantom --studies 16 --seed 7`); pictures and pages are left out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from schemas.instance import INSTANCES
from schemas.lesion import LESIONS
from schemas.run import RUNS
from schemas.score import SCORES
from schemas.series import SERIES

OLD = Path(__file__).parents[2] / "golden" / "warehouse-2026-11-29"
MODEL = "convlstm-s8-ba7ec772"


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "wh")
    return tmp_path / "wh"


def test_every_table_is_read(warehouse: Path) -> None:
    store = Warehouse(warehouse)
    found = {spec.name: store.read(spec) for spec in (INSTANCES, SERIES, SCORES, LESIONS, RUNS)}
    assert {name: table.num_rows > 0 for name, table in found.items()} == dict.fromkeys(found, True)
    scores = found["scores"]
    assert Counter(scores["status"].to_pylist()) == {"scored": 14, "rejected": 2}
    # Columns that came later are null; those of then are as they were written.
    before = pq.read_table(warehouse / "scores" / f"model={MODEL}" / "scores.parquet")
    for name in ("study_key", "agatston", "cac_category", "pixel_digest", "model_digest"):
        assert scores[name].to_pylist() == before[name].to_pylist(), name
    later = set(scores.column_names) - set(before.column_names) - {"model"}
    assert all(scores[name].null_count == scores.num_rows for name in later)


def test_new_rows_are_published_beside_old_ones(warehouse: Path) -> None:
    store = Warehouse(warehouse)
    old = store.read(SCORES)
    again = old.slice(3, 1).to_pylist()[0] | {"n_slices": 99, "files_digest": "0" * 64}
    for model in (MODEL, "newer"):
        store.stage(model, "0", SCORES.from_rows([again]), LESIONS.empty())
        store.publish(model)
    assert store.models() == (MODEL, "newer")
    merged = {row["study_key"]: row for row in store.read(SCORES, MODEL).to_pylist()}
    assert len(merged) == old.num_rows
    assert merged[again["study_key"]]["n_slices"] == 99
    others = {row["study_key"]: row for row in old.to_pylist()}
    del merged[again["study_key"]], others[again["study_key"]]
    assert merged == others


def test_status_shows_it(warehouse: Path) -> None:
    command = [str(Path(sys.executable).with_name("cac")), "status", "-w", str(warehouse)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert sum(row["studies"] for row in json.loads(done.stdout)["models"][MODEL]) == 16


def test_a_table_of_a_later_version_is_refused_in_one_line(warehouse: Path) -> None:
    path = warehouse / "series" / "series.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"schema_version": "99"}), path)
    with pytest.raises(CacError, match="version 99") as refused:
        Warehouse(warehouse).read(SERIES)
    assert "update this program" in str(refused.value.hint)
