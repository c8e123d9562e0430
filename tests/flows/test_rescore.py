"""Rescoring through the command line: an archive in, rows out, nothing scored twice."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.keys import Keyring
from schemas.canary import CANARIES
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import CATEGORY_CHANCES, SCORES
from schemas.series import SERIES
from tests.flows.conftest import SECRET, Cac, Scored


def rows(warehouse: Path) -> list[dict[str, object]]:
    (model,) = Warehouse(warehouse).models()
    return Warehouse(warehouse).read(SCORES, model).to_pylist()


def test_summary(scored: Scored) -> None:
    summary = scored.summary
    assert summary["studies"] == 8
    assert (summary["scored"], summary["rejected"], summary["failed"]) == (7, 1, 0)
    assert summary["skipped"] == 0
    assert sum(summary["reasons"].values()) == 1
    assert summary["seconds"] > 0
    assert summary["studies_per_second"] > 0
    assert summary["warehouse"] == str(scored.warehouse)


def test_every_study_has_one_row_and_defects_their_reason(scored: Scored) -> None:
    keyring = Keyring(SECRET.encode())
    truth = pq.read_table(scored.truth).to_pylist()
    found = {row["study_key"]: row for row in rows(scored.warehouse)}
    assert set(found) == {keyring.study_key(row["study_instance_uid"]) for row in truth}
    for expected in truth:
        row = found[keyring.study_key(expected["study_instance_uid"])]
        assert row["reason"] == expected["planted_defect"]
        assert row["patient_key"] == keyring.patient_key(expected["patient_id"])


def test_scores_follow_the_truth(scored: Scored) -> None:
    keyring = Keyring(SECRET.encode())
    truth = {
        keyring.study_key(row["study_instance_uid"]): row["agatston"]
        for row in pq.read_table(scored.truth).to_pylist()
    }
    pairs = [
        (truth[str(row["study_key"])], float(str(row["agatston"])))
        for row in rows(scored.warehouse)
        if row["status"] == "scored"
    ]
    assert max(t for t, _ in pairs) > 100, "the archive holds calcium"
    for t, s in pairs:
        assert abs(s - t) <= 0.5 * t + 25, (t, s)
        assert (s >= 1) == (t >= 1), (t, s)


def test_scores_say_how_sure_they_are(scored: Scored) -> None:
    found = rows(scored.warehouse)
    known = [row for row in found if row["status"] == "scored"]
    for row in known:
        assert sum(row[name] for name in CATEGORY_CHANCES) == pytest.approx(1)
        assert row["agatston_low"] <= row["agatston"] <= row["agatston_high"]
        assert row["needs_review"] == bool(row["review_reasons"])
    reasons = Counter(r for row in known for r in row["review_reasons"].split(";") if r)
    assert scored.summary["needs_review"] == sum(row["needs_review"] for row in known)
    assert scored.summary["review_reasons"] == reasons
    assert all(row["needs_review"] is None for row in found if row["status"] != "scored")


def test_lesions_add_up(scored: Scored) -> None:
    (model,) = Warehouse(scored.warehouse).models()
    lesions = Warehouse(scored.warehouse).read(LESIONS, model).to_pylist()
    for row in rows(scored.warehouse):
        mine = [x for x in lesions if x["study_key"] == row["study_key"]]
        coronary = [x["agatston"] for x in mine if x["calcium_class"] == "coronary"]
        if row["status"] == "scored":
            assert sum(coronary) == pytest.approx(row["agatston"], abs=1e-6)
            assert len(coronary) == row["n_lesions"]
        else:
            assert not mine


def test_scored_studies_have_pictures_within_the_budget(scored: Scored) -> None:
    (model,) = Warehouse(scored.warehouse).models()
    pictures = Warehouse(scored.warehouse).read(PREVIEWS, model).to_pylist()
    for row in rows(scored.warehouse):
        mine = [p for p in pictures if p["study_key"] == row["study_key"]]
        size = sum(len(p["image_png"]) + len(p["label_png"]) for p in mine)
        assert bool(mine) == (row["status"] == "scored")
        assert len(mine) <= 4
        assert size <= 60_000
        calcified = any(p["shown_for"] == "coronary" for p in mine)
        assert calcified == bool(row["agatston"])


def test_tables_read_with_plain_duckdb(scored: Scored) -> None:
    pattern = f"{scored.warehouse}/scores/**/*.parquet"
    ((count,),) = duckdb.sql(
        f"select count(*) from read_parquet('{pattern}', hive_partitioning=true) "
        "where model like 'convlstm%'"
    ).fetchall()
    assert count == 8
    field = pq.read_schema(next((scored.warehouse / "scores").rglob("*.parquet"))).field("noise_hu")
    assert field.metadata[b"unit"] == b"HU"


def test_one_series_per_study_is_chosen(scored: Scored) -> None:
    series = Warehouse(scored.warehouse).read(SERIES).to_pylist()
    chosen = [row["study_key"] for row in series if row["selected"]]
    assert len(chosen) == len(set(chosen)) == 8
    assert all(row["reason"] for row in series if not row["selected"])


def test_second_run_scores_nothing(scored: Scored, cac: Cac) -> None:
    before = {p: p.stat().st_mtime_ns for p in (scored.warehouse / "scores").rglob("*.parquet")}
    summary = cac("score", scored.archive, "-w", scored.warehouse, "--json").json
    assert (summary["skipped"], summary["scored"], summary["rejected"]) == (8, 0, 0)
    after = {p: p.stat().st_mtime_ns for p in (scored.warehouse / "scores").rglob("*.parquet")}
    assert after == before


def test_each_run_writes_the_archive_page(scored: Scored, cac: Cac, tmp_path: Path) -> None:
    place = scored.warehouse / "reports" / "archive" / "index.html"
    assert scored.summary["archive_page"] == str(place)
    text = place.read_text()
    assert all(f">{reason}</th>" in text for reason in scored.summary["reasons"])
    outcome = cac("status", "-w", scored.warehouse, "--page", tmp_path / "deep" / "page.html")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "deep" / "page.html").read_bytes() == place.read_bytes()
    (tmp_path / "file").touch()
    outcome = cac("status", "-w", scored.warehouse, "--page", tmp_path / "file" / "page.html")
    assert (outcome.code, "cannot be written" in outcome.err) == (1, True)


def test_an_unwritable_page_gives_one_message(scored: Scored, cac: Cac, tmp_path: Path) -> None:
    warehouse = tmp_path / "wh"
    shutil.copytree(scored.warehouse, warehouse, ignore=shutil.ignore_patterns("reports"))
    (warehouse / "reports").touch()
    outcome = cac("score", scored.archive, "-w", warehouse, "--json")
    assert outcome.code == 0
    assert outcome.json["archive_page"] is None
    assert outcome.err.count("the archive page is not written") == 1


def test_a_moved_archive_is_read_again_and_not_scored_again(
    scored: Scored, cac: Cac, tmp_path: Path
) -> None:
    warehouse, archive = tmp_path / "wh", tmp_path / "moved"
    shutil.copytree(scored.warehouse, warehouse)
    archive.symlink_to(scored.archive)
    summary = cac("score", archive, "-w", warehouse, "--json").json
    assert (summary["skipped"], summary["scored"]) == (8, 0)


@pytest.mark.slow
def test_limit_and_dry_run(scored: Scored, cac: Cac, tmp_path: Path) -> None:
    preview = cac("score", scored.archive, "-w", tmp_path / "wh", "--dry-run", "--json").json
    assert (preview["studies"], preview["to_score"]) == (8, 8)
    assert not (tmp_path / "wh").exists()
    (tmp_path / "cac.toml").write_text("[scoring]\npreviews = false\n")
    summary = cac(
        *("score", scored.archive, "-w", tmp_path / "wh", "--limit", "2", "--json"),
        *("--config", tmp_path / "cac.toml"),
    ).json
    assert summary["scored"] + summary["rejected"] == 2
    assert (summary["skipped"], summary["left"]) == (0, 6)
    assert len(rows(tmp_path / "wh")) == 2
    assert Warehouse(tmp_path / "wh").read(PREVIEWS).num_rows == 0, "switched off"
    preview = cac("score", scored.archive, "-w", tmp_path / "wh", "--dry-run", "--json").json
    assert (preview["skipped"], preview["to_score"] + sum(preview["to_reject"].values())) == (2, 6)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_keeps_what_it_finished(
    scored: Scored, cac: Cac, tmp_path: Path, environment: dict[str, str], stop: signal.Signals
) -> None:
    warehouse = tmp_path / "wh"
    command = [str(Path(sys.executable).with_name("cac")), "score", scored.archive, "-w", warehouse]
    config = tmp_path / "cac.toml"
    config.write_text("[scoring]\nshard_size = 2\npublish_every_s = 0\n[cluster]\nworkers = 1\n")
    alone = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
    process = subprocess.Popen(
        [*command, "-c", config],
        env=alone,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may ignore it
    )
    deadline = time.monotonic() + 120
    while not list(warehouse.rglob("scores*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Interrupted" in err
    assert "Traceback" not in err
    summary = cac("score", scored.archive, "-w", warehouse, "--json").json
    assert summary["scored"] + summary["rejected"] + summary["skipped"] == 8
    assert len(rows(warehouse)) == 8
    outcomes = duckdb.sql(f"select outcome from '{warehouse}/runs/*.parquet' order by run_id")
    assert [row[0] for row in outcomes.fetchall()] == ["interrupted", "completed"]


def test_no_output_contains_identifiers(
    scored: Scored, cac: Cac, environment: dict[str, str]
) -> None:
    outcome = cac("status", "-w", scored.warehouse)
    texts = [outcome.out.encode(), outcome.err.encode(), str(scored.summary).encode()]
    for path in scored.warehouse.rglob("*"):
        if path.is_file():
            texts.append(path.read_bytes())
            if path.suffix == ".parquet":
                texts.append(str(pq.read_table(path).to_pylist()).encode())
    kept_by_prefect = [p for p in Path(environment["HOME"]).rglob("prefect.db*") if p.is_file()]
    assert kept_by_prefect
    texts += [path.read_bytes() for path in kept_by_prefect]
    truth = pq.read_table(scored.truth).to_pylist()
    secrets = {str(row[name]) for row in truth for name in ("patient_id", "study_instance_uid")}
    secrets |= {"Synthetic^", "PatientName", str(scored.archive)}
    for text in texts:
        for secret in secrets:
            assert secret.encode() not in text, secret


@pytest.mark.slow
def test_another_model_has_its_own_partition(scored: Scored, cac: Cac, tmp_path: Path) -> None:
    from tests.builders.networks import write_random_weights

    manifest = write_random_weights(tmp_path / "weights")
    warehouse = tmp_path / "wh"
    shutil.copytree(scored.warehouse, warehouse)
    summary = cac(
        *("score", scored.archive, "-w", warehouse, "--limit", "1", "--json"),
        *("--model", tmp_path / "weights"),
    ).json
    assert summary["model"] == manifest.model_id
    assert len(Warehouse(warehouse).models()) == 2


@pytest.mark.slow
def test_a_night_with_canaries_log_metrics_and_pages(
    scored: Scored, cac: Cac, tmp_path: Path
) -> None:
    shutil.copytree(scored.warehouse, tmp_path / "wh")
    store = Warehouse(tmp_path / "wh")
    (model,) = store.models()
    planted = store.read(SCORES, model).to_pylist()
    first = next(row for row in planted if row["status"] == "scored")
    first["noise_hu"] = float(np.nextafter(first["noise_hu"], 0))  # type: ignore[arg-type]
    store.replace(SCORES, SCORES.from_rows(planted), model)
    config = tmp_path / "cac.toml"
    config.write_text(
        f'archive = ["{scored.archive}"]\nwarehouse = "wh"\n[canary]\nstudies = 2\n'
        '[logging]\nfile = "log.jsonl"\n[metrics]\ntextfile = "cac.prom"\n'
        "[retention]\narchive_pages = 2\n"
    )
    outcome = cac("score", "-c", config, "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["canaries"], outcome.json["drifted"]) == (2, 1)
    assert "canaries drifted" in outcome.err
    assert store.read(SCORES, model).to_pylist() == planted
    checked = [row for row in store.read(CANARIES).to_pylist() if not row["is_reference"]]
    differs = {row["study_key"]: row["differs"] for row in checked}
    assert differs[first["study_key"]] == "noise_hu"
    assert sorted(map(str, differs.values())) == ["None", "noise_hu"]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["run_started", "run_ended"]
    assert {"index-archive", "choose-series"} <= {x.get("step") for x in lines}
    assert sum(line["event"] == "canary" for line in lines) == 2
    assert str(scored.archive) not in (tmp_path / "log.jsonl").read_text()
    assert "cac_canaries_drifted 1.0" in (tmp_path / "cac.prom").read_text()
    run = outcome.json["run_id"]
    assert (tmp_path / "wh" / "reports" / "archive" / f"run-{run}.html").is_file()
    assert cac("status", "-c", config, "--check").code == 3
