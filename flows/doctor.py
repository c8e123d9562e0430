"""`cac doctor`: checks of an installation, for when a run does not work."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from cac_core.cohort.fingerprint import require_same_secret, same_secret
from cac_core.dicom.decoder_worker import available_decoders
from cac_core.errors import CacError
from cac_core.keys import ignored_secret, load_keyring
from cac_core.model.weights import verify_weights
from cac_core.settings import load_settings
from cac_core.sources.place import is_pacs
from flows.request import open_warehouse
from flows.runtime.environment import (
    POOL,
    ask_site_api,
    prepare_environment,
    site_api,
    work_pool,
)
from flows.runtime.faults import describe_fault
from flows.summaries import Check, DoctorSummary

_PACKAGES = (
    "prefect",
    "fastapi",
    "sqlalchemy",
    "dask",
    "distributed",
    "torch",
    "pydicom",
    "pyarrow",
    "duckdb",
    "pandera",
    "lifelines",
    "numpy",
)
_MIN_MEMORY_PER_CORE_GIB = 1.0


def check_installation(config: Path | None, warehouse: str | None = None) -> DoctorSummary:
    """Run every check; a failing check does not stop the others.

    Parameters
    ----------
    warehouse : whose secret is checked; by default that of the settings, if they name one.
    """
    table: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("settings", lambda: _settings(config)),
        ("linkage secret", lambda: _secret(config, warehouse)),
        ("weights", lambda: _weights(config)),
        ("decoders", _decoders),
        ("memory", _memory),
        ("Prefect home", _prefect_home),
        ("Prefect API", _prefect_api),
        ("cluster", lambda: _cluster(config)),
    ]
    table += [(f"PACS {place}", partial(_pacs, config, place)) for place in _pacs_of(config)]
    checks = []
    for name, check in table:
        try:
            ok, found = check()
        except CacError as error:
            ok, found = False, str(error)
        except Exception as error:  # noqa: BLE001 - messages of other faults advise `cac doctor`
            ok, found = False, describe_fault(error)
        checks.append(Check(name, ok, found))
    return DoctorSummary(checks, all(check.ok for check in checks))


def _pacs_of(config: Path | None) -> list[str]:
    """The PACS among the archives of the settings; none where these cannot be read."""
    try:
        return [str(place) for place in load_settings(config).archive if is_pacs(place)]
    except CacError:  # what is wrong with them, another check tells
        return []


def _pacs(config: Path | None, place: str) -> tuple[bool, str]:
    """Ask a PACS for as little as shows that it answers."""
    from cac_core.sources.open import open_source, pace_of
    from cac_core.sources.source import SourceError

    settings = load_settings(config).source
    once = pace_of(settings.model_copy(update={"attempts": 1}))
    source = open_source(place, settings, once)
    try:
        return True, source.check()
    except SourceError as error:
        return False, f"{error.detail}. {error.hint}".strip()
    finally:
        source.close()


def resolved_settings(config: Path | None) -> str:
    """Every setting with its value, as JSON."""
    return json.dumps(load_settings(config).model_dump(mode="json"), indent=2) + "\n"


def _python() -> tuple[bool, str]:
    return (3, 11) <= sys.version_info[:2] <= (3, 13), platform.python_version()


def _packages() -> tuple[bool, str]:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    text = ", ".join(found)
    return not missing, f"{text}; missing: {', '.join(missing)}" if missing else text


def _settings(config: Path | None) -> tuple[bool, str]:
    load_settings(config)
    return True, "defaults" if config is None else str(config)


def _secret(config: Path | None, warehouse: str | None) -> tuple[bool, str]:
    settings = load_settings(config)
    keyring = load_keyring(settings.key_file)
    shadowed = ignored_secret(settings.key_file)
    found = f"set, {len(keyring.secret)} bytes" + (f"; {shadowed}" if shadowed else "")
    if not (warehouse or settings.warehouse):
        return True, found
    store = open_warehouse(warehouse, settings)
    require_same_secret(store, keyring)
    if same_secret(store, keyring):
        return True, f"{found}, that of the warehouse {store.url}"
    return True, f"{found}; the warehouse {store.url} keeps no fingerprint yet"


def _weights(config: Path | None) -> tuple[bool, str]:
    weights = verify_weights(load_settings(config).model)
    return True, f"{weights.model_id}, checksums match"


def _decoders() -> tuple[bool, str]:
    decoders = available_decoders()
    missing = sorted(name for name, found in decoders.items() if not found)
    if missing:
        return False, f"no decoder for {', '.join(missing)}"
    return True, ", ".join(sorted(decoders))


def _memory() -> tuple[bool, str]:
    cores = len(os.sched_getaffinity(0))
    gib = psutil.virtual_memory().available / 2**30
    enough = gib / cores >= _MIN_MEMORY_PER_CORE_GIB
    return enough, f"{gib:.1f} GiB free for {cores} worker processes"


def _prefect_home() -> tuple[bool, str]:
    notes: list[str] = []
    home = prepare_environment(notes.append)
    if notes:
        return False, notes[0]
    free = shutil.disk_usage(home).free / 2**30
    return os.access(home, os.W_OK) and free > 1, f"{home}, {free:.0f} GiB free"


def _prefect_api() -> tuple[bool, str]:
    url = site_api()
    if url is None:
        return True, "each run starts its own on this machine"
    ask_site_api()
    if work_pool(POOL):
        return True, f"{url} answers and has the work pool `{POOL}`"
    return True, f"{url} answers; `cac deployment register` makes the work pool of deployments"


def _cluster(config: Path | None) -> tuple[bool, str]:
    from flows.runtime.cluster_check import check_cluster

    cluster = load_settings(config).cluster
    check_cluster(cluster)
    return cluster.exposure is None, cluster.exposure or cluster.kind
