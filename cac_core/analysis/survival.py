"""Survival by calcium category (Figure 4, Supplemental Figure 3), follow-up and event rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np

from cac_core.analysis.design import level_names, levels_of
from cac_core.analysis.estimate import Estimate, Question, guarded, not_estimable
from cac_core.analysis.key_estimates import FOLLOW_UP
from cac_core.analysis.plan import DAYS_PER_YEAR, Plan, ScoreSource
from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats, Ints
from cac_core.stats.survival import (
    CumulativeIncidence,
    SurvivalCurve,
    TestResult,
    cumulative_incidence,
    event_rate,
    kaplan_meier,
    log_rank,
    reverse_kaplan_meier,
)

#: Most points of a curve; a larger number of steps is thinned evenly.
CURVE_POINTS = 400
#: Years at which cumulative incidence is compared, beside the horizon of the plan.
COMPARED_YEARS = (1.0, 5.0)
_QUARTILES = (("q1", 0.25), ("median", 0.5), ("q3", 0.75))


def times_observed(question: Question, outcome: str) -> Iterator[Estimate]:
    """Years of follow-up by reverse Kaplan-Meier, and to event or censoring as in the paper."""
    base = question.base("follow_up", "median", outcome)
    yield from guarded(base, partial(_follow_up, question, base, outcome))


def survival(question: Question, outcome: str) -> Iterator[Estimate]:
    """Kaplan-Meier curves, numbers at risk, log-rank tests and rates by category of each source.

    Cumulative incidence and the rate are also those of all patients, in rows without a source.
    """
    base = question.base("event_rate", _STATISTIC["event_rate"], outcome)
    yield from guarded(base, partial(_rate_of_all, question, base, outcome))
    base = question.base("kaplan_meier", "cumulative_incidence", outcome)
    yield from guarded(base, partial(_incidence_of_all, question, base, outcome))
    for model, source in question.plan.sources.items():
        for name, analysis in (
            ("kaplan_meier", _curves),
            ("log_rank", _log_rank),
            ("event_rate", _rates),
        ):
            base = question.base(name, _STATISTIC[name], outcome, model, source.term.name)
            yield from guarded(base, partial(analysis, question, base, outcome, source))


def incidence(question: Question, component: str) -> Iterator[Estimate]:
    """Aalen-Johansen incidence of a component by category of each source; numbers at risk."""
    for model, source in question.plan.sources.items():
        base = question.base(
            "cumulative_incidence", "incidence", component, model, source.term.name
        )
        yield from guarded(base, partial(_incidence, question, base, component, source))


_STATISTIC = {
    "kaplan_meier": "survival",
    "log_rank": "chi2",
    "event_rate": "per_100_person_years",
}


def _follow_up(question: Question, base: Estimate, outcome: str) -> Iterator[Estimate]:
    _, days, event = question.outcome(outcome)
    if not len(days):
        raise NotEstimableError("no patients")
    curve = reverse_kaplan_meier(days, event)
    base = replace(base, n=len(days), n_events=int(event.sum()))
    for name, share in _QUARTILES:
        yield replace(
            base,
            statistic=name,
            value=curve.quantile(share) / DAYS_PER_YEAR,
            method=f"years, {FOLLOW_UP}",
        )
        yield replace(
            base,
            statistic=f"observed_{name}",
            value=float(np.quantile(days, share)) / DAYS_PER_YEAR,
            method="years to event or censoring",
        )


def _grouped(
    question: Question, outcome: str, source: ScoreSource
) -> tuple[Floats, Bools, Ints, tuple[str, ...]]:
    """Days, events and level of the patients who have a reading of the source."""
    patients, days, event = question.outcome(outcome)
    level = levels_of(patients, source.term)
    known = level >= 0
    if not known.any():
        raise NotEstimableError(f"column `{source.term.source}` is missing in all patients")
    return days[known], event[known], level[known], level_names(source.term)


def _curves(
    question: Question, base: Estimate, outcome: str, source: ScoreSource
) -> Iterator[Estimate]:
    days, event, level, names = _grouped(question, outcome, source)
    for at, name in enumerate(names):
        mine = level == at
        named = replace(base, level=name, n=int(mine.sum()), n_events=int(event[mine].sum()))
        if not mine.any():
            yield not_estimable(named, "no patients in this category")
            continue
        plan = question.plan
        curve = kaplan_meier(days[mine], event[mine], plan.interval, plan.confidence)
        yield from _curve_rows(named, curve, f"Kaplan-Meier, {plan.interval} limits")
        common = min(float(days[level == one].max()) for one in np.unique(level))
        yield from _incidence_then(question.plan, named, curve, common)
        for year in range(int(float(days.max()) / DAYS_PER_YEAR) + 1):
            day = year * DAYS_PER_YEAR
            yield replace(
                named,
                statistic="at_risk",
                at=day,
                value=float(curve.number_at_risk(day)),
                method="patients followed to this day or beyond",
            )
            if year and curve.number_at_risk(day):
                here = curve.index(day)
                yield replace(
                    named,
                    statistic="event_free",
                    at=day,
                    value=float(curve.survival[here]),
                    ci_low=float(curve.ci_low[here]),
                    ci_high=float(curve.ci_high[here]),
                    method=f"Kaplan-Meier, {plan.interval} limits",
                )


def _incidence_of_all(question: Question, base: Estimate, outcome: str) -> Iterator[Estimate]:
    _, days, event = question.outcome(outcome)
    if not len(days):
        raise NotEstimableError("no patients")
    plan = question.plan
    curve = kaplan_meier(days, event, plan.interval, plan.confidence)
    yield from _incidence_then(plan, replace(base, n=len(days)), curve, float(days.max()))


def _incidence_then(
    plan: Plan, base: Estimate, curve: SurvivalCurve, common: float
) -> Iterator[Estimate]:
    """Cumulative incidence at times that are compared, and the patients at risk then.

    Parameters
    ----------
    common : day that the patients of all groups are followed to.
    """
    method = f"1 less Kaplan-Meier, {plan.interval} limits"
    events = np.cumsum(curve.events)
    years = {year * DAYS_PER_YEAR for year in (*COMPARED_YEARS, plan.horizon_years)}
    for day in sorted({*years, common}):
        at_risk = int(curve.number_at_risk(day))
        named = replace(base, at=day, statistic="cumulative_incidence")
        yield replace(
            named,
            statistic="at_risk_then",
            value=float(at_risk),
            method="patients followed to this day or beyond",
        )
        if not at_risk:
            yield not_estimable(named, "follow-up ends before")
            continue
        here = curve.index(day)
        yield replace(
            named,
            value=1 - float(curve.survival[here]),
            ci_low=1 - float(curve.ci_high[here]),
            ci_high=1 - float(curve.ci_low[here]),
            n_events=int(events[here]),
            method=method,
        )


def _curve_rows(base: Estimate, curve: SurvivalCurve, method: str) -> Iterator[Estimate]:
    """Points of a curve: its start, days with events, and its end."""
    steps = np.flatnonzero(curve.events > 0)
    steps = np.unique(np.concatenate([[0], _thinned(steps), [len(curve.days) - 1]]))
    events = np.cumsum(curve.events)
    for at in steps:
        yield replace(
            base,
            at=float(curve.days[at]),
            value=float(curve.survival[at]),
            ci_low=float(curve.ci_low[at]),
            ci_high=float(curve.ci_high[at]),
            n=int(curve.at_risk[at]),
            n_events=int(events[at]),
            method=method,
        )


def _log_rank(
    question: Question, base: Estimate, outcome: str, source: ScoreSource
) -> Iterator[Estimate]:
    days, event, level, names = _grouped(question, outcome, source)
    levels = range(len(names))
    base = replace(base, n=len(days), n_events=int(event.sum()))

    def row(where: str | None, test: TestResult, method: str) -> Estimate:
        return replace(
            base,
            level=where,
            value=test.chi2,
            p_value=test.p_value,
            method=f"{method}, df {test.df}",
        )

    every = log_rank(days, event, level, list(levels))
    yield row(None, every.overall(), "log-rank")
    yield row("trend", every.trend(), "log-rank test of trend over categories 0, 1, 2, ...")
    for first, second in combinations(levels, 2):
        name = f"{names[first]} vs {names[second]}"
        two = np.isin(level, (first, second))
        pair = replace(base, level=name, n=int(two.sum()), n_events=int(event[two].sum()))

        def compare(
            two: Bools = two, pair: Estimate = pair, groups: Sequence[object] = (first, second)
        ) -> Iterator[Estimate]:
            test = log_rank(days[two], event[two], level[two], groups).overall()
            yield replace(
                pair,
                value=test.chi2,
                p_value=test.p_value,
                method="log-rank of two categories, df 1, not adjusted for several tests",
            )

        yield from guarded(pair, compare)


def _rate_of_all(question: Question, base: Estimate, outcome: str) -> Iterator[Estimate]:
    _, days, event = question.outcome(outcome)
    if not len(days):
        raise NotEstimableError("no patients")
    base = replace(base, n=len(days), n_events=int(event.sum()))
    yield from _rate_rows(question.plan, base, days, event)


def _rate_rows(plan: Plan, base: Estimate, days: Floats, event: Bools) -> Iterator[Estimate]:
    rate = event_rate(days, event, plan.confidence)
    yield base.estimated(rate, method="first events per 100 person-years, exact Poisson limits")
    yield replace(
        base, statistic="person_years", value=rate.person_years, method="sum of follow-up"
    )


def _rates(
    question: Question, base: Estimate, outcome: str, source: ScoreSource
) -> Iterator[Estimate]:
    days, event, level, names = _grouped(question, outcome, source)
    for at, name in enumerate(names):
        mine = level == at
        named = replace(base, level=name, n=int(mine.sum()), n_events=int(event[mine].sum()))
        if not mine.any():
            yield not_estimable(named, "no patients in this category")
            continue
        yield from _rate_rows(question.plan, named, days[mine], event[mine])


def _incidence(
    question: Question, base: Estimate, component: str, source: ScoreSource
) -> Iterator[Estimate]:
    days, cause = question.competing(component)
    level, names = levels_of(question.patients, source.term), level_names(source.term)
    if not (level >= 0).any():
        raise NotEstimableError(f"column `{source.term.source}` is missing in all patients")
    for at, name in enumerate(names):
        mine = level == at
        named = replace(base, level=name, n=int(mine.sum()), n_events=int((cause[mine] == 1).sum()))

        def run(mine: Bools = mine, named: Estimate = named) -> Iterator[Estimate]:
            if not mine.any():
                raise NotEstimableError("no patients in this category")
            yield from _at_risk(named, days[mine], float(days[level >= 0].max()))
            curve = cumulative_incidence(days[mine], cause[mine], 1, question.plan.confidence)
            yield from _incidence_rows(named, curve, float(days[mine].max()))

        yield from guarded(named, run)


def _at_risk(base: Estimate, days: Floats, end: float) -> Iterator[Estimate]:
    """Patients without any of the competing events at the start of each year."""
    for year in range(int(end / DAYS_PER_YEAR) + 1):
        day = year * DAYS_PER_YEAR
        yield replace(
            base,
            statistic="at_risk",
            at=day,
            value=float((days >= day).sum()),
            method="patients followed to this day or beyond, without an event of any cause",
        )


def _incidence_rows(base: Estimate, curve: CumulativeIncidence, end: float) -> Iterator[Estimate]:
    steps = np.flatnonzero(np.diff(curve.events, prepend=0) > 0)
    method = "Aalen-Johansen, death competing; delta-method limits on log(-log)"
    yield replace(base, at=0.0, value=0.0, n_events=0, method=method)
    for at in _thinned(steps):
        yield replace(
            base,
            at=float(curve.days[at]),
            value=float(curve.incidence[at]),
            ci_low=float(curve.ci_low[at]),
            ci_high=float(curve.ci_high[at]),
            n=int(curve.at_risk[at]),
            n_events=int(curve.events[at]),
            method=method,
        )
    last = curve.index(end)
    if curve.days[last] == end and last in steps:
        return
    yield replace(
        base,
        at=end,
        value=float(curve.incidence[last]),
        ci_low=float(curve.ci_low[last]),
        ci_high=float(curve.ci_high[last]),
        n_events=int(curve.events[last]),
        method=method,
    )


def _thinned(steps: Ints) -> Ints:
    if len(steps) <= CURVE_POINTS:
        return steps
    return steps[np.unique(np.linspace(0, len(steps) - 1, CURVE_POINTS).astype(np.int64))]
