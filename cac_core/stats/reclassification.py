"""Net reclassification: who moves to higher or lower risk when a marker joins a model.

All forms compare two predicted probabilities of the event by a fixed horizon for each patient
(absolute risks, never linear predictors: the split between the components depends on it). A patient
moves up where the new risk is higher, or lies in a higher category; ties count in neither
direction. Two risks that differ by no more than `TIE` are a tie, and a risk that falls short of a
limit by no more than that lies on it: where a level without events sends risks to 0, or two sums of
the same terms round differently, the last digits say nothing. The event NRI is the net share of
patients with the event who move up, the non-event NRI the net share of the others who move down;
the overall NRI is their sum, from -2 to 2, above 0 where the marker helps. None of them is a share
of patients "correctly reclassified" (Kerr et al., Epidemiology 2014;25:114; Leening et al., Ann
Intern Med 2014;160:122), and an interval above 0 is no test: a marker of pure noise gives one in a
quarter of cohorts. The test of a marker is the likelihood ratio.

Sources: Pencina et al., Stat Med 2008;27:157 (IDI, categories) and 2011;30:11 (category-free,
Kaplan-Meier); Uno et al., Stat Med 2013;32:2430 (inverse probability of censoring).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cac_core.errors import NotEstimableError
from cac_core.stats.censoring import checked_times
from cac_core.stats.compiled import compiled
from cac_core.stats.cox import time_order

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: Absolute risks that differ by no more than this are equal.
TIE = 1e-8


@dataclass(frozen=True, slots=True)
class Reclassification:
    """Components of a net reclassification index, and the movements behind them."""

    event: float
    nonevent: float
    p_up_event: float
    p_down_event: float
    p_up_nonevent: float
    p_down_nonevent: float
    n_up: int
    n_down: int

    @property
    def overall(self) -> float:
        """Unweighted sum of both components."""
        return self.event + self.nonevent


def moves(old: ArrayLike, new: ArrayLike, cuts: Sequence[float] = ()) -> tuple[Bools, Bools]:
    """Who moves up and who moves down, each (n,).

    Parameters
    ----------
    cuts : limits of risk categories (a risk equal to a limit lies above it); without any, every
        change of more than `TIE` counts.
    """
    before, after = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(f"shapes {before.shape} and {after.shape} do not fit together")
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise ValueError("risks that are missing or not finite")
    return moved(before, after, np.asarray(cuts, np.float64))


def nri_kaplan_meier(
    old: ArrayLike,
    new: ArrayLike,
    days: ArrayLike,
    event: ArrayLike,
    horizon_days: float,
    cuts: Sequence[float] = (),
) -> Reclassification:
    """Prospective form: P(up | event) = (1 - S_up(t)) P(up) / (1 - S(t)), S by Kaplan-Meier.

    Raises
    ------
    NotEstimableError
        If nobody has the event by the horizon, or nobody is without it.
    """
    t, d = checked_times(days, event)
    up, down = moves(old, new, cuts)
    order = time_order(t, d)
    return _reclassification(
        km_components(t[order], d[order], up[order], down[order], horizon_days), up, down
    )


def nri_weighted(
    old: ArrayLike,
    new: ArrayLike,
    days: ArrayLike,
    event: ArrayLike,
    horizon_days: float,
    cuts: Sequence[float] = (),
) -> Reclassification:
    """Form with inverse probability of censoring weights.

    Patients with the event by the horizon weigh 1 / G(time-), those observed beyond it
    1 / G(horizon), those censored before 0; G is the Kaplan-Meier estimate of staying uncensored.
    """
    t, d = checked_times(days, event)
    up, down = moves(old, new, cuts)
    order = time_order(t, d)
    return _reclassification(
        weighted_components(t[order], d[order], up[order], down[order], horizon_days), up, down
    )


def nri_count(
    old: ArrayLike, new: ArrayLike, event: ArrayLike, cuts: Sequence[float] = ()
) -> Reclassification:
    """Plain counts by the outcome over all follow-up, blind to censoring (R's `improveProb`)."""
    _, d = checked_times(np.zeros(np.shape(event)), event)
    up, down = moves(old, new, cuts)
    return _reclassification(count_components(d, up, down), up, down)


def idi(old: ArrayLike, new: ArrayLike, event: ArrayLike) -> float:
    """Integrated discrimination improvement: rise of mean risk with the event less without it.

    Above 0 where the marker helps; by the outcome over all follow-up, blind to censoring.
    """
    _, d = checked_times(np.zeros(np.shape(event)), event)
    gain = np.asarray(new, np.float64) - np.asarray(old, np.float64)
    if d.all() or not d.any():
        raise NotEstimableError("no patients with the event" if not d.any() else "no one without")
    return float(gain[d].mean() - gain[~d].mean())


def moved(old: Floats, new: Floats, cuts: Floats) -> tuple[Bools, Bools]:
    """`moves` without its checks; the resamples call it by the thousand."""
    up, down = new - old > TIE, old - new > TIE
    if len(cuts):
        before = np.searchsorted(cuts, old + TIE, side="right")
        after = np.searchsorted(cuts, new + TIE, side="right")
        up, down = up & (after > before), down & (after < before)
    return up, down


def _reclassification(shares: Floats, up: Bools, down: Bools) -> Reclassification:
    if not np.isfinite(shares).all():
        raise NotEstimableError("nobody with the event by the horizon, or nobody without it")
    up_event, down_event, up_rest, down_rest = (float(share) for share in shares)
    return Reclassification(
        up_event - down_event,
        down_rest - up_rest,
        up_event,
        down_event,
        up_rest,
        down_rest,
        int(up.sum()),
        int(down.sum()),
    )


# -- kernels: sorted by time, events before censorings; P(up | event), P(down | event), then the
# -- same without the event; NaN where a group is empty ------------------------------------------


@compiled
def km_components(
    days: Floats, event: Bools, up: Bools, down: Bools, horizon_days: float
) -> Floats:
    """Shares of movements by Kaplan-Meier overall and within those who moved."""
    n = len(days)
    at_risk = np.array([float(n), float(up.sum()), float(down.sum())])
    share_up, share_down = at_risk[1] / n, at_risk[2] / n
    survival = np.ones(3)
    i = 0
    while i < n and days[i] <= horizon_days:
        day = days[i]
        deaths, leaving = np.zeros(3), np.zeros(3)
        while i < n and days[i] == day:
            for group in range(3):
                if group == 0 or (group == 1 and up[i]) or (group == 2 and down[i]):
                    leaving[group] += 1
                    if event[i]:
                        deaths[group] += 1
            i += 1
        for group in range(3):
            if deaths[group] > 0:
                survival[group] *= 1 - deaths[group] / at_risk[group]
            at_risk[group] -= leaving[group]
    out = np.full(4, np.nan)
    if 0 < survival[0] < 1:
        out[0] = (1 - survival[1]) * share_up / (1 - survival[0])
        out[1] = (1 - survival[2]) * share_down / (1 - survival[0])
        out[2] = survival[1] * share_up / survival[0]
        out[3] = survival[2] * share_down / survival[0]
    return out


@compiled
def weighted_components(
    days: Floats, event: Bools, up: Bools, down: Bools, horizon_days: float
) -> Floats:
    """Shares of movements with inverse probability of censoring weights."""
    n = len(days)
    sums = np.zeros((2, 3))  # with and without the event; all, up, down
    uncensored, at_risk, i = 1.0, float(n), 0
    while i < n and days[i] <= horizon_days:
        day, deaths, censored = days[i], 0.0, 0.0
        while i < n and days[i] == day:
            if event[i]:
                deaths += 1
                sums[0, 0] += 1 / uncensored
                sums[0, 1] += up[i] / uncensored
                sums[0, 2] += down[i] / uncensored
            else:
                censored += 1
            i += 1
        # Events of the day come before its censorings, and no longer stand in their risk set.
        if at_risk > deaths:
            uncensored *= 1 - censored / (at_risk - deaths)
        at_risk -= deaths + censored
    if uncensored > 0:
        for j in range(i, n):
            sums[1, 0] += 1 / uncensored
            sums[1, 1] += up[j] / uncensored
            sums[1, 2] += down[j] / uncensored
    out = np.full(4, np.nan)
    if sums[0, 0] > 0 and sums[1, 0] > 0:
        out[0], out[1] = sums[0, 1] / sums[0, 0], sums[0, 2] / sums[0, 0]
        out[2], out[3] = sums[1, 1] / sums[1, 0], sums[1, 2] / sums[1, 0]
    return out


@compiled
def count_components(event: Bools, up: Bools, down: Bools) -> Floats:
    """Shares of movements among those with and those without the event."""
    sums = np.zeros((2, 3))
    for i in range(len(event)):
        row = 0 if event[i] else 1
        sums[row, 0] += 1
        sums[row, 1] += up[i]
        sums[row, 2] += down[i]
    out = np.full(4, np.nan)
    if sums[0, 0] > 0 and sums[1, 0] > 0:
        out[0], out[1] = sums[0, 1] / sums[0, 0], sums[0, 2] / sums[0, 0]
        out[2], out[3] = sums[1, 1] / sums[1, 0], sums[1, 2] / sums[1, 0]
    return out
