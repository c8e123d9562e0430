"""Archive and warehouse in S3, against a server that speaks it: the same tables as in folders."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cac_core.analysis.plan import shipped_plan_text
from cac_core.cohort.warehouse import Warehouse
from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import make_registry
from schemas.lesion import LESIONS
from schemas.linkage import FLOW
from schemas.linked import LINKED
from schemas.score import SCORES
from tests.builders.registries import fill_warehouse
from tests.builders.stores import ODD, check_credentials, objects, s3_server, upload
from tests.flows.conftest import SECRET, Cac, Scored

pytestmark = pytest.mark.slow

#: Columns of `scores` that belong to a run, not to a study.
#: `files_digest` holds modification times, which are others in a store.
_OF_A_RUN = {"run_id", "scored_at", "instances_digest", "files_digest"}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


def _table(stored: dict[str, bytes], folder: str) -> pa.Table:
    parts = [
        pq.ParquetFile(io.BytesIO(data)).read()
        for name, data in stored.items()
        if name.startswith(f"{folder}/") and name.endswith(".parquet")
    ]
    return pa.concat_tables(parts)


def _rows(table: pa.Table) -> list[dict[str, object]]:
    kept = [n for n in table.column_names if n not in _OF_A_RUN and not n.startswith("seconds")]
    return sorted(table.select(kept).to_pylist(), key=str)


def test_an_archive_in_s3_is_scored_as_its_folder(
    cac: Cac, scored: Scored, s3: dict[str, str], tmp_path: Path
) -> None:
    archive, tables = f"s3://archive/{ODD}", f"s3://tables/{ODD}/scored"
    upload(scored.archive, archive, s3)
    first = cac("score", archive, "-w", tables, "--json", **s3)
    assert first.code == 0, first.err
    counts = ("studies", "scored", "rejected", "failed", "reasons", "file_reasons")
    assert [first.json[n] for n in counts] == [scored.summary[n] for n in counts]
    stored, local = objects(tables, s3), Warehouse(scored.warehouse)
    assert _rows(_table(stored, "scores")) == _rows(local.read(SCORES))
    assert _rows(_table(stored, "lesions")) == _rows(local.read(LESIONS))
    assert {"reports/archive/index.html", "secret-fingerprint.txt"} <= stored.keys()
    assert not [name for name in stored if "_staging" in name]

    again = cac("retry", archive, "-w", tables, "--json", **s3)
    assert (again.code, again.json["scored"], again.json["skipped"]) == (0, 0, 8), again.err
    assert cac("status", "-w", tables, "--json", **s3).json["secret"] == "same"
    assert cac("index", archive, "-w", tables, "--json", **s3).json["files_opened"] == 0
    study = _table(stored, "scores")["study_key"][0].as_py()
    found = cac("key", "lookup", study, archive, "-w", tables, "--json", **s3).json["files"]
    assert found and all(name.startswith(f"{archive}/") for name in found)
    model = first.json["model"]
    compared = cac(
        "evaluate", "archive", "-w", tables, "--source", f"model:{model}", "--against", "truth",
        "--truth", scored.truth, "--out", tmp_path / "evaluation", **s3,
    )  # fmt: skip
    assert compared.code == 0, compared.err


def _short_plan() -> str:
    """The shipped plan with fewer resamples, outcomes and components."""
    text = shipped_plan_text().replace("resamples = 2000", "resamples = 10")
    short = {"outcomes": '["mace"]', "components": "[]"}
    lines = (
        next(
            (f"{name} = {value}" for name, value in short.items() if line.startswith(f"{name} =")),
            line,
        )
        for line in text.splitlines()
    )
    return "\n".join(lines)


def test_a_cohort_in_s3_is_linked_and_reported_as_in_a_folder(
    cac: Cac, s3: dict[str, str], tmp_path: Path
) -> None:
    registry = make_registry(150, 8)
    local, tables = tmp_path / "wh", f"s3://tables/{ODD}/cohort"
    fill_warehouse(local, registry, Keyring(SECRET.encode()))
    upload(local, tables, s3)
    mapping = write_extracts(registry, "abstracts", tmp_path / "extracts", 1)
    plan = tmp_path / "plan.toml"
    plan.write_text(_short_plan())
    s3 = s3 | {"XDG_DATA_HOME": str(tmp_path / "data")}
    for command in (
        ("link", "--mapping", mapping),
        ("report", "--plan", plan),
        ("export", "--out", tmp_path / "out", "--shape", "adtte"),
    ):
        here = cac(*command, "-w", local, "--json")
        there = cac(*command, "-w", tables, "--json", **s3)
        assert here.code == there.code, there.err
    stored, store = objects(tables, s3), Warehouse(local)
    assert _rows(_table(stored, "linked")) == _rows(store.read(LINKED))
    assert _rows(_table(stored, "flow")) == _rows(store.read(FLOW))
    assert not [name for name in stored if name.startswith("registry")]
    assert list((tmp_path / "data").rglob("registry/*/*.parquet"))
    pages = {path.relative_to(local).as_posix() for path in local.glob("reports/cohort/**/*.*")}
    assert pages == {name for name in stored if name.startswith("reports/cohort/")}
    quarantines = [
        cac("quarantine", "-w", place, "--json", **s3).json["set_aside"]
        for place in (local, tables)
    ]
    assert quarantines[0] == quarantines[1]
    again = cac("link", "--mapping", mapping, "-w", tables, "--json", **s3)
    assert again.json["outcome"] == "unchanged"
    upload(plan.parent / "extracts", f"{tables}/reports/cohort/notes", s3)
    assert cac("report", "--plan", plan, "-w", tables, "--json", **s3).code == 3
    assert any("reports/cohort/notes/" in name for name in objects(tables, s3))


def _one_line(cac: Cac, environment: dict[str, str], what: str, *command: object) -> None:
    begun = time.monotonic()
    outcome = cac(*command, **environment)
    assert outcome.code == 1
    assert what in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err
    assert "secret-of-the-tests" not in outcome.err
    assert time.monotonic() - begun < 60  # 30 s, and the start of the program on a busy machine


def test_faults_of_a_store_are_one_line(cac: Cac, scored: Scored, s3: dict[str, str]) -> None:
    missing = "s3://no-such-bucket/wh"
    for command in (("score", scored.archive), ("status",), ("export", "--out", "x")):
        _one_line(cac, s3, "the bucket does not exist", *command, "-w", missing)
    _one_line(cac, s3, "the bucket does not exist", "index", missing, "-w", "s3://tables/new")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = s3 | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        _one_line(cac, nowhere, "it does not answer", "status", "-w", "s3://tables/new")
    check_credentials(s3, wanted=True)
    try:
        _one_line(
            cac, s3, "the access key is not known", "score", scored.archive, "-w", "s3://tables/x"
        )
    finally:
        check_credentials(s3, wanted=False)
