"""Calibration and usefulness of predicted risks at a horizon, under right censoring.

Risks are probabilities of the event by the horizon. Wrong input raises `ValueError`; what cannot
be estimated is NaN with a reason (`cac_core.stats.censoring`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from cac_core.stats.censoring import (
    Flags,
    Floats,
    FollowUp,
    _censoring_influence,
    _inverse_weights,
    _survival_at,
    checked_horizon,
    checked_values,
    follow_up,
)
from cac_core.stats.compiled import compiled

_TOO_SHORT = "follow-up ends before the horizon"


@dataclass(frozen=True, slots=True)
class ObservedRisk:
    """Mean predicted risk of some patients and their Kaplan-Meier risk at the horizon.

    `n_events` counts events by the horizon. `reason` says why the observed risk, or its interval
    alone, is NaN; it is empty where nothing is.
    """

    predicted: float
    observed: float
    ci_low: float
    ci_high: float
    n: int
    n_events: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Observed over expected events at the horizon; 1 is perfect, above 1 too low predictions."""

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
    the model's net benefit is NaN, empty where it is not. Treating all is NaN throughout where
    follow-up of all ends before the horizon.
    """

    thresholds: Floats
    model: Floats
    treat_all: Floats
    treat_none: Floats
    n_flagged: NDArray[np.int64]
    n: int
    n_events: int
    reasons: tuple[str, ...]


def calibration_groups(
    risk: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    horizon: float,
    groups: int = 10,
    confidence: float = 0.95,
) -> tuple[ObservedRisk, ...]:
    """Mean predicted against observed risk at the horizon, in groups of ascending risk.

    Groups are cut at the quantiles k / groups of predicted risk (linear interpolation; a risk at
    a cut belongs below), so ties may leave fewer groups. Observed is 1 - Kaplan-Meier, with the
    log-log interval from Greenwood's variance; NaN where follow-up of the group ends too early,
    and no interval where no event or no survivor is left.

    Parameters
    ----------
    risk : shape (n,), predicted risk of the event by the horizon, 0 to 1.
    time, event : shape (n,).

    Raises
    ------
    ValueError
        As `follow_up`; if a risk lies outside 0 to 1, the horizon is not greater than 0 or there
        are fewer than one group.
    """
    if groups < 1:
        raise ValueError(f"at least one group is needed, not {groups}")
    data, horizon = _checked(risk, time, event, horizon)
    if data.time.size == 0:
        return ()
    cuts = np.quantile(data.risk, np.arange(1, groups) / groups)
    group = np.searchsorted(cuts, data.risk, "left")
    return tuple(_observed(data, group == label, horizon, confidence) for label in np.unique(group))


def observed_expected(
    risk: ArrayLike, time: ArrayLike, event: ArrayLike, horizon: float, confidence: float = 0.95
) -> Ratio:
    """Kaplan-Meier risk at the horizon divided by the mean predicted risk (calibration in large).

    The interval is the log-log interval of the Kaplan-Meier risk over the same mean: predictions
    count as fixed.

    Parameters
    ----------
    risk, time, event : shape (n,), risk as in `calibration_groups`.

    Raises
    ------
    ValueError
        As `calibration_groups`.
    """
    data, horizon = _checked(risk, time, event, horizon)
    n = data.time.size
    if n == 0:
        return Ratio(np.nan, np.nan, np.nan, 0, 0, "no patients")
    all_of_them = _observed(data, np.ones(n, np.bool_), horizon, confidence)
    if all_of_them.predicted == 0:
        reason = "every predicted risk is 0"
        return Ratio(np.nan, np.nan, np.nan, n, all_of_them.n_events, reason)
    value, low, high = (
        np.array([all_of_them.observed, all_of_them.ci_low, all_of_them.ci_high])
        / all_of_them.predicted
    ).tolist()
    return Ratio(value, low, high, n, all_of_them.n_events, all_of_them.reason)


def brier_score(
    risk: ArrayLike, time: ArrayLike, event: ArrayLike, horizon: float, confidence: float = 0.95
) -> BrierScore:
    """Mean squared error of predicted risk at the horizon, weighted for censoring.

    Mean over all patients of (1 - risk)^2 / G(T-) with an event by the horizon, of
    risk^2 / G(horizon) when followed past it, and of 0 when censored before (Graf, Stat Med
    1999;18:2529). The standard error is that of the influence function with G estimated. As
    `riskRegression::Score`.

    Parameters
    ----------
    risk, time, event : shape (n,), risk as in `calibration_groups`.

    Raises
    ------
    ValueError
        As `calibration_groups`.
    """
    data, horizon = _checked(risk, time, event, horizon)
    n, n_events = data.time.size, int((data.event & (data.time <= horizon)).sum())
    if n < 2:
        return BrierScore(*(np.nan,) * 6, n, n_events, "fewer than two patients")
    survival, _, _ = _survival_at(data.time, data.event, np.ones(n, np.bool_), horizon)
    if survival != 0 and data.time[-1] <= horizon:
        return BrierScore(*(np.nan,) * 6, n, n_events, "no patient followed past the horizon")
    value, influence = _brier_influence(data.risk, data.time, data.event, horizon)
    error = float(influence.std(ddof=1) / np.sqrt(n))
    half = float(norm.ppf(0.5 + confidence / 2)) * error
    reference = _brier(np.full(n, 1 - survival), data.time, data.event, horizon)
    scaled, reason = np.nan, "nothing to explain: everyone or no one has the event"
    if reference > 0:
        scaled, reason = 1 - value / reference, ""
    return BrierScore(
        value, error, max(value - half, 0.0), value + half, reference, scaled, n, n_events, reason
    )


def net_benefit(
    risk: ArrayLike, time: ArrayLike, event: ArrayLike, horizon: float, thresholds: ArrayLike
) -> DecisionCurve:
    """Decision curve: net benefit of treating those whose risk reaches a threshold.

    With F the share flagged (risk >= p) and R their Kaplan-Meier risk at the horizon, net benefit
    is F R - F (1 - R) p / (1 - p): true positives less false positives at the exchange rate of
    the threshold, per patient (Vickers, BMC Med Inform Decis Mak 2008;8:53). Greater is better;
    treating none gives 0, and flagging no one does too.

    Parameters
    ----------
    risk, time, event : shape (n,), risk as in `calibration_groups`.
    thresholds : shape (t,), greater than or equal to 0 and below 1.

    Raises
    ------
    ValueError
        As `calibration_groups`; if a threshold is missing or outside its range.
    """
    levels = np.ascontiguousarray(thresholds, np.float64)
    if levels.ndim != 1 or not ((levels >= 0) & (levels < 1)).all():
        raise ValueError("thresholds must be one-dimensional, from 0 to below 1")
    data, horizon = _checked(risk, time, event, horizon)
    n, n_events = data.time.size, int((data.event & (data.time <= horizon)).sum())
    flagged = n - np.searchsorted(np.sort(data.risk), levels, "left")
    if n == 0:
        empty = np.full(levels.size, np.nan)
        reasons = ("no patients",) * levels.size
        return DecisionCurve(levels, empty, empty, empty, flagged, 0, 0, reasons)
    model = _net_benefit(data.risk, data.time, data.event, horizon, levels)
    survival, _, _ = _survival_at(data.time, data.event, np.ones(n, np.bool_), horizon)
    treat_all = (1 - survival) - survival * levels / (1 - levels)
    reasons = tuple(_TOO_SHORT if missing else "" for missing in np.isnan(model))
    return DecisionCurve(
        levels, model, treat_all, np.zeros(levels.size), flagged, n, n_events, reasons
    )


def _checked(
    risk: ArrayLike, time: ArrayLike, event: ArrayLike, horizon: float
) -> tuple[FollowUp, float]:
    values = checked_values("risk", risk)
    outside = int(((values < 0) | (values > 1)).sum())
    if outside:
        raise ValueError(f"risk lies outside 0 to 1 in {outside} of {values.size} patients")
    return follow_up(values, time, event), checked_horizon("horizon", horizon)


def _observed(data: FollowUp, member: Flags, horizon: float, confidence: float) -> ObservedRisk:
    n, predicted = int(member.sum()), float(data.risk[member].mean())
    survival, greenwood, events = _survival_at(data.time, data.event, member, horizon)
    if np.isnan(survival):
        return ObservedRisk(predicted, np.nan, np.nan, np.nan, n, events, _TOO_SHORT)
    if survival == 1 or survival == 0:
        reason = "no interval: " + ("no event by the horizon" if survival else "no survivor")
        return ObservedRisk(predicted, 1 - survival, np.nan, np.nan, n, events, reason)
    half = float(norm.ppf(0.5 + confidence / 2)) * np.sqrt(greenwood) / abs(np.log(survival))
    low, high = 1 - survival ** np.exp(-half), 1 - survival ** np.exp(half)
    return ObservedRisk(predicted, 1 - survival, float(low), float(high), n, events)


@compiled
def _squared_errors(risk: Floats, time: Floats, event: Flags, horizon: float) -> Floats:
    """Squared error of each patient, weighted for censoring; patients in the order of time."""
    status = (event & (time <= horizon)).astype(np.float64)
    return (status - risk) ** 2 * _inverse_weights(time, event, horizon)


@compiled
def _brier(risk: Floats, time: Floats, event: Flags, horizon: float) -> float:
    """`brier_score` without interval; patients in the order of time."""
    return float(_squared_errors(risk, time, event, horizon).mean())


@compiled
def _brier_influence(
    risk: Floats, time: Floats, event: Flags, horizon: float
) -> tuple[float, Floats]:
    """Brier score and the influence of each patient on it."""
    errors = _squared_errors(risk, time, event, horizon)
    value = errors.mean()
    return value, errors - value + _censoring_influence(time, event, horizon, errors)


@compiled
def _net_benefit(
    risk: Floats, time: Floats, event: Flags, horizon: float, thresholds: Floats
) -> Floats:
    """Net benefit of the model at each threshold; patients in the order of time."""
    benefit = np.zeros(thresholds.size)
    for k in range(thresholds.size):
        flagged = risk >= thresholds[k]
        share = flagged.sum() / max(risk.size, 1)
        if share > 0.0:
            survival, _, _ = _survival_at(time, event, flagged, horizon)
            rate = thresholds[k] / (1.0 - thresholds[k])
            benefit[k] = share * (1.0 - survival) - share * survival * rate
    return benefit
