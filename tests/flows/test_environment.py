"""The API of a run: there while it lasts, gone afterwards, also after a predecessor was killed."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.environment import prefect_api, prepare_environment
from tests.flows.conftest import Scored

_HOLD = """
import sys, time
from pathlib import Path
from typing import Any
from flows.environment import prefect_api, prepare_environment
with prefect_api(prepare_environment()) as ready:
    ready()
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    for name in ("NO_PROXY", "no_proxy", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return tmp_path / "prefect"


def ask(url: str, path: str, body: dict[str, Any]) -> Any:
    password = base64.b64encode(os.environ["PREFECT_API_AUTH_STRING"].encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {password}"}
    request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def servers(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environment = process.info["environ"] or {}
        command = process.info["cmdline"] or []
        if environment.get("PREFECT_HOME") == str(home) and "server" in command:
            found.append(process)
    return found


def test_the_api_lives_as_long_as_the_run(home: Path) -> None:
    with prefect_api(prepare_environment()) as ready:
        ready()
        url = os.environ["PREFECT_API_URL"]
        assert url.startswith("http://127.0.0.1:")
        assert os.environ["DO_NOT_TRACK"] == "1"
        with urllib.request.urlopen(f"{url}/health") as answer:
            assert answer.status == 200
        # What `prefect flow-run ls` asks; some versions of fastapi answer 422 (docs/decisions.md).
        listing = {"flows": None, "flow_runs": None, "limit": None, "offset": 0}
        assert ask(url, "flow_runs/filter", listing) == []
        assert len(servers(home)) == 1
    assert "PREFECT_API_URL" not in os.environ
    assert servers(home) == []
    assert list(home.glob("run-*.json")) == []


def test_the_sites_own_server_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
    with prefect_api(prepare_environment()):
        assert os.environ["PREFECT_API_URL"] == "http://prefect.example/api"
        assert servers(home) == []


def test_a_sites_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        monkeypatch.setenv("PREFECT_API_URL", url)
        # Prefect reads its settings once, at its import: in a process of its own.
        run = subprocess.run([sys.executable, "-c", _HOLD], capture_output=True, text=True)
    assert run.returncode != 0 and "ready" not in run.stdout
    told = run.stderr.strip().splitlines()[-1]
    assert "CacError" in told and url in told and "unset" in told


def test_what_a_killed_run_left_is_ended(home: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "ready\n"
    (left,) = servers(home)
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert left.is_running()
    with prefect_api(prepare_environment()):
        assert left not in servers(home)
        assert len(list(home.glob("run-*.json"))) == 1


def test_a_run_leaves_its_summary_in_prefect(
    scored: Scored, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(environment["HOME"]) / ".local" / "share" / "cac-cohort" / "prefect"
    monkeypatch.setenv("PREFECT_HOME", str(home))
    with prefect_api(prepare_environment()) as ready:
        ready()
        found = ask(os.environ["PREFECT_API_URL"], "artifacts/latest/filter", {"artifacts": None})
    latest = {item["key"]: item for item in found if item["latest_id"]}
    artifact = latest["nightly-rescore"]
    assert "| scored |" in artifact["data"]
