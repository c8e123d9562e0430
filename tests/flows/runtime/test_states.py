"""What a flow run leaves in Prefect, seen through its API; and when that API is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.summaries import ScoringSummary

pytestmark = pytest.mark.slow  # starts a server, which takes minutes on a busy machine

_RUN = """
import json, os, signal, sys, time
from pathlib import Path
from rich.console import Console
from cac_core.errors import CacError
from flows.cli.streams import silence_libraries
from flows.runtime.environment import prefect_api, prepare_environment
from flows.runtime.progress import RunProgress, showing
from tests.flows.runtime.test_states import summary_of

silence_libraries()
home = prepare_environment()
progress = RunProgress(Console(stderr=True))
with prefect_api(home) as ready, showing(progress):
    ready()
    from prefect import flow
    from prefect.client.orchestration import get_client
    from flows.runtime.states import concluded, run_flow

    def work(kind):
        if kind == "fault":
            raise ValueError("/archive/DOE^JANE/1.dcm")
        if kind == "usage":
            raise CacError("The archive is empty.")
        if kind == "lost":
            (record,) = home.glob("run-*.json")
            os.kill(json.loads(record.read_text())[1]["pid"], signal.SIGKILL)
        return summary_of("over_budget" if kind == "lost" else kind)

    @flow(name="job", persist_result=False, validate_parameters=False)
    def job(kind):
        return concluded("job", lambda: work(kind))

    for kind in sys.argv[1:]:
        began = time.monotonic()
        try:
            told = run_flow(job, kind).outcome
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        found = {"kind": kind, "told": told, "seconds": time.monotonic() - began}
        if kind != "lost":
            time.sleep(3)  # the log is sent every two seconds
            with get_client(sync_client=True) as client:
                (run, *_) = sorted(
                    client.read_flow_runs(), key=lambda run: run.start_time, reverse=True
                )
                found["state"] = [run.state.type.value, run.state.name, run.state.message]
                found["retried"] = run.run_count
                body = {"logs": {"flow_run_id": {"any_": [str(run.id)]}}, "sort": "TIMESTAMP_ASC"}
                logs = client._client.post("/logs/filter", json=body).json()
                found["log"] = [[one["level"], one["message"]] for one in logs]
                body = {"artifacts": {"flow_run_id": {"any_": [str(run.id)]}}}
                artifacts = client._client.post("/artifacts/filter", json=body).json()
                found["artifacts"] = [one["data"] for one in artifacts]
        print(json.dumps(found), flush=True)
"""


def summary_of(outcome: str) -> ScoringSummary:
    """A run of 10 studies, 4 of which failed."""
    return ScoringSummary(
        run_id="20260101T000000-000000",
        outcome=outcome,
        studies=12,
        scored=5,
        rejected=1,
        failed=4,
        skipped=2,
        left=0,
        reasons={"timeout": 4, "contrast_enhanced": 1},
        needs_review=0,
        review_reasons={},
        file_reasons={},
        seconds=1.0,
        seconds_scoring=1.0,
        warehouse="/data/cac",
        model="m",
        archive_page=None,
        studies_per_second=1.0,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Flow runs by kind, and what was written to standard error; the server is killed in `lost`."""
    home = tmp_path_factory.mktemp("home")
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "completed", "over_budget", "fault", "usage", "lost"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {run["kind"]: run for run in map(json.loads, done.stdout.splitlines())}, done.stderr


def test_a_run_that_ended_well_is_green_and_its_log_has_the_counts(
    runs: tuple[dict[str, Any], str],
) -> None:
    run = runs[0]["completed"]
    assert run["told"] == "completed" and run["state"][:2] == ["COMPLETED", "Completed"]
    assert [20, _COUNTS] in run["log"]
    assert [30, "studies by reason: contrast_enhanced 1, timeout 4"] in run["log"]
    assert "| failed | 4 |" in run["artifacts"][0]


_COUNTS = (
    "12 studies in the archive: 5 scored, 1 rejected, 4 failed, 2 in the ledger, 0 left; "
    "1 s, 1.00 studies/s"
)


def test_a_run_over_its_budget_is_a_failure_with_its_summary(
    runs: tuple[dict[str, Any], str],
) -> None:
    run = runs[0]["over_budget"]
    assert run["told"] == "over_budget"
    assert run["state"][:2] == ["FAILED", "OverBudget"]
    assert "4 of 10 studies failed" in run["state"][2]
    assert "| failed | 4 |" in run["artifacts"][0]
    assert any(level == 30 and "4 of 10 studies failed" in text for level, text in run["log"])


def test_prefect_learns_no_path_from_an_error(runs: tuple[dict[str, Any], str]) -> None:
    run = runs[0]["fault"]
    assert run["told"] == "ValueError: /archive/DOE^JANE/1.dcm"  # `cac` makes one line of it
    assert run["state"][:2] == ["FAILED", "Failed"] and "ValueError" in run["state"][2]
    assert "DOE" not in json.dumps([run["state"], run["log"], run["artifacts"]])
    usage = runs[0]["usage"]
    assert usage["told"] == "CacError: The archive is empty."
    assert "The archive is empty." in usage["state"][2]


def test_a_lost_server_costs_its_record_and_one_line(runs: tuple[dict[str, Any], str]) -> None:
    run, lines = runs[0]["lost"], runs[1].strip().splitlines()
    assert run["told"] == "over_budget"
    assert run["seconds"] < 50
    assert len(lines) == 1 and "Prefect's record of this run is lost" in lines[0], lines
