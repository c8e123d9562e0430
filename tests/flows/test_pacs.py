"""A night with a PACS: the same rows as from the folder, and nothing twice after interruptions."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from cac_core.cohort.warehouse import Warehouse
from schemas.lesion import LESIONS
from schemas.score import SCORES
from tests.builders.pacs import Pacs, orthanc
from tests.flows.conftest import Cac, Scored

pytestmark = pytest.mark.slow

#: Columns of `scores` that belong to a run or to files, not to a study.
_OF_A_RUN = {"run_id", "scored_at", "instances_digest", "files_digest"}


@pytest.fixture(scope="module")
def pacs(scored: Scored, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    with orthanc(tmp_path_factory.mktemp("pacs")) as server:
        server.upload(sorted(path for path in scored.archive.rglob("*") if path.is_file()))
        yield server


def _rows(table: pa.Table) -> list[dict[str, object]]:
    kept = [n for n in table.column_names if n not in _OF_A_RUN and not n.startswith("seconds")]
    return sorted(table.select(kept).to_pylist(), key=str)


def _same(one: Path, other: Path) -> None:
    for spec in (SCORES, LESIONS):
        assert _rows(Warehouse(one).read(spec)) == _rows(Warehouse(other).read(spec))


def test_a_pacs_is_scored_as_its_folder(
    cac: Cac, scored: Scored, pacs: Pacs, tmp_path: Path
) -> None:
    settings = tmp_path / "cac.toml"
    settings.write_text(
        f'archive = ["{pacs.web}"]\nwarehouse = "wh"\n[source]\ncache = "cache"\n'
        'modalities = ["CT"]\n'
    )
    plan = cac("score", "--config", settings, "--dry-run", "--json").json
    assert (plan["studies"], plan["to_score"] + sum(plan["to_reject"].values())) == (8, 8)
    first = cac("score", "--config", settings, "--json")
    assert first.code == 0, first.err
    counts = ("studies", "scored", "rejected", "failed", "reasons")
    assert [first.json[n] for n in counts] == [scored.summary[n] for n in counts]
    _same(tmp_path / "wh", scored.warehouse)
    assert not list((tmp_path / "cache" / "series").iterdir()), "deleted when scored"
    again = cac("score", "--config", settings, "--json").json
    assert (again["scored"], again["skipped"], again["file_reasons"]) == (0, 8, {})
    key = str(Warehouse(tmp_path / "wh").read(SCORES)["study_key"][0])
    found = cac("key", "lookup", key, "--config", settings, "--json").json["files"]
    assert len(found) == 1 and found[0].startswith(f"{pacs.web}/studies/")
    checks = {c["name"]: c for c in cac("doctor", "--config", settings, "--json").json["checks"]}
    assert checks[f"PACS {pacs.web}"]["ok"], checks
    written = [path for path in (tmp_path / "wh").rglob("*") if path.is_file()]
    assert not any(b"SYN0" in path.read_bytes() for path in written)


def test_an_interrupted_night_goes_on(
    cac: Cac, scored: Scored, pacs: Pacs, environment: dict[str, str], tmp_path: Path
) -> None:
    rng = random.Random(3)
    command = [str(Path(sys.executable).with_name("cac")), "score", pacs.web, "-w", tmp_path / "wh"]
    own = environment | {"XDG_DATA_HOME": str(tmp_path / "data")}
    for number in range(4):
        with subprocess.Popen([*command, "-q"], env=own, stderr=subprocess.PIPE) as run:
            time.sleep(rng.uniform(8.0, 14.0))
            run.send_signal((signal.SIGINT, signal.SIGKILL, signal.SIGTERM)[number % 3])
            run.communicate(timeout=120)
    last = cac("score", pacs.web, "-w", tmp_path / "wh", "--json", **own)
    assert last.code == 0, last.err
    keys = Warehouse(tmp_path / "wh").read(SCORES)["study_key"].to_pylist()
    assert len(keys) == len(set(keys)) == 8
    _same(tmp_path / "wh", scored.warehouse)
    assert not list((tmp_path / "data").rglob("*.dcm"))


def test_a_pacs_that_is_away_is_named_and_other_archives_are_scored(
    cac: Cac, scored: Scored, tmp_path: Path
) -> None:
    settings = tmp_path / "cac.toml"
    away = "dicomweb+http://127.0.0.1:9/dicom-web"
    quick = "[source]\nattempts = 1\ntimeout_s = 2.0\ncache = 'cache'\n"
    settings.write_text(f'archive = ["{away}"]\nwarehouse = "wh"\n{quick}')
    alone = cac("score", "--config", settings)
    assert alone.code == 1
    assert f"The PACS {away} cannot be used: no connection" in alone.err
    settings.write_text(f'archive = ["{away}", "{scored.archive}"]\nwarehouse = "wh"\n{quick}')
    both = cac("index", "--config", settings, "--json")
    assert (both.code, both.json["studies"]) == (0, 8), both.err
    assert "warning: The PACS" in both.err
    doctor = cac("doctor", "--config", settings, "--json").json["checks"]
    assert not {c["name"]: c["ok"] for c in doctor}[f"PACS {away}"]


def test_an_archive_that_moves_into_a_zip_is_not_scored_again(
    cac: Cac, scored: Scored, tmp_path: Path
) -> None:
    shutil.copytree(scored.warehouse, tmp_path / "wh")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        for path in sorted(scored.archive.rglob("*")):
            packed.write(path, path.relative_to(scored.archive))
    data = {"XDG_DATA_HOME": str(tmp_path / "data")}
    run = cac("score", tmp_path / "all.zip", "-w", tmp_path / "wh", "--json", **data)
    assert run.code == 0, run.err
    # Times in a zip are rounded to two seconds, so pixels are compared; a rejected study has none.
    assert (run.json["scored"], run.json["rejected"], run.json["skipped"]) == (0, 1, 7)
    assert json.dumps(run.json["file_reasons"]) == "{}"
