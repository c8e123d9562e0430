"""The API of a run: available during the run, gone afterwards, also after a killed run."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from websockets import ConnectionClosed, Subprotocol
from websockets.sync.client import connect

from cac_core.errors import CacError
from flows.runtime import prefect_api as own_api
from flows.runtime.environment import ask_site_api, prefect_api, prepare_environment
from tests.flows.conftest import Scored

_HOLD = """
import sys, time
from pathlib import Path
from typing import Any
from flows.runtime.environment import prefect_api, prepare_environment
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


def test_the_api_lives_as_long_as_the_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")  # of a kind that is not installed
    monkeypatch.setenv("CAC_LINKAGE_KEY", "the secret of the run")
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
        (server,) = servers(home)
        assert "CAC_LINKAGE_KEY" not in server.environ()
        assert os.environ["PREFECT_API_AUTH_STRING"] not in " ".join(server.cmdline())
        assert refused(url)
        problem = subprocess.run(
            [sys.executable, "-c", _HEALTH], capture_output=True, text=True, check=True, timeout=300
        )
        assert problem.stdout == "None\n"
    assert os.environ["ALL_PROXY"] == "socks5://127.0.0.1:1"
    assert "NO_PROXY" not in os.environ
    assert "PREFECT_API_URL" not in os.environ
    assert servers(home) == []
    assert list(home.glob("run-*.json")) == []


_HEALTH = """
import warnings
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    assert client.read_flow_runs() == []
    print(client.api_healthcheck())
"""


def refused(url: str) -> bool:
    """Whether whoever does not know the password learns and does nothing, by HTTP or a socket."""
    for path, method in (
        ("version", "GET"),
        ("flow_runs/filter", "POST"),
        ("flows/", "POST"),
        ("admin/settings", "GET"),
        ("artifacts/filter", "POST"),
    ):
        for password in (None, b"cac:guess", b""):
            request = urllib.request.Request(f"{url}/{path}", b"{}", method=method)
            if password is not None:
                request.add_header("Authorization", f"Basic {base64.b64encode(password).decode()}")
            with pytest.raises(urllib.error.HTTPError) as reported:
                urllib.request.urlopen(request)
            assert reported.value.code == 401
            reported.value.close()
    for path in ("events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled"):
        socket_url = f"{url.replace('http', 'ws')}/{path}"
        with connect(socket_url, subprotocols=[Subprotocol("prefect")], proxy=None) as channel:
            channel.send(json.dumps({"type": "auth", "token": "guess"}))
            with pytest.raises(ConnectionClosed):
                for _ in range(10):
                    channel.recv(timeout=10)
    return True


class Impostor(BaseHTTPRequestHandler):
    """Another user's server that took the port first: well, and curious."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Say that all is well."""
        self.seen.append(str(self.headers))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_a_taken_port_causes_a_second_start_and_reveals_no_password(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), Impostor) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        ports = iter([other.server_port, own_api._free_port()])
        monkeypatch.setattr(own_api, "_free_port", lambda: next(ports))
        with prefect_api(prepare_environment()) as ready:
            ready()
            assert str(other.server_port) not in os.environ["PREFECT_API_URL"]
            assert ask(os.environ["PREFECT_API_URL"], "flow_runs/filter", {}) == []
        other.shutdown()
    assert Impostor.seen
    assert not any("Authorization" in headers for headers in Impostor.seen)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import time; time.sleep(60)", "does not answer after"),
        ("raise SystemExit(3)", r"ended twice \(exit status 3\)"),
    ],
)
def test_the_run_waits_while_the_server_is_alive(
    home: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, "-c", code], **options))
        return started[-1]

    monkeypatch.setattr(own_api.subprocess, "Popen", popen)
    monkeypatch.setattr(own_api, "_START_TIMEOUT_S", 1.0)
    monkeypatch.setattr(own_api, "_SAY_AFTER_S", 0.3)
    if "SystemExit" in code:
        monkeypatch.setattr(own_api, "_START_TIMEOUT_S", 60.0)
    said: list[str] = []
    with (
        pytest.raises(CacError, match=message) as reported,
        prefect_api(prepare_environment(), said.append) as ready,
    ):
        ready()
    assert str(home / "server.log") in str(reported.value)
    assert len(started) == (2 if "SystemExit" in code else 1)
    assert all(process.poll() is not None for process in started)
    if "sleep" in code:
        assert any("waiting for the Prefect API" in line for line in said)


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
    reported = run.stderr.strip().splitlines()[-1]
    assert "CacError" in reported and url in reported and "unset" in reported


PREFECT = version("prefect")


class Site(BaseHTTPRequestHandler):
    """A server of a site: healthy, ready or not, and answering with one text and status."""

    status, text, ready = 200, "", 200

    def do_GET(self) -> None:
        """Be healthy; answer everything else."""
        healthy = self.path.endswith("/health")
        body = b"true" if healthy else self.text.encode()
        status = self.ready if self.path.endswith("/ready") else self.status
        self.send_response(200 if healthy else status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("status", "text", "reported"),
    [
        (200, '"3.0.1"', "has version 3.0.1, this installation"),
        (200, '"2.20.2"', "has version 2.20.2, this installation"),
        (200, '"4.1.0"', "has version 4.1.0, this installation"),
        (200, "<html>Prefect</html>", "it ends in /api"),
        (404, "", "it ends in /api"),
        (401, "{}", "Set PREFECT_API_AUTH_STRING"),
        # What a server of Prefect answers while PostgreSQL is away.
        (200, f'"{PREFECT}"', "does not reach its database"),
    ],
)
def test_a_server_that_does_not_fit_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, status: int, text: str, reported: str
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    kind = type("Kind", (Site,), {"status": status, "text": text, "ready": 503})
    with HTTPServer(("127.0.0.1", 0), kind) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{site.server_port}/api"
        monkeypatch.setenv("PREFECT_API_URL", url)
        with temporary_settings({PREFECT_API_URL: url}), pytest.raises(CacError) as error:
            ask_site_api()
        site.shutdown()
    assert reported in str(error.value) and url in str(error.value)
    assert "\n" not in str(error.value)


def test_the_server_of_a_killed_run_is_ended(home: Path) -> None:
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
        url = os.environ["PREFECT_API_URL"]
        found = ask(url, "artifacts/latest/filter", {"artifacts": None})
        logs = ask(url, "logs/filter", {"logs": None, "limit": 200})
    latest = {item["key"]: item for item in found if item["latest_id"]}
    artifact = latest["nightly-rescore"]
    assert "| scored |" in artifact["data"]
    # The last line too, which Prefect holds back for two seconds, while the server is ended.
    assert any(line["message"].startswith("Finished in state Completed") for line in logs)
