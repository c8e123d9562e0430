"""One factory for all kinds of Dask clusters; the settings choose the kind."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import dask
import distributed.utils
import psutil
from distributed import Client, LocalCluster, Nanny, SpecCluster
from distributed.security import Security
from distributed.utils import LoopRunner

from cac_core.cluster_settings import ClusterSettings, as_words
from cac_core.errors import CacError, UsageError
from cac_core.keys import SECRET_VARIABLE
from cac_core.processes import end_processes, without_interrupts
from cac_core.quiet import silence
from cac_core.scratch import scratch_folder
from flows.runtime.cluster_check import check_cluster
from flows.runtime.worker_server import WORKER_VARIABLES, start_method
from tasks.dask_without_http import ClosedScheduler, ClosedWorker
from tasks.slots import study_slots
from tasks.worker import CascadePlugin

_CONFIG = {
    # Restart a worker that leaks memory instead of pausing it: a paused worker never recovers, and
    # the cluster stalls.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.8,
    # No study queues on a worker behind another, so that a dying worker identifies its study; a
    # study whose worker died fails at once, to be scored again alone.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 0,
    # A worker that says nothing for a minute (stopped, swapped out) is given up; one that restarts
    # on a busy machine has as long before its nanny is closed.
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.deploy.lost-worker-timeout": "60s",
    "distributed.comm.timeouts.connect": "60s",
    # Some log messages contain task arguments, and with them paths of the archive. Faults of a
    # study are in its row.
    "logging": {"distributed": "critical"},
    "distributed.nanny.pre-spawn-environ": WORKER_VARIABLES,
}
_CONNECT_S = 20.0
_LOOK_EVERY_S = 2.0
#: How often a local cluster is started if workers are lost while they start.
_STARTS = 3
#: A worker process that is stopped for this long is replaced.
_STOPPED_S = 20.0
#: Pauses between attempts to load the weights while workers are lost: two minutes in all.
_RELOAD_S = (1.0, 5.0, *(10.0,) * 11)


def local_workers(settings: ClusterSettings) -> int:
    """Number of local worker processes: the setting, else one per usable core."""
    return settings.workers or len(os.sched_getaffinity(0))


@contextlib.contextmanager
def cluster_client(
    settings: ClusterSettings, plugin: CascadePlugin | None = None
) -> Iterator[Client]:
    """Start or join a cluster; with a plugin, its workers load the cascade first.

    Anyone who can talk to a scheduler or worker can run code as its user. A local cluster therefore
    uses TLS with mutual authentication and a certificate that exists only in memory of this run.

    Raises
    ------
    UsageError
        If the kind needs an extra that is not installed, or an option is not allowed for it.
    CacError
        If no scheduler answers, no worker comes or offers what a study takes, or the workers
        cannot load the weights.
    """
    check_cluster(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without_secret())
        if settings.kind == "local":
            stack.enter_context(dask.config.set(_dask_defaults()))
        stack.enter_context(dask.config.set(_CONFIG))
        # asyncio too: it logs broken connections while a cluster shuts down.
        silence("distributed", "asyncio")
        client = stack.enter_context(_connect(settings, stack))
        _require_workers(client, settings)
        if plugin is not None:
            _load(client, plugin)
        yield client


def _require_workers(client: Client, settings: ClusterSettings) -> None:
    """Check that there are workers, and that one of them offers what a study takes.

    Raises
    ------
    CacError
        If not: Dask itself would wait for ever.
    """
    if settings.kind == "address" and not client.nthreads():
        raise CacError(
            f"The Dask scheduler at {settings.address} has no workers.",
            "Start some with: dask worker ADDRESS --nthreads 1",
        )
    if not study_slots(client, settings.study_resources):
        asked = as_words(settings.study_resources)
        raise CacError(
            f"No worker offers {asked}, which cluster.study_resources asks for.",
            f"Start workers with --resources {asked}, or change cluster.study_resources.",
        )


def _load(client: Client, plugin: CascadePlugin) -> None:
    """Make the workers load the cascade; retry if a worker is lost meanwhile."""
    for pause in (*_RELOAD_S, None):
        try:
            client.register_plugin(plugin)
            return
        except OSError as error:  # distributed raises it if the connection to a worker breaks
            if pause is None:
                raise _cannot_load(error) from None
            sleep(pause)  # the nanny starts another worker
        except Exception as error:  # noqa: BLE001 - any exception of a worker arrives here
            raise _cannot_load(error) from None


def _cannot_load(error: Exception) -> CacError:
    return CacError(
        f"The workers cannot load the model ({type(error).__name__}: {error}).",
        "Install the same version and weights on every machine of the cluster.",
    )


@contextlib.contextmanager
def _without_secret() -> Iterator[None]:
    """Remove the linkage secret from the environment that workers inherit."""
    secret = os.environ.pop(SECRET_VARIABLE, None)
    try:
        yield
    finally:
        if secret is not None:
            os.environ[SECRET_VARIABLE] = secret


def _dask_defaults() -> dict[str, Any]:
    """Dask's defaults, without configuration files and variables of the user.

    Those may name preload scripts or certificates of other clusters.
    """
    defaults: dict[str, Any] = dask.config.merge(*dask.config.defaults)
    return defaults


def _connect(settings: ClusterSettings, stack: contextlib.ExitStack) -> Client:
    if settings.kind == "local":
        cluster = stack.enter_context(_local_cluster(settings, stack))
        stack.enter_context(_full_width(cluster))
        return Client(cluster)
    if settings.kind == "address":
        return _join(settings)
    return _batch(settings, stack)


def _batch(settings: ClusterSettings, stack: contextlib.ExitStack) -> Client:
    """A SLURM or Kubernetes cluster, once its first worker is there; their packages are extras."""
    fault: Callable[[], CacError | None] = lambda: None  # noqa: E731
    with _options_named():
        if settings.kind == "slurm":
            from flows.runtime.slurm import start_slurm

            cluster = start_slurm(settings, _CONFIG)
            fault = cluster.fault
        else:
            from flows.runtime.kubernetes import start_kubernetes

            cluster = start_kubernetes(settings, _CONFIG)
    stack.enter_context(cluster)
    client = Client(cluster)
    began = monotonic()
    while not client.nthreads():
        if (found := fault()) is not None:
            raise found
        if monotonic() - began >= settings.patience_s:
            raise CacError(
                f"No worker has started in {settings.patience_s:.0f} s (cluster.kind "
                f"`{settings.kind}`).",
                "Look at the queue; cluster.no_workers_s sets how long a run waits.",
            )
        sleep(_LOOK_EVERY_S)
    return client


class _ClosedCluster(SpecCluster):
    """A cluster of `ClosedScheduler` and `ClosedWorker`."""

    def __init__(self, workers: Any, scheduler: Any, worker: Any, **options: Any) -> None:
        def closed(spec: Any) -> Any:
            return spec | {"options": spec["options"] | {"worker_class": ClosedWorker}}

        super().__init__(  # type: ignore[no-untyped-call]  # distributed is partly typed
            workers={name: closed(spec) for name, spec in workers.items()},
            scheduler=scheduler | {"cls": ClosedScheduler},
            worker=closed(worker),
            **options,
        )


class _ClosedLocalCluster(LocalCluster, _ClosedCluster):
    """LocalCluster builds the specification and passes it to the class above."""


def _local_cluster(settings: ClusterSettings, stack: contextlib.ExitStack) -> LocalCluster:
    scratch = str(stack.enter_context(scratch_folder("cac-workers-")))
    # The scheduler reads it from the configuration, and else uses the system's temporary folder.
    stack.enter_context(dask.config.set({"temporary-directory": scratch}))
    stack.enter_context(dask.config.set({"distributed.worker.multiprocessing-method": _method()}))
    # End workers that an interrupted run did not wait for: they would create their folders again.
    stack.callback(end_processes, set(multiprocessing.active_children()))
    fixed = {
        "loop": stack.enter_context(_loop_without_interrupts()),
        "n_workers": local_workers(settings),
        "threads_per_worker": 1,
        "processes": True,
        "worker_class": Nanny,
        "host": "127.0.0.1",
        "protocol": "tls://",
        "security": Security.temporary(),
        "dashboard_address": None,
        "memory_limit": settings.memory_limit,
        "local_directory": scratch,
        "silence_logs": logging.CRITICAL,
        "resources": dict(settings.worker_resources) or None,
        "env": _worker_environment(),
    }
    with _options_named():
        return _started(fixed | settings.options)


def _method() -> str:
    """How this process starts workers."""
    # Ours is set; the list that Dask would set has it import pandas first.
    distributed.utils._forkserver_preload_set = True
    return start_method()


def _worker_environment() -> dict[str, str]:
    """Variables of now: a server that forks workers has those of its start."""
    return {name: value for name, value in os.environ.items() if name not in WORKER_VARIABLES}


def _started(options: dict[str, Any]) -> LocalCluster:
    """Start a local cluster; again if a worker is lost while it starts, which Dask gives up on.

    Raises
    ------
    CacError
        If the workers do not start.
    """
    for left in reversed(range(_STARTS)):
        try:
            return _ClosedLocalCluster(**options)  # type: ignore[no-untyped-call]
        except RuntimeError:
            if not left:
                raise CacError(
                    f"The worker processes of this run did not start, {_STARTS} times.",
                    "Look at the memory of the machine and at cluster.options; CAC_DEBUG=1 shows "
                    "what they say.",
                ) from None
    raise AssertionError


@contextlib.contextmanager
def _full_width(cluster: SpecCluster) -> Iterator[None]:
    """Start workers again whose nannies were closed: Dask forgets them, and would run with less.

    Worker processes that are stopped (SIGSTOP) for a while are killed, so that their nannies start
    others: they neither score nor reach the time limit.
    """
    width, ended = len(cluster.worker_spec), threading.Event()
    stopped: dict[int, float] = {}

    def keep() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            if len(cluster.workers) < width:
                cluster.scale(width)
            _kill_stopped({worker.pid for worker in list(cluster.workers.values())}, stopped)

    watcher = threading.Thread(target=keep, name="cac-full-width", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _kill_stopped(pids: set[int | None], since: dict[int, float]) -> None:
    """Kill processes that were stopped at every look for `_STOPPED_S`; `since` keeps the times."""
    now = monotonic()
    found = {pid for pid in pids if pid is not None and _is_stopped(pid)}
    for pid in since.keys() - found:
        del since[pid]
    for pid in found:
        if now - since.setdefault(pid, now) >= _STOPPED_S:
            del since[pid]
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


@contextlib.contextmanager
def _options_named() -> Iterator[None]:
    """Turn the complaint of a cluster class about an option into a fault of the settings."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"cluster.options cannot be used: {error}.",
            "They are arguments of Dask's cluster class; docs/operation.md has examples.",
        ) from None


@contextlib.contextmanager
def _loop_without_interrupts() -> Iterator[Any]:
    """An event loop whose worker processes do not receive Ctrl-C from the terminal."""
    runner = LoopRunner()
    with without_interrupts():
        runner.start()
    try:
        yield runner.loop
    finally:
        runner.stop()


def _join(settings: ClusterSettings) -> Client:
    assert settings.address is not None
    try:
        security = _security(settings)
        if security is not None:
            _try_certificate(settings.address, security)
        return Client(settings.address, timeout=_CONNECT_S, security=security)
    except ssl.SSLError as error:
        raise CacError(
            f"The Dask scheduler at {settings.address} and this run do not accept each other's "
            f"certificate ({error.reason or error}).",
            "cluster.tls_ca_file must have signed both certificates.",
        ) from None
    except (OSError, ValueError):
        raise CacError(
            f"No Dask scheduler answers at {settings.address}.",
            "Start one with `dask scheduler`, or set cluster.kind to `local`. A scheduler started "
            "with --tls-* options has a tls:// address and needs cluster.tls_ca_file, tls_cert "
            "and tls_key.",
        ) from None


def _security(settings: ClusterSettings) -> Security | None:
    """TLS settings for a scheduler by address; None uses the site's Dask configuration."""
    if settings.tls_ca_file is None:
        return None
    files = {
        "tls_ca_file": settings.tls_ca_file,
        "tls_client_cert": settings.tls_cert,
        "tls_client_key": settings.tls_key,
    }
    return Security(require_encryption=True, **{name: str(path) for name, path in files.items()})


def _try_certificate(address: str, security: Security) -> None:
    """Do one TLS handshake: Dask's client reports a refused certificate as a timeout.

    Raises
    ------
    ssl.SSLError
        If either side refuses the certificate of the other.
    OSError
        If the scheduler does not answer.
    """
    where = urlsplit(address)
    context = security.get_connection_args("client")["ssl_context"]
    with (
        socket.create_connection((where.hostname, where.port), timeout=_CONNECT_S) as raw,
        context.wrap_socket(raw) as channel,
    ):
        channel.recv(1)  # with TLS 1.3, a refusal arrives after the handshake
