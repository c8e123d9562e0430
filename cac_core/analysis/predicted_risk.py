"""Calibration at the horizon and decision curves of the models, with and without calcium."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from cac_core.analysis.estimate import Estimate, Question, guarded
from cac_core.analysis.marker_models import MarkerModels
from cac_core.analysis.plan import Plan
from cac_core.stats.calibration import (
    brier_score,
    calibration_groups,
    net_benefit,
    observed_expected,
)

_APPARENT = "Kaplan-Meier; apparent, in the patients of the fit"


def predicted_risk(question: Question, outcome: str, models: MarkerModels) -> Iterator[Estimate]:
    """Calibration and net benefit of the model of covariates, and of that with each source."""
    plan = question.plan
    for model in ("base", *plan.sources):
        # The model of covariates is evaluated in the patients of the first source.
        source = next(iter(plan.sources)) if model == "base" else model
        base = question.base("calibration", "observed_risk", outcome, model)
        yield from guarded(base, partial(_calibration, base, plan, models, source))
        base = question.base("decision_curve", "net_benefit", outcome, model)
        yield from guarded(base, partial(_decision_curve, base, plan, models, source))


def _calibration(
    base: Estimate, plan: Plan, models: MarkerModels, source: str
) -> Iterator[Estimate]:
    """Observed against predicted risk in groups, and of all patients of the fit."""
    found = models.of(source)
    data = found.risk(str(base.model)), found.data.days, found.data.event, plan.horizon_days
    groups = calibration_groups(*data, plan.calibration_groups, plan.confidence)
    for number, group in enumerate(groups, 1):
        yield replace(
            base,
            level=str(number),
            at=group.predicted,
            value=group.observed,
            ci_low=group.ci_low,
            ci_high=group.ci_high,
            n=group.n,
            n_events=group.n_events,
            method=_with_reason(_APPARENT, group.reason),
        )
    base = found.counted(base)

    def ratio() -> Iterator[Estimate]:
        result = observed_expected(*data, plan.confidence)
        yield base.estimated(
            result, statistic="observed_expected", method=_with_reason(_APPARENT, result.reason)
        )

    def brier(*, scaled: bool) -> Iterator[Estimate]:
        score = brier_score(*data, plan.confidence)
        method = _with_reason("weighted for censoring", score.reason)
        if scaled:
            yield replace(base, statistic="brier_scaled", value=score.scaled, method=method)
        else:
            yield base.estimated(score, statistic="brier", method=method)

    yield from guarded(replace(base, statistic="observed_expected"), ratio)
    yield from guarded(replace(base, statistic="brier"), partial(brier, scaled=False))
    yield from guarded(replace(base, statistic="brier_scaled"), partial(brier, scaled=True))


def _decision_curve(
    base: Estimate, plan: Plan, models: MarkerModels, source: str
) -> Iterator[Estimate]:
    """Net benefit over thresholds; with the model of covariates also of treating all and none."""
    found = models.of(source)
    base = found.counted(base)
    curve = net_benefit(
        found.risk(str(base.model)),
        found.data.days,
        found.data.event,
        plan.horizon_days,
        plan.thresholds,
    )
    lines = [(str(base.model), curve.model)]
    if base.model == "base":
        lines += [("all", curve.treat_all), ("none", curve.treat_none)]
    for name, values in lines:
        for at, threshold in enumerate(curve.thresholds):
            reason = curve.reasons[at] if name == base.model else ""
            yield replace(
                base,
                model=name,
                at=float(threshold),
                value=float(values[at]),
                method=_with_reason("net benefit with censoring (Vickers 2008)", reason),
            )


def _with_reason(method: str, reason: str) -> str:
    return f"{method}; not estimable: {reason}" if reason else method
