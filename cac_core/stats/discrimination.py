"""Discrimination: AUC, AUC at a horizon, and concordance under censoring.

A greater marker or risk goes with the event (for concordance: with the earlier event), and chance
gives 0.5. `auc`, `auc_difference` and `harrell_c` check input and give intervals; the compiled
`*_estimate` give the value alone, for resamples (conventions: `cac_core.stats.censoring`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.censoring import (
    censoring_survival,
    checked_event,
    checked_values,
    in_time_order,
    inverse_censoring_weights,
)
from cac_core.stats.compiled import compiled
from cac_core.stats.intervals import normal_interval, wald_p
from cac_core.stats.pairs import concordance_index, concordance_pairs

_NO_SPREAD = "no interval: the estimated standard error is 0"
_SINGLE = "no interval: a single patient with or without event"
#: Why there is no AUC, by whether there are patients, and patients with the event.
_WITHOUT = {
    (False, False): "no patients",
    (True, False): "no events",
    (True, True): "no patients without event",
}


@dataclass(frozen=True, slots=True)
class Discrimination:
    """An AUC or a concordance with its standard error and normal interval within 0 and 1.

    `reason` says why the interval is NaN; it is empty otherwise.
    """

    value: float
    standard_error: float
    ci_low: float
    ci_high: float
    n: int
    n_events: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeLong:
    """AUCs of several markers of the same patients, shape (k,), and their covariance (k, k).

    The covariance is NaN with fewer than two events or non-events.
    """

    auc: Floats
    covariance: Floats
    n: int
    n_events: int


@dataclass(frozen=True, slots=True)
class AucDifference:
    """First minus second, with the normal interval and two-sided p value.

    `reason` says why interval and p value are NaN; it is empty otherwise.
    """

    value: float
    standard_error: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    n_events: int
    reason: str = ""


def delong(markers: ArrayLike, event: ArrayLike) -> DeLong:
    """AUCs of one or more markers and their covariance.

    With V10 the share of non-events below each event and V01 the share of events above each
    non-event, ties one half, the AUC is the mean of V10 and the covariance cov(V10) / events +
    cov(V01) / non-events (DeLong, Biometrics 1988;44:837). Equals `pROC`.

    Parameters
    ----------
    markers : shape (k, n), one row a marker.
    event : shape (n,), 0 or 1.

    Raises
    ------
    ValueError
        If a marker is missing or infinite, lengths differ, or a code is neither 0 nor 1.
    NotEstimableError
        If there are no events, or only events.
    """
    rows = np.atleast_2d(np.asarray(markers, np.float64))
    if rows.ndim != 2:
        raise ValueError(f"markers must have two dimensions, not {rows.ndim}")
    rows = np.stack([checked_values("marker", row) for row in rows])
    k, n = rows.shape
    events = checked_event(event, n)
    cases = int(events.sum())
    controls = n - cases
    if cases == 0 or controls == 0:
        raise NotEstimableError(_WITHOUT[n > 0, cases > 0])
    case = events.astype(np.float64)
    placements = np.stack([_placements(row, case, 1.0 - case) for row in rows])
    # Contiguous, so that the sums of a marker do not depend on how many markers there are.
    above = np.ascontiguousarray(placements[:, events]) / controls
    below = 1 - np.ascontiguousarray(placements[:, ~events]) / cases
    area = above.mean(axis=1)
    if cases < 2 or controls < 2:
        return DeLong(area, np.full((k, k), np.nan), n, cases)
    covariance = np.atleast_2d(np.cov(above)) / cases + np.atleast_2d(np.cov(below)) / controls
    return DeLong(area, covariance, n, cases)


def auc(marker: ArrayLike, event: ArrayLike, confidence: float = 0.95) -> Discrimination:
    """Area under the ROC curve, ties counting one half, with DeLong's interval (see `delong`).

    Parameters
    ----------
    marker, event : shape (n,); a greater marker goes with the event (1).

    Raises
    ------
    ValueError
        As `delong`.
    """
    found = delong(np.asarray(marker, np.float64)[np.newaxis], event)
    error = float(np.sqrt(found.covariance[0, 0]))
    return _bounded(float(found.auc[0]), error, found.n, found.n_events, confidence)


def auc_difference(
    first: ArrayLike, second: ArrayLike, event: ArrayLike, confidence: float = 0.95
) -> AucDifference:
    """Difference of two AUCs of the same patients, with DeLong's paired interval and test.

    For a marker added to a model (nested models) the interval may be shown but the p value is not
    valid (Demler, Stat Med 2012;31:2577): test those by the likelihood ratio.

    Parameters
    ----------
    first, second, event : shape (n,).

    Raises
    ------
    ValueError
        As `delong`.
    """
    one, two = checked_values("marker", first), checked_values("marker", second)
    if one.size != two.size:
        raise ValueError(f"the markers have {one.size} and {two.size} values")
    both = delong(np.stack([one, two]), event)
    value = float(both.auc[0] - both.auc[1])
    spread = both.covariance
    # Rounding leaves some 1e-19 where both order the patients alike.
    error = float(np.sqrt(max(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1], 0.0)))
    if not error > 1e-9:
        reason = _no_interval(error)
        return AucDifference(value, error, np.nan, np.nan, np.nan, both.n, both.n_events, reason)
    low, high = normal_interval(value, error, confidence)
    return AucDifference(value, error, low, high, wald_p(value, error), both.n, both.n_events)


def harrell_c(
    risk: ArrayLike, days: ArrayLike, event: ArrayLike, confidence: float = 0.95
) -> Discrimination:
    """Harrell's concordance index, as `survival::concordance` in R (reverse=TRUE).

    Of the pairs in which one patient's event is known to come first, the share in which this
    patient has the greater risk, equal risks counting one half (Harrell, JAMA 1982;247:2543).
    A patient censored at the time of an event outlives it; two events at one time are no pair.
    Times are compared exactly. The standard error is the infinitesimal jackknife.

    Parameters
    ----------
    risk, days, event : shape (n,).

    Raises
    ------
    ValueError
        As `cac_core.stats.censoring.in_time_order`.
    NotEstimableError
        If there are no events or no comparable pair.
    """
    data = in_time_order(risk, days, event)
    n, n_events = data.days.size, int(data.event.sum())
    value = harrell_estimate(*data)
    if np.isnan(value):
        raise NotEstimableError("no comparable pair" if n_events else "no events")
    pairs = concordance_pairs(*data, data.event.astype(np.float64))
    influence = pairs[:, 0] + pairs[:, 2] / 2 - value * pairs.sum(axis=1)
    error = float(np.sqrt((influence**2).sum()) / (pairs.sum(axis=0) / 2).sum())
    return _bounded(value, error, n, n_events, confidence)


def _no_interval(error: float) -> str:
    return _SINGLE if np.isnan(error) else _NO_SPREAD


def _bounded(
    value: float, error: float, n: int, n_events: int, confidence: float
) -> Discrimination:
    """Normal interval within 0 and 1; none if the standard error is 0 up to rounding."""
    if not error > 1e-9:
        return Discrimination(value, error, np.nan, np.nan, n, n_events, _no_interval(error))
    low, high = normal_interval(value, error, confidence, 0.0, 1.0)
    return Discrimination(value, error, low, high, n, n_events)


@compiled
def auc_estimate(marker: Floats, event: Bools) -> float:
    """Area under the ROC curve, ties counting one half; NaN without events or non-events.

    Parameters
    ----------
    marker, event : shape (n,), patients in any order.
    """
    case = event.astype(np.float64)
    return _weighted_auc(marker, case, 1.0 - case)


@compiled
def auc_at_estimate(risk: Floats, days: Floats, event: Bools, horizon_days: float) -> float:
    """Cumulative/dynamic AUC at the horizon, weighted for censoring.

    P(risk of a patient with the event by the horizon > risk of one event-free past it), equal
    risks counting one half; events weighted by 1 / G(T-), event-free patients alike, patients
    censored by the horizon by 0 (Uno, J Am Stat Assoc 2007;102:527; Hung and Chiang, Can J Stat
    2010;38:8). As `riskRegression::Score` with a marginal censoring model. NaN without an event by
    the horizon or without a patient followed past it.

    Parameters
    ----------
    risk, days, event : shape (n,), patients in the order of time.
    """
    weight = inverse_censoring_weights(days, event, horizon_days)
    control = (days > horizon_days).astype(np.float64)
    return _weighted_auc(risk, weight * (1.0 - control), control)


@compiled
def harrell_estimate(risk: Floats, days: Floats, event: Bools) -> float:
    """The value of `harrell_c`; NaN without a comparable pair.

    Parameters
    ----------
    risk, days, event : shape (n,), patients in the order of time.
    """
    return concordance_index(risk, days, event, event.astype(np.float64))


@compiled
def uno_estimate(risk: Floats, days: Floats, event: Bools, horizon_days: float) -> float:
    """Uno's concordance up to the horizon, as `survival::concordance` with timewt="n/G2".

    Harrell's pairs whose event comes at the horizon or before, each weighted by 1 / G(T-)^2 with G
    the probability of being uncensored, so that the limit does not depend on the censoring (Uno,
    Stat Med 2011;30:1105). NaN without such a pair.

    Parameters
    ----------
    risk, days, event : shape (n,), patients in the order of time.
    """
    before, _ = censoring_survival(days, event)
    weight = np.zeros(days.size)
    for i in range(days.size):
        if event[i] and days[i] <= horizon_days:
            weight[i] = 1.0 / before[i] ** 2
    return concordance_index(risk, days, event, weight)


@compiled
def _placements(marker: Floats, case: Floats, control: Floats) -> Floats:
    """Weight of the controls below each case, and of the cases below each control; ties one half.

    `case` and `control` are weights, of which at least one is 0 in each patient.
    """
    n = marker.size
    order = np.argsort(marker)
    placements = np.zeros(n)
    cases_below, controls_below = 0.0, 0.0
    start = 0
    while start < n:
        stop, cases, controls = start, 0.0, 0.0
        while stop < n and marker[order[stop]] == marker[order[start]]:
            cases += case[order[stop]]
            controls += control[order[stop]]
            stop += 1
        for i in range(start, stop):
            at = order[i]
            if case[at] > 0.0:
                placements[at] = controls_below + 0.5 * controls
            else:
                placements[at] = cases_below + 0.5 * cases
        cases_below += cases
        controls_below += controls
        start = stop
    return placements


@compiled
def _weighted_auc(marker: Floats, case: Floats, control: Floats) -> float:
    """Weighted share of pairs of case and control in which the case has the greater marker."""
    pairs = case.sum() * control.sum()
    if pairs == 0.0:
        return np.nan
    return float((case * _placements(marker, case, control)).sum() / pairs)
