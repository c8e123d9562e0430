"""`cac serve`: schedules fire, runs that end badly end nothing else, a stop takes seconds."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cac_core.errors import UsageError
from cac_core.settings import LinkageSettings, ScheduleSettings, Settings
from flows.serve import planned_jobs
from tests.flows.conftest import Cac, Scored

NOW = dt.datetime(2026, 3, 27, 12, 0, tzinfo=dt.UTC)

#: `cac serve` whose schedules come due after a second, and whose runs are a script.
_SERVE = """
import datetime as dt, sys
from flows import serve
serve.Job.due_after = lambda job, moment: moment + dt.timedelta(seconds=1)
serve._PROGRAM = (sys.executable, "-c", sys.argv.pop(1))
from flows.cli.start import main
main()
"""


def planned(**schedule: str) -> list[tuple[str, str]]:
    settings = Settings(
        schedule=ScheduleSettings(**schedule), linkage=LinkageSettings(mapping=Path("site.toml"))
    )
    return [(job.name, job.due.isoformat()) for job in planned_jobs(settings, "c.toml", NOW)]


def test_the_defaults_are_those_of_the_deployments() -> None:
    assert planned() == [
        ("score", "2026-03-28T01:30:00+00:00"),
        ("link", "2026-03-30T06:00:00+00:00"),  # a Monday
        ("report", "2026-04-01T07:00:00+00:00"),
    ]
    text = (Path(__file__).parents[2] / "prefect.yaml").read_text("utf-8")
    defaults = ScheduleSettings()
    assert re.findall(r'cron: "(.*)"', text) == [defaults.rescore, defaults.link, defaults.report]


def test_schedules_follow_the_clock_of_the_site() -> None:
    # The clocks of Berlin go forward on 29 March at 2:00: 2:30 does not exist that night.
    (job,) = planned(timezone="Europe/Berlin", rescore="30 1 * * 1", link="", report="")
    assert job == ("score", "2026-03-30T01:30:00+02:00")


def test_without_a_mapping_nothing_is_linked() -> None:
    jobs = planned_jobs(Settings(), "c.toml", NOW)
    assert [job.command for job in jobs] == [
        ("score", "--config", "c.toml", "--scheduled", "--json")
    ]


@pytest.mark.parametrize("cron", ["30 1 * *", "every night", "0 0 31 2 *"])
def test_a_wrong_schedule_is_wrong_usage(cron: str) -> None:
    with pytest.raises(UsageError, match="not a cron line"):
        planned(rescore=cron)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "file").write_bytes(b"x")
    path = tmp_path / "cac.toml"
    path.write_text('archive = ["archive"]\nwarehouse = "wh"\n', encoding="utf-8")
    return path


def started(config: Path, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE, script, "serve", "-c", str(config)],
        env={"PATH": os.environ["PATH"], "HOME": str(config.parent), "COLUMNS": "300"},
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    assert process.stderr
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line.rstrip())
        if wanted in line:
            return lines
    raise AssertionError(lines)


def test_runs_that_end_badly_do_not_end_the_service(config: Path) -> None:
    count = config.parent / "count"
    script = f"""
import os, pathlib, signal, sys
count = pathlib.Path({str(count)!r})
n = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (n + 1))
if n == 0: sys.exit(3)
if n == 1: os.kill(os.getpid(), signal.SIGKILL)
"""
    process = started(config, script)
    lines = lines_until(process, "completed")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
    told = [line for line in lines if "after" in line]
    assert "ended with a warning (exit code 3)" in told[0]
    assert "killed by SIGKILL" in told[1]
    assert "completed (exit code 0)" in told[2]


def test_a_stop_ends_the_run_and_a_missed_run_is_noticed(config: Path) -> None:
    script = """
import signal, sys, time
def stop(*_):
    print("published", file=sys.stderr, flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
print("running", file=sys.stderr, flush=True)
time.sleep(600)
"""
    process = started(config, script)
    lines_until(process, "running")
    began = time.monotonic()
    process.terminate()
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0 and time.monotonic() - began < 20
    assert "published" in rest and "stopped" in rest
    time.sleep(2)  # the schedule comes due every second
    again = started(config, script)
    lines = lines_until(again, "running")
    again.terminate()
    again.communicate(timeout=60)
    assert any("warning: score was due on" in line for line in lines), lines


def test_the_unit_is_one_that_systemd_takes(cac: Cac, config: Path) -> None:
    done = cac("serve", "-c", config, "--unit")
    assert done.code == 0, done.err
    for line in (
        "NoNewPrivileges=yes",
        "PrivateTmp=yes",
        "ProtectSystem=strict",
        "EnvironmentFile=",
    ):
        assert line in done.out
    assert f"ReadWritePaths={config.parent / 'wh'}" in done.out
    with config.open("a", encoding="utf-8") as file:
        file.write('key_file = "key"\n')
    assert "EnvironmentFile=/" not in cac("serve", "-c", config, "--unit").out
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    unit = config.parent / "cac.service"
    unit.write_text(done.out, encoding="utf-8")
    checked = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.slow
def test_a_schedule_fires_and_scores(
    scored: Scored, environment: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "cac.toml"
    config.write_text(
        f'archive = ["{scored.archive}"]\nwarehouse = "wh"\n[schedule]\nrescore = "* * * * *"\n',
        encoding="utf-8",
    )
    alone = {name: value for name, value in environment.items() if "PREFECT" not in name}
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("cac")), "serve", "-c", str(config)],
        env=alone,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines_until(process, "score: completed (exit code 0)")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["scored"] == scored.summary["scored"]
