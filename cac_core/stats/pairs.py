"""Comparable pairs of patients, those in which one is known to have the event first.

Counting pairs takes n log n steps: a Fenwick tree over the ranks of risk (Fenwick, Softw Pract Exp
1994;24:327) counts the patients with a lower risk. Kernels take patients in the order of time and
check nothing (`cac_core.stats.censoring`).
"""

from __future__ import annotations

import numpy as np

from cac_core.stats.arrays import Bools, Floats, Ints
from cac_core.stats.compiled import compiled


@compiled
def _dense_rank(values: Floats) -> tuple[Ints, int]:
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
def concordance_index(risk: Floats, days: Floats, event: Bools, weight: Floats) -> float:
    """Weighted share of concordant pairs, tied ones counting one half; NaN without pairs.

    Parameters
    ----------
    risk, days, event, weight : shape (n,); `weight` is that of the pairs in which the patient has
        the event first.
    """
    rank, levels = _dense_rank(risk)
    pairs = np.zeros((days.size, 3))
    _pairs_as_first(rank, levels, days, event, weight, pairs)
    concordant, discordant, tied = pairs[:, 0].sum(), pairs[:, 1].sum(), pairs[:, 2].sum()
    total = concordant + discordant + tied
    return (concordant + 0.5 * tied) / total if total > 0.0 else np.nan


@compiled
def concordance_pairs(risk: Floats, days: Floats, event: Bools, weight: Floats) -> Floats:
    """Weights of the concordant, discordant and tied pairs of each patient, shape (n, 3).

    Each pair counts for both of its patients. Parameters as `concordance_index`.
    """
    n = days.size
    rank, levels = _dense_rank(risk)
    pairs = np.zeros((n, 3))
    _pairs_as_first(rank, levels, days, event, weight, pairs)
    _pairs_as_later(rank, levels, days, event, weight, pairs)
    return pairs


@compiled
def _pairs_as_first(
    rank: Ints,
    levels: int,
    days: Floats,
    event: Bools,
    weight: Floats,
    pairs: Floats,
) -> None:
    """Add to each event its pairs with those who outlive it.

    Backwards in time; a Fenwick tree over risk holds the patients at risk. At each time, censored
    patients enter the tree before the events are queried, and these events after.
    """
    tree, count = np.zeros(levels + 1), np.zeros(levels + 1)
    alive = 0
    stop = days.size
    while stop > 0:
        start = stop - 1
        while start > 0 and days[start - 1] == days[stop - 1]:
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
    rank: Ints,
    levels: int,
    days: Floats,
    event: Bools,
    weight: Floats,
    pairs: Floats,
) -> None:
    """Add to each patient the pairs with the events that the patient outlives."""
    tree, count = np.zeros(levels + 1), np.zeros(levels + 1)
    earlier = 0.0
    start, n = 0, days.size
    while start < n:
        stop = start
        while stop < n and days[stop] == days[start]:
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
