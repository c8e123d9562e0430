"""The process environment of a run, set before Prefect is imported for the first time.

Nothing leaves the machine, nothing needs a server, and a run that was killed leaves nothing that
the next one has to live with.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import psutil

_DEFAULTS = {
    # Both are needed: the server has an analytics switch of its own.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    # The first start on a machine creates the database and takes far longer than later ones.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_WRAP_LINES": "false",
}
_PID_FILE = "cac-run.json"


def prepare_environment() -> Path:
    """Set the defaults a run needs, keep what the site has set, and give the Prefect home.

    With `PREFECT_API_URL` set the run reports to that server; else an ephemeral API serves it
    for as long as it lasts.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    home = Path(os.environ.setdefault("PREFECT_HOME", str(_data_home() / "cac-cohort" / "prefect")))
    home.mkdir(parents=True, exist_ok=True)
    return home


@contextlib.contextmanager
def accounted_run(home: Path):  # type: ignore[no-untyped-def]
    """Note this process and its children, and clean up after a predecessor that was killed.

    An ephemeral API server outlives a killed run (`kill -9`); its process id is on file, so the
    next run ends it. Servers a site started itself are in no such file and are left alone.
    """
    record = home / _PID_FILE
    _reap(record)
    _note(record)
    try:
        yield lambda: _note(record)
    finally:
        record.unlink(missing_ok=True)


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))


def _note(record: Path) -> None:
    """Write down this process and its children with their start times (ids are reused)."""
    me = psutil.Process()
    processes = [me, *me.children(recursive=True)]
    entries = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            entries.append({"pid": process.pid, "created": process.create_time()})
    aside = record.with_suffix(".tmp")
    aside.write_text(json.dumps(entries), encoding="utf-8")
    aside.replace(record)


def _reap(record: Path) -> None:
    """End the children of a noted run whose own process is gone."""
    try:
        entries = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    alive = [process for entry in entries if (process := _find(entry)) is not None]
    if not entries or any(process.pid == entries[0]["pid"] for process in alive):
        return  # the other run is still at work
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(alive, timeout=5)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    record.unlink(missing_ok=True)


def _find(entry: dict[str, float]) -> psutil.Process | None:
    try:
        process = psutil.Process(int(entry["pid"]))
    except psutil.Error:
        return None
    return process if abs(process.create_time() - entry["created"]) < 1.0 else None
