"""The process environment of a run, set before Prefect is imported for the first time.

Nothing leaves the machine, nothing needs a server to be set up, and a run that was killed leaves
nothing that the next one has to live with.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import psutil

from cac_core.errors import CacError

_DEFAULTS = {
    # Both are needed: the server has an analytics switch of its own.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_WRAP_LINES": "false",
}
_RECORD = "run-{}.json"
#: The first start on a machine creates the database and takes far longer than later ones.
_START_TIMEOUT_S = 90.0


def prepare_environment() -> Path:
    """Set the defaults a run needs, keep what the site has set, and give the Prefect home."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    home = Path(os.environ.setdefault("PREFECT_HOME", str(_data_home() / "cac-cohort" / "prefect")))
    home.mkdir(parents=True, exist_ok=True)
    return home


@contextlib.contextmanager
def prefect_api(home: Path) -> Iterator[Callable[[], None]]:
    """Have a Prefect API for as long as this lasts: the site's, or one of our own on loopback.

    With `PREFECT_API_URL` set the run reports to that server. Else one is started in a session of
    its own, so that Ctrl-C in the terminal reaches the run but not the API that the run still
    has to tell about it. What a killed run (`kill -9`) left behind is on file and ended first;
    servers a site started itself are in no such file.

    Yields a function that waits until the API answers, and raises CacError if it does not in time:
    the server starts while the caller imports Prefect.
    """
    if site_api():
        yield ask_site_api
        return
    for left in home.glob(_RECORD.format("*")):
        _reap(left)
    record = home / _RECORD.format(os.getpid())
    port = _free_port()
    log = home / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--no-services", "--no-ui",
             "--analytics-off", "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    _bypass_proxy()
    try:
        _note(record, server.pid)
        yield lambda: _await_health(server, port, log)
    finally:
        del os.environ["PREFECT_API_URL"]
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        record.unlink(missing_ok=True)


def site_api() -> str | None:
    """Address of the Prefect API that the site has set, if it has."""
    return os.environ.get("PREFECT_API_URL") or None


def ask_site_api() -> None:
    """Ask the site's own Prefect API whether it is there.

    Raises
    ------
    CacError
        If it does not answer, or says that it is not well.
    """
    # Prefect's client knows the site's proxy, certificates and keys. Imported late: see above.
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise CacError(
            f"The Prefect API at {site_api()} does not answer ({problem}).",
            "Start that server, correct PREFECT_API_URL, or unset it: then each run has its own.",
        )


def _await_health(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    url = f"http://127.0.0.1:{port}/api/health"
    deadline = monotonic() + _START_TIMEOUT_S
    while monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        sleep(0.05)
    raise CacError(
        "The Prefect API of this run did not start.",
        f"Its log is {log}; `cac doctor` checks the rest of the installation.",
    )


def _bypass_proxy() -> None:
    """Keep calls to our own API from a proxy that the site has set for the world outside."""
    for name in ("NO_PROXY", "no_proxy"):
        listed = os.environ.get(name, "")
        if "127.0.0.1" not in listed.split(","):
            os.environ[name] = f"{listed},127.0.0.1".lstrip(",")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))


def _note(record: Path, server: int) -> None:
    """Write down this process and its server with their start times (ids are reused)."""
    entries = [
        {"pid": pid, "created": psutil.Process(pid).create_time()} for pid in (os.getpid(), server)
    ]
    aside = record.with_suffix(".tmp")
    aside.write_text(json.dumps(entries), encoding="utf-8")
    aside.replace(record)


def _reap(record: Path) -> None:
    """End the server of a noted run whose own process is gone."""
    try:
        run, server = (_find(entry) for entry in json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError):
        run, server = None, None
    if run is not None:
        return  # that run is still at work
    with contextlib.suppress(psutil.Error):
        if server is not None:
            server.terminate()
            server.wait(timeout=5)
    record.unlink(missing_ok=True)


def _find(entry: dict[str, float]) -> psutil.Process | None:
    try:
        process = psutil.Process(int(entry["pid"]))
        return process if abs(process.create_time() - entry["created"]) < 1.0 else None
    except psutil.Error:
        return None
