"""Discrimination: AUC with DeLong's variance, concordance under censoring, AUC at a horizon.

Everywhere a greater marker or risk is meant to go with the event (for concordance: with the
earlier event), and 0.5 is what chance gives. Wrong input raises `ValueError`; what cannot be
estimated is NaN with a reason (`cac_core.stats.censoring`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from cac_core.stats.censoring import (
    Flags,
    Floats,
    FollowUp,
    _censoring_influence,
    _inverse_weights,
    _uncensored,
    checked_event,
    checked_horizon,
    checked_values,
    follow_up,
)
from cac_core.stats.compiled import compiled
from cac_core.stats.pairs import _concordance, _concordance_influence

_NO_SPREAD = "no interval: the estimated standard error is 0"


@dataclass(frozen=True, slots=True)
class Discrimination:
    """An AUC or a concordance with its standard error and normal interval within 0 and 1.

    `n_events` counts the events that the estimate rests on. `reason` says why the value, or its
    interval alone, is NaN; it is empty where nothing is.
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
    """AUCs of several markers of the same patients, shape (k,), and their covariance (k, k)."""

    auc: Floats
    covariance: Floats
    n: int
    n_events: int


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second, with the normal interval and two-sided p value."""

    value: float
    standard_error: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    n_events: int
    reason: str = ""


def delong(markers: ArrayLike, event: ArrayLike) -> DeLong:
    """AUCs of one or more markers and their covariance, from mid-ranks.

    AUC = P(marker of an event > marker of a non-event) + P(equal) / 2. With V10 the share of
    non-events below each event and V01 the share of events above each non-event, the covariance
    is cov(V10) / events + cov(V01) / non-events (DeLong, Biometrics 1988;44:837; mid-ranks as Sun
    and Xu, IEEE Signal Process Lett 2014;21:1389). Equals `pROC`.

    Parameters
    ----------
    markers : shape (k, n), one row a marker.
    event : shape (n,), 0 or 1.

    Returns
    -------
    DeLong
        NaN throughout without events or without non-events; covariance NaN with fewer than two
        of either.

    Raises
    ------
    ValueError
        If a marker is missing or infinite, lengths differ, or a code is neither 0 nor 1.
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
        return DeLong(np.full(k, np.nan), np.full((k, k), np.nan), n, cases)
    rank = rankdata(rows, axis=1)
    above = (rank[:, events] - rankdata(rows[:, events], axis=1)) / controls
    below = 1 - (rank[:, ~events] - rankdata(rows[:, ~events], axis=1)) / cases
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
    both = delong(np.asarray(marker, np.float64)[np.newaxis], event)
    reason = _without_classes(both.n, both.n_events)
    return _bounded(
        float(both.auc[0]),
        float(np.sqrt(both.covariance[0, 0])),
        both.n,
        both.n_events,
        confidence,
        reason,
    )


def auc_difference(
    first: ArrayLike, second: ArrayLike, event: ArrayLike, confidence: float = 0.95
) -> Difference:
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
    reason = _without_classes(both.n, both.n_events)
    if not error > 1e-9:
        reason = reason or _NO_SPREAD
        return Difference(value, error, np.nan, np.nan, np.nan, both.n, both.n_events, reason)
    half = float(norm.ppf(0.5 + confidence / 2)) * error
    p_value = 2 * float(norm.sf(abs(value) / error))
    return Difference(
        value, error, value - half, value + half, p_value, both.n, both.n_events, reason
    )


def harrell_c(
    risk: ArrayLike, time: ArrayLike, event: ArrayLike, confidence: float = 0.95
) -> Discrimination:
    """Harrell's concordance index, as `survival::concordance` in R (reverse=TRUE).

    Of the pairs in which one patient's event is known to come first, the share in which this
    patient has the greater risk, equal risks counting one half (Harrell, JAMA 1982;247:2543).
    A patient censored at the time of an event outlives it; two events at one time are no pair.
    Times are compared exactly. The standard error is the infinitesimal jackknife.

    Parameters
    ----------
    risk, time, event : shape (n,).

    Raises
    ------
    ValueError
        As `follow_up`.
    """
    data = follow_up(risk, time, event)
    return _concordance_index(data, data.event.astype(np.float64), confidence)


def uno_c(
    risk: ArrayLike, time: ArrayLike, event: ArrayLike, tau: float, confidence: float = 0.95
) -> Discrimination:
    """Uno's concordance index up to tau, as `survival::concordance` with timewt="n/G2", ymax=tau.

    Harrell's pairs whose event comes at tau or before, each weighted by 1 / G(T-)^2 with G the
    probability of being uncensored, so that the limit does not depend on the censoring (Uno, Stat
    Med 2011;30:1105). The standard error takes G as known.

    Parameters
    ----------
    risk, time, event : shape (n,).
    tau : the last time that counts; infinity for all.

    Raises
    ------
    ValueError
        As `follow_up`; if tau is not greater than 0.
    """
    tau = checked_horizon("tau", tau)
    data = follow_up(risk, time, event)
    return _concordance_index(data, _uno_weights(data.time, data.event, tau), confidence)


def auc_at(
    risk: ArrayLike, time: ArrayLike, event: ArrayLike, horizon: float, confidence: float = 0.95
) -> Discrimination:
    """Cumulative/dynamic AUC at the horizon, weighted for censoring.

    P(risk of a patient with the event by the horizon > risk of one event-free past it), equal
    risks counting one half; events weighted by 1 / G(T-), event-free patients alike, patients
    censored by the horizon by 0 (Uno, J Am Stat Assoc 2007;102:527; Hung and Chiang, Can J Stat
    2010;38:8). The standard error is that of the influence function with G estimated (Blanche, Stat
    Med 2013;32:5381). As `riskRegression::Score` with a marginal censoring model.

    Parameters
    ----------
    risk, time, event : shape (n,).
    horizon : time that parts events from event-free patients; follow-up must reach past it.

    Raises
    ------
    ValueError
        As `follow_up`; if the horizon is not greater than 0.
    """
    horizon = checked_horizon("horizon", horizon)
    data = follow_up(risk, time, event)
    n, cases = data.time.size, int((data.event & (data.time <= horizon)).sum())
    reason = "" if cases else "no event by the horizon"
    if not (data.time > horizon).any():
        reason = "no patient followed past the horizon"
    if reason:
        return Discrimination(np.nan, np.nan, np.nan, np.nan, n, cases, reason)
    value, influence = _auc_at_influence(data.risk, data.time, data.event, horizon)
    error = float(influence.std(ddof=1) / np.sqrt(n))
    return _bounded(value, error, n, cases, confidence, "")


def _without_classes(n: int, n_events: int) -> str:
    if n == 0:
        return "no patients"
    if n_events == 0:
        return "no events"
    if n_events == n:
        return "no patients without event"
    if n_events == 1 or n_events == n - 1:
        return "no interval: a single patient with or without event"
    return ""


def _bounded(
    value: float, error: float, n: int, n_events: int, confidence: float, reason: str
) -> Discrimination:
    """Normal interval cut at 0 and 1; none where the standard error is 0, up to rounding."""
    if not error > 1e-9:
        reason = reason or _NO_SPREAD
        return Discrimination(value, error, np.nan, np.nan, n, n_events, reason)
    half = float(norm.ppf(0.5 + confidence / 2)) * error
    return Discrimination(
        value, error, max(value - half, 0.0), min(value + half, 1.0), n, n_events, reason
    )


def _concordance_index(data: FollowUp, weight: Floats, confidence: float) -> Discrimination:
    n, n_events = data.time.size, int((weight > 0).sum())
    pairs = _concordance_influence(data.risk, data.time, data.event, weight)
    concordant, discordant, tied = pairs.sum(axis=0) / 2
    total = concordant + discordant + tied
    if not total > 0:
        reason = "no comparable pair" if n_events else "no events"
        return Discrimination(np.nan, np.nan, np.nan, np.nan, n, n_events, reason)
    value = float((concordant + tied / 2) / total)
    share = pairs[:, 0] + pairs[:, 2] / 2 - value * pairs.sum(axis=1)
    error = float(np.sqrt((share**2).sum()) / total)
    return _bounded(value, error, n, n_events, confidence, "")


@compiled
def _partners(marker: Floats, case: Floats, control: Floats) -> Floats:
    """Weight of the controls below each case, or of the cases above each control, ties one half.

    `case` and `control` are weights, of which at least one is 0 in each patient.
    """
    n = marker.size
    order = np.argsort(marker)
    partner = np.zeros(n)
    below, above = 0.0, case.sum()
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
                partner[at] = below + 0.5 * controls
            else:
                partner[at] = above - 0.5 * cases
        above -= cases
        below += controls
        start = stop
    return partner


@compiled
def _weighted_auc(marker: Floats, case: Floats, control: Floats) -> float:
    """Weighted share of pairs of case and control in which the case has the greater marker."""
    pairs = case.sum() * control.sum()
    if pairs == 0.0:
        return np.nan
    return float((case * _partners(marker, case, control)).sum() / pairs)


@compiled
def _auc(marker: Floats, event: Flags) -> float:
    """`auc` without interval; patients in any order."""
    case = event.astype(np.float64)
    return _weighted_auc(marker, case, 1.0 - case)


@compiled
def _auc_at(risk: Floats, time: Floats, event: Flags, horizon: float) -> float:
    """`auc_at` without interval; patients in the order of time."""
    weight = _inverse_weights(time, event, horizon)
    control = (time > horizon).astype(np.float64)
    return _weighted_auc(risk, weight * (1.0 - control), control)


@compiled
def _auc_at_influence(
    risk: Floats, time: Floats, event: Flags, horizon: float
) -> tuple[float, Floats]:
    """AUC at the horizon and the influence of each patient on it."""
    n = risk.size
    weight = _inverse_weights(time, event, horizon)
    control = (time > horizon).astype(np.float64) * weight
    case = weight - control
    cases, controls = case.sum() / n, control.sum() / n
    partner = _partners(risk, case, control) / n
    value = (case * partner).sum() / n / (cases * controls)
    from_cases = case * (partner - value * controls)
    own = from_cases + control * (partner - value * cases)
    through_g = _censoring_influence(time, event, horizon, from_cases)
    return value, (own + through_g) / (cases * controls)


@compiled
def _uno_weights(time: Floats, event: Flags, tau: float) -> Floats:
    """1 / G(T-)^2 with an event at tau or before, else 0."""
    before, _ = _uncensored(time, event)
    weight = np.zeros(time.size)
    for i in range(time.size):
        if event[i] and time[i] <= tau:
            weight[i] = 1.0 / before[i] ** 2
    return weight


@compiled
def _harrell(risk: Floats, time: Floats, event: Flags) -> float:
    """`harrell_c` without interval; patients in the order of time."""
    return _concordance(risk, time, event, event.astype(np.float64))


@compiled
def _uno(risk: Floats, time: Floats, event: Flags, tau: float) -> float:
    """`uno_c` without interval; patients in the order of time."""
    return _concordance(risk, time, event, _uno_weights(time, event, tau))
