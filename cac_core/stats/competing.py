"""Competing risks beside cause-specific hazards: Gray's test, and the model of Fine and Gray.

Everywhere `cause` is 0 for censored, else the number of the cause that came first. Both look at the
subdistribution: who had another cause stays at risk, ever less as others would have been censored.

Sources: Gray, Ann Stat 1988;16:1141; Fine and Gray, J Am Stat Assoc 1999;94:496. As R's `cmprsk`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.censoring import checked_follow_up
from cac_core.stats.cox import CoxFit, require_rank
from cac_core.stats.survival import TestResult

_MOST_STEPS, _TOLERANCE = 50, 1e-13


def gray_test(days: ArrayLike, cause: ArrayLike, group: ArrayLike, of: int = 1) -> TestResult:
    """Whether the cumulative incidence of a cause differs between groups (rho = 0).

    Parameters
    ----------
    days, cause, group : shape (n,); any codes of groups.

    Raises
    ------
    NotEstimableError
        If nobody had the cause, or there are fewer than two groups.
    """
    codes, labels = np.asarray(cause), np.asarray(group)
    t, _ = checked_follow_up(days, codes != 0)
    groups = np.unique(labels)
    if not (codes == of).any():
        raise NotEstimableError("no events")
    if len(groups) < 2:
        raise NotEstimableError("fewer than two groups with patients")
    member = labels[:, None] == groups[None, :]
    score, variance = _gray(t, codes, member, of)
    # The scores sum to zero: the last group follows from the others.
    try:
        value = float(score[:-1] @ np.linalg.solve(variance[:-1, :-1], score[:-1]))
    except np.linalg.LinAlgError:
        raise NotEstimableError("no event while more than one group was at risk") from None
    df = len(groups) - 1
    return TestResult(value, df, float(chi2.sf(value, df)))


def _gray(
    days: Floats, cause: NDArray[np.generic], member: Bools, of: int
) -> tuple[Floats, Floats]:
    """Scores of the groups (k,) and their covariance (k, k).

    `survival` is that of any cause just before the day, `incidence` of the cause, by group; `c`
    gathers the weights of the null hazard, which the covariance takes off at the end.
    """
    k = member.shape[1]
    at_risk = member.sum(axis=0).astype(np.float64)
    survival, incidence, pooled = np.ones(k), np.zeros(k), 0.0
    score, c, v3 = np.zeros(k), np.zeros((k, k)), np.zeros(k)
    variance, v2 = np.zeros((k, k)), np.zeros((k, k))
    for day in np.unique(days):
        today = days == day
        mine = member[today & (cause == of)].sum(axis=0).astype(np.float64)
        other = member[today & (cause != of) & (cause != 0)].sum(axis=0).astype(np.float64)
        if mine.any() or other.any():
            there = at_risk > 0
            risk = np.where(there, at_risk, 1.0)
            after = np.where(there, survival * (1 - (mine + other) / risk), survival)
            next_incidence = np.where(there, incidence + survival * mine / risk, incidence)
            share = np.divide(at_risk, survival, out=np.zeros(k), where=there & (survival > 0))
            whole, events = share.sum(), mine.sum()
            next_pooled = pooled + events / whole
            a = np.diag(share) - np.outer(share, share) / whole
            c += a * events / (whole * (1 - pooled))
            weights = share * (1 - incidence)
            score += mine - events * weights / weights.sum()
            left = np.divide(1 - next_pooled, after, out=np.zeros(k), where=after > 0)
            if events:
                t4 = np.where(after > 0, 1 - left, 1.0)
                tied = np.ones(k)
                if events > 1:
                    tied = 1 - (events - 1) / (whole * survival - 1)
                t3 = np.where(there, tied * survival * events / (whole * risk), 0.0)
                t1 = a - t4 * c
                v3 += t4**2 * t3
                v2 += t1 * (t4 * t3)
                variance += np.einsum("ik,jk,k->ij", t1, t1, t3)
            hit = (other > 0) & (after > 0)
            if hit.any():
                tied = np.where(other > 1, 1 - (other - 1) / np.maximum(risk - 1, 1), 1.0)
                t3 = np.where(hit, tied * survival**2 * other / risk**2, 0.0)
                t1 = left * c
                v3 += left**2 * t3
                v2 -= t1 * (left * t3)
                variance += np.einsum("ik,jk,k->ij", t1, t1, t3)
            survival, incidence, pooled = after, next_incidence, next_pooled
        at_risk -= member[today].sum(axis=0)
    crossed = np.einsum("ik,jk->ij", c, v2)
    return score, variance + np.einsum("ik,jk,k->ij", c, c, v3) + crossed + crossed.T


@dataclass(frozen=True)
class _Follow:
    """Patients in the order of time, the event days of the cause, and weights at each (m, n)."""

    x: Floats
    days: Floats
    cause: NDArray[np.generic]
    at: Floats
    deaths: Floats
    weights: Floats
    own: Bools


def fit_fine_gray(
    design: ArrayLike,
    days: ArrayLike,
    cause: ArrayLike,
    of: int = 1,
    kept: Bools | None = None,
) -> CoxFit:
    """Hazard ratios of the subdistribution of a cause, with robust standard errors.

    Patients with another cause stay in the risk set with the weight G(t-) / G(T-), G the
    Kaplan-Meier estimate of staying uncensored. Ties are Breslow's, the variance is the sandwich of
    Fine and Gray that lets G be estimated, as in `crr`.

    Parameters
    ----------
    design : shape (n, p), p at least 1.
    kept : who is at risk of the cause, shape (n,); the others (of a level without events, whose
        hazard is 0) tell of censoring alone.

    Raises
    ------
    NotEstimableError
        If nobody had the cause, columns are constant or collinear, or the likelihood has no
        maximum.
    """
    x, codes = np.asarray(design, np.float64), np.asarray(cause)
    t, _ = checked_follow_up(days, codes != 0)
    if not np.isfinite(x).all():
        raise ValueError("covariates that are missing or not finite")
    if not (codes == of).any():
        raise NotEstimableError("no events")
    at_risk = np.ones(len(t), np.bool_) if kept is None else kept
    means = x[at_risk].mean(axis=0)
    require_rank(x[at_risk] - means)
    scale = x[at_risk].std(axis=0)
    scaled = np.where(at_risk[:, None], (x - means) / scale, 0.0)
    order = np.lexsort((codes != of, t))
    data = _prepared(scaled[order], t[order], codes[order], of, at_risk[order])
    beta, information, null, top = _newton(data)
    meat = _meat(data, beta)
    inverse = np.linalg.inv(information)
    covariance = inverse @ meat @ inverse / np.outer(scale, scale)
    events = int((codes == of).sum())
    return CoxFit(beta / scale, covariance, top, null, len(t), events, means)


def _censored_before(days: Floats, cause: NDArray[np.generic]) -> tuple[Floats, Floats, Floats]:
    """Distinct days, G just before each, and the hazard of being censored on it."""
    times, starts = np.unique(days, return_index=True)
    at_risk = len(days) - starts
    censored = np.add.reduceat((cause == 0).astype(np.float64), starts)
    hazard = censored / at_risk
    return times, np.concatenate([[1.0], np.cumprod(1 - hazard)[:-1]]), hazard


def _prepared(x: Floats, days: Floats, cause: NDArray[np.generic], of: int, kept: Bools) -> _Follow:
    at, deaths = np.unique(days[cause == of], return_counts=True)
    times, before, _ = _censored_before(days, cause)
    own = before[np.searchsorted(times, days)]
    then = before[np.searchsorted(times, at)]
    present = days[None, :] >= at[:, None]
    lasting = (cause != 0) & (cause != of)
    weights = np.where(present, 1.0, np.where(lasting, then[:, None] / own[None, :], 0.0))
    weights[:, ~kept] = 0.0
    hits = (days[None, :] == at[:, None]) & (cause == of)[None, :]
    return _Follow(x, days, cause, at, deaths.astype(np.float64), weights, hits)


def _sums(data: _Follow, beta: Floats) -> tuple[Floats, Floats, Floats]:
    """At each event day: sum of weights times risk (m,), means (m, p) of x; and weights (m, n)."""
    eta = data.x @ beta
    weighted = data.weights * np.exp(eta - eta.max())[None, :]
    total = weighted.sum(axis=1)
    return total, weighted @ data.x / total[:, None], weighted


def _newton(data: _Follow) -> tuple[Floats, Floats, float, float]:
    p = data.x.shape[1]
    hit = data.own.any(axis=0)

    def value(beta: Floats) -> float:
        eta = data.x @ beta
        total, _, _ = _sums(data, beta)
        return float((eta[hit] - eta.max()).sum() - data.deaths @ np.log(total))

    def derivatives(beta: Floats) -> tuple[Floats, Floats]:
        total, means, weighted = _sums(data, beta)
        share = (data.deaths / total) @ weighted
        second = (data.x * share[:, None]).T @ data.x - (means * data.deaths[:, None]).T @ means
        return data.x[hit].sum(axis=0) - data.deaths @ means, second

    beta = np.zeros(p)
    null = last = value(beta)
    for _ in range(_MOST_STEPS):
        gradient, information = derivatives(beta)
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        size = 1.0
        while value(beta + size * step) < last - 1e-12 * abs(last) and size > 1e-9:
            size /= 2
        beta = beta + size * step
        found = value(beta)
        done, last = abs(found - last) <= _TOLERANCE * max(abs(found), 1.0), found
        if done:
            if np.abs(size * step).max() > 1e-2:
                break
            return beta, derivatives(beta)[1], null, last
    raise NotEstimableError("separation: the likelihood grows without bound")


def _meat(data: _Follow, beta: Floats) -> Floats:
    """Sum over patients of the squared influence, that through the censoring weights included."""
    total, means, weighted = _sums(data, beta)
    step = data.deaths / total  # of the baseline of the subdistribution
    rate = weighted * step[:, None]  # (m, n): w exp(eta) dLambda
    # Of each patient: its own event, less what was expected of it.
    at_event = data.own.T.astype(np.float64)
    eta = at_event @ (-means) + at_event.sum(axis=1)[:, None] * data.x
    eta -= rate.sum(axis=0)[:, None] * data.x - rate.T @ means
    return _squared(eta + _through_censoring(data, rate, means))


def _through_censoring(data: _Follow, rate: Floats, means: Floats) -> Floats:
    """Influence of each patient through the estimate of G, shape (n, p).

    q(u) sums what is expected from day u on of those who had another cause before u; days go up, so
    patients join the sums and event days leave them.
    """
    times, _, hazard = _censored_before(data.days, data.cause)
    starts = np.searchsorted(data.days, times)
    at_risk = (len(data.days) - starts).astype(np.float64)
    first = np.searchsorted(data.at, times)
    expected = np.zeros(len(data.at))
    covariates = np.zeros((len(data.at), data.x.shape[1]))
    q = np.zeros((len(times), data.x.shape[1]))
    for position, start in enumerate(starts):
        later = slice(first[position], None)
        before = slice(starts[position - 1] if position else 0, start)  # who left the day before
        expected[later] += rate[later, before].sum(axis=1)
        covariates[later] += rate[later, before] @ data.x[before]
        q[position] = covariates[later].sum(axis=0) - expected[later] @ means[later]
    per = q / at_risk[:, None]
    gathered = np.cumsum(per * hazard[:, None], axis=0)
    place = np.searchsorted(times, data.days)
    own = np.where((data.cause == 0)[:, None], per[place], 0.0)
    return np.asarray(own - gathered[place])


def _squared(influence: Floats) -> Floats:
    return np.asarray(influence.T @ influence)
