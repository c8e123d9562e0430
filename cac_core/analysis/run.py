"""All analyses of a plan in order: the tables `linked` and `events` become `estimates`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cac_core.analysis.added_value import added_value
from cac_core.analysis.competing import fine_gray, gray
from cac_core.analysis.concordance import concordance_of_sources
from cac_core.analysis.description import described_as_normal, description
from cac_core.analysis.design import Patients, members
from cac_core.analysis.estimate import Estimate, Question, guarded
from cac_core.analysis.hazards import (
    cause_specific,
    influence,
    interaction,
    landmark,
    multivariable,
    proportionality,
    splines,
    univariable,
)
from cac_core.analysis.marker_models import MarkerModels
from cac_core.analysis.plan import Plan
from cac_core.analysis.predicted_risk import predicted_risk
from cac_core.analysis.survival import incidence, survival, times_observed
from cac_core.stats.arrays import Floats
from cac_core.stats.bootstrap import Mapper
from schemas.codes import FlowStep
from schemas.results import ESTIMATES

#: To be incremented if the same tables and plan give different estimates.
ANALYSIS_VERSION = 5


@dataclass(frozen=True)
class Step:
    """One analysis of one population: its shown name, and the call that makes its rows."""

    name: str
    run: Callable[[], list[Estimate]]


def steps(
    linked: pa.Table, events: pa.Table, flow: pa.Table, plan: Plan, mapper: Mapper = map
) -> Iterator[Step]:
    """Steps of a plan in the order of the report; nothing is computed before `run`.

    Parameters
    ----------
    linked, events, flow : the tables of that name.
    mapper : spreads resamples over threads or machines, without effect on the estimates.
    """
    ordered = linked.sort_by("patient_key")
    patients = Patients.from_table(ordered)
    first = first_events(ordered["patient_key"], events)
    normal = cache(partial(described_as_normal, patients, plan))
    yield Step("cohort flow", partial(_flow, flow))
    for name, population in plan.populations.items():
        whole = Question(name, patients, plan, first)
        base = whole.base("population", "count")
        # A condition on a missing column affects this population only.
        rows = list(guarded(base, partial(_size, whole, base)))
        yield Step(f"{name}: patients", partial(list, rows))
        if rows[0].value is not None:
            question = whole.chosen(members(patients, population))
            yield from _of_population(question, normal, mapper)


def analyse(
    linked: pa.Table, events: pa.Table, flow: pa.Table, plan: Plan, mapper: Mapper = map
) -> pa.Table:
    """The table `estimates` of a plan; the same tables and plan give the same rows."""
    rows = [row for step in steps(linked, events, flow, plan, mapper) for row in step.run()]
    return estimates_table(rows)


def estimates_table(rows: list[Estimate]) -> pa.Table:
    """Rows as the validated table `estimates`."""
    return ESTIMATES.from_rows(row.row() for row in rows)


def first_events(patient_key: pa.ChunkedArray, events: pa.Table) -> dict[str, Floats]:
    """Days to the first event of each component by patient, infinite without one."""
    keys = pa.table({"patient_key": patient_key, "at": np.arange(len(patient_key))})
    found = events.group_by(["patient_key", "component"]).aggregate([("days", "min")])
    joined = found.join(keys, "patient_key", join_type="inner")
    out: dict[str, Floats] = {}
    for component in sorted(pc.unique(events["component"]).to_pylist()):
        mine = joined.filter(pc.equal(joined["component"], component))
        days = np.full(len(patient_key), np.inf)
        days[mine["at"].to_numpy()] = mine["days_min"].to_numpy()
        out[component] = days
    return out


def _of_population(
    question: Question, normal: Callable[[], Collection[str]], mapper: Mapper
) -> Iterator[Step]:
    plan, name = question.plan, question.population

    def step(what: str, rows: Callable[[], Iterator[Estimate]]) -> Step:
        return Step(f"{name}: {what}", lambda: list(rows()))

    yield step("description", lambda: description(question, normal()))
    yield step("agreement", partial(concordance_of_sources, question))
    for outcome in plan.outcomes:
        yield step(f"{outcome}, survival", partial(_survival, question, outcome))
        yield step(f"{outcome}, hazard ratios", partial(_hazards, question, outcome))
    for component in plan.components:
        yield step(f"{component}, competing risks", partial(_competing, question, component))
    yield step(
        f"{plan.primary}, added value, {plan.resamples} resamples",
        partial(_added_value, question, plan.primary, mapper),
    )


def _survival(question: Question, outcome: str) -> Iterator[Estimate]:
    yield from times_observed(question, outcome)
    yield from survival(question, outcome)


def _hazards(question: Question, outcome: str) -> Iterator[Estimate]:
    yield from univariable(question, outcome)
    yield from multivariable(question, outcome)
    yield from proportionality(question, outcome)
    if outcome == question.plan.primary:
        for analysis in (influence, interaction, landmark, splines):
            yield from analysis(question, outcome)


def _added_value(question: Question, outcome: str, mapper: Mapper) -> Iterator[Estimate]:
    models = MarkerModels(question, outcome, mapper)
    yield from added_value(question, outcome, models)
    yield from predicted_risk(question, outcome, models)


def _competing(question: Question, component: str) -> Iterator[Estimate]:
    yield from incidence(question, component)
    yield from gray(question, component)
    yield from cause_specific(question, component)
    yield from fine_gray(question, component)


def _flow(flow: pa.Table) -> list[Estimate]:
    """Patients who left the cohort at each step, and those who remain after it."""
    counts = {
        row["step"]: row["step_count"]
        for row in flow.group_by("step").aggregate([("step", "count")]).to_pylist()
    }
    rows, remaining = [], flow.num_rows
    for step in FlowStep:
        count = counts.get(step.value, 0)
        base = Estimate("cohort_flow", "count", float(count), term=step.value, n=flow.num_rows)
        rows.append(base)
        if step is not FlowStep.INCLUDED:
            remaining -= count
            rows.append(replace(base, statistic="remaining", value=float(remaining)))
    return rows


def _size(question: Question, base: Estimate) -> list[Estimate]:
    population = question.plan.populations[question.population]
    keep = members(question.patients, population)
    return [replace(base, value=float(keep.sum()), n=len(keep), method=population.description)]
