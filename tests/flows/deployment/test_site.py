"""A site with Prefect server, PostgreSQL and worker, run from its units; and after `kill -9`."""

from __future__ import annotations

import base64
import json
import logging
import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import psutil
import pytest

from cac_core.phantom.archive.write import write_archive
from tests.builders.postgres import Postgres, binaries, free_port, postgres
from tests.flows.conftest import SECRET

REPOSITORY = Path(__file__).resolve().parents[3]
CAC = Path(sys.executable).with_name("cac")
AUTH = "cac:a password of the tests"
_Found = TypeVar("_Found")
pytestmark = pytest.mark.slow


def service(unit: Path) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a unit, as systemd starts it."""
    command: list[str] = []
    variables: dict[str, str] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "ExecStart":
            command = shlex.split(value.replace("%H", "machine"))
        elif key == "Environment":
            name, _, text = value.partition("=")
            variables[name] = text
    return command, variables


class Site:
    """The services of a site on loopback; logs are files in its folder."""

    def __init__(self, folder: Path, database: Postgres) -> None:
        self.folder, self.database, self.port = folder, database, free_port()
        self.config = folder / "cac.toml"
        write_archive(folder / "archive" / "first", studies=2, seed=5, workers=2)
        self.schedule(rescore="* * * * *")
        subprocess.run(
            [CAC, "deployment", "units", folder / "units", "-c", self.config,
             "--port", str(self.port)],
            env=self.environment("cli"), check=True, capture_output=True,
        )  # fmt: skip
        self.processes: dict[str, psutil.Popen] = {}

    def schedule(self, **lines: str) -> None:
        """Write the settings with these schedules."""
        rows = [f'{name} = "{line}"' for name, line in lines.items()]
        self.config.write_text(
            'archive = ["archive"]\nwarehouse = "wh"\n[cluster]\nworkers = 1\n[schedule]\n'
            + "\n".join(rows) + "\n",
            encoding="utf-8",
        )  # fmt: skip

    def environment(self, name: str) -> dict[str, str]:
        """What a service or a shell of the site finds; homes are apart."""
        home = self.folder / f"home-{name}"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"], "HOME": str(home), "COLUMNS": "300",
            "PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
            "XDG_DATA_HOME": str(home), "CAC_LINKAGE_KEY": SECRET,
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_API_AUTH_STRING": AUTH,
        }  # fmt: skip

    def start(self, name: str) -> None:
        """Start the unit of this name, with what only this machine knows in its place."""
        command, variables = service(self.folder / "units" / f"cac-prefect-{name}.service")
        variables |= self.environment(name)
        if name == "server":
            variables |= {
                "PREFECT_SERVER_API_AUTH_STRING": AUTH,
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database.url,
            }
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = psutil.Popen(
                command, env=variables, cwd="/", stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def keep(self) -> None:
        """Start again what has ended, as `Restart=always` of the units does."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                self.start(name)

    def kill(self, name: str) -> None:
        """`kill -9` of a service with all that it started."""
        main = self.processes.pop(name)
        processes = [*main.children(recursive=True), main]
        for process in processes:
            process.kill()
        main.wait()
        psutil.wait_procs(processes)

    def end(self) -> None:
        """End all services."""
        for name in list(self.processes):
            self.kill(name)

    def run(self, *command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as an administrator of the site."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment("cli"), cwd=cwd or self.folder,
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def register(self) -> dict[str, Any]:
        """What `cac deployment register` reports."""
        done = self.run(
            CAC, "deployment", "register", "-c", self.config, "--wait", 180, "--json"
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def ask(self, path: str, **body: Any) -> Any:
        """Answer of the API to a POST."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api{path}",
            json.dumps(body).encode(),
            {
                "Content-Type": "application/json",
                "Authorization": "Basic " + base64.b64encode(AUTH.encode()).decode(),
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """Flow runs of the nights in one of these states, in the order of their schedule."""
        found: list[dict[str, Any]] = self.ask(
            "/flow_runs/filter",
            flows={"name": {"any_": ["nightly-rescore"]}},
            flow_runs={"state": {"type": {"any_": list(states)}}},
            sort="EXPECTED_START_TIME_ASC",
        )
        return found

    def beats(self, run: dict[str, Any]) -> bool:
        """Whether the server has seen a heartbeat of a run."""
        events = self.ask("/events/filter", filter={
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run['id']}"]},
        })  # fmt: skip
        return bool(events["events"])


def awaited(what: Callable[[], _Found], limit_s: float) -> _Found:
    """What a function returns as soon as it is true; tries again while a server is away."""
    began, found = monotonic(), None
    while monotonic() - began < limit_s:
        try:
            found = what()
        except OSError:
            found = None
        if found:
            return found
        sleep(0.5)
    raise AssertionError(f"not within {limit_s:.0f} s")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (initdb)")
    with postgres(programs) as database:
        site = Site(tmp_path_factory.mktemp("site"), database)
        try:
            site.start("server")
            yield site
        finally:
            site.end()


def test_what_is_registered_is_what_the_settings_say(site: Site) -> None:
    first = site.register()
    assert (first["work_pool"], first["work_pool_created"]) == ("cac", True), first
    # What an administrator does by hand, in a checkout: the schedules of its file.
    by_hand = site.run(
        sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", cwd=REPOSITORY
    )
    assert by_hand.returncode == 0, by_hand.stderr + by_hand.stdout
    again = site.register()
    assert not again["work_pool_created"] and again["automations"] == first["automations"]
    table = {one["name"]: (one["schedule"], one["schedules_removed"]) for one in
             again["deployments"]}  # fmt: skip
    assert table["nightly-rescore"][0] == "* * * * * UTC"
    # No mapping: nothing is linked. The file has a schedule for it, which must go.
    assert table["registry-linkage"] == table["cohort-report"] == (None, 1)
    schedules = {
        one["name"]: [schedule["schedule"]["cron"] for schedule in one["schedules"]]
        for one in site.ask("/deployments/filter")
    }
    assert schedules == {name: [] for name in table} | {"nightly-rescore": ["* * * * *"]}
    # Runs that were planned by the schedules are gone with them.
    planned = site.ask("/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}})
    flows = {one["id"]: one["name"] for one in site.ask("/flows/filter")}
    assert {flows[one["flow_id"]] for one in planned} <= {"nightly-rescore"}
    (pool,) = site.ask("/work_pools/filter")
    assert (pool["type"], pool["concurrency_limit"]) == ("process", 2)
    assert len(site.ask("/automations/filter")) == 1


def test_a_schedule_fires_and_the_night_after_a_kill_runs(site: Site) -> None:
    site.start("worker")
    (done,) = awaited(lambda: site.runs("COMPLETED")[:1], 300)
    artifacts = site.ask("/artifacts/filter", artifacts={
        "key": {"any_": ["nightly-rescore"]}, "flow_run_id": {"any_": [done["id"]]},
    })  # fmt: skip
    assert "| scored | 2 |" in artifacts[0]["data"].replace("**", ""), artifacts
    write_archive(site.folder / "archive" / "second", studies=12, seed=6, workers=2)

    def begun() -> dict[str, Any] | None:
        """A run that has work, and whose heartbeat the server has seen."""
        fresh = [one for one in site.runs("RUNNING") if site.beats(one)]
        return fresh[0] if fresh and list((site.folder / "wh").glob("_staging*")) else None

    victim = awaited(begun, 300)
    assert victim
    site.kill("worker")
    site.kill("server")
    killed = monotonic()
    site.start("server")
    site.start("worker")
    found: dict[str, float] = {}

    def recovered() -> bool:
        site.keep()
        states = {one["id"]: one["state_type"] for one in site.runs("RUNNING", "CRASHED")}
        if states.get(victim["id"]) != "RUNNING":
            found.setdefault("ended", monotonic() - killed)
        if [one for one, state in states.items() if one != victim["id"] and state == "RUNNING"]:
            found.setdefault("next", monotonic() - killed)
        return len(found) == 2

    awaited(recovered, 360)
    # `--log-cli-level=INFO` shows it.
    logging.getLogger(__name__).info("after a kill, seconds: %s", found)
    assert found["ended"] < 240, found
    (crashed,) = [one for one in site.runs("CRASHED") if one["id"] == victim["id"]]
    assert "heartbeat" in crashed["state"]["message"]
    awaited(lambda: len(site.runs("COMPLETED")) > 1, 300)


def test_a_database_that_is_away_is_one_line(site: Site) -> None:
    site.kill("worker")
    site.database.stop()
    try:
        for command in (("doctor",), ("deployment", "register", "-c", site.config),
                        ("score", "-c", site.config)):  # fmt: skip
            done = site.run(CAC, *command)
            told = done.stderr + done.stdout
            assert done.returncode == 1 and "database" in told, told
    finally:
        site.database.start()
    assert awaited(lambda: site.run(CAC, "doctor").returncode == 0, 120)
