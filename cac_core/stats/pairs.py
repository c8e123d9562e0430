"""Pairs of patients of whom one is known to have the event first, counted by risk.

Counting takes n log n steps: a Fenwick tree over the ranks of risk (Fenwick, Softw Pract Exp
1994;24:327) tells how many of those put in have a lower risk. Kernels take patients in the order of
time and check nothing (`cac_core.stats.censoring`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cac_core.stats.censoring import Flags, Floats
from cac_core.stats.compiled import compiled


@compiled
def _dense_rank(values: Floats) -> tuple[NDArray[np.int64], int]:
    """Ranks from 1, equal values alike, and the greatest rank."""
    order = np.argsort(values)
    rank = np.empty(values.size, np.int64)
    level = 0
    for i in range(values.size):
        if i == 0 or values[order[i]] != values[order[i - 1]]:
            level += 1
        rank[order[i]] = level
    return rank, level


@compiled
def _add(tree: Floats, rank: int, amount: float) -> None:
    """Add to a rank of a Fenwick tree."""
    while rank < tree.size:
        tree[rank] += amount
        rank += rank & -rank


@compiled
def _upto(tree: Floats, rank: int) -> float:
    """Sum of the ranks up to this one."""
    total = 0.0
    while rank > 0:
        total += tree[rank]
        rank -= rank & -rank
    return total


@compiled
def _concordance(risk: Floats, time: Floats, event: Flags, weight: Floats) -> float:
    """Weighted share of concordant pairs, tied ones counting one half."""
    rank, levels = _dense_rank(risk)
    pairs = np.zeros((time.size, 3))
    _pairs_as_first(rank, levels, time, event, weight, pairs)
    concordant, discordant, tied = pairs[:, 0].sum(), pairs[:, 1].sum(), pairs[:, 2].sum()
    total = concordant + discordant + tied
    return (concordant + 0.5 * tied) / total if total > 0.0 else np.nan


@compiled
def _concordance_influence(risk: Floats, time: Floats, event: Flags, weight: Floats) -> Floats:
    """Weights of the concordant, discordant and tied pairs of each patient, shape (n, 3)."""
    n = time.size
    rank, levels = _dense_rank(risk)
    pairs = np.zeros((n, 3))
    _pairs_as_first(rank, levels, time, event, weight, pairs)
    _pairs_as_later(rank, levels, time, event, weight, pairs)
    return pairs


@compiled
def _pairs_as_first(
    rank: NDArray[np.int64],
    levels: int,
    time: Floats,
    event: Flags,
    weight: Floats,
    pairs: Floats,
) -> None:
    """Add to each event its pairs with those who outlive it.

    Backwards in time; a Fenwick tree over risk holds who is alive. Those censored at the time of
    an event outlive it and enter the tree before it is asked, the other events of this time after.
    """
    tree, count = np.zeros(levels + 1), np.zeros(levels + 1)
    alive = 0
    stop = time.size
    while stop > 0:
        start = stop - 1
        while start > 0 and time[start - 1] == time[stop - 1]:
            start -= 1
        for i in range(start, stop):
            if not event[i]:
                _add(tree, rank[i], 1.0)
                count[rank[i]] += 1.0
                alive += 1
        for i in range(start, stop):
            if weight[i] > 0.0:
                below = _upto(tree, rank[i] - 1)
                pairs[i, 0] += weight[i] * below
                pairs[i, 1] += weight[i] * (alive - below - count[rank[i]])
                pairs[i, 2] += weight[i] * count[rank[i]]
        for i in range(start, stop):
            if event[i]:
                _add(tree, rank[i], 1.0)
                count[rank[i]] += 1.0
                alive += 1
        stop = start


@compiled
def _pairs_as_later(
    rank: NDArray[np.int64],
    levels: int,
    time: Floats,
    event: Flags,
    weight: Floats,
    pairs: Floats,
) -> None:
    """Add to each patient the pairs with the events that the patient outlives."""
    tree, count = np.zeros(levels + 1), np.zeros(levels + 1)
    earlier = 0.0
    start, n = 0, time.size
    while start < n:
        stop = start
        while stop < n and time[stop] == time[start]:
            stop += 1
        for among_events in (True, False):
            for i in range(start, stop):
                if event[i] == among_events:
                    below = _upto(tree, rank[i] - 1)
                    pairs[i, 0] += earlier - below - count[rank[i]]
                    pairs[i, 1] += below
                    pairs[i, 2] += count[rank[i]]
            if among_events:
                for i in range(start, stop):
                    if event[i]:
                        _add(tree, rank[i], weight[i])
                        count[rank[i]] += weight[i]
                        earlier += weight[i]
        start = stop
