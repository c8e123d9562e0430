"""One factory for every kind of Dask cluster; the settings choose, the code does not change."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import socket
import ssl
from collections.abc import Iterator
from time import sleep
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, LocalCluster, Nanny, SpecCluster
from distributed.security import Security
from distributed.utils import LoopRunner

from cac_core.errors import CacError, UsageError
from cac_core.keys import SECRET_VARIABLE
from cac_core.processes import end_processes, without_interrupts
from cac_core.scratch import scratch_folder
from cac_core.settings import ClusterSettings
from tasks.closed import ClosedScheduler, ClosedWorker
from tasks.worker import CascadePlugin

_CONFIG = {
    # A worker that leaks must be restarted, not paused: a paused one never recovers and the
    # cluster stalls for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.8,
    # No study waits on a worker behind another one, so a dying worker names the culprit; and a
    # study whose worker died comes back at once, to be tried again alone.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.worker.multiprocessing-method": "spawn",
    # Its news is for administrators; what concerns a study is in the study's row. Some of its
    # messages hold a task's arguments, and with them paths of the archive.
    "logging": {"distributed": "critical"},
    # One thread per process. Dask's own trim threshold (64 KiB) gives every freed volume back to
    # the kernel, and the next study pays for it in page faults.
    "distributed.nanny.pre-spawn-environ": {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
        "MALLOC_MMAP_THRESHOLD_": str(2**25),
    },
}
_CONNECT_S = 20.0
_RELOAD_S = (1.0, 5.0)


def local_workers(settings: ClusterSettings) -> int:
    """Worker processes on this machine: one per usable core unless the settings say otherwise."""
    return settings.workers or len(os.sched_getaffinity(0))


@contextlib.contextmanager
def cluster_client(
    settings: ClusterSettings, plugin: CascadePlugin | None = None
) -> Iterator[Client]:
    """Start or join a cluster; with a plugin its workers have loaded the cascade.

    Whoever reaches a scheduler or worker runs code as its user. Those of a local cluster speak TLS
    with a certificate that exists only in the memory of this run, and ask for it too.

    Raises
    ------
    UsageError
        If the kind needs an extra that is not installed, or an option the kind does not take.
    CacError
        If no scheduler answers, or the workers cannot load the weights.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without_secret())
        if settings.kind == "local":
            stack.enter_context(dask.config.set(_dask_defaults()))
        stack.enter_context(dask.config.set(_CONFIG))
        # asyncio too: it reports the broken connections of a cluster that is being torn down.
        for name in ("distributed", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        client = stack.enter_context(_connect(settings, stack))
        if settings.kind == "address" and not client.scheduler_info()["workers"]:
            raise CacError(
                f"The Dask scheduler at {settings.address} has no workers.",
                "Start some with: dask worker ADDRESS --nthreads 1",
            )
        if plugin is not None:
            _load(client, plugin)
        yield client


def _load(client: Client, plugin: CascadePlugin) -> None:
    """Have the workers load the cascade; again where one was lost while it did so."""
    for pause in (*_RELOAD_S, None):
        try:
            client.register_plugin(plugin)
            return
        except OSError as error:  # distributed: the connection to a worker broke
            if pause is None:
                raise _cannot_load(error) from None
            sleep(pause)  # until the scheduler has noticed, and the nanny has started another
        except Exception as error:  # noqa: BLE001 - whatever a worker raised comes back here
            raise _cannot_load(error) from None


def _cannot_load(error: Exception) -> CacError:
    return CacError(
        f"The workers cannot load the model ({type(error).__name__}: {error}).",
        "Install the same version and weights on every machine of the cluster.",
    )


@contextlib.contextmanager
def _without_secret() -> Iterator[None]:
    """Keep the linkage secret from workers, which inherit the environment and need no secret."""
    secret = os.environ.pop(SECRET_VARIABLE, None)
    try:
        yield
    finally:
        if secret is not None:
            os.environ[SECRET_VARIABLE] = secret


def _dask_defaults() -> dict[str, Any]:
    """Dask's own configuration, without what files and variables of the user say.

    Those are for the user's clusters: a preload script or a certificate named there has nothing to
    do with a cluster that lives for one run.
    """
    defaults: dict[str, Any] = dask.config.merge(*dask.config.defaults)
    return defaults


def _connect(settings: ClusterSettings, stack: contextlib.ExitStack) -> Client:
    if settings.kind == "local":
        return Client(stack.enter_context(_local_cluster(settings, stack)))
    if settings.kind == "address":
        return _join(settings)
    cluster = stack.enter_context(_batch_cluster(settings))
    cluster.scale(settings.workers or 2)
    client = Client(cluster)
    client.wait_for_workers(1, timeout=600)
    return client


class _ClosedCluster(SpecCluster):
    """Sets our scheduler and workers in the place of Dask's."""

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
    """LocalCluster works out the specification and hands it to the class above."""


def _local_cluster(settings: ClusterSettings, stack: contextlib.ExitStack) -> LocalCluster:
    scratch = str(stack.enter_context(scratch_folder("cac-workers-")))
    # The scheduler takes it from there; else it leaves a folder among those of other programs.
    stack.enter_context(dask.config.set({"temporary-directory": scratch}))
    # Workers that an interrupted run has not waited for would make their folders again.
    stack.callback(end_processes, set(multiprocessing.active_children()))
    ours = {
        "loop": stack.enter_context(_deaf_loop()),
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
    }
    refused = sorted(ours.keys() & settings.options.keys())
    if refused:
        raise UsageError(
            f"cluster.options holds {', '.join(refused)}, which a local cluster sets itself.",
            "Leave it out; `workers` and `memory_limit` are settings of their own.",
        )
    return _ClosedLocalCluster(**ours, **settings.options)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _deaf_loop() -> Iterator[Any]:
    """An event loop that starts workers which Ctrl-C in the terminal does not reach."""
    runner = LoopRunner()
    with without_interrupts():
        runner.start()
    try:
        yield runner.loop
    finally:
        runner.stop()


def _join(settings: ClusterSettings) -> Client:
    if settings.address is None:
        raise UsageError("cluster.kind is `address`, but cluster.address is not set.")
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
            "Start one with `dask scheduler`, or set cluster.kind to `local`; one that is started "
            "with --tls-* has an address with tls:// and needs cluster.tls_ca_file, tls_cert and "
            "tls_key.",
        ) from None


def _security(settings: ClusterSettings) -> Security | None:
    """What a scheduler by address is met with; None leaves it to the site's Dask configuration."""
    if settings.tls_ca_file is None:
        return None
    files = {
        "tls_ca_file": settings.tls_ca_file,
        "tls_client_cert": settings.tls_cert,
        "tls_client_key": settings.tls_key,
    }
    for name, path in files.items():
        if path is None or not os.access(path, os.R_OK):
            raise UsageError(
                f"cluster.{name.replace('_client', '')}: {path} cannot be read.",
                "Name the files in PEM format that the scheduler was started with.",
            )
    return Security(require_encryption=True, **{name: str(path) for name, path in files.items()})


def _try_certificate(address: str, security: Security) -> None:
    """Shake hands once: Dask's client tells a refused certificate as a timeout.

    Raises
    ------
    ssl.SSLError
        If either side does not accept the other.
    OSError
        If nobody answers.
    """
    where = urlsplit(address)
    context = security.get_connection_args("client")["ssl_context"]
    with (
        socket.create_connection((where.hostname, where.port), timeout=_CONNECT_S) as raw,
        context.wrap_socket(raw) as channel,
    ):
        channel.recv(1)  # with TLS 1.3 the other side's refusal comes after the handshake


def _batch_cluster(settings: ClusterSettings) -> SpecCluster:
    """A SLURM or Kubernetes cluster; their packages are extras."""
    options: dict[str, Any] = dict(settings.options)
    cluster: type[SpecCluster]
    try:
        if settings.kind == "slurm":
            from dask_jobqueue import SLURMCluster

            cluster = SLURMCluster

            # Certificates of the run's own, left for the workers in `shared_temp_directory`.
            options = {"security": True, "scheduler_cls": ClosedScheduler} | options
            given: dict[str, Any] = settings.options.get("scheduler_options", {})
            options["scheduler_options"] = {"dashboard": False, "dashboard_address": None, **given}
        else:
            from dask_kubernetes.operator import KubeCluster

            cluster = KubeCluster
    except ImportError:
        raise UsageError(
            f"cluster.kind is `{settings.kind}`, but its package is not installed.",
            f"Install it with: pip install 'cac-cohort[{settings.kind}]'",
        ) from None
    return cluster(**options)
