"""Metrics of a warehouse in the text format of Prometheus.

`write_metrics` writes the file for the textfile collector of the node exporter; `metrics_text` and
`serve_metrics` are for an HTTP endpoint. Labels hold codes and model ids, never keys.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    generate_latest,
    start_http_server,
    write_to_textfile,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cac_core.cohort.warehouse import Warehouse
from cac_core.settings import Settings
from flows.night import NightState, night_state
from schemas.instance import INSTANCES
from schemas.score import SCORES

#: Outcomes of a run; `error` is one that ended by a fault.
_OUTCOMES = ("completed", "over_budget", "interrupted", "error")
_DONE = ("scored", "rejected", "failed", "skipped")


def metrics_text(store: Warehouse, settings: Settings) -> bytes:
    """The metrics of a warehouse as text, for the answer of an HTTP endpoint.

    Raises
    ------
    CacError
        If a table cannot be read.
    """
    return generate_latest(metrics_of(store, settings))


def write_metrics(store: Warehouse, settings: Settings, *, error: bool = False) -> None:
    """Write the metrics to the file of the settings, if it names one, by one rename.

    Parameters
    ----------
    error : the run that writes ended by a fault, of which the tables know nothing.

    Raises
    ------
    CacError
        If a table cannot be read.
    OSError
        If the file cannot be written.
    """
    path: Path | None = settings.metrics.textfile
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), metrics_of(store, settings, error=error))


def serve_metrics(
    store: Warehouse, settings: Settings, port: int, address: str = "127.0.0.1"
) -> Any:
    """Serve the metrics over HTTP in a thread; each request reads the warehouse.

    Returns
    -------
    Server and thread; `server.shutdown()` ends them.

    Raises
    ------
    OSError
        If the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(_Reading(store, settings))
    return start_http_server(port, address, registry)


class _Reading(Collector):
    """Reads the warehouse anew for every request."""

    def __init__(self, store: Warehouse, settings: Settings) -> None:
        self._store, self._settings = store, settings

    def collect(self) -> Iterable[Metric]:
        """The metrics at this moment."""
        return metrics_of(self._store, self._settings).collect()


def metrics_of(store: Warehouse, settings: Settings, *, error: bool = False) -> CollectorRegistry:
    """All metrics of a warehouse; parameters as for `write_metrics`.

    Raises
    ------
    CacError
        If a table cannot be read.
    """
    registry, state = CollectorRegistry(), night_state(store)
    _runs(registry, state, error=error)
    _nights(registry, state, settings)
    studies = _gauge(registry, "studies", "Studies in the ledger.", "model", "status", "reason")
    review = _gauge(registry, "needs_review", "Scores that a person should look at.", "model")
    for model in store.models():
        rows = store.columns(SCORES, ("status", "reason", "needs_review"), model)
        pairs = zip(rows["status"].to_pylist(), rows["reason"].to_pylist(), strict=True)
        for (status, reason), n in Counter(pairs).items():
            studies.labels(model, status, reason or "").set(n)
        review.labels(model).set(pc.sum(rows["needs_review"]).as_py() or 0)
    sizes = store.columns(INSTANCES, ("size_bytes",))["size_bytes"]
    _gauge(registry, "archive_files", "Files of the archive.").set(len(sizes))
    _gauge(registry, "archive_bytes", "Size of the archive.").set(pc.sum(sizes).as_py() or 0)
    return registry


def _runs(registry: CollectorRegistry, state: NightState, *, error: bool) -> None:
    """Metrics of the last run."""
    last = state.last
    outcome = "error" if error else (last["outcome"] if last else None)
    outcomes = _gauge(registry, "last_run_outcome", "1 for the outcome it had.", "outcome")
    for name in _OUTCOMES:
        outcomes.labels(name).set(name == outcome)
    if last is None:
        return
    ended = last["finished_at"].timestamp()
    _gauge(registry, "last_run_timestamp_seconds", "End of the last run.").set(ended)
    _gauge(registry, "last_run_duration_seconds", "Its wall time.").set(last["seconds"])
    studies = _gauge(registry, "last_run_studies", "Studies of the last run.", "status")
    for name in _DONE:
        studies.labels(name).set(last[name])
    speed = state.done / last["seconds"] if last["seconds"] else 0.0
    _gauge(registry, "last_run_studies_per_second", "Studies done by its wall time.").set(speed)
    _gauge(registry, "archive_studies", "Studies of the archive.").set(last["studies"])


def _nights(registry: CollectorRegistry, state: NightState, settings: Settings) -> None:
    """Age of the last good night, failure budget, and canaries."""
    if state.last_success is not None:
        ended = state.last_success["finished_at"].timestamp()
        text = "End of the last good night."
        _gauge(registry, "last_success_timestamp_seconds", text).set(ended)
        age = dt.datetime.now(dt.UTC).timestamp() - ended
        text = "Age of the last good night when this was written."
        _gauge(registry, "last_success_age_seconds", text).set(age)
    budget, failed = settings.scoring.failure_budget, state.last["failed"] if state.last else 0
    _gauge(registry, "failure_budget_ratio", "Share of failed studies that is tolerated.").set(
        budget
    )
    _gauge(registry, "failed_ratio", "Share of failed studies of the last run.").set(
        failed / max(state.done, 1)
    )
    _gauge(registry, "canaries", "Studies that were scored again and compared.").set(state.canaries)
    _gauge(registry, "canaries_drifted", "Canaries whose result differs.").set(state.drifted)


def _gauge(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"cac_{name}", text, labels, registry=registry)
