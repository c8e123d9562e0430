"""`cac deployment register`: pool, deployments and automations on the site's Prefect server."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import yaml

from cac_core.errors import CacError, UsageError
from cac_core.settings import Settings
from flows.deployment.automations import keep_automations
from flows.request import archive_roots, open_warehouse, read_settings
from flows.runtime.environment import POOL, ask_site_api, prepare_environment, site_api
from flows.serve import planned_jobs
from flows.summaries import DeploymentSummary, PlannedWrites, RegisteredDeployment

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_FILE = "prefect.yaml"
#: Deployments that have a schedule, by the name of the job in `flows.serve`.
_SCHEDULED = {"score": "nightly-rescore", "link": "registry-linkage", "report": "cohort-report"}
_LOOK_S = 1.0


@dataclass(frozen=True)
class RegisterRequest:
    """Arguments of `cac deployment register`.

    Parameters
    ----------
    config : settings file of the deployments, an absolute path that every worker has.
    runs_at_once : limit of the work pool.
    wait_s : how long to wait for a server that is starting, seconds.
    """

    config: str
    runs_at_once: int = 2
    wait_s: float = 0.0


def planned(config: str) -> PlannedWrites:
    """What `register` would keep on the server, without asking it.

    Raises
    ------
    UsageError
        As `register`, for the settings.
    """
    specification = _specification(config)
    names = [one["name"] for one in specification["deployments"]]
    schedules = {
        one["name"]: f"{one['schedules'][0]['cron']} {one['schedules'][0]['timezone']}"
        for one in specification["deployments"]
        if one["schedules"]
    }
    return PlannedWrites([f"work pool {POOL}", *names], schedules)


def register(request: RegisterRequest, say: Callable[[str], None]) -> DeploymentSummary:
    """Bring the site's Prefect server to the state that settings and `prefect.yaml` describe.

    May be repeated: what is there is changed, schedules that are no longer described are removed.

    Raises
    ------
    UsageError
        If the settings are invalid, a schedule is no cron line, or no Prefect server is named.
    CacError
        If the server does not answer, does not fit, or refuses.
    """
    specification = _specification(request.config)
    block = read_settings(request.config).notify.prefect_block
    prepare_environment()
    if site_api() is None:
        raise UsageError(
            "No Prefect server is named.",
            "Set PREFECT_API_URL, e.g. to http://127.0.0.1:4200/api. Without a server: cac serve.",
        )
    _wait_for_server(request.wait_s, say)
    with _client() as client:
        created = _keep_pool(client, request.runs_at_once)
        _deploy(specification)
        registered = _registered(client, specification)
        automations = keep_automations(client, block)
    return DeploymentSummary(
        site_api() or "", POOL, created, request.runs_at_once, registered, automations
    )


def _specification(config: str) -> dict[str, Any]:
    settings = read_settings(config)
    archive_roots((), settings)
    open_warehouse(None, settings)
    return described(settings, config)


def described(settings: Settings, config: str) -> dict[str, Any]:
    """Content of `prefect.yaml` with the settings file and the schedules of a site.

    Raises
    ------
    UsageError
        If a schedule of the settings is no cron line.
    """
    specification: dict[str, Any] = yaml.safe_load(_file().read_text(encoding="utf-8"))
    crons = _crons(settings, config)
    for deployment in specification["deployments"]:
        if "config" in deployment["parameters"]:
            deployment["parameters"]["config"] = config
        cron = crons.get(deployment["name"])
        zone = settings.schedule.timezone
        deployment["schedules"] = [{"cron": cron, "timezone": zone}] if cron else []
    return specification


def _crons(settings: Settings, config: str) -> dict[str, str]:
    """Cron lines by deployment; none where every run is started by hand."""
    schedule = settings.schedule
    if not any(line.strip() for line in (schedule.rescore, schedule.link, schedule.report)):
        return {}
    jobs = planned_jobs(settings, config, dt.datetime.now(dt.UTC))
    return {_SCHEDULED[job.name]: job.cron for job in jobs}


def _file() -> Path:
    """`prefect.yaml` of the checkout, or of the installation."""
    checkout = Path(__file__).resolve().parents[2] / _FILE
    return checkout if checkout.is_file() else Path(sys.prefix) / "share" / "cac-cohort" / _FILE


def _wait_for_server(wait_s: float, say: Callable[[str], None]) -> None:
    began, said = monotonic(), False
    while True:
        try:
            ask_site_api()
        except CacError:
            if monotonic() - began >= wait_s:
                raise
            if not said:
                say(f"waiting for the Prefect API at {site_api()}")
            said = True
            sleep(_LOOK_S)
        else:
            return


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    """A client whose faults are one line."""
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPError as error:
        answer = getattr(error, "response", None)
        why = type(error).__name__ if answer is None else f"HTTP {answer.status_code}"
        raise CacError(
            f"The Prefect server at {site_api()} could not be set up ({why}).",
            "See its log (journalctl -u cac-prefect-server), then run this again.",
        ) from None


def _keep_pool(client: SyncPrefectClient, limit: int) -> bool:
    """Make the work pool, or set its limit; whether it was made."""
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", concurrency_limit=limit))
        return True
    if pool.type != "process":
        raise CacError(
            f"The work pool `{POOL}` of {site_api()} has the type {pool.type}, not process.",
            f"Remove it (prefect work-pool delete {POOL}), then run this again.",
        )
    client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=limit))
    return False


def _deploy(specification: dict[str, Any]) -> None:
    """Register the deployments with Prefect's own command."""
    with tempfile.TemporaryDirectory(prefix="cac-deployment-") as folder:
        file = Path(folder) / _FILE
        file.write_text(yaml.safe_dump(specification), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--all",
             "--prefect-file", str(file)],
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        raise CacError(
            f"`prefect deploy` failed: {lines[-1].strip()}",
            "`cac doctor` checks the server and this installation.",
        )


def _registered(
    client: SyncPrefectClient, specification: dict[str, Any]
) -> list[RegisteredDeployment]:
    """The deployments on the server, without the schedules that are no longer described.

    `prefect deploy` sends no empty list of schedules, so that old ones stay.
    """
    registered = []
    for described_one in specification["deployments"]:
        name = described_one["name"]
        deployment = client.read_deployment_by_name(f"{name}/{name}")
        wanted = {(one["cron"], one["timezone"]) for one in described_one["schedules"]}
        removed = 0
        for schedule in client.read_deployment_schedules(deployment.id):
            line = getattr(schedule.schedule, "cron", None)
            if (line, getattr(schedule.schedule, "timezone", None)) not in wanted:
                client.delete_deployment_schedule(deployment.id, schedule.id)
                removed += 1
        crons = [f"{cron} {zone}" for cron, zone in wanted]
        registered.append(RegisteredDeployment(name, crons[0] if crons else None, removed))
    return registered
