"""The analysis: the linked table and a plan become the table `estimates`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from cac_core.analysis.concordance import discrepancies
from cac_core.analysis.estimate import Estimate
from cac_core.analysis.headline import headline
from cac_core.analysis.plan import Plan, load_plan
from cac_core.analysis.run import ANALYSIS_VERSION, Step, estimates_table, steps
from cac_core.cohort.linked import LinkedCohort, read_linked
from cac_core.cohort.store import Warehouse
from cac_core.errors import CacError
from cac_core.settings import Settings, load_settings
from cac_core.stats.bootstrap import Mapper
from flows.request import open_warehouse
from flows.runtime.dask_cluster import cluster_client
from flows.runtime.progress import RunProgress, current_progress
from flows.runtime.stamp import RunStamp
from schemas.results import ANALYSES, DISCREPANCIES, ESTIMATES
from schemas.table import InvalidTableError, TableSpec
from tasks.resampling import over_dask
from tasks.step import step

_LIBRARIES = ("prefect", "numpy", "scipy", "numba", "lifelines", "pyarrow", "pandera")


@step("analyse-step")
def _run_step(analysis: Step) -> list[Estimate]:
    return analysis.run()


@dataclass(frozen=True)
class AnalysisRequest:
    """Arguments of one analysis; what is None comes from the settings file."""

    warehouse: str | None = None
    config: str | None = None
    plan: str | None = None


@dataclass(frozen=True)
class PreparedAnalysis:
    """A checked request: the plan is sound and there is a linked cohort."""

    warehouse: Warehouse
    settings: Settings
    plan: Plan
    cohort: LinkedCohort

    @property
    def digest(self) -> str:
        """SHA-256 over all that the estimates depend on."""
        told = {
            "version": ANALYSIS_VERSION,
            "plan": self.plan.digest,
            "tables": [
                _table_digest(table)
                for table in (self.cohort.linked, self.cohort.events, self.cohort.flow)
            ],
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def prepare_analysis(request: AnalysisRequest) -> PreparedAnalysis:
    """Check a request and read what it names; writes nothing.

    Raises
    ------
    CacError
        For the first fault: settings, plan, warehouse, nothing linked yet, or a value of `linked`
        that no patient can have.
    """
    settings = load_settings(None if request.config is None else Path(request.config))
    plan = load_plan(Path(request.plan) if request.plan else settings.analysis.plan)
    warehouse = open_warehouse(request.warehouse, settings)
    cohort = read_linked(warehouse)
    _require_sound(cohort.spec, cohort.linked)
    return PreparedAnalysis(warehouse, settings, plan, cohort)


def _require_sound(spec: TableSpec, linked: pa.Table) -> None:
    """Refuse what an earlier version linked and this one would set aside."""
    faults: list[str] = []
    try:
        spec.validate(linked)
    except InvalidTableError as error:
        faults += error.failures
    for field in linked.schema:
        if pa.types.is_floating(field.type):
            infinite = pc.sum(pc.is_inf(linked[field.name])).as_py() or 0
            faults += [f"{field.name}: infinite ({infinite})"] if infinite else []
    if faults:
        raise CacError(
            f"The table `linked` holds values that no patient can have: {'; '.join(faults)}.",
            "Run `cac link` again, which sets them aside.",
        )


def preview_analysis(prepared: PreparedAnalysis) -> dict[str, Any]:
    """What an analysis would do; writes nothing."""
    cohort = prepared.cohort
    return {
        "dry_run": True,
        "warehouse": prepared.warehouse.url,
        "model": cohort.run["model_id"],
        "patients": cohort.linked.num_rows,
        "plan_digest": prepared.plan.digest,
        "steps": [
            one.name for one in steps(cohort.linked, cohort.events, cohort.flow, prepared.plan)
        ],
    }


def analyse(request: AnalysisRequest) -> dict[str, Any]:
    """Analyse as the request says; the flow below without what it tells Prefect."""
    prepared = prepare_analysis(request)
    with prepared.warehouse.lock():
        return analyse_if_changed(prepared, current_progress())


@flow(name="analyse-cohort", persist_result=False, validate_parameters=False)
def analyse_cohort(
    warehouse: str | None = None, config: str | None = None, plan: str | None = None
) -> dict[str, Any]:
    """Estimate everything a plan asks for from the linked table of a warehouse.

    Parameters
    ----------
    warehouse, config, plan : as the options of `cac analyse`.

    Returns
    -------
    The summary that `cac analyse --json` prints.
    """
    summary = analyse(AnalysisRequest(warehouse, config, plan))
    create_markdown_artifact(key="analyse-cohort", markdown=_markdown(summary))
    return summary


def analyse_if_changed(prepared: PreparedAnalysis, progress: RunProgress) -> dict[str, Any]:
    """Run the plan and publish its tables, unless they are there for the same inputs.

    The caller holds the warehouse.
    """
    stamp = RunStamp()
    store, digest = prepared.warehouse, prepared.digest
    last = store.read(ANALYSES).sort_by("started_at").to_pylist()
    whole = all(map(store.has, (ESTIMATES, DISCREPANCIES)))
    if last and whole and last[-1]["inputs_digest"] == digest:
        progress.say("nothing has changed since the last analysis")
        return _summary(prepared, last[-1]["run_id"], "unchanged", store.read(ESTIMATES), stamp)
    rows = []
    with _mapper(prepared.settings) as mapper:
        cohort = prepared.cohort
        for one in steps(cohort.linked, cohort.events, cohort.flow, prepared.plan, mapper):
            begun = monotonic()
            found = _run_step.named(one.name)(one)
            missing = sum(row.value is None for row in found)
            note = f", {missing} not estimable" if missing else ""
            progress.say(f"{one.name}: {len(found)} rows{note}, {monotonic() - begun:.1f} s")
            rows += found
    estimates = estimates_table(rows)
    apart = discrepancies(prepared.cohort.linked, prepared.plan)
    store.replace(DISCREPANCIES, apart)
    store.replace(ESTIMATES, estimates)
    summary = _summary(prepared, stamp.run_id, "analysed", estimates, stamp)
    store.add_run(_run_row(prepared, summary, stamp, digest), ANALYSES)
    return summary


@contextlib.contextmanager
def _mapper(settings: Settings) -> Iterator[Mapper]:
    """How resamples are spread: threads of this process, or the cluster of the settings."""
    if settings.analysis.spread == "dask":
        with cluster_client(settings.cluster) as client:
            yield over_dask(client)
        return
    with ThreadPoolExecutor(settings.analysis.threads or len(os.sched_getaffinity(0))) as pool:
        yield pool.map


def _summary(
    prepared: PreparedAnalysis, run_id: str, outcome: str, estimates: pa.Table, stamp: RunStamp
) -> dict[str, Any]:
    without = estimates.filter(pc.is_null(estimates["value"]))
    reasons = Counter(
        (row["analysis"], row["method"])
        for row in without.select(["analysis", "method"]).to_pylist()
    )
    return {
        "run_id": run_id,
        "outcome": outcome,
        "warehouse": prepared.warehouse.url,
        "model": prepared.cohort.run["model_id"],
        "patients": prepared.cohort.linked.num_rows,
        "estimates": estimates.num_rows,
        "not_estimable": without.num_rows,
        "reasons": [
            {"analysis": analysis, "reason": reason, "rows": count}
            for (analysis, reason), count in sorted(reasons.items(), key=str)
        ],
        "headline": headline(estimates, prepared.plan),
        "seconds": round(stamp.seconds, 3),
    }


def _run_row(
    prepared: PreparedAnalysis, summary: dict[str, Any], stamp: RunStamp, digest: str
) -> dict[str, object]:
    return stamp.columns(_LIBRARIES) | {
        "model_id": summary["model"],
        "inputs_digest": digest,
        "plan_digest": prepared.plan.digest,
        "linkage_run_id": prepared.cohort.run["run_id"],
        "patients": summary["patients"],
        "estimates": summary["estimates"],
        "not_estimable": summary["not_estimable"],
        "plan": json.dumps(prepared.plan.model_dump(mode="json")),
    }


def _table_digest(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    # Parquet rather than Arrow's own format, which keeps whatever lies under a null.
    pq.write_table(table.sort_by([(name, "ascending") for name in table.column_names]), sink)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _markdown(summary: dict[str, Any]) -> str:
    lines = [f"# Analysis {summary['run_id']}", "", f"Outcome: {summary['outcome']}.", ""]
    lines += ["| | value | interval |", "|---|---|---|"]
    for row in summary["headline"]:
        lines.append(f"| {row['name']} | {told(row['value'])} | {interval(row)} |")
    lines += ["", f"{summary['estimates']} estimates, {summary['not_estimable']} not estimable."]
    return "\n".join(lines)


def told(value: float | None) -> str:
    """A number for people, three significant digits."""
    return "-" if value is None else f"{value:.3g}"


def interval(row: dict[str, Any]) -> str:
    """The interval of a row for people."""
    if row["ci_low"] is None or row["ci_high"] is None:
        return ""
    return f"{told(row['ci_low'])} to {told(row['ci_high'])}"
