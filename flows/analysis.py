"""The analysis: estimates everything a plan asks for from the linked cohort."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import State, flow

from cac_core.analysis.concordance import discrepancies
from cac_core.analysis.estimate import Estimate
from cac_core.analysis.key_estimates import KeyEstimate, key_estimates, key_estimates_markdown
from cac_core.analysis.plan import Plan, load_plan
from cac_core.analysis.reviewed_scores import SCORES, Scores, plan_for, with_reviewed_scores
from cac_core.analysis.run import ANALYSIS_VERSION, Step, estimates_table, steps
from cac_core.cohort.linked import LinkedCohort, read_linked
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from cac_core.reading.readings import read_readings
from cac_core.settings import Settings, load_settings
from cac_core.stats.bootstrap import Mapper
from flows.request import open_warehouse
from flows.runtime.dask_cluster import cluster_client
from flows.runtime.progress import RunProgress, current_progress
from flows.runtime.stamp import RunStamp
from flows.runtime.states import concluded
from flows.summaries import RunRecord, empty_cohort
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
    """Arguments of one analysis; None takes the value of the settings file."""

    warehouse: str | None = None
    config: str | None = None
    plan: str | None = None
    scores: str | None = None


@dataclass(frozen=True)
class NotEstimableCount:
    """Rows of one analysis that have no value for the same reason."""

    analysis: str
    reason: str
    rows: int


@dataclass(frozen=True)
class AnalysisSummary:
    """One analysis (`cac analyse`); `docs/statistics.md` lists the fields.

    `empty_because` says why the cohort is empty; without any reason if it is not.
    """

    run_id: str
    outcome: str
    warehouse: str
    model: str
    patients: int
    estimates: int
    not_estimable: int
    reasons: list[NotEstimableCount]
    headline: list[KeyEstimate]
    empty_because: list[str]
    seconds: float

    def as_markdown(self) -> str:
        """The artifact on the Prefect page of the run."""
        lines = [f"# Analysis {self.run_id}", "", f"Outcome: {self.outcome}.", ""]
        if self.empty_because:
            lines += [f"The cohort is empty: {'; '.join(self.empty_because)}.", ""]
        lines += key_estimates_markdown(self.headline)
        lines += ["", f"{self.estimates} estimates, {self.not_estimable} not estimable."]
        return "\n".join(lines)

    def record(self) -> RunRecord:
        """The log of the flow run, and its state."""
        info = [
            f"{self.outcome}: {self.patients} patients, {self.estimates} estimates, "
            f"{self.not_estimable} not estimable"
        ]
        if not self.empty_because:
            return RunRecord(info)
        message = empty_cohort(self.empty_because)
        return RunRecord(info, [message], "EmptyCohort", message)


@dataclass(frozen=True)
class AnalysisDryRun:
    """What an analysis would do (`cac analyse --dry-run`)."""

    dry_run: bool = field(default=True, init=False)
    warehouse: str
    model: str
    patients: int
    plan_digest: str
    steps: list[str]


@dataclass(frozen=True)
class PreparedAnalysis:
    """A checked request: the plan is valid and there is a linked cohort."""

    warehouse: Warehouse
    settings: Settings
    plan: Plan
    cohort: LinkedCohort

    @property
    def digest(self) -> str:
        """SHA-256 over everything that the estimates depend on."""
        inputs = {
            "version": ANALYSIS_VERSION,
            "plan": self.plan.digest,
            "tables": [
                _table_digest(table)
                for table in (self.cohort.linked, self.cohort.events, self.cohort.flow)
            ],
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def prepare_analysis(request: AnalysisRequest) -> PreparedAnalysis:
    """Check a request and read its cohort; writes nothing.

    Raises
    ------
    CacError
        If settings, plan or warehouse are invalid, nothing is linked yet, or `linked` holds values
        that are impossible in a patient.
    """
    settings = load_settings(None if request.config is None else Path(request.config))
    plan = load_plan(Path(request.plan) if request.plan else settings.analysis.plan)
    warehouse = open_warehouse(request.warehouse, settings)
    cohort = read_linked(warehouse)
    require_valid(cohort.spec, cohort.linked)
    scores = chosen_scores(request.scores)
    if scores != "model":
        final = read_readings(warehouse).final()
        cohort = replace(cohort, linked=with_reviewed_scores(cohort.linked, final))
    return PreparedAnalysis(warehouse, settings, plan_for(plan, scores), cohort)


def chosen_scores(named: str | None) -> Scores:
    """The scores that an analysis is made from; those of the model where none are named.

    Raises
    ------
    UsageError
        If there are none of this name.
    """
    for known in SCORES:
        if named in (None, known):
            return known
    raise UsageError(f"There are no scores {named!r}.", f"Choose from {', '.join(SCORES)}.")


def require_valid(spec: TableSpec, linked: pa.Table) -> None:
    """Refuse values that an earlier version linked and this version quarantines."""
    faults: list[str] = []
    try:
        spec.validate(linked)
    except InvalidTableError as error:
        faults += error.failures
    for column in linked.schema:
        if pa.types.is_floating(column.type):
            infinite = pc.sum(pc.is_inf(linked[column.name])).as_py() or 0
            faults += [f"{column.name}: infinite ({infinite})"] if infinite else []
    if faults:
        raise CacError(
            f"The table `linked` holds impossible values: {'; '.join(faults)}.",
            "Run `cac link` again, which quarantines them.",
        )


def preview_analysis(prepared: PreparedAnalysis) -> AnalysisDryRun:
    """What an analysis would do; writes nothing."""
    cohort = prepared.cohort
    return AnalysisDryRun(
        warehouse=prepared.warehouse.url,
        model=cohort.run["model_id"],
        patients=cohort.linked.num_rows,
        plan_digest=prepared.plan.digest,
        steps=[one.name for one in steps(cohort.linked, cohort.events, cohort.flow, prepared.plan)],
    )


def analyse(request: AnalysisRequest) -> AnalysisSummary:
    """Run the analysis of a request, without Prefect."""
    prepared = prepare_analysis(request)
    with prepared.warehouse.lock():
        return analyse_if_changed(prepared, current_progress())


@flow(name="analyse-cohort", persist_result=False, validate_parameters=False)
def analyse_cohort(
    warehouse: str | None = None,
    config: str | None = None,
    plan: str | None = None,
    scores: str | None = None,
) -> AnalysisSummary | State[AnalysisSummary]:
    """Estimate everything a plan asks for from the linked table of a warehouse.

    Parameters
    ----------
    warehouse, config, plan, scores : as the options of `cac analyse`.

    Returns
    -------
    The summary that `cac analyse --json` prints; for an empty cohort, a state that holds it.
    """
    request = AnalysisRequest(warehouse, config, plan, scores)
    return concluded("analyse-cohort", lambda: analyse(request))


def analyse_if_changed(prepared: PreparedAnalysis, progress: RunProgress) -> AnalysisSummary:
    """Run the plan and publish its tables, unless they exist for the same inputs.

    The caller holds the lock of the warehouse.
    """
    stamp = RunStamp()
    store, digest = prepared.warehouse, prepared.digest
    last = _last_run(store)
    if last and last["inputs_digest"] == digest:
        progress.say("nothing has changed since the last analysis")
        return _summary(prepared, last["run_id"], "unchanged", store.read(ESTIMATES), stamp)
    estimates = estimates_table(_estimated(prepared, progress))
    store.replace(DISCREPANCIES, discrepancies(prepared.cohort.linked, prepared.plan))
    store.replace(ESTIMATES, estimates)
    summary = _summary(prepared, stamp.run_id, "analysed", estimates, stamp)
    store.add_run(_run_row(prepared, summary, stamp, digest), ANALYSES)
    return summary


def is_current(prepared: PreparedAnalysis) -> bool:
    """Whether the estimates of these inputs are published already."""
    last = _last_run(prepared.warehouse)
    return last is not None and last["inputs_digest"] == prepared.digest


def _last_run(store: Warehouse) -> dict[str, Any] | None:
    """The last analysis; None without one, or if a table of it is missing."""
    runs: list[dict[str, Any]] = store.read(ANALYSES).sort_by("started_at").to_pylist()
    return runs[-1] if runs and all(map(store.has, (ESTIMATES, DISCREPANCIES))) else None


def _estimated(prepared: PreparedAnalysis, progress: RunProgress) -> list[Estimate]:
    """Rows of all steps of the plan."""
    cohort, rows = prepared.cohort, []
    with _mapper(prepared.settings) as mapper:
        for one in steps(cohort.linked, cohort.events, cohort.flow, prepared.plan, mapper):
            begun = monotonic()
            found = _run_step.named(one.name)(one)
            missing = sum(row.value is None for row in found)
            note = f", {missing} not estimable" if missing else ""
            progress.say(f"{one.name}: {len(found)} rows{note}, {monotonic() - begun:.1f} s")
            rows += found
    return rows


@contextlib.contextmanager
def _mapper(settings: Settings) -> Iterator[Mapper]:
    """Spreads resamples over the threads of this process, or the cluster of the settings."""
    if settings.analysis.spread == "dask":
        with cluster_client(settings.cluster) as client:
            yield over_dask(client)
        return
    with ThreadPoolExecutor(settings.analysis.threads or len(os.sched_getaffinity(0))) as pool:
        yield pool.map


def _summary(
    prepared: PreparedAnalysis, run_id: str, outcome: str, estimates: pa.Table, stamp: RunStamp
) -> AnalysisSummary:
    without = estimates.filter(pc.is_null(estimates["value"]))
    reasons = Counter(
        (row["analysis"], row["method"])
        for row in without.select(["analysis", "method"]).to_pylist()
    )
    return AnalysisSummary(
        run_id=run_id,
        outcome=outcome,
        warehouse=prepared.warehouse.url,
        model=prepared.cohort.run["model_id"],
        patients=prepared.cohort.linked.num_rows,
        estimates=estimates.num_rows,
        not_estimable=without.num_rows,
        reasons=[
            NotEstimableCount(analysis, reason, count)
            for (analysis, reason), count in sorted(reasons.items(), key=str)
        ],
        headline=key_estimates(estimates, prepared.plan),
        empty_because=prepared.cohort.empty_because,
        seconds=round(stamp.seconds, 3),
    )


def _run_row(
    prepared: PreparedAnalysis, summary: AnalysisSummary, stamp: RunStamp, digest: str
) -> dict[str, object]:
    return stamp.columns(_LIBRARIES) | {
        "model_id": summary.model,
        "inputs_digest": digest,
        "plan_digest": prepared.plan.digest,
        "linkage_run_id": prepared.cohort.run["run_id"],
        "patients": summary.patients,
        "estimates": summary.estimates,
        "not_estimable": summary.not_estimable,
        "plan": json.dumps(prepared.plan.model_dump(mode="json")),
    }


def _table_digest(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    # Parquet and not Arrow IPC, which keeps arbitrary bytes under a null.
    pq.write_table(table.sort_by([(name, "ascending") for name in table.column_names]), sink)
    return hashlib.sha256(sink.getvalue()).hexdigest()
