"""Settings of the cluster that scores the studies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from cac_core.settings_section import Section, key

#: Workers of a SLURM or Kubernetes cluster where the settings name no number.
_BATCH_WORKERS = 2
_MEMORY = re.compile(r"auto|0?\.[0-9]+|[0-9]+(\.[0-9]+)? ?[kKMGT]i?B")
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


class ClusterSettings(Section):
    """Where the studies are scored.

    `local` starts worker processes on this machine; `address` connects to a running Dask scheduler;
    `slurm` and `kubernetes` start workers there (extras of the same name). `options` are passed to
    the cluster class, for example `queue` and `walltime` of SLURM.

    The `tls` files (PEM) belong to a scheduler at a `tls://` address: certificate of the authority,
    and certificate and key of this run.
    """

    kind: Literal["local", "address", "slurm", "kubernetes"] = key(
        "local", "local: this machine; address: a running Dask scheduler; slurm; kubernetes"
    )
    workers: int | None = key(
        None,
        "worker processes; without a value, one per usable core, or 2 of slurm and kubernetes",
        "8",
        ge=1,
    )
    minimum_workers: int | None = key(
        None,
        "slurm, kubernetes: workers that stay when there is little to do; without a value, all",
        "1",
        ge=1,
    )
    memory_limit: str = key(
        "auto",
        "memory of a local worker: auto (an equal share), an amount such as 4GiB, or a share",
    )
    worker_resources: dict[str, float] = key(
        dict, "what each worker offers (local, slurm, kubernetes), e.g. { GPU = 1 }"
    )
    study_resources: dict[str, float] = key(
        dict, "what a study takes of its worker while it is scored, e.g. { GPU = 1 }"
    )
    address: str | None = key(
        None, "scheduler, for kind `address`", '"tls://scheduler.example:8786"'
    )
    tls_ca_file: Path | None = key(None, "certificate of the authority (PEM)", '"ca.pem"')
    tls_cert: Path | None = key(None, "certificate of the run (PEM)", '"run.pem"')
    tls_key: Path | None = key(None, "its key (PEM), readable by its owner only", '"run.key"')
    no_workers_s: float | None = key(
        None,
        "a run without workers ends after this time; without a value 60, or 3600 where workers "
        "wait in a queue",
        "60",
        gt=0,
    )
    options: dict[str, Any] = key(
        dict, "arguments of the cluster class, e.g. { queue = 'long', walltime = '08:00:00' }"
    )

    @property
    def patience_s(self) -> float:
        """How long a run waits for workers when it has none."""
        if self.no_workers_s is not None:
            return self.no_workers_s
        return 3600.0 if self.starts_jobs else 60.0

    @property
    def starts_jobs(self) -> bool:
        """Whether workers are jobs of another system, which come when it has room for them."""
        return self.kind in ("slurm", "kubernetes")

    @property
    def widest(self) -> int:
        """Number of workers that a cluster of jobs grows to; 0 for other kinds."""
        return (self.workers or _BATCH_WORKERS) if self.starts_jobs else 0

    @property
    def narrowest(self) -> int:
        """Number of workers that a cluster of jobs keeps."""
        return min(self.minimum_workers or self.widest, self.widest)

    @field_validator("memory_limit")
    @classmethod
    def _is_memory(cls, value: str) -> str:
        nothing = value != "auto" and not re.search(r"[1-9]", value)  # workers would not start
        if nothing or not _MEMORY.fullmatch(value):
            raise ValueError("give `auto`, an amount above 0 such as 4GiB, or a share such as 0.5")
        return value

    @field_validator("worker_resources", "study_resources")
    @classmethod
    def _amounts(cls, value: dict[str, float]) -> dict[str, float]:
        for name, amount in value.items():
            if not _RESOURCE.fullmatch(name):
                raise ValueError(f"`{name}` is no name of a resource: letters and digits, as GPU")
            if not (amount > 0 and isfinite(amount)):
                raise ValueError(f"the amount of {name} must be above 0")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> ClusterSettings:
        named = [path for path in (self.tls_ca_file, self.tls_cert, self.tls_key) if path]
        if named and (self.kind != "address" or not (self.address or "").startswith("tls://")):
            raise ValueError("tls files need kind `address` and an address tls://HOST:PORT")
        if named and len(named) < 3:
            raise ValueError("set all of tls_ca_file, tls_cert and tls_key, or none")
        return self

    @model_validator(mode="after")
    def _widths_fit(self) -> ClusterSettings:
        if self.minimum_workers is None:
            return self
        if not self.starts_jobs:
            raise ValueError("minimum_workers is for kind `slurm` or `kubernetes`")
        if self.minimum_workers > self.widest:
            raise ValueError(
                f"minimum_workers is {self.minimum_workers}, more than workers ({self.widest})"
            )
        return self

    @model_validator(mode="after")
    def _resources_are_offered(self) -> ClusterSettings:
        if self.kind == "address":
            if self.worker_resources:
                raise ValueError(
                    "worker_resources are not for kind `address`: start its workers with "
                    f"--resources {as_words(self.worker_resources)}"
                )
            return self
        lacking = {
            name: amount
            for name, amount in self.study_resources.items()
            if self.worker_resources.get(name, 0.0) < amount
        }
        if lacking:
            raise ValueError(
                f"no worker offers {as_words(lacking)}, which study_resources asks for; "
                "worker_resources must hold as much"
            )
        return self

    @property
    def exposure(self) -> str | None:
        """Warning where other users can reach the cluster, else None."""
        if self.kind != "address" or not self.address or self.address.startswith("tls://"):
            return None
        return (
            f"anyone who can reach the Dask scheduler at {self.address} can run code as the user "
            "of its workers; start scheduler and workers with --tls-*, and set a tls:// address "
            "and tls_ca_file, tls_cert and tls_key"
        )


def as_words(resources: Mapping[str, float]) -> str:
    """Resources in the form of `dask worker --resources`: `GPU=1,DISK=2.5`."""
    return ",".join(f"{name}={amount:g}" for name, amount in resources.items())
