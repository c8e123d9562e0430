"""Competing risks on the subdistribution: Gray's test, and the model of Fine and Gray.

`cause` is 0 for censored, else the number of the cause that came first. In the subdistribution a
patient with another cause stays at risk, with a weight that falls as others would be censored.

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
from cac_core.stats.cox import CoxFit, checked_design, require_rank
from cac_core.stats.survival import TestResult

_MOST_STEPS, _TOLERANCE = 50, 1e-13


def gray_test(days: ArrayLike, cause: ArrayLike, group: ArrayLike, of: int = 1) -> TestResult:
    """Test whether the cumulative incidence of a cause differs between groups (rho = 0).

    Parameters
    ----------
    days, cause, group : shape (n,); any codes of groups.
    of : number of the cause.

    Raises
    ------
    NotEstimableError
        If no patient had the cause, or there are fewer than two groups.
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

    By group, `survival` is that of any cause and `incidence` that of the cause, both just before
    the day; `pooled` is the incidence of the cause under the null hypothesis.
    """
    at_risk, k = member.sum(axis=0).astype(np.float64), member.shape[1]
    survival, incidence, pooled = np.ones(k), np.zeros(k), 0.0
    score, sums = np.zeros(k), _GraySums(k)
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
            sums.null += a * events / (whole * (1 - pooled))
            weights = share * (1 - incidence)
            score += mine - events * weights / weights.sum()
            left = np.divide(1 - next_pooled, after, out=np.zeros(k), where=after > 0)
            if events:
                tied = 1 - (events - 1) / (whole * survival - 1) if events > 1 else np.ones(k)
                variance = np.where(there, tied * survival * events / (whole * risk), 0.0)
                slope = np.where(after > 0, 1 - left, 1.0)
                sums.add(a - slope * sums.null, slope, variance)
            if (hit := (other > 0) & (after > 0)).any():
                tied = np.where(other > 1, 1 - (other - 1) / np.maximum(risk - 1, 1), 1.0)
                variance = np.where(hit, tied * survival**2 * other / risk**2, 0.0)
                sums.add(left * sums.null, -left, variance)
            survival, incidence, pooled = after, next_incidence, next_pooled
        at_risk -= member[today].sum(axis=0)
    return score, sums.covariance()


class _GraySums:
    """Sums over event days behind the covariance of Gray's scores.

    The weight of a group's events in the scores is linear in the null hazard of later days (`null`
    sums its coefficients), so the sums keep the terms without, with and with the square of it.
    """

    def __init__(self, k: int) -> None:
        self.null, self._plain, self._cross = np.zeros((k, k)), np.zeros((k, k)), np.zeros((k, k))
        self._square = np.zeros(k)

    def add(self, weights: Floats, slope: Floats, variance: Floats) -> None:
        """Events of a day: their weights (k, k), slope in the null hazard and variance (k,)."""
        self._square += slope**2 * variance
        self._cross += weights * (slope * variance)
        self._plain += np.einsum("ik,jk,k->ij", weights, weights, variance)

    def covariance(self) -> Floats:
        """Covariance of the scores, (k, k)."""
        crossed = np.einsum("ik,jk->ij", self.null, self._cross)
        square = np.einsum("ik,jk,k->ij", self.null, self.null, self._square)
        return np.asarray(self._plain + square + crossed + crossed.T)


@dataclass(frozen=True)
class _FineGrayData:
    """Patients in the order of time, and the event days of the cause.

    `at` are the days (m,) and `deaths` their events; `weights` (m, n) those of the patients in the
    risk set of each day, `own` (m, n) marks the events of each day.
    """

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
    """Fine and Gray's model: hazard ratios of the subdistribution, with robust standard errors.

    Patients with another cause stay in the risk set with weight G(t-) / G(T-), G the Kaplan-Meier
    probability of being uncensored. Ties are Breslow's; the sandwich variance accounts for the
    estimation of G, as in `crr`.

    Parameters
    ----------
    design : shape (n, p), p at least 1.
    kept : shape (n,), patients at risk of the cause; the others (of a level without events, whose
        hazard is 0) count for the censoring alone.

    Raises
    ------
    NotEstimableError
        Without events, with constant or collinear columns, or without a maximum of the likelihood.
    """
    codes = np.asarray(cause)
    x, t, _ = checked_design(design, days, codes != 0)
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
    inverse = np.linalg.inv(information)
    covariance = inverse @ _meat(data, beta) @ inverse / np.outer(scale, scale)
    return CoxFit(beta / scale, covariance, top, null, len(t), int((codes == of).sum()), means)


def _censored_before(days: Floats, cause: NDArray[np.generic]) -> tuple[Floats, Floats, Floats]:
    """Distinct days, G just before each, and the hazard of being censored on it."""
    times, starts = np.unique(days, return_index=True)
    at_risk = len(days) - starts
    censored = np.add.reduceat((cause == 0).astype(np.float64), starts)
    hazard = censored / at_risk
    return times, np.concatenate([[1.0], np.cumprod(1 - hazard)[:-1]]), hazard


def _prepared(
    x: Floats, days: Floats, cause: NDArray[np.generic], of: int, kept: Bools
) -> _FineGrayData:
    at, deaths = np.unique(days[cause == of], return_counts=True)
    times, before, _ = _censored_before(days, cause)
    own = before[np.searchsorted(times, days)]
    then = before[np.searchsorted(times, at)]
    present = days[None, :] >= at[:, None]
    lasting = (cause != 0) & (cause != of)
    weights = np.where(present, 1.0, np.where(lasting, then[:, None] / own[None, :], 0.0))
    weights[:, ~kept] = 0.0
    hits = (days[None, :] == at[:, None]) & (cause == of)[None, :]
    return _FineGrayData(x, days, cause, at, deaths.astype(np.float64), weights, hits)


def _sums(data: _FineGrayData, beta: Floats) -> tuple[Floats, Floats, Floats]:
    """At each event day: sum of weights times risk (m,), means (m, p) of x; and weights (m, n)."""
    eta = data.x @ beta
    weighted = data.weights * np.exp(eta - eta.max())[None, :]
    total = weighted.sum(axis=1)
    return total, weighted @ data.x / total[:, None], weighted


def _newton(data: _FineGrayData) -> tuple[Floats, Floats, float, float]:
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


def _meat(data: _FineGrayData, beta: Floats) -> Floats:
    """Sum over patients of the squared influence, including that through the censoring weights."""
    total, means, weighted = _sums(data, beta)
    step = data.deaths / total  # of the baseline of the subdistribution
    rate = weighted * step[:, None]  # (m, n): w exp(eta) dLambda
    # Of each patient: the observed less the expected score.
    at_event = data.own.T.astype(np.float64)
    eta = at_event @ (-means) + at_event.sum(axis=1)[:, None] * data.x
    eta -= rate.sum(axis=0)[:, None] * data.x - rate.T @ means
    return _squared(eta + _through_censoring(data, rate, means))


def _through_censoring(data: _FineGrayData, rate: Floats, means: Floats) -> Floats:
    """Influence of each patient through the estimate of G, shape (n, p).

    q(u) sums the expected scores from day u on of the patients with another cause before u. Days
    ascend: patients enter the sums, event days leave them.
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
        before = slice(starts[position - 1] if position else 0, start)  # left the day before
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
