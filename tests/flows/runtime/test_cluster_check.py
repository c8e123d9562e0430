"""Faults of the cluster settings are told in one line before anything is read or started."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cac_core.cluster_settings import ClusterSettings
from cac_core.errors import CacError, UsageError
from flows.runtime.cluster_check import check_cluster

_SLURM = {"cores": 2, "memory": "4GiB"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kind": "local", "options": {"banana": 1}}, "holds banana, which a cluster of kind `loc"),
        ({"kind": "local", "options": {"resources": {}}}, "holds resources, which the run sets"),
        ({"kind": "address"}, r"cluster\.address is not set"),
        ({"kind": "address", "address": "somewhere"}, "`somewhere`, which is not the address"),
        ({"kind": "address", "address": "tcp://h:port"}, "not the address of a scheduler"),
        ({"kind": "address", "address": "tcp://h:1", "options": {"a": 1}}, "has no effect"),
        ({"kind": "slurm", "options": _SLURM | {"banana": 1}}, "holds banana, which a cluster"),
        ({"kind": "slurm", "options": _SLURM | {"security": False}}, "which the run sets itself"),
        ({"kind": "slurm", "options": {"cores": 2}}, "lacks cores or memory"),
        ({"kind": "slurm", "options": _SLURM | {"memory": "lots"}}, "`lots`, which is no amount"),
        ({"kind": "slurm", "options": _SLURM | {"walltime": "noon"}}, "`noon`, which is no time"),
        ({"kind": "kubernetes", "options": {}}, r"cluster\.options\.image is not set"),
        ({"kind": "kubernetes", "options": {"image": "i", "banana": 1}}, "holds banana"),
        ({"kind": "kubernetes", "options": {"image": "i", "jupyter": True}}, "run sets itself"),
        (
            {"kind": "kubernetes", "options": {"image": "i", "custom_cluster_spec": {}}},
            "holds image beside custom_cluster_spec",
        ),
        ({"kind": "kubernetes", "options": {"custom_cluster_spec": "no.yaml"}}, r"no\.yaml"),
        ({"kind": "kubernetes", "options": {"custom_cluster_spec": {}}}, "not a DaskCluster"),
    ],
)
def test_a_fault_of_the_settings_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named) as reported:
        check_cluster(ClusterSettings(**settings))
    assert "\n" not in str(reported.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"memory_limit": "lots"}, "an amount above 0 such as 4GiB"),
        ({"memory_limit": "0GiB"}, "an amount above 0 such as 4GiB"),
        ({"memory_limit": ".0"}, "an amount above 0 such as 4GiB"),
        ({"study_resources": {"GPU": 1}}, "no worker offers GPU=1"),
        ({"worker_resources": {"GPU": 1}, "study_resources": {"GPU": 2}}, "no worker offers GPU=2"),
        ({"kind": "address", "worker_resources": {"GPU": 1}}, "--resources GPU=1"),
        ({"worker_resources": {"G PU; rm": 1}}, "no name of a resource"),
        ({"worker_resources": {"GPU": 0}}, "above 0"),
        ({"minimum_workers": 1}, "for kind `slurm` or `kubernetes`"),
        ({"kind": "slurm", "workers": 4, "minimum_workers": 5}, r"more than workers \(4\)"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        ClusterSettings(**settings)


def test_a_machine_without_slurm_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CacError, match="`sbatch` is not found"):
        check_cluster(ClusterSettings(kind="slurm", options=_SLURM))


@pytest.mark.parametrize(
    ("kind", "package"), [("slurm", "dask_jobqueue"), ("kubernetes", "dask_kubernetes")]
)
def test_a_missing_extra_is_told(kind: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"pip install 'cac-cohort\[{kind}\]'"):
        check_cluster(ClusterSettings(kind=kind))
