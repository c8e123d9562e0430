"""What calcium adds to the model of covariates: Figure 5 and Supplemental Table 6 of the paper.

Besides, calibration at the horizon and decision curves of each model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import chi2

from cac_core.analysis.estimate import Estimate, Question, guarded, not_estimable
from cac_core.analysis.models import complete, plain_design
from cac_core.analysis.plan import DAYS_PER_YEAR, Plan
from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.bootstrap import (
    CORRECTED,
    FIXED,
    METRICS,
    Mapper,
    MarkerData,
    MarkerFits,
    Resamples,
    bootstrap,
    corrected,
    measure,
    percentile_interval,
)
from cac_core.stats.calibration import (
    brier_score,
    calibration_groups,
    net_benefit,
    observed_expected,
)
from cac_core.stats.cox import time_order
from cac_core.stats.discrimination import auc, auc_difference
from cac_core.stats.reclassification import moves

_FORMS = {
    "": "Kaplan-Meier form (Pencina 2011), category-free",
    "_ipw": "inverse probability of censoring weights, category-free",
    "_count": "counts by the outcome over all follow-up, category-free",
    "_categorical": "Kaplan-Meier form, categories of risk",
}
_DISCRIMINATION = {
    "auc_time": "AUC at the horizon, weighted for censoring",
    "harrell_c": "Harrell's c",
    "uno_c": "Uno's c up to the horizon",
}
_NESTED = "no test: the models are nested, see lr_chi2_gain"


@dataclass(frozen=True)
class _Measured:
    """Markers of one set of patients: data, fits, values and resamples."""

    data: MarkerData
    fits: MarkerFits
    values: dict[str, Floats]
    resamples: Resamples
    degrees: dict[str, int]
    left_out: dict[str, str]

    def counted(self, base: Estimate) -> Estimate:
        """An estimate of these patients."""
        return replace(base, n=len(self.data.days), n_events=int(self.data.event.sum()))


def added_value(question: Question, outcome: str, mapper: Mapper = map) -> Iterator[Estimate]:
    """Gains in fit, discrimination and reclassification by each source, and their differences.

    Parameters
    ----------
    mapper : how the resamples are spread over threads or machines.
    """
    plan = question.plan
    markers = _Markers(question, outcome, mapper)
    for name in plan.sources:
        base = question.base("added_value", "lr_chi2_gain", outcome, name)
        yield from guarded(base, partial(_gains, base, plan, name, markers))
    for first, second in plan.compare:
        base = question.base("added_value_difference", "nri", outcome, f"{first}:{second}")
        yield from guarded(base, partial(_differences, base, plan, first, second, markers))
    for model in ("base", *plan.sources):
        base = question.base("calibration", "observed_risk", outcome, model)
        yield from guarded(base, partial(_calibration, base, plan, markers))
        base = question.base("decision_curve", "net_benefit", outcome, model)
        yield from guarded(base, partial(_decision_curve, base, plan, markers))


class _Markers:
    """Measures sources in the patients who have them all; each set of patients once."""

    def __init__(self, question: Question, outcome: str, mapper: Mapper) -> None:
        self._question, self._outcome, self._mapper = question, outcome, mapper
        self._known: dict[bytes, _Measured] = {}

    def of(self, *sources: str) -> _Measured:
        """Fits, values and resamples of some sources.

        Raises
        ------
        NotEstimableError
            If these patients cannot tell.
        """
        plan = self._question.plan
        patients, _, _ = self._question.outcome(self._outcome)
        read = [plan.sources[name].term for name in sources]
        keep, absent = complete(patients, [*read, *plan.covariates])
        unread = [absent[term.name] for term in read if term.name in absent]
        if unread:
            raise NotEstimableError("; ".join(unread))
        # Where nobody lacks a reading, all sources share their patients and resamples.
        same = [
            name
            for name, source in plan.sources.items()
            if name in sources or patients.present_in(source.term.source, keep)
        ]
        key = keep.tobytes()
        if key not in self._known:
            self._known[key] = _measure(self._question, self._outcome, same, keep, self._mapper)
        fits = self._known[key].fits
        risks = {"the covariates": fits.base_risk} | {
            name: fits.full_risk[name] for name in sources
        }
        unfit = [name for name, risk in risks.items() if not np.isfinite(risk).all()]
        if unfit:
            events = int(self._known[key].data.event.sum())
            raise NotEstimableError(f"too few events ({events}) for the model of {unfit[0]}")
        return self._known[key]


def _measure(
    question: Question, outcome: str, sources: Sequence[str], keep: Bools, mapper: Mapper
) -> _Measured:
    plan = question.plan
    patients, days, event = question.outcome(outcome)
    if not keep.any():
        raise NotEstimableError("no patients with every covariate and reading")
    _, absent = complete(patients, plan.covariates)
    covariates = [term for term in plan.covariates if term.name not in absent]
    chosen, t, d = patients.chosen(keep), days[keep], event[keep]
    if not d.any() or d.all():
        raise NotEstimableError("no events" if not d.any() else "no patients without the event")
    if float(t.max()) < plan.horizon_days:
        raise NotEstimableError(
            f"nobody is followed to the horizon of {plan.horizon_years:g} years; "
            f"the longest follow-up is {t.max() / DAYS_PER_YEAR:.2f} years"
        )
    order = time_order(t, d)
    base, left_out = plain_design(chosen, covariates)
    full, degrees = {}, {}
    for name in sources:
        design, _ = plain_design(chosen, [plan.sources[name].term, *covariates])
        full[name] = np.ascontiguousarray(design[order])
        degrees[name] = design.shape[1] - base.shape[1]
    most = max(design.shape[1] for design in full.values())
    if d.sum() <= most:
        raise NotEstimableError(f"too few events ({int(d.sum())}) for {most} coefficients")
    data = MarkerData(
        np.ascontiguousarray(base[order]),
        full,
        t[order],
        d[order],
        plan.horizon_days,
        plan.risk_cuts,
        plan.optimism,
    )
    fits, values = measure(data)
    drawn = bootstrap(data, fits, plan.resamples, plan.seed, mapper)
    return _Measured(data, fits, values, drawn, degrees, absent | left_out)


def _gains(base: Estimate, plan: Plan, name: str, markers: _Markers) -> Iterator[Estimate]:
    found = markers.of(name)
    base = found.counted(base)
    values = dict(zip(METRICS, found.values[name], strict=True))
    df = found.degrees[name]
    if df < 1:
        raise NotEstimableError("every patient has the same category")
    dropped = "".join(f"; without {term}: {why}" for term, why in found.left_out.items())
    yield replace(
        base,
        value=values["lr_chi2_gain"],
        p_value=float(chi2.sf(max(values["lr_chi2_gain"], 0.0), df)),
        method=f"likelihood ratio of the models with and without, df {df}{dropped}",
    )
    yield from _auc_rows(base, plan, name, found)
    for statistic, told in _DISCRIMINATION.items():
        for part in ("base", "full", "gain"):
            metric = f"{statistic}_{part}"
            yield _resampled(base, plan, found, name, metric, values[metric], told)
    for form, told in _FORMS.items():
        for part in ("event", "nonevent", "overall"):
            metric = f"nri_{part}{form}"
            yield _resampled(
                base, plan, found, name, metric, values[metric], _form(plan, form, told)
            )
    for fixed in FIXED:
        value = values[fixed.removesuffix("_fixed")]
        told = f"{_FORMS['']}; risks kept as they are in all patients"
        yield _resampled(base, plan, found, name, fixed, value, told)
    yield _resampled(
        base, plan, found, name, "idi", values["idi"], "by the outcome over all follow-up"
    )
    yield from _corrected_rows(base, plan, name, found)
    for metric in METRICS:
        if metric.startswith("p_"):
            yield replace(base, statistic=metric, value=values[metric], method=_FORMS[""])
    up, down = moves(found.fits.base_risk, found.fits.full_risk[name])
    for statistic, who in (("n_up", up), ("n_down", down)):
        yield replace(
            base,
            statistic=statistic,
            value=float(who.sum()),
            n_events=int((who & found.data.event).sum()),
            method="patients whose risk rises, or falls, with the marker",
        )


def _form(plan: Plan, form: str, told: str) -> str:
    if form != "_categorical":
        return told
    cuts = ", ".join(f"{100 * cut:g} %" for cut in plan.risk_cuts)
    return f"{told} cut at {cuts}"


def _auc_rows(base: Estimate, plan: Plan, name: str, found: _Measured) -> Iterator[Estimate]:
    """AUC of the outcome over all follow-up, as the paper has it."""
    event, old, new = found.data.event, found.fits.base_risk, found.fits.full_risk[name]
    told = "DeLong, outcome over all follow-up, blind to censoring"
    for statistic, risk in (("auc_base", old), ("auc_full", new)):
        area = auc(risk, event, plan.confidence)
        yield replace(
            base,
            statistic=statistic,
            value=area.value,
            ci_low=area.ci_low,
            ci_high=area.ci_high,
            method=told,
        )
    gain = auc_difference(new, old, event, plan.confidence)
    yield replace(
        base,
        statistic="auc_gain",
        value=gain.value,
        ci_low=gain.ci_low,
        ci_high=gain.ci_high,
        method=f"{told}; {_NESTED}",
    )


def _corrected_rows(base: Estimate, plan: Plan, name: str, found: _Measured) -> Iterator[Estimate]:
    """Apparent values less their optimism, where the plan asks for them."""
    if not plan.optimism:
        return
    values = dict(zip(METRICS, found.values[name], strict=True))
    for metric in CORRECTED:
        optimism = found.resamples.of(name, f"{metric}_optimism")
        value, usable = corrected(values[metric], optimism)
        short = "" if usable == plan.resamples else f" ({usable} usable)"
        yield replace(
            base,
            statistic=f"{metric.replace('nri_overall', 'nri')}_corrected",
            value=value,
            method=f"apparent value less its optimism, the mean over {plan.resamples} resamples"
            f"{short} of the models' value there less theirs in all patients (Harrell 1996)",
        )


def _resampled(
    base: Estimate, plan: Plan, found: _Measured, name: str, metric: str, value: float, told: str
) -> Estimate:
    statistic = metric.replace("nri_overall", "nri")
    row = replace(base, statistic=statistic, value=value)
    if not np.isfinite(value):
        return not_estimable(row, "nobody with the event by the horizon, or nobody without it")
    low, high, usable = percentile_interval(found.resamples.of(name, metric), plan.confidence)
    return replace(row, ci_low=low, ci_high=high, method=f"{told}; {_drawn(plan, usable)}")


def _drawn(plan: Plan, usable: int) -> str:
    if not plan.resamples:
        return f"{plan.horizon_years:g} years; no resamples, no interval"
    short = "" if usable == plan.resamples else f" ({usable} usable)"
    return (
        f"{plan.horizon_years:g} years; percentiles of {plan.resamples} resamples of patients"
        f"{short}, refitted, seed {plan.seed}"
    )


def _differences(
    base: Estimate, plan: Plan, first: str, second: str, markers: _Markers
) -> Iterator[Estimate]:
    """First less second, in the same patients and the same resamples."""
    found = markers.of(first, second)
    base = found.counted(base)
    for at, metric in enumerate(METRICS):
        if metric.endswith("_base") or metric.startswith("p_"):
            continue
        value = float(found.values[first][at] - found.values[second][at])
        statistic = metric.replace("nri_overall", "nri")
        drawn = found.resamples.of(first, metric) - found.resamples.of(second, metric)
        low, high, usable = percentile_interval(drawn, plan.confidence)
        yield replace(
            base,
            statistic=statistic,
            value=value,
            ci_low=low,
            ci_high=high,
            method=f"first less second, paired; {_drawn(plan, usable)}",
        )


def _source_of(base: Estimate, plan: Plan) -> str:
    """The source whose patients a model is judged in; the base model is in those of the first."""
    return next(iter(plan.sources)) if base.model == "base" else str(base.model)


def _risk(base: Estimate, found: _Measured) -> Floats:
    if base.model == "base":
        return found.fits.base_risk
    return found.fits.full_risk[str(base.model)]


def _calibration(base: Estimate, plan: Plan, markers: _Markers) -> Iterator[Estimate]:
    """Observed against predicted risk in groups; in the patients the model was fitted in."""
    found = markers.of(_source_of(base, plan))
    risk, days, event = _risk(base, found), found.data.days, found.data.event
    apparent = "Kaplan-Meier; apparent, in the patients of the fit"
    groups = calibration_groups(
        risk, days, event, plan.horizon_days, plan.calibration_groups, plan.confidence
    )
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
            method=_with_reason(apparent, group.reason),
        )
    base = found.counted(base)
    ratio = observed_expected(risk, days, event, plan.horizon_days, plan.confidence)
    yield replace(
        base,
        statistic="observed_expected",
        value=ratio.value,
        ci_low=ratio.ci_low,
        ci_high=ratio.ci_high,
        method=_with_reason(apparent, ratio.reason),
    )
    brier = brier_score(risk, days, event, plan.horizon_days, plan.confidence)
    told = _with_reason("weighted for censoring", brier.reason)
    yield replace(
        base,
        statistic="brier",
        value=brier.value,
        ci_low=brier.ci_low,
        ci_high=brier.ci_high,
        method=told,
    )
    yield replace(base, statistic="brier_scaled", value=brier.scaled, method=told)


def _decision_curve(base: Estimate, plan: Plan, markers: _Markers) -> Iterator[Estimate]:
    """Net benefit over thresholds; with the base model also of treating all and none."""
    found = markers.of(_source_of(base, plan))
    base = found.counted(base)
    curve = net_benefit(
        _risk(base, found), found.data.days, found.data.event, plan.horizon_days, plan.thresholds
    )
    lines = [(str(base.model), curve.model)]
    if base.model == "base":
        lines += [("all", curve.treat_all), ("none", curve.treat_none)]
    for name, values in lines:
        for at, threshold in enumerate(curve.thresholds):
            yield replace(
                base,
                model=name,
                at=float(threshold),
                value=float(values[at]),
                method=_with_reason(
                    "net benefit with censoring (Vickers 2008)",
                    curve.reasons[at] if name == base.model else "",
                ),
            )


def _with_reason(method: str, reason: str) -> str:
    return f"{method}; not estimable: {reason}" if reason else method
