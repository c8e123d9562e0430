"""Workers as pods of Kubernetes, through the Dask operator.

Imports `dask_kubernetes`, an extra; load it only for `cluster.kind = "kubernetes"`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import yaml
from dask_kubernetes.operator import KubeCluster
from dask_kubernetes.operator.kubecluster.kubecluster import make_cluster_spec

from cac_core.cluster_settings import ClusterSettings, as_words
from cac_core.errors import CacError, UsageError
from tasks.dask_without_http import ClosedWorker

#: Arguments that the run sets itself.
FIXED = frozenset(("asynchronous", "jupyter", "loop", "n_workers", "quiet", "worker_command"))
#: Arguments that make the specification of the cluster.
_OF_SPEC = ("env", "idle_timeout", "image", "name", "resources", "scheduler_service_type")


def start_kubernetes(settings: ClusterSettings, inherited: Mapping[str, Any]) -> KubeCluster:
    """Create the cluster as an object of the operator, and wait for its scheduler.

    Parameters
    ----------
    inherited : Dask configuration that scheduler and workers take over.

    Raises
    ------
    CacError
        If Kubernetes or the operator does not answer, or refuses the object.
    TypeError, ValueError
        If the cluster class does not take an option.
    """
    spec = cluster_spec(settings, inherited)
    others = {name: v for name, v in settings.options.items() if name not in _OF_SPEC}
    _require_answer()
    before = set(KubeCluster._instances)
    try:
        cluster = KubeCluster(**others | {"custom_cluster_spec": spec, "quiet": True})
        if settings.narrowest < settings.widest:
            cluster.adapt(settings.narrowest, settings.widest)
        else:
            cluster.scale(settings.widest)
    except (TypeError, ValueError):
        raise
    except Exception as error:  # noqa: BLE001 - kr8s, httpx and dask_kubernetes raise many kinds
        raise CacError(
            f"The workers cannot be started in Kubernetes ({_line(error)}).",
            "Check that the Dask operator is installed (kubectl get crd "
            "daskclusters.kubernetes.dask.org) and that this user may create daskclusters.",
        ) from None
    finally:
        # One that did not start would be closed again at the end of the process, with a traceback.
        for one in set(KubeCluster._instances) - before:
            if one.status.name != "running":
                KubeCluster._instances.discard(one)
    return cluster


def _require_answer() -> None:
    """Ask the API server for its version.

    Raises
    ------
    CacError
        If there is no configuration, or no answer.
    """
    import kr8s

    try:
        kr8s.api().version()
    except Exception as error:  # noqa: BLE001 - kr8s, httpx and ssl raise many kinds
        raise CacError(
            f"No Kubernetes cluster answers ({_line(error)}).",
            "Make `kubectl get pods` work for this user: KUBECONFIG, or a service account.",
        ) from None


def cluster_spec(settings: ClusterSettings, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """The DaskCluster object: that of the options, or one made from them.

    Scheduler and workers run `dask` of the image, whatever its entry point is. A worker is one
    process of one thread and opens no HTTP port.

    Raises
    ------
    UsageError
        If no image is named, or the specification cannot be read.
    """
    options = settings.options
    given = options.get("custom_cluster_spec")
    if given is not None:
        unused = sorted(options.keys() & set(_OF_SPEC))
        if unused:
            raise UsageError(
                f"cluster.options holds {', '.join(unused)} beside custom_cluster_spec.",
                "Write them into the specification.",
            )
        return _own_spec(given)
    if "image" not in options:
        raise UsageError(
            "cluster.options.image is not set.",
            "Name an image with this program and its weights; Containerfile builds one.",
        )
    env = options.get("env", {})
    listed = [{"name": n, "value": v} for n, v in env.items()] if isinstance(env, dict) else env
    config = {
        "name": "DASK_INTERNAL_INHERIT_CONFIG",
        "value": dask.config.serialize(dict(inherited)),
    }
    spec: dict[str, Any] = make_cluster_spec(
        name=options.get("name") or f"cac-{uuid.uuid4().hex[:10]}",
        image=options["image"],
        n_workers=settings.narrowest,
        resources=_quantities(options.get("resources", {})),
        env=[*listed, config],
        scheduler_service_type=options.get("scheduler_service_type", "ClusterIP"),
        idle_timeout=options.get("idle_timeout", 0),
    )
    # The defaults call dask-scheduler and dask-worker, which Dask no longer installs.
    (scheduler,) = spec["spec"]["scheduler"]["spec"]["containers"]
    scheduler |= {"command": ["dask", "scheduler"], "args": ["--host", "0.0.0.0"]}
    (worker,) = spec["spec"]["worker"]["spec"]["containers"]
    worker |= {"command": ["dask", "worker"], "args": _worker_arguments(settings)}
    del worker["ports"]
    return spec


def _quantities(resources: Any) -> Any:
    """Amounts as text: the definition of DaskCluster takes no numbers."""
    if isinstance(resources, dict):
        return {name: _quantities(amount) for name, amount in resources.items()}
    return str(resources) if isinstance(resources, int | float) else resources


def _worker_arguments(settings: ClusterSettings) -> list[str]:
    arguments = ["--name", "$(DASK_WORKER_NAME)", "--nthreads", "1", "--no-dashboard"]
    arguments += ["--worker-class", f"{ClosedWorker.__module__}.{ClosedWorker.__name__}"]
    if settings.worker_resources:
        arguments += ["--resources", as_words(settings.worker_resources)]
    return arguments


def _own_spec(given: object) -> dict[str, Any]:
    """The specification of the settings: a table, or the path of a YAML file."""
    where = "cluster.options.custom_cluster_spec"
    try:
        spec = yaml.safe_load(Path(given).read_text()) if isinstance(given, str) else given
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{where}: {_line(error)}.", "Name a readable YAML file.") from None
    if isinstance(spec, dict) and spec.get("kind") == "DaskCluster":
        metadata = spec.get("metadata")
        if isinstance(metadata, dict) and "name" in metadata:
            return spec
    raise UsageError(
        f"{where} is not a DaskCluster with metadata.name.",
        "kubernetes.dask.org describes its form.",
    )


def _line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
