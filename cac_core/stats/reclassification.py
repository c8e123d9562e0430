"""Net reclassification: whether predicted risks move in the right direction with a new marker.

All forms compare two predicted probabilities of the event by a fixed horizon for each patient
(absolute risks, never linear predictors: the split between the components depends on it). A patient
moves up if the new risk is higher, or lies in a higher category; ties count in neither direction.
Two risks that differ by at most `TIE` are tied, and a risk that falls short of a category limit by
at most `TIE` lies on it, because rounding decides the last digits where a level without events
sends risks to 0. The event NRI is the net share of patients with the event who move up, the
non-event NRI the net share of the others who move down; the overall NRI is their sum, from -2 to 2,
above 0 if the marker helps. None of them is a share of patients "correctly reclassified" (Kerr et
al., Epidemiology 2014;25:114; Leening et al., Ann Intern Med 2014;160:122), and an interval above 0
is not a test: a marker of pure noise gives one in a quarter of cohorts. The test of a marker is the
likelihood ratio.

Functions take patients in the order of time, events before censorings
(`cac_core.stats.cox.time_order`), and check nothing; `cac_core.stats.bootstrap.MarkerData` checks.

Sources: Pencina et al., Stat Med 2008;27:157 (IDI, categories) and 2011;30:11 (category-free,
Kaplan-Meier); Uno et al., Stat Med 2013;32:2430 (inverse probability of censoring).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.censoring import inverse_censoring_weights
from cac_core.stats.compiled import compiled

#: Absolute risks that differ by at most this are equal.
TIE = 1e-8
#: Limits of risk categories for the category-free forms: none.
NO_CUTS: Floats = np.zeros(0)


class Reclassification(NamedTuple):
    """P(up | event), P(down | event), P(up | no event) and P(down | no event).

    NaN if no patient has the event by the horizon, or none is without it.
    """

    up_event: float
    down_event: float
    up_nonevent: float
    down_nonevent: float

    @property
    def event(self) -> float:
        """Event NRI."""
        return self.up_event - self.down_event

    @property
    def nonevent(self) -> float:
        """Non-event NRI."""
        return self.down_nonevent - self.up_nonevent

    @property
    def overall(self) -> float:
        """Unweighted sum of both components."""
        return self.event + self.nonevent


def moves(old: Floats, new: Floats, cuts: Floats = NO_CUTS) -> tuple[Bools, Bools]:
    """Patients whose risk moves up and down from the old model to the new, each (n,).

    Parameters
    ----------
    old, new : shape (n,), absolute risks.
    cuts : limits of risk categories (a risk equal to a limit lies above it); without any, every
        change of more than `TIE` counts.
    """
    up, down = new - old > TIE, old - new > TIE
    if len(cuts):
        before = np.searchsorted(cuts, old + TIE, side="right")
        after = np.searchsorted(cuts, new + TIE, side="right")
        up, down = up & (after > before), down & (after < before)
    return up, down


def nri_kaplan_meier(
    days: Floats, event: Bools, up: Bools, down: Bools, horizon_days: float
) -> Reclassification:
    """Prospective form: P(up | event) = (1 - S_up(t)) P(up) / (1 - S(t)), S by Kaplan-Meier.

    Parameters
    ----------
    days, event, up, down : shape (n,), patients in the order of time.
    """
    return Reclassification(*_kaplan_meier_shares(days, event, up, down, horizon_days).tolist())


def nri_weighted(
    days: Floats, event: Bools, up: Bools, down: Bools, horizon_days: float
) -> Reclassification:
    """Form with the weights of `cac_core.stats.censoring.inverse_censoring_weights`.

    Parameters
    ----------
    days, event, up, down : shape (n,), patients in the order of time.
    """
    weights = inverse_censoring_weights(days, event, horizon_days)
    control = np.where(days > horizon_days, weights, 0.0)
    return Reclassification(*_weighted_shares(weights - control, control, up, down).tolist())


def nri_count(event: Bools, up: Bools, down: Bools) -> Reclassification:
    """Plain counts by the outcome over all follow-up, ignoring censoring (Hmisc's `improveProb`).

    Parameters
    ----------
    event, up, down : shape (n,), patients in any order.
    """
    case = event.astype(np.float64)
    return Reclassification(*_weighted_shares(case, 1.0 - case, up, down).tolist())


def idi(old: Floats, new: Floats, event: Bools) -> float:
    """Integrated discrimination improvement: rise of mean risk with the event less without it.

    Above 0 if the marker helps; by the outcome over all follow-up, ignoring censoring. NaN if all
    patients have the event, or none.

    Parameters
    ----------
    old, new, event : shape (n,), patients in any order.
    """
    if event.all() or not event.any():
        return float("nan")
    gain = new - old
    return float(gain[event].mean() - gain[~event].mean())


@compiled
def _kaplan_meier_shares(
    days: Floats, event: Bools, up: Bools, down: Bools, horizon_days: float
) -> Floats:
    """The four shares by Kaplan-Meier survival of all patients, of those up, and of those down."""
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
def _weighted_shares(case: Floats, control: Floats, up: Bools, down: Bools) -> Floats:
    """The four shares among cases and controls, weighted; at least one weight of each is 0."""
    sums = np.zeros((2, 3))  # cases and controls; all, up, down
    for i in range(len(case)):
        sums[0, 0] += case[i]
        sums[0, 1] += up[i] * case[i]
        sums[0, 2] += down[i] * case[i]
        sums[1, 0] += control[i]
        sums[1, 1] += up[i] * control[i]
        sums[1, 2] += down[i] * control[i]
    out = np.full(4, np.nan)
    if sums[0, 0] > 0 and sums[1, 0] > 0:
        out[0], out[1] = sums[0, 1] / sums[0, 0], sums[0, 2] / sums[0, 0]
        out[2], out[3] = sums[1, 1] / sums[1, 0], sums[1, 2] / sums[1, 0]
    return out
