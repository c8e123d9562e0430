"""Follow-up with right censoring: what is valid, survival at a horizon, weights for censoring.

The rule of the statistics: wrong input raises `ValueError` that names the argument and the count.
What cannot be estimated from valid input is NaN with a reason where the rest of the result stands
without it, as here, and `NotEstimableError` where there is no result at all.

Kernels here and in its neighbours take patients in the order of time (ascending, any order among
ties), float64 and bool arrays, and check nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cac_core.stats.compiled import compiled

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class FollowUp(NamedTuple):
    """Checked risk and follow-up, in the order of time."""

    risk: Floats
    time: Floats
    event: Flags


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


def checked_event(event: ArrayLike, n: int) -> Flags:
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


def checked_horizon(name: str, horizon: float) -> float:
    """A time greater than 0, infinity allowed.

    Raises
    ------
    ValueError
        If it is missing, 0 or negative.
    """
    if not horizon > 0:
        raise ValueError(f"{name} must be greater than 0, not {horizon}")
    return float(horizon)


def checked_times(time: ArrayLike, event: ArrayLike) -> tuple[Floats, Flags]:
    """Follow-up as float64 and events as bool, both (n,), in the given order.

    Raises
    ------
    ValueError
        If lengths differ, a time is missing, infinite or negative, or an event code is neither 0
        nor 1.
    """
    times = checked_values("time", time)
    negative = int((times < 0).sum())
    if negative:
        raise ValueError(f"time is negative in {negative} of {times.size} patients")
    return times, checked_event(event, times.size)


def follow_up(risk: ArrayLike, time: ArrayLike, event: ArrayLike) -> FollowUp:
    """Check a predicted risk with its follow-up, and put it in the order of time.

    Raises
    ------
    ValueError
        If lengths differ, a value is missing or infinite, a time is negative, or an event code is
        neither 0 nor 1.
    """
    values = checked_values("risk", risk)
    if values.size != np.size(time):
        raise ValueError(f"risk has {values.size} values and time {np.size(time)}")
    times, events = checked_times(time, event)
    order = np.argsort(times, kind="stable")
    return FollowUp(values[order], times[order], events[order])


def censoring_survival(
    time: ArrayLike, event: ArrayLike, at: ArrayLike, *, before: bool = False
) -> Floats:
    """Kaplan-Meier estimate of the probability of being uncensored, G.

    Where an event and a censoring share a time, the censoring comes after: patients with an event
    at u are not at risk of being censored at u, so G falls by the factor
    1 - censored(u) / (at risk(u) - events(u)) (`prodlim` with reverse=TRUE; `survival` likewise).

    Parameters
    ----------
    time, event : shape (n,), follow-up and event (1) or censoring (0).
    at : shape (m,), times; past the last follow-up G stays where it is.
    before : G(t-), which leaves out censorings at t itself, where True; else G(t).

    Raises
    ------
    ValueError
        For follow-up as `follow_up` does.
    """
    data = follow_up(np.zeros(np.size(time)), time, event)
    steps = np.concatenate([[1.0], _uncensored(data.time, data.event)[1]])
    times = np.asarray(at, np.float64)
    past = np.searchsorted(data.time, times, "left" if before else "right")
    return np.asarray(steps[past])


@compiled
def _uncensored(time: Floats, event: Flags) -> tuple[Floats, Floats]:
    """G just before and at the time of each patient."""
    n = time.size
    before, after = np.empty(n), np.empty(n)
    g = 1.0
    start = 0
    while start < n:
        stop, events = start, 0
        while stop < n and time[stop] == time[start]:
            events += event[stop]
            stop += 1
        before[start:stop] = g
        if stop - start > events:
            g *= 1.0 - (stop - start - events) / (n - start - events)
        after[start:stop] = g
        start = stop
    return before, after


@compiled
def _inverse_weights(time: Floats, event: Flags, horizon: float) -> Floats:
    """Inverse probability of censoring weight of each patient at the horizon.

    1 / G(T-) with an event by the horizon, 1 / G(horizon) when followed past it, 0 when censored
    before.
    """
    before, after = _uncensored(time, event)
    weights = np.zeros(time.size)
    g = 1.0
    for i in range(time.size):
        if time[i] > horizon:
            weights[i] = 1.0 / g
        else:
            g = after[i]
            if event[i]:
                weights[i] = 1.0 / before[i]
    return weights


@compiled
def _censoring_influence(
    time: Floats, event: Flags, horizon: float, contribution: Floats
) -> Floats:
    """Influence of each patient through G on the mean of contributions weighted by 1 / G.

    With a(u) at risk of censoring and c(u) censored at u, and Q(u) the sum of contributions of
    those followed longer than u, the derivative in the weight of a patient is
    1(censored at T by the horizon) Q(T) / (a(T) - c(T)) minus the sum over the times u of censoring
    up to min(T, horizon) at which the patient is at risk of c(u) / a(u) Q(u) / (a(u) - c(u)). It is
    the martingale representation of the Kaplan-Meier G, exact with ties.
    """
    n = time.size
    influence = np.zeros(n)
    remaining = contribution.sum()
    integral = 0.0
    start = 0
    while start < n and time[start] <= horizon:
        stop, events = start, 0
        while stop < n and time[stop] == time[start]:
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
def _survival_at(
    time: Floats, event: Flags, member: Flags, horizon: float
) -> tuple[float, float, int]:
    """Kaplan-Meier survival of the members at the horizon, Greenwood's sum, events by then.

    NaN when follow-up of the members ends before the horizon with survival above 0.
    """
    n = time.size
    at_risk = 0
    for i in range(n):
        at_risk += member[i]
    survival, greenwood, total = 1.0, 0.0, 0
    start = 0
    while start < n and time[start] <= horizon and at_risk > 0:
        stop, events, leaving = start, 0, 0
        while stop < n and time[stop] == time[start]:
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
        if at_risk == 0 and survival > 0.0 and time[start] < horizon:
            return np.nan, np.nan, total
        start = stop
    return survival, greenwood, total
