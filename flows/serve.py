"""`cac serve`: the schedules of the settings on one machine, each run in a process of its own."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import NoReturn
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from cac_core.errors import UsageError
from cac_core.settings import Settings
from flows.request import archive_roots, open_warehouse, read_settings
from flows.runtime.environment import prepare_environment
from flows.runtime.progress import format_seconds

#: The clock is read this often: it may be set, or the machine may have slept.
_LOOK_S = 20.0
#: Time for a run to publish what is finished, when the service is stopped.
_PATIENCE_S = 30.0
_PROGRAM = (sys.executable, "-P", "-c", "from cac_core.entry import main; main()")
_ENDINGS = {0: "completed", 1: "failed", 2: "failed: wrong usage", 3: "ended with a warning"}

Say = Callable[[str], None]


@dataclass
class Job:
    """A command with its schedule, and when it is due next."""

    name: str
    command: tuple[str, ...]
    cron: str
    zone: ZoneInfo
    due: dt.datetime

    def due_after(self, moment: dt.datetime) -> dt.datetime:
        """First time of the schedule after a moment."""
        return next(CronSim(self.cron, moment.astimezone(self.zone)))


def serve(config: str, say: Say) -> NoReturn:
    """Start each job when it is due, one at a time, until this process is stopped.

    A run that fails or is killed ends nothing but itself. A run that is due while another runs
    starts after it. When this process is interrupted, it ends the run and passes the interruption
    on.

    Raises
    ------
    UsageError
        If the settings are invalid or name no archive or warehouse, or a schedule is no cron line.
    """
    settings = read_settings(config)
    archive_roots((), settings)
    open_warehouse(None, settings)
    jobs = planned_jobs(settings, config, _now())
    memory = _Memory(prepare_environment(), config)
    for job in jobs:
        missed = memory.missed(job)
        if missed is not None:
            say(
                f"warning: {job.name} was due on {_shown(missed)} and did not start. The next run "
                f"makes up for it; `cac {' '.join(job.command)}` does so now."
            )
        say(f"{job.name} starts on {_shown(job.due)}")
    while True:
        job = min(jobs, key=lambda job: job.due)
        while (left := (job.due - _now()).total_seconds()) > 0:
            sleep(min(left, _LOOK_S))
        memory.keep(job)
        say(f"{job.name}: {_run(job)}")
        job.due = job.due_after(_now())
        say(f"{job.name} starts again on {_shown(job.due)}")


def planned_jobs(settings: Settings, config: str, now: dt.datetime) -> list[Job]:
    """The jobs that have a schedule; linkage and report only where a mapping is named.

    Raises
    ------
    UsageError
        If a schedule is no cron line, or there is none.
    """
    schedule, zone = settings.schedule, ZoneInfo(settings.schedule.timezone)
    lines = {"score": schedule.rescore}
    if settings.linkage.mapping is not None:
        lines |= {"link": schedule.link, "report": schedule.report}
    jobs = []
    for name, cron in lines.items():
        if not cron.strip():
            continue
        command = (name, "--config", config, "--scheduled", "--json")
        job = Job(name, command, cron, zone, now)
        try:
            job.due = job.due_after(now)
        except (CronSimError, StopIteration):
            raise UsageError(
                f"The schedule {cron!r} of `cac {name}` is not a cron line that comes due.",
                "Give minute, hour, day, month and weekday under [schedule], e.g. '30 1 * * *'.",
            ) from None
        jobs.append(job)
    if not jobs:
        raise UsageError("The settings have no schedule.", "Set one under [schedule].")
    return jobs


def unit(config: str) -> str:
    """A systemd unit that runs `cac serve` with these settings, for the user of this process.

    Raises
    ------
    UsageError
        If the settings are invalid.
    """
    settings = read_settings(config)
    writable = [settings.warehouse] if settings.warehouse and ":" not in settings.warehouse else []
    if settings.report.out is not None:
        writable.append(str(settings.report.out))
    folders = " ".join(quoted(path) for path in writable)
    command = " ".join(quoted(word) for word in (_executable(), "serve", "--config", config))
    secret = "" if settings.key_file else "EnvironmentFile=/etc/cac/secret.env\n"
    return _UNIT.format(
        command=command,
        secret=secret,
        user=pwd.getpwuid(os.getuid()).pw_name,
        writable=f"ReadWritePaths={folders}\n" if folders else "",
    )


_UNIT = """\
# systemd unit of cac. Write it to /etc/systemd/system/cac.service, then:
#   systemctl daemon-reload; systemctl enable --now cac; journalctl -fu cac
# The folders of ReadWritePaths must exist. EnvironmentFile, if there is one below, holds the line
# CAC_LINKAGE_KEY=..., and is readable by root only (chmod 600).
[Unit]
Description=Nightly scoring of coronary artery calcium
Wants=network-online.target
After=network-online.target remote-fs.target

[Service]
Type=exec
ExecStart={command}
User={user}
{secret}StateDirectory=cac
Environment=XDG_DATA_HOME=/var/lib/cac
{writable}Restart=on-failure
RestartSec=60
KillMode=mixed
TimeoutStopSec=60
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
CapabilityBoundingSet=

[Install]
WantedBy=multi-user.target
"""


class _Memory:
    """When each job was last due, kept across restarts beside Prefect's database."""

    def __init__(self, folder: Path, config: str) -> None:
        digest = hashlib.sha256(config.encode()).hexdigest()[:12]
        self.file = folder / f"serve-{digest}.json"

    def _read(self) -> dict[str, str]:
        try:
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            return kept if isinstance(kept, dict) else {}
        except (OSError, ValueError):
            return {}

    def keep(self, job: Job) -> None:
        """Remember that a job has started; a full disk does not keep it from running."""
        aside = self.file.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            aside.write_text(json.dumps(self._read() | {job.name: _now().isoformat()}), "utf-8")
            aside.replace(self.file)

    def missed(self, job: Job) -> dt.datetime | None:
        """Last time at which a job was due since it started last, and did not start."""
        try:
            moment = dt.datetime.fromisoformat(self._read()[job.name])
        except (KeyError, ValueError, TypeError):
            return None
        missed, due = None, job.due_after(moment)
        while due < _now():
            missed, due = due, job.due_after(due)
        return missed


def _run(job: Job) -> str:
    """Run a job to its end; says how it ended."""
    began = monotonic()
    try:
        process = subprocess.Popen(
            [*_PROGRAM, *job.command], stdin=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        return f"could not start ({error.strerror})"
    try:
        code = process.wait()
    finally:
        _end(process)
    took = format_seconds(monotonic() - began)
    if code < 0:
        return f"killed by {signal.Signals(-code).name} after {took}"
    return f"{_ENDINGS.get(code, 'failed')} (exit code {code}) after {took}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run that is still going: first so that it publishes, then with all its processes."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_PATIENCE_S)
    if process.returncode != 0:  # its workers, or itself
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _shown(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname()}"


def _executable() -> str:
    beside = Path(sys.executable).with_name("cac")
    return str(beside if beside.exists() else Path(sys.argv[0]).resolve())


def quoted(word: str) -> str:
    """A word as systemd takes it in a unit."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != word or " " in word else word
