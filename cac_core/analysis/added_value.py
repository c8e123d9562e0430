"""What calcium adds to the model of covariates: Figure 5 and Supplemental Table 6 of the paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.stats import chi2

from cac_core.analysis.estimate import Estimate, Question, guarded, not_estimable
from cac_core.analysis.marker_models import MarkerModels, MeasuredMarkers
from cac_core.analysis.plan import Plan
from cac_core.errors import NotEstimableError
from cac_core.stats.bootstrap import CORRECTED, FIXED, METRICS, corrected, percentile_interval
from cac_core.stats.discrimination import auc, auc_difference
from cac_core.stats.reclassification import moves

#: Methods of the forms of net reclassification, by the ending of the statistic's name.
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
_DELONG = "DeLong, outcome over all follow-up, blind to censoring"


def added_value(question: Question, outcome: str, models: MarkerModels) -> Iterator[Estimate]:
    """Gains in fit, discrimination and reclassification by each source, and their differences."""
    plan = question.plan
    for name in plan.sources:
        base = question.base("added_value", "lr_chi2_gain", outcome, name)
        yield from guarded(base, partial(_gains, base, plan, name, models))
    for first, second in plan.compare:
        base = question.base("added_value_difference", "nri", outcome, f"{first}:{second}")
        yield from guarded(base, partial(_differences, base, plan, first, second, models))


def _gains(base: Estimate, plan: Plan, name: str, models: MarkerModels) -> Iterator[Estimate]:
    found = models.of(name)
    base = found.counted(base)
    yield _likelihood_ratio(base, name, found)
    yield from _auc_rows(base, plan, name, found)
    yield from _resampled_rows(base, plan, name, found)
    yield from _corrected_rows(base, plan, name, found)
    for metric, value in found.measures(name).items():
        if metric.startswith("p_"):
            yield replace(base, statistic=metric, value=value, method=_FORMS[""])
    up, down = moves(found.fits.base_risk, found.fits.full_risk[name])
    for statistic, moved in (("n_up", up), ("n_down", down)):
        yield replace(
            base,
            statistic=statistic,
            value=float(moved.sum()),
            n_events=int((moved & found.data.event).sum()),
            method="patients whose risk rises, or falls, with the marker",
        )


def _likelihood_ratio(base: Estimate, name: str, found: MeasuredMarkers) -> Estimate:
    gain, df = found.measures(name)["lr_chi2_gain"], found.degrees[name]
    if df < 1:
        raise NotEstimableError("every patient has the same category")
    dropped = "".join(f"; without {term}: {why}" for term, why in found.left_out.items())
    return replace(
        base,
        value=gain,
        p_value=float(chi2.sf(max(gain, 0.0), df)),
        method=f"likelihood ratio of the models with and without, df {df}{dropped}",
    )


def _auc_rows(base: Estimate, plan: Plan, name: str, found: MeasuredMarkers) -> Iterator[Estimate]:
    """AUC of the outcome over all follow-up, as in the paper."""
    event, old, new = found.data.event, found.fits.base_risk, found.fits.full_risk[name]
    for statistic, risk in (("auc_base", old), ("auc_full", new)):
        area = auc(risk, event, plan.confidence)
        yield base.estimated(area, statistic=statistic, method=_DELONG)
    yield base.estimated(
        auc_difference(new, old, event, plan.confidence),
        statistic="auc_gain",
        method=f"{_DELONG}; no test: the models are nested, see lr_chi2_gain",
    )


def _resampled_rows(
    base: Estimate, plan: Plan, name: str, found: MeasuredMarkers
) -> Iterator[Estimate]:
    """Discrimination, net reclassification and IDI, with percentile intervals."""
    values = found.measures(name)
    metrics = [
        (f"{statistic}_{part}", method)
        for statistic, method in _DISCRIMINATION.items()
        for part in ("base", "full", "gain")
    ]
    metrics += [
        (f"nri_{part}{form}", _cut_at(plan, method) if form == "_categorical" else method)
        for form, method in _FORMS.items()
        for part in ("event", "nonevent", "overall")
    ]
    metrics += [(fixed, f"{_FORMS['']}; risks kept as they are in all patients") for fixed in FIXED]
    metrics.append(("idi", "by the outcome over all follow-up"))
    for metric, method in metrics:
        value = values[metric.removesuffix("_fixed")]
        row = replace(base, statistic=_statistic(metric), value=value)
        if not np.isfinite(value):
            yield not_estimable(row, "nobody with the event by the horizon, or nobody without it")
            continue
        drawn = found.resamples.of(name, metric)
        low, high, usable = percentile_interval(drawn, plan.confidence)
        method = f"{method}; {_resampling(plan, usable)}"
        yield replace(row, ci_low=low, ci_high=high, method=method)


def _corrected_rows(
    base: Estimate, plan: Plan, name: str, found: MeasuredMarkers
) -> Iterator[Estimate]:
    """Apparent values less their optimism, if the plan asks for it."""
    if not plan.optimism:
        return
    values = found.measures(name)
    for metric in CORRECTED:
        optimism = found.resamples.of(name, f"{metric}_optimism")
        value, usable = corrected(values[metric], optimism)
        yield replace(
            base,
            statistic=f"{_statistic(metric)}_corrected",
            value=value,
            method=f"apparent value less its optimism, the mean over {plan.resamples} resamples"
            f"{_usable(plan, usable)} of the models' value there less theirs in all patients "
            "(Harrell 1996)",
        )


def _differences(
    base: Estimate, plan: Plan, first: str, second: str, models: MarkerModels
) -> Iterator[Estimate]:
    """First less second, in the same patients and the same resamples."""
    found = models.of(first, second)
    base = found.counted(base)
    for at, metric in enumerate(METRICS):
        if metric.endswith("_base") or metric.startswith("p_"):
            continue
        drawn = found.resamples.of(first, metric) - found.resamples.of(second, metric)
        low, high, usable = percentile_interval(drawn, plan.confidence)
        yield replace(
            base,
            statistic=_statistic(metric),
            value=float(found.values[first][at] - found.values[second][at]),
            ci_low=low,
            ci_high=high,
            method=f"first less second, paired; {_resampling(plan, usable)}",
        )


def _statistic(metric: str) -> str:
    """Name of a metric of the bootstrap in the table `estimates`."""
    return metric.replace("nri_overall", "nri")


def _cut_at(plan: Plan, method: str) -> str:
    return f"{method} cut at {', '.join(f'{100 * cut:g} %' for cut in plan.risk_cuts)}"


def _resampling(plan: Plan, usable: int) -> str:
    if not plan.resamples:
        return f"{plan.horizon_years:g} years; no resamples, no interval"
    return (
        f"{plan.horizon_years:g} years; percentiles of {plan.resamples} resamples of patients"
        f"{_usable(plan, usable)}, refitted, seed {plan.seed}"
    )


def _usable(plan: Plan, usable: int) -> str:
    return "" if usable == plan.resamples else f" ({usable} usable)"
