"""Workers as jobs of SLURM, which end at their time limit and are replaced.

Imports `dask_jobqueue`, an extra; load it only for `cluster.kind = "slurm"`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any

import dask
from dask.utils import parse_bytes
from distributed.core import Status
from distributed.deploy.adaptive import Adaptive

from cac_core.cluster_settings import ClusterSettings, as_words
from cac_core.errors import CacError, UsageError
from cac_core.processes import interrupt_handler_kept
from tasks.dask_without_http import ClosedScheduler, ClosedWorker

with interrupt_handler_kept():
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob

#: Time between two looks at the load of the cluster, and at the queue of SLURM.
_ADAPT_EVERY, _QUEUE_EVERY_S = "5s", 10.0
#: Jobs that ended before any worker arrived; after so many the run gives up.
_ENDED_AT_ONCE = 3
#: What workers leave of the time limit, for their start and for the end of the job.
_RESERVE_SHARE, _RESERVE_S = 0.1, (120.0, 600.0)
#: Time limits of SLURM, as `sbatch --time` takes them: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S.
_WALLTIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
#: Arguments that the run sets itself.
FIXED = frozenset(
    ("asynchronous", "job_cls", "loop", "n_workers", "protocol", "scheduler_cls", "security")
)


class _Job(SLURMJob):
    """A job whose end is noted; the base class leaves it running for the check at shutdown."""

    async def close(self) -> None:
        """Cancel the job."""
        await super().close()  # type: ignore[no-untyped-call]  # dask_jobqueue is partly typed
        self.status = Status.closed


class SlurmJobs(SLURMCluster):
    """A cluster that submits a job again when it has ended, for whatever reason.

    `SLURMCluster` alone does so only for jobs of one process whose worker had arrived.
    """

    job_cls = _Job

    def __init__(self, **options: Any) -> None:
        self._refusal, self._ended_early, self._arrived = "", 0, False
        self._looked = monotonic()
        super().__init__(**options)

    @property
    def processes(self) -> int:
        """Worker processes of one job."""
        return int(self._dummy_job.worker_processes)

    def fault(self) -> CacError | None:
        """Why no worker will arrive, as far as SLURM tells; None while there is hope."""
        if self._refusal:
            return CacError(
                f"SLURM does not take the job of a worker ({self._refusal}).",
                "Correct cluster.options: queue, account, walltime, cores, memory, "
                "job_extra_directives.",
            )
        if self._ended_early >= _ENDED_AT_ONCE and not self._arrived:
            return CacError(
                f"{self._ended_early} jobs of SLURM ended before a worker arrived.",
                "Set log_directory in cluster.options and read the output of the jobs; they need "
                "the same Python environment, and must reach this machine.",
            )
        return None

    async def _correct_state_internal(self) -> None:
        """Submit and cancel jobs; those that were not taken are submitted again later."""
        try:
            await super()._correct_state_internal()
            self._refusal = ""
        except (OSError, RuntimeError, ValueError) as error:
            self._refusal = _said(str(error))
        for name, job in list(self.workers.items()):
            if job.job_id is None:
                job.status = Status.failed
                del self.workers[name]

    async def forget_ended(self) -> None:
        """Forget jobs that SLURM has no longer, so that others are submitted in their place."""
        if monotonic() - self._looked < _QUEUE_EVERY_S:
            return
        self._looked = monotonic()
        names = {str(worker["name"]) for worker in self.scheduler_info["workers"].values()}
        self._arrived = self._arrived or bool(names)
        jobs: dict[str, Any] = self.workers  # distributed leaves its type open
        idle = {
            name: job
            for name, job in jobs.items()
            if not any(one == name or one.startswith(f"{name}-") for one in names)
        }
        if not idle:
            return
        with contextlib.suppress(OSError, RuntimeError):  # SLURM does not answer: look again later
            command = ["squeue", "-h", "-o", "%A", "-u", str(os.getuid())]
            queue = await _Job._call(command)  # type: ignore[no-untyped-call]
            for name, job in idle.items():
                if job.job_id not in queue.split() and job in jobs.values():
                    job.status = Status.closed
                    del jobs[name]
                    self._ended_early += not self._arrived


class _WholeJobs(Adaptive):
    """Asks for as many workers as whole jobs have: a part of a job cannot be ended."""

    async def target(self) -> int:
        """Number of workers for the load, after a look at the queue."""
        cluster = self.cluster
        assert isinstance(cluster, SlurmJobs)
        await cluster.forget_ended()
        wanted: int = await super().target()  # type: ignore[no-untyped-call]
        return ceil(wanted / cluster.processes) * cluster.processes


def start_slurm(settings: ClusterSettings, inherited: Mapping[str, Any]) -> SlurmJobs:
    """Submit jobs: as many as their work needs, between the two widths of the settings.

    Parameters
    ----------
    inherited : Dask configuration that the workers take over.

    Raises
    ------
    UsageError
        If the walltime cannot be read, or the folder for the certificates cannot be written.
    TypeError, ValueError
        If the cluster class does not take an option.
    """
    try:
        cluster = SlurmJobs(**slurm_options(settings, inherited))
    except OSError as error:
        raise UsageError(
            f"The certificates of the workers cannot be written ({error}).",
            "Set shared_temp_directory in cluster.options: a folder that all nodes see.",
        ) from None
    step = cluster.processes
    cluster.adapt(
        Adaptive=_WholeJobs,
        interval=_ADAPT_EVERY,
        minimum=ceil(settings.narrowest / step) * step,
        maximum=ceil(settings.widest / step) * step,
        worker_key=_job_of if step > 1 else None,
    )
    return cluster


def _job_of(worker: Any) -> str:
    """Name of the job of a worker; several processes of a job are numbered after a hyphen."""
    return str(worker.name).rpartition("-")[0]


def slurm_options(settings: ClusterSettings, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the cluster class: those of the settings, and what a run needs.

    Temporary certificates, stored for the workers in `shared_temp_directory`; no HTTP; one thread
    per process; a lifetime below the walltime, so that a worker ends in order.
    """
    given = settings.options
    section = f"jobqueue.{given.get('config_name', 'slurm')}"

    def of_site(name: str) -> Any:
        value = given.get(name)
        return dask.config.get(f"{section}.{name.replace('_', '-')}") if value is None else value

    cores = of_site("cores")
    if cores is None or of_site("memory") is None:
        raise UsageError(
            "cluster.options lacks cores or memory, which SLURM needs for a job.",
            "For example: options = { cores = 8, memory = '32GiB', walltime = '08:00:00' }",
        )
    _require_bytes(of_site("memory"))
    processes = of_site("processes") or cores
    folder = of_site("shared_temp_directory") or Path.cwd()
    arguments = [*of_site("worker_extra_args"), "--no-dashboard"]
    arguments += ["--worker-class", f"{ClosedWorker.__module__}.{ClosedWorker.__name__}"]
    if settings.worker_resources:
        arguments += ["--resources", as_words(settings.worker_resources)]
    if "--lifetime" not in arguments:
        arguments += lifetime_arguments(of_site("walltime"))
    config = f"export DASK_INTERNAL_INHERIT_CONFIG={dask.config.serialize(dict(inherited))}"
    return given | {
        "security": True,
        "scheduler_cls": ClosedScheduler,
        "scheduler_options": {
            "dashboard": False,
            "dashboard_address": None,
            **of_site("scheduler_options"),
        },
        "shared_temp_directory": str(folder),
        "job_script_prologue": [*of_site("job_script_prologue"), config],
        "worker_extra_args": arguments,
        "processes": int(processes),
    }


def _require_bytes(memory: object) -> None:
    try:
        parse_bytes(str(memory))
    except ValueError:
        raise UsageError(
            f"cluster.options.memory is `{memory}`, which is no amount of memory.",
            "Give the memory of a job, for example 32GiB.",
        ) from None


def lifetime_arguments(walltime: object) -> list[str]:
    """Options of `dask worker` that end a worker before SLURM ends its job.

    The reserve is a tenth of the time limit, but 2 to 10 minutes, and at most half of it. Lifetimes
    differ by a quarter of the reserve, so that not all workers leave at a time.

    Parameters
    ----------
    walltime : time limit in a form of `sbatch --time`; None or a word such as `UNLIMITED`: no end.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if walltime is None or str(walltime).strip().lower() in ("unlimited", "infinite", "-1"):
        return []
    seconds = walltime_seconds(str(walltime))
    least, most = _RESERVE_S
    reserve = min(max(_RESERVE_SHARE * seconds, least), most, seconds / 2)
    stagger = reserve / 4
    lifetime = seconds - reserve
    return ["--lifetime", f"{lifetime:.0f}s", "--lifetime-stagger", f"{stagger:.0f}s"]


def walltime_seconds(text: str) -> int:
    """Seconds of a time limit in a form of `sbatch --time`.

    Raises
    ------
    UsageError
        If it has none of the forms, or is zero.
    """
    match = _WALLTIME.fullmatch(text.strip())
    numbers = [] if match is None else [int(part) for part in match.groups()[1:] if part]
    days = int(match[1]) if match and match[1] else None
    if days is not None or len(numbers) == 3:  # from hours on
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    else:  # minutes, and perhaps seconds
        hours, (minutes, seconds) = 0, (*numbers, 0, 0)[:2]
    total = (((days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise UsageError(
            f"cluster.options.walltime is `{text}`, which is no time limit.",
            "SLURM takes HH:MM:SS, minutes, or D-HH:MM:SS, for example 08:00:00.",
        )
    return total


def _said(text: str) -> str:
    """What SLURM complained of, in one line."""
    lines = [line.strip() for line in text.splitlines() if "error:" in line]
    return "; ".join(line.partition("error:")[2].strip() for line in lines) or text.split("\n")[0]
