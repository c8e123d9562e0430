"""Checks of the cluster settings that need no cluster, made before anything is read or started."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from inspect import Parameter, signature
from typing import Any
from urllib.parse import urlsplit

from cac_core.cluster_settings import ClusterSettings
from cac_core.errors import CacError, UsageError
from cac_core.processes import interrupt_handler_kept

#: Arguments that a local cluster sets itself.
LOCAL_FIXED = frozenset(
    (
        "dashboard_address",
        "host",
        "local_directory",
        "loop",
        "memory_limit",
        "n_workers",
        "processes",
        "protocol",
        "resources",
        "security",
        "silence_logs",
        "threads_per_worker",
        "worker_class",
    )
)


def check_cluster(settings: ClusterSettings) -> None:
    """Find the faults of the settings that can be found without a cluster.

    Raises
    ------
    UsageError
        For an option that the cluster does not take, a missing extra, file or address.
    CacError
        If SLURM is not installed here.
    """
    _CHECKS[settings.kind](settings)


def _check_local(settings: ClusterSettings) -> None:
    """A worker that gets an unknown argument does not start, and the cluster does not say why."""
    if not settings.options:
        return
    from distributed import LocalCluster, Nanny, Worker  # takes half a second

    known = _parameters(LocalCluster, Nanny, Worker)
    _check_names(settings, known, LOCAL_FIXED, "distributed.LocalCluster, Nanny and Worker")


def _check_address(settings: ClusterSettings) -> None:
    if settings.options:
        raise UsageError(
            "cluster.options has no effect with cluster.kind `address`.",
            "Remove it; options of scheduler and workers are given where they are started.",
        )
    if settings.address is None:
        raise UsageError("cluster.kind is `address`, but cluster.address is not set.")
    try:
        where = urlsplit(settings.address)
        whole = bool(where.scheme and where.hostname and where.port)
    except ValueError:
        whole = False
    if not whole:
        raise UsageError(
            f"cluster.address is `{settings.address}`, which is not the address of a scheduler.",
            "Give tls://HOST:PORT, as the scheduler prints it.",
        )
    files = ("tls_ca_file", "tls_cert", "tls_key")
    for name in files if settings.tls_ca_file else ():
        path = getattr(settings, name)
        if path is None or not os.access(path, os.R_OK):
            raise UsageError(
                f"cluster.{name}: {path} cannot be read.", "Name the PEM files for the scheduler."
            )


def _check_slurm(settings: ClusterSettings) -> None:
    try:
        with interrupt_handler_kept():
            from dask_jobqueue.core import Job, JobQueueCluster
            from dask_jobqueue.slurm import SLURMJob
    except ImportError:
        raise _extra(settings.kind) from None
    from flows.runtime.slurm import FIXED, slurm_options

    known = _parameters(JobQueueCluster.__init__, Job.__init__, SLURMJob.__init__)
    known -= {"self", "scheduler"}
    _check_names(settings, known, FIXED, "dask_jobqueue.SLURMCluster")
    slurm_options(settings, {})
    for command in ("sbatch", "squeue", "scancel"):
        if shutil.which(command) is None:
            raise CacError(
                f"cluster.kind is `slurm`, but `{command}` is not found.",
                "Start the run on a login node of the cluster.",
            )


def _check_kubernetes(settings: ClusterSettings) -> None:
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError:
        raise _extra(settings.kind) from None
    from flows.runtime.kubernetes import FIXED, cluster_spec

    known = _parameters(KubeCluster)
    _check_names(settings, known, FIXED, "dask_kubernetes.operator.KubeCluster")
    cluster_spec(settings, {})


_CHECKS: dict[str, Callable[[ClusterSettings], None]] = {
    "local": _check_local,
    "address": _check_address,
    "slurm": _check_slurm,
    "kubernetes": _check_kubernetes,
}


def _check_names(
    settings: ClusterSettings, known: set[str], fixed: Iterable[str], whose: str
) -> None:
    refused = sorted(set(fixed) & settings.options.keys())
    if refused:
        raise UsageError(
            f"cluster.options holds {', '.join(refused)}, which the run sets itself.",
            "Remove it; `workers`, `memory_limit` and `worker_resources` are separate settings.",
        )
    unknown = sorted(settings.options.keys() - known)
    if unknown:
        raise UsageError(
            f"cluster.options holds {', '.join(unknown)}, which a cluster of kind "
            f"`{settings.kind}` does not take.",
            f"Options are the arguments of {whose}.",
        )


def _parameters(*of: Callable[..., Any]) -> set[str]:
    """Names of the arguments of these calls, without those that take all others."""
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {
        name
        for one in of
        for name, parameter in signature(one).parameters.items()
        if parameter.kind in kinds
    }


def _extra(kind: str) -> UsageError:
    return UsageError(
        f"cluster.kind is `{kind}`, but its package is not installed.",
        f"Install it with: pip install 'cac-cohort[{kind}]'",
    )
