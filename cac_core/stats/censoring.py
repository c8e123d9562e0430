"""Right-censored follow-up: checks, order of time, weights for censoring, survival at a horizon.

Conventions of `cac_core.stats`:

- `days` is the follow-up in days and `event` whether it ended with the event (1) or was censored
  (0). An event and a censoring on one day: the event comes first.
- Wrong input raises `ValueError`, which names the argument and the count. What valid data cannot
  estimate raises `NotEstimableError`. Where one part of a result cannot be estimated, such as its
  interval, that part is NaN and `reason` says why.
- Compiled kernels take patients in the order of time, as contiguous float64 and bool arrays, and
  check nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.compiled import compiled


class RiskFollowUp(NamedTuple):
    """A predicted risk with its follow-up, checked and in the order of time; each (n,)."""

    risk: Floats
    days: Floats
    event: Bools


def checked_values(name: str, values: ArrayLike) -> Floats:
    """One-dimensional finite float64 values.

    Raises
    ------
    ValueError
        If there is more than one dimension, or a value is missing or infinite.
    """
    array = np.ascontiguousarray(values, np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, not {array.ndim}-dimensional")
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        raise ValueError(f"{name} is missing or infinite in {wrong} of {array.size} patients")
    return array


def checked_event(event: ArrayLike, n: int) -> Bools:
    """Event indicators of `n` patients.

    Raises
    ------
    ValueError
        If there are not `n`, or a code is neither 0 nor 1.
    """
    codes = checked_values("event", event)
    if codes.size != n:
        raise ValueError(f"event has {codes.size} values where {n} are needed")
    wrong = int(((codes != 0) & (codes != 1)).sum())
    if wrong:
        raise ValueError(f"event holds codes other than 0 and 1 in {wrong} of {n} patients")
    return np.asarray(codes == 1)


def checked_horizon(horizon_days: float) -> float:
    """A horizon greater than 0, infinity allowed.

    Raises
    ------
    ValueError
        If it is missing, 0 or negative.
    """
    if not horizon_days > 0:
        raise ValueError(f"horizon_days must be greater than 0, not {horizon_days}")
    return float(horizon_days)


def checked_follow_up(days: ArrayLike, event: ArrayLike) -> tuple[Floats, Bools]:
    """Follow-up as float64 and events as bool, both (n,), in the given order.

    Raises
    ------
    ValueError
        If lengths differ, `days` is missing, infinite or negative, or an event code is neither 0
        nor 1.
    """
    times = checked_values("days", days)
    negative = int((times < 0).sum())
    if negative:
        raise ValueError(f"days is negative in {negative} of {times.size} patients")
    return times, checked_event(event, times.size)


def in_time_order(risk: ArrayLike, days: ArrayLike, event: ArrayLike) -> RiskFollowUp:
    """Check a predicted risk with its follow-up, and sort both by time.

    Raises
    ------
    ValueError
        If lengths differ, a value is missing or infinite, `days` is negative, or an event code is
        neither 0 nor 1.
    """
    values = checked_values("risk", risk)
    if values.size != np.size(days):
        raise ValueError(f"risk has {values.size} values and days {np.size(days)}")
    times, events = checked_follow_up(days, event)
    order = np.argsort(times, kind="stable")
    return RiskFollowUp(values[order], times[order], events[order])


@compiled
def censoring_survival(days: Floats, event: Bools) -> tuple[Floats, Floats]:
    """Kaplan-Meier probability G of being uncensored, just before and at the time of each patient.

    Patients with an event at u are not at risk of being censored at u, so G falls by the factor
    1 - censored(u) / (at risk(u) - events(u)), as in R's `prodlim` with reverse=TRUE.

    Returns
    -------
    G(T-) and G(T), each (n,).
    """
    n = days.size
    before, after = np.empty(n), np.empty(n)
    g = 1.0
    start = 0
    while start < n:
        stop, events = start, 0
        while stop < n and days[stop] == days[start]:
            events += event[stop]
            stop += 1
        before[start:stop] = g
        if stop - start > events:
            g *= 1.0 - (stop - start - events) / (n - start - events)
        after[start:stop] = g
        start = stop
    return before, after


@compiled
def inverse_censoring_weights(days: Floats, event: Bools, horizon_days: float) -> Floats:
    """Inverse probability of censoring weights (IPCW) at the horizon, shape (n,).

    1 / G(T-) with an event by the horizon, 1 / G(horizon) if followed past it, 0 if censored
    before (Graf, Stat Med 1999;18:2529).
    """
    before, after = censoring_survival(days, event)
    weights = np.zeros(days.size)
    g = 1.0
    for i in range(days.size):
        if days[i] > horizon_days:
            weights[i] = 1.0 / g
        else:
            g = after[i]
            if event[i]:
                weights[i] = 1.0 / before[i]
    return weights


@compiled
def censoring_influence(
    days: Floats, event: Bools, horizon_days: float, contribution: Floats
) -> Floats:
    """Influence of each patient, through the estimate of G, on a mean weighted by 1 / G.

    With a(u) at risk of censoring and c(u) censored at u, and Q(u) the sum of contributions of
    those followed longer than u, the influence of a patient is
    1(censored at T by the horizon) Q(T) / (a(T) - c(T)) minus the sum over the times u of censoring
    up to min(T, horizon) at which the patient is at risk of c(u) / a(u) Q(u) / (a(u) - c(u)). This
    is the martingale representation of the Kaplan-Meier G, exact with ties.
    """
    n = days.size
    influence = np.zeros(n)
    remaining = contribution.sum()
    integral = 0.0
    start = 0
    while start < n and days[start] <= horizon_days:
        stop, events = start, 0
        while stop < n and days[stop] == days[start]:
            events += event[stop]
            remaining -= contribution[stop]
            stop += 1
        at_risk, censored = n - start - events, stop - start - events
        # Where no one is followed longer, no contribution rests on this step of G.
        ratio = remaining / (at_risk - censored) if 0 < censored < at_risk else 0.0
        after = integral + (ratio * censored / at_risk if at_risk > 0 else 0.0)
        for i in range(start, stop):
            influence[i] = -integral if event[i] else ratio - after
        integral = after
        start = stop
    influence[start:] = -integral
    return influence


@compiled
def survival_at(
    days: Floats, event: Bools, member: Bools, horizon_days: float
) -> tuple[float, float, int]:
    """Kaplan-Meier survival of the members at the horizon, Greenwood's sum, and events by then.

    Survival and sum are NaN if follow-up of the members ends before the horizon with survival
    above 0.
    """
    n = days.size
    at_risk = 0
    for i in range(n):
        at_risk += member[i]
    survival, greenwood, total = 1.0, 0.0, 0
    start = 0
    while start < n and days[start] <= horizon_days and at_risk > 0:
        stop, events, leaving = start, 0, 0
        while stop < n and days[stop] == days[start]:
            if member[stop]:
                leaving += 1
                events += event[stop]
            stop += 1
        if events > 0:
            survival *= 1.0 - events / at_risk
            if at_risk > events:
                greenwood += events / (at_risk * (at_risk - events))
            else:
                survival = 0.0
            total += events
        at_risk -= leaving
        if at_risk == 0 and survival > 0.0 and days[start] < horizon_days:
            return np.nan, np.nan, total
        start = stop
    return survival, greenwood, total
