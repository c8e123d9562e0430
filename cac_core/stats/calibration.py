"""Calibration and clinical usefulness of predicted risks at a horizon, under right censoring.

Risks are probabilities of the event by the horizon (conventions: `cac_core.stats.censoring`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats, Ints
from cac_core.stats.censoring import (
    RiskFollowUp,
    censoring_influence,
    checked_horizon,
    checked_values,
    in_time_order,
    inverse_censoring_weights,
    survival_at,
)
from cac_core.stats.compiled import compiled
from cac_core.stats.intervals import normal_interval, z_score

_TOO_SHORT = "follow-up ends before the horizon"


@dataclass(frozen=True, slots=True)
class ObservedRisk:
    """Mean predicted risk of some patients and their Kaplan-Meier risk at the horizon.

    `n_events` counts events by the horizon. `reason` says why the observed risk, or its interval
    alone, is NaN; it is empty otherwise.
    """

    predicted: float
    observed: float
    ci_low: float
    ci_high: float
    n: int
    n_events: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ObservedExpected:
    """Observed over expected events at the horizon: 1 is perfect, above 1 predictions are too low.

    `reason` says why the observed risk, or its interval alone, is NaN; it is empty otherwise.
    """

    value: float
    ci_low: float
    ci_high: float
    n: int
    n_events: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BrierScore:
    """Brier score at the horizon, 0 is perfect, with its normal interval.

    `reference` is the score of giving every patient the Kaplan-Meier risk of all, and `scaled` is
    1 - value / reference (index of prediction accuracy; 1 is perfect, 0 is no better than that).
    `reason` says why `scaled` is NaN; it is empty otherwise.
    """

    value: float
    standard_error: float
    ci_low: float
    ci_high: float
    reference: float
    scaled: float
    n: int
    n_events: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DecisionCurve:
    """Net benefit at each threshold, shape (t,): by the model, treating all, treating none.

    `n_flagged` counts patients whose risk reaches the threshold; `reasons` says per threshold why
    the model's net benefit is NaN, empty otherwise. Treating all is NaN throughout if follow-up of
    all patients ends before the horizon.
    """

    thresholds: Floats
    model: Floats
    treat_all: Floats
    treat_none: Floats
    n_flagged: Ints
    n: int
    n_events: int
    reasons: tuple[str, ...]


def calibration_groups(
    risk: ArrayLike,
    days: ArrayLike,
    event: ArrayLike,
    horizon_days: float,
    groups: int = 10,
    confidence: float = 0.95,
) -> tuple[ObservedRisk, ...]:
    """Mean predicted against observed risk at the horizon, in groups of ascending risk.

    Groups are cut at the quantiles k / groups of predicted risk (linear interpolation; a risk at
    a cut belongs below), so ties may leave fewer groups. Observed is 1 - Kaplan-Meier, with the
    log-log interval from Greenwood's variance; NaN if follow-up of the group ends before the
    horizon, without interval if there is no event or no survivor.

    Parameters
    ----------
    risk : shape (n,), predicted risk of the event by the horizon, 0 to 1.
    days, event : shape (n,).

    Raises
    ------
    ValueError
        As `cac_core.stats.censoring.in_time_order`; if a risk lies outside 0 to 1, the horizon is
        not greater than 0 or `groups` is below 1.
    """
    if groups < 1:
        raise ValueError(f"at least one group is needed, not {groups}")
    data, horizon = _checked(risk, days, event, horizon_days)
    if data.days.size == 0:
        return ()
    cuts = np.quantile(data.risk, np.arange(1, groups) / groups)
    group = np.searchsorted(cuts, data.risk, "left")
    return tuple(_observed(data, group == label, horizon, confidence) for label in np.unique(group))


def observed_expected(
    risk: ArrayLike,
    days: ArrayLike,
    event: ArrayLike,
    horizon_days: float,
    confidence: float = 0.95,
) -> ObservedExpected:
    """Calibration-in-the-large: Kaplan-Meier risk at the horizon over mean predicted risk.

    The interval is the log-log interval of the Kaplan-Meier risk over the same mean: predictions
    are treated as fixed.

    Parameters
    ----------
    risk, days, event : shape (n,), risk as in `calibration_groups`.

    Raises
    ------
    ValueError
        As `calibration_groups`.
    NotEstimableError
        If there are no patients, or every predicted risk is 0.
    """
    data, horizon = _checked(risk, days, event, horizon_days)
    n = data.days.size
    if n == 0:
        raise NotEstimableError("no patients")
    whole = _observed(data, np.ones(n, np.bool_), horizon, confidence)
    if whole.predicted == 0:
        raise NotEstimableError("every predicted risk is 0")
    value, low, high = (
        np.array([whole.observed, whole.ci_low, whole.ci_high]) / whole.predicted
    ).tolist()
    return ObservedExpected(value, low, high, n, whole.n_events, whole.reason)


def brier_score(
    risk: ArrayLike,
    days: ArrayLike,
    event: ArrayLike,
    horizon_days: float,
    confidence: float = 0.95,
) -> BrierScore:
    """Mean squared error of predicted risk at the horizon, weighted for censoring.

    Mean over all patients of (1 - risk)^2 / G(T-) with an event by the horizon, of
    risk^2 / G(horizon) when followed past it, and of 0 when censored before (Graf, Stat Med
    1999;18:2529). The standard error is that of the influence function with G estimated. As
    `riskRegression::Score`.

    Parameters
    ----------
    risk, days, event : shape (n,), risk as in `calibration_groups`.

    Raises
    ------
    ValueError
        As `calibration_groups`.
    NotEstimableError
        If there are fewer than two patients, or none is followed past the horizon.
    """
    data, horizon = _checked(risk, days, event, horizon_days)
    n, n_events = data.days.size, int((data.event & (data.days <= horizon)).sum())
    if n < 2:
        raise NotEstimableError("fewer than two patients")
    survival, _, _ = survival_at(data.days, data.event, np.ones(n, np.bool_), horizon)
    if survival != 0 and data.days[-1] <= horizon:
        raise NotEstimableError("no patient followed past the horizon")
    value, influence = _brier_influence(data.risk, data.days, data.event, horizon)
    error = float(influence.std(ddof=1) / np.sqrt(n))
    low, high = normal_interval(value, error, confidence, lowest=0.0)
    reference, _ = _brier_influence(np.full(n, 1 - survival), data.days, data.event, horizon)
    scaled, reason = np.nan, "nothing to explain: everyone or no one has the event"
    if reference > 0:
        scaled, reason = 1 - value / reference, ""
    return BrierScore(value, error, low, high, reference, scaled, n, n_events, reason)


def net_benefit(
    risk: ArrayLike, days: ArrayLike, event: ArrayLike, horizon_days: float, thresholds: ArrayLike
) -> DecisionCurve:
    """Decision curve: net benefit of treating those whose risk reaches a threshold.

    With F the share flagged (risk >= p) and R their Kaplan-Meier risk at the horizon, net benefit
    is F R - F (1 - R) p / (1 - p): true positives less false positives at the exchange rate of
    the threshold, per patient (Vickers, BMC Med Inform Decis Mak 2008;8:53). Greater is better;
    treating none and flagging none give 0.

    Parameters
    ----------
    risk, days, event : shape (n,), risk as in `calibration_groups`.
    thresholds : shape (t,), greater than or equal to 0 and below 1.

    Raises
    ------
    ValueError
        As `calibration_groups`; if a threshold is missing or outside its range.
    NotEstimableError
        If there are no patients.
    """
    levels = np.ascontiguousarray(thresholds, np.float64)
    if levels.ndim != 1 or not ((levels >= 0) & (levels < 1)).all():
        raise ValueError("thresholds must be one-dimensional, from 0 to below 1")
    data, horizon = _checked(risk, days, event, horizon_days)
    n, n_events = data.days.size, int((data.event & (data.days <= horizon)).sum())
    flagged = n - np.searchsorted(np.sort(data.risk), levels, "left")
    if n == 0:
        raise NotEstimableError("no patients")
    model = _net_benefit(data.risk, data.days, data.event, horizon, levels)
    survival, _, _ = survival_at(data.days, data.event, np.ones(n, np.bool_), horizon)
    treat_all = (1 - survival) - survival * levels / (1 - levels)
    reasons = tuple(_TOO_SHORT if missing else "" for missing in np.isnan(model))
    return DecisionCurve(
        levels, model, treat_all, np.zeros(levels.size), flagged, n, n_events, reasons
    )


def _checked(
    risk: ArrayLike, days: ArrayLike, event: ArrayLike, horizon_days: float
) -> tuple[RiskFollowUp, float]:
    values = checked_values("risk", risk)
    outside = int(((values < 0) | (values > 1)).sum())
    if outside:
        raise ValueError(f"risk lies outside 0 to 1 in {outside} of {values.size} patients")
    return in_time_order(values, days, event), checked_horizon(horizon_days)


def _observed(
    data: RiskFollowUp, member: Bools, horizon_days: float, confidence: float
) -> ObservedRisk:
    n, predicted = int(member.sum()), float(data.risk[member].mean())
    survival, greenwood, events = survival_at(data.days, data.event, member, horizon_days)
    if np.isnan(survival):
        return ObservedRisk(predicted, np.nan, np.nan, np.nan, n, events, _TOO_SHORT)
    if survival == 1 or survival == 0:
        reason = "no interval: " + ("no event by the horizon" if survival else "no survivor")
        return ObservedRisk(predicted, 1 - survival, np.nan, np.nan, n, events, reason)
    half = z_score(confidence) * np.sqrt(greenwood) / abs(np.log(survival))
    low, high = 1 - survival ** np.exp(-half), 1 - survival ** np.exp(half)
    return ObservedRisk(predicted, 1 - survival, float(low), float(high), n, events)


@compiled
def _brier_influence(
    risk: Floats, days: Floats, event: Bools, horizon_days: float
) -> tuple[float, Floats]:
    """Brier score and the influence of each patient on it; patients in the order of time."""
    status = (event & (days <= horizon_days)).astype(np.float64)
    errors = (status - risk) ** 2 * inverse_censoring_weights(days, event, horizon_days)
    value = errors.mean()
    influence = errors - value + censoring_influence(days, event, horizon_days, errors)
    return value, influence


@compiled
def _net_benefit(
    risk: Floats, days: Floats, event: Bools, horizon_days: float, thresholds: Floats
) -> Floats:
    """Net benefit of the model at each threshold; patients in the order of time."""
    benefit = np.zeros(thresholds.size)
    for k in range(thresholds.size):
        flagged = risk >= thresholds[k]
        share = flagged.sum() / max(risk.size, 1)
        if share > 0.0:
            survival, _, _ = survival_at(days, event, flagged, horizon_days)
            rate = thresholds[k] / (1.0 - thresholds[k])
            benefit[k] = share * (1.0 - survival) - share * survival * rate
    return benefit
