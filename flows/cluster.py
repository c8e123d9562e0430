"""One factory for every kind of Dask cluster; the settings choose, the code does not change."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator

import dask
from distributed import Client, LocalCluster
from distributed.utils import TimeoutError as DaskTimeout

from cac_core.errors import CacError, UsageError
from cac_core.settings import ClusterSettings
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


def local_workers(settings: ClusterSettings) -> int:
    """Worker processes on this machine: one per usable core unless the settings say otherwise."""
    return settings.workers or len(os.sched_getaffinity(0))


@contextlib.contextmanager
def cluster_client(
    settings: ClusterSettings, plugin: CascadePlugin | None = None
) -> Iterator[Client]:
    """Start or join a cluster; with a plugin its workers have loaded the cascade.

    Raises
    ------
    UsageError
        If the kind needs an extra that is not installed, or an address that is not given.
    CacError
        If no scheduler answers, or the workers cannot load the weights.
    """
    with contextlib.ExitStack() as stack:
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
        if plugin is None:
            yield client
            return
        try:
            client.register_plugin(plugin)
        except Exception as error:  # noqa: BLE001 - whatever a worker raised comes back here
            raise CacError(
                f"The workers cannot load the model ({type(error).__name__}: {error}).",
                "Install the same version and weights on every machine of the cluster.",
            ) from None
        yield client


def _connect(settings: ClusterSettings, stack: contextlib.ExitStack) -> Client:
    if settings.kind == "local":
        return Client(stack.enter_context(_local_cluster(settings, stack)))
    if settings.kind == "address":
        if settings.address is None:
            raise UsageError("cluster.kind is `address`, but cluster.address is not set.")
        try:
            return Client(settings.address, timeout="20s")
        except (OSError, DaskTimeout, ValueError):
            raise CacError(
                f"No Dask scheduler answers at {settings.address}.",
                "Start one with `dask scheduler`, or set cluster.kind to `local`.",
            ) from None
    cluster = stack.enter_context(_batch_cluster(settings))
    cluster.scale(settings.workers or 2)
    client = Client(cluster)
    client.wait_for_workers(1, timeout=600)
    return client


def _local_cluster(settings: ClusterSettings, stack: contextlib.ExitStack) -> LocalCluster:
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="cac-workers-"))
    return LocalCluster(
        n_workers=local_workers(settings),
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=settings.memory_limit,
        local_directory=scratch,
        silence_logs=logging.CRITICAL,
        **settings.options,
    )


def _batch_cluster(settings: ClusterSettings):  # type: ignore[no-untyped-def]
    """A SLURM or Kubernetes cluster; their packages are extras."""
    try:
        if settings.kind == "slurm":
            from dask_jobqueue import SLURMCluster as BatchCluster
        else:
            from dask_kubernetes.operator import KubeCluster as BatchCluster
    except ImportError:
        raise UsageError(
            f"cluster.kind is `{settings.kind}`, but its package is not installed.",
            f"Install it with: pip install 'cac-cohort[{settings.kind}]'",
        ) from None
    return BatchCluster(**settings.options)
