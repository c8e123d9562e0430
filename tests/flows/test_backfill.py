"""The backfill: portions of an archive, between which the warehouse is free."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from cac_core.phantom.archive.write import write_archive
from tests.flows.conftest import Cac


@pytest.mark.slow
def test_a_backfill_leaves_the_warehouse_between_portions(
    cac: Cac, environment: dict[str, str], tmp_path: Path
) -> None:
    write_archive(tmp_path / "archive", studies=3, seed=3, truth_path=tmp_path / "t", workers=1)
    config = tmp_path / "cac.toml"
    config.write_text(
        'archive = ["archive"]\nwarehouse = "wh"\n'
        "[backfill]\nstudies_per_portion = 2\npause_s = 15\nworkers = 1\n",
        encoding="utf-8",
    )
    command = [str(Path(sys.executable).with_name("cac")), "backfill", "-c", str(config)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    for line in process.stderr:
        if "portion 1:" in line:
            break
    else:
        raise AssertionError(process.returncode)
    store = Warehouse(tmp_path / "wh")
    time.sleep(1)
    with store.lock():
        time.sleep(20)  # longer than the pause: the next portion waits for it
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "Another run is writing" in err and "portion 2: 3 studies done, 0 left" in err
    runs = duckdb.sql(
        f"select job, scored + rejected n from '{store.url}/runs/*.parquet' order by 2"
    )
    assert runs.fetchall() == [("backfill", 1), ("backfill", 2)]
    again = cac("backfill", "-c", config, "--json", "-q", timeout=600)
    assert (again.code, again.json["portions"], again.json["scored"]) == (0, 1, 0), again.err
    with pytest.raises(CacError), store.lock(), store.lock():
        pass
