"""The server: who is refused, what readers see, what is on disk, and training from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pytest
from rich.console import Console

from cac_core.cohort.warehouse import Warehouse
from cac_core.reading.readings import read_readings
from cac_core.training.sample_store import TrainingData, prepare_samples
from cac_core.training.table import read_training_table, rows_of
from flows.runtime.progress import RunProgress
from schemas.score import SCORES
from tests.builders.rows import key
from tests.flows.conftest import Cac, Scored
from tests.flows.reading.served import Served, served

pytest.importorskip("highdicom", reason="the extra `pacs` is not installed")


@pytest.fixture
def warehouse(scored: Scored, tmp_path: Path) -> Path:
    """A warehouse of its own for each test."""
    shutil.copytree(scored.warehouse, tmp_path / "wh")
    return tmp_path / "wh"


def doubtful(warehouse: Path) -> tuple[str, float]:
    """A study with coronary calcium and the least other, which the brush would take along."""
    rows = Warehouse(warehouse).read(SCORES).to_pylist()
    calcified = [row for row in rows if (row["agatston"] or 0) > 10]
    row = min(calcified, key=lambda row: (row["agatston_noncoronary"], -row["agatston"]))
    return row["study_key"], row["agatston"]


def given(name: str, **changes: object) -> dict[str, object]:
    return {"reading_id": key(name), "reason": "checked", "seconds_active": 90.0} | changes


def read_by(server: Served, study: str, reader: str, site: str | None) -> dict[str, str]:
    """Sign a reading with all lesions given to a site; the cookie of the reader."""
    cookie = server.enter(reader)
    path = f"/api/studies/{study}"
    _, draft, _ = server.ask("GET", f"{path}/draft", **cookie)
    for _ in range(20):
        lesions = [one for one in draft["score"]["lesions"] if one["site"] == "coronary"]
        if not lesions:
            break
        stroke = [[lesions[0]["row"], lesions[0]["column"]]]
        change = {
            "do": "paint", "slice": lesions[0]["slice"], "points": stroke, "radius_px": 12,
            "site": site,
        }  # fmt: skip
        status, draft, _ = server.ask("POST", f"{path}/corrections", change, **cookie)
        assert status == 200, draft
    cause = None if site else "noise"
    status, answer, _ = server.ask("POST", f"{path}/readings", given(reader, cause=cause), **cookie)
    assert status == 200, answer
    return cookie


@pytest.mark.slow
def test_readings_from_first_to_third_reader(
    scored: Scored, warehouse: Path, environment: dict[str, str], cac: Cac, tmp_path: Path
) -> None:
    study, score = doubtful(warehouse)
    path = f"/api/studies/{study}"
    with served(scored.archive, warehouse, environment, kill=True) as server:
        for where in ("/api/session", "/api/studies", path, f"{path}/draft", f"{path}/pixels"):
            assert server.ask("GET", where)[0] == 401
        bad = {"token": "x" * 43, "reader": "Ann"}
        assert server.ask("POST", "/api/session", bad)[0] == 401
        assert server.ask("GET", "/", Host="example.org")[0] == 403
        assert server.ask("POST", "/api/session", bad, Origin="http://example.org")[0] == 403
        _, _, headers = server.ask("GET", "/")
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]

        ann = read_by(server, study, "Ann", "lad")
        first = server.ask("GET", path, **ann)[1]
        assert first["readings"][0]["agatston"] == pytest.approx(score)
        assert first["readings"][0]["agatston_lad"] == pytest.approx(score)

        ben = server.enter("Ben")
        assert server.ask("GET", path, **ben)[1]["readings"] == [], "the second is blinded"
        reading = first["readings"][0]["reading_id"]
        assert server.ask("GET", f"{path}/readings/{reading}", **ben)[0] == 409
        assert server.ask("POST", f"{path}/draft", {"begin": reading}, **ben)[0] == 409
        wanted = {"kind": "adjudication"}
        assert server.ask("POST", f"{path}/draft", wanted, **ben)[0] == 409
        read_by(server, study, "Ben", None)

        eve = server.enter("Eve")
        seen = server.ask("GET", path, **eve)[1]
        assert seen["kinds"] == ["adjudication"] and len(seen["readings"]) == 2
        begun = server.ask("POST", f"{path}/draft", {"begin": reading}, **eve)[1]
        assert begun["score"]["sites"]["lad"] == pytest.approx(score)
        request = given("Eve", cause="valve")
        for _ in range(2):  # a request that is repeated signs once
            assert server.ask("POST", f"{path}/readings", request, **eve)[0] == 200
        page = server.ask("GET", "/api/studies?state=settled", **eve)[1]
        assert [row["study_key"] for row in page["rows"]] == [study]
    # The server was killed; everything that was signed is there.
    found = read_readings(Warehouse(warehouse))
    assert [row["kind"] for row in found.rows] == ["reading", "reading", "adjudication"]
    assert [row["changed"] for row in found.rows] == [False, True, False]
    final = found.final()[study]
    assert final["reader"] == "Eve" and final["agatston"] == pytest.approx(score)
    assert study not in server.err[0] and str(scored.archive) not in server.err[0]
    exported(scored, warehouse, environment, cac, tmp_path, study)


def exported(
    scored: Scored,
    warehouse: Path,
    environment: dict[str, str],
    cac: Cac,
    tmp_path: Path,
    study: str,
) -> None:
    """The training set holds what was read, and its samples are made from it as it is."""
    out = tmp_path / "training"
    arguments = ("review", "-w", warehouse, "--archive", scored.archive, "--export-training", out)
    done = cac(*arguments, "--json", PREFECT_API_URL=None)
    assert done.code == 0, done.err
    assert done.json["studies"] == 1 and done.json["waiting"] == 0
    again = cac(*arguments, PREFECT_API_URL=None)
    assert again.code == 2 and "not empty" in again.err
    table = read_training_table(out / "table.csv")
    assert pacsv.read_csv(out / "table.csv").num_rows == 1
    data = TrainingData(out / "table.csv", out / "labels.toml", tmp_path / "samples")
    samples = prepare_samples(rows_of(table, "training"), data, RunProgress(Console(), quiet=True))
    final = read_readings(Warehouse(warehouse)).final()[study]
    sample = samples[0]
    inside = (sample.calcium == 1) & (sample.inside == 2)
    volume = float(np.count_nonzero(inside & (sample.hu >= 130)) * np.prod(sample.spacing_mm))
    assert volume >= final["calcium_volume_mm3"] > 0
