"""Survival curves and tests: Kaplan-Meier, log-rank, cumulative incidence, event rates.

Conventions: `cac_core.stats.censoring`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from lifelines import KaplanMeierFitter
from numpy.typing import ArrayLike
from scipy.stats import chi2

from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Floats, Ints
from cac_core.stats.censoring import checked_follow_up
from cac_core.stats.intervals import z_score

IntervalKind = Literal["log-log", "log", "plain"]
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True, slots=True)
class SurvivalCurve:
    """A step function; arrays (m,), one element per distinct time, after a first at day 0.

    `survival` holds from its day until the next; `at_risk` counts patients under observation just
    before the day, `events` and `censored` those on it. Limits are NaN if undefined (before the
    first event, after survival has reached 0).
    """

    days: Floats
    survival: Floats
    ci_low: Floats
    ci_high: Floats
    at_risk: Ints
    events: Ints
    censored: Ints

    def index(self, day: float) -> int:
        """Index of the step that applies on a day."""
        return int(np.searchsorted(self.days, day, side="right")) - 1

    def number_at_risk(self, day: float) -> int:
        """Patients with follow-up to this day or beyond."""
        at = int(np.searchsorted(self.days, day, side="left"))
        return int(self.at_risk[at]) if at < len(self.days) else 0

    def quantile(self, share: float) -> float:
        """First day on which survival is at most 1 - share; NaN if it never is.

        If survival equals 1 - share over an interval, its midpoint, as in R's `quantile` of a
        survival curve.
        """
        below = np.flatnonzero(self.survival <= 1 - share + 1e-12)
        if not below.size:
            return float("nan")
        first = int(below[0])
        if abs(self.survival[first] - (1 - share)) > 1e-12:
            return float(self.days[first])
        lower = np.flatnonzero(self.survival < 1 - share - 1e-12)
        last = float(self.days[lower[0]]) if lower.size else float(self.days[-1])
        return (float(self.days[first]) + last) / 2


@dataclass(frozen=True, slots=True)
class TestResult:
    """A chi-square statistic with its degrees of freedom and p value."""

    chi2: float
    df: int
    p_value: float


@dataclass(frozen=True, slots=True)
class LogRank:
    """Observed and expected events per group (k,), and the covariance of their difference."""

    observed: Floats
    expected: Floats
    covariance: Floats

    def overall(self) -> TestResult:
        """Test whether any group differs: k - 1 degrees of freedom."""
        seen = np.flatnonzero(np.diag(self.covariance) > 1e-12)[:-1]
        difference = (self.observed - self.expected)[seen]
        return _quadratic(difference, self.covariance[np.ix_(seen, seen)])

    def trend(self, scores: Sequence[float] | None = None) -> TestResult:
        """Test for a trend of the hazard over ordered groups; Tarone, Biometrika 1975;62:679.

        Parameters
        ----------
        scores : one per group; 0, 1, 2, ... if left out.
        """
        weights = np.arange(len(self.observed)) if scores is None else np.asarray(scores)
        value = np.array([weights @ (self.observed - self.expected)], np.float64)
        return _quadratic(value, np.array([[weights @ self.covariance @ weights]]))


@dataclass(frozen=True, slots=True)
class CumulativeIncidence:
    """Probability of one cause by each event day, others competing; arrays (m,)."""

    days: Floats
    incidence: Floats
    ci_low: Floats
    ci_high: Floats
    at_risk: Ints
    events: Ints

    def index(self, day: float) -> int:
        """Index of the step that applies on a day."""
        return int(np.searchsorted(self.days, day, side="right")) - 1


@dataclass(frozen=True, slots=True)
class Rate:
    """Events per 100 person-years with the exact Poisson interval."""

    value: float
    ci_low: float
    ci_high: float
    person_years: float
    n_events: int


def kaplan_meier(
    days: ArrayLike, event: ArrayLike, interval: IntervalKind = "log-log", confidence: float = 0.95
) -> SurvivalCurve:
    """Product-limit estimate (Kaplan and Meier 1958) with pointwise Greenwood limits.

    Parameters
    ----------
    interval : scale on which the limits are symmetric. `log-log` (Stata's default) stays within 0
        and 1, `log` is R's default, `plain` is linear; the last two are clipped at 1.

    Raises
    ------
    ValueError
        For negative or missing times and event codes other than 0 and 1.
    NotEstimableError
        If there are no patients.
    """
    t, d = checked_follow_up(days, event)
    if not len(t):
        raise NotEstimableError("no patients")
    fitted = KaplanMeierFitter().fit(t, d)
    table = fitted.event_table
    at_risk = table["at_risk"].to_numpy(np.int64)
    events = table["observed"].to_numpy(np.int64)
    survival = fitted.survival_function_.iloc[:, 0].to_numpy(np.float64)
    spread = at_risk * (at_risk - events)
    variance = np.cumsum(np.divide(events, spread, out=np.zeros(len(events)), where=spread > 0))
    low, high = _limits(survival, np.sqrt(variance), interval, confidence)
    return SurvivalCurve(
        table.index.to_numpy(np.float64),
        survival,
        low,
        high,
        at_risk,
        events,
        table["censored"].to_numpy(np.int64),
    )


def reverse_kaplan_meier(days: ArrayLike, event: ArrayLike) -> SurvivalCurve:
    """Time under observation by the reverse Kaplan-Meier method; events censor it.

    Schemper and Smith, Control Clin Trials 1996;17:343. Patients with an event leave after those
    whose observation ends on the same day, the reverse of the usual order.
    """
    t, d = checked_follow_up(days, event)
    return kaplan_meier(t, ~d)


def log_rank(
    days: ArrayLike, event: ArrayLike, group: ArrayLike, groups: Sequence[object]
) -> LogRank:
    """Observed and expected events of each group, with the hypergeometric covariance.

    Mantel, Cancer Chemother Rep 1966;50:163; R's `survdiff`.

    Parameters
    ----------
    group : shape (n,), one of `groups` for each patient.

    Raises
    ------
    NotEstimableError
        If there are no events, or fewer than two groups with patients.
    """
    t, d = checked_follow_up(days, event)
    labels = np.asarray(group)
    member = np.stack([labels == one for one in groups], axis=1)
    if not d.any():
        raise NotEstimableError("no events")
    if (member.any(axis=0)).sum() < 2:
        raise NotEstimableError("fewer than two groups with patients")
    order = np.argsort(t, kind="stable")
    _, starts = np.unique(t[order], return_index=True)
    sums = np.add.reduceat(member[order].astype(np.float64), starts, axis=0)
    deaths = np.add.reduceat((member & d[:, None])[order].astype(np.float64), starts, axis=0)
    at_risk = np.cumsum(sums[::-1], axis=0)[::-1]
    n, m = at_risk.sum(axis=1), deaths.sum(axis=1)
    seen = m > 0
    at_risk, n, m = at_risk[seen], n[seen], m[seen]
    share = at_risk / n[:, None]
    factor = np.divide(m * (n - m), n - 1, out=np.zeros(len(n)), where=n > 1)
    covariance = np.diag((factor[:, None] * share).sum(axis=0)) - np.einsum(
        "t,ta,tb->ab", factor, share, share
    )
    return LogRank(deaths.sum(axis=0), (m[:, None] * share).sum(axis=0), covariance)


def cumulative_incidence(
    days: ArrayLike, cause: ArrayLike, of: int, confidence: float = 0.95
) -> CumulativeIncidence:
    """Aalen-Johansen estimate of one cause among competing ones, exact with ties.

    Variance by the delta method (Marubini and Valsecchi 1995, eq. 10.12; R's `cmprsk` has
    Aalen's), limits symmetric on log(-log).

    Parameters
    ----------
    cause : shape (n,), 0 for censored, else the number of the cause that came first.
    of : number of the cause.

    Raises
    ------
    NotEstimableError
        If no patient had the cause.
    """
    codes = np.asarray(cause)
    t, any_cause = checked_follow_up(days, codes != 0)
    if not (codes == of).any():
        raise NotEstimableError("no events")
    order = np.argsort(t, kind="stable")
    times, starts = np.unique(t[order], return_index=True)
    at_risk = len(t) - starts.astype(np.float64)
    mine = np.add.reduceat((codes == of)[order].astype(np.float64), starts)
    every = np.add.reduceat(any_cause[order].astype(np.float64), starts)
    seen = every > 0
    times, at_risk, mine, every = times[seen], at_risk[seen], mine[seen], every[seen]
    before = np.concatenate([[1.0], np.cumprod(1 - every / at_risk)[:-1]])
    incidence = np.cumsum(before * mine / at_risk)
    low, high = _incidence_limits(incidence, before, at_risk, mine, every, confidence)
    return CumulativeIncidence(
        times, incidence, low, high, at_risk.astype(np.int64), np.cumsum(mine).astype(np.int64)
    )


def event_rate(days: ArrayLike, event: ArrayLike, confidence: float = 0.95) -> Rate:
    """Events per 100 person-years; exact limits from the chi-square distribution (Garwood 1936).

    Raises
    ------
    NotEstimableError
        If there is no person-time.
    """
    t, d = checked_follow_up(days, event)
    years, count = float(t.sum()) / DAYS_PER_YEAR, int(d.sum())
    if years <= 0:
        raise NotEstimableError("no person-time")
    tail = (1 - confidence) / 2
    low = float(chi2.ppf(tail, 2 * count)) / 2 if count else 0.0
    high = float(chi2.ppf(1 - tail, 2 * (count + 1))) / 2
    per = 100 / years
    return Rate(count * per, low * per, high * per, years, count)


def _limits(
    survival: Floats, error: Floats, interval: IntervalKind, confidence: float
) -> tuple[Floats, Floats]:
    """Pointwise limits; `error` is the standard error of log survival."""
    z = z_score(confidence)
    inside = (survival > 0) & (survival < 1)
    low, high = np.full(len(survival), np.nan), np.full(len(survival), np.nan)
    s, e = survival[inside], error[inside]
    if interval == "log-log":
        half = z * e / np.abs(np.log(s))
        low[inside], high[inside] = s ** np.exp(half), s ** np.exp(-half)
    elif interval == "log":
        low[inside], high[inside] = s * np.exp(-z * e), np.minimum(s * np.exp(z * e), 1.0)
    else:
        low[inside] = np.maximum(s - z * e * s, 0.0)
        high[inside] = np.minimum(s + z * e * s, 1.0)
    return low, high


def _incidence_limits(
    incidence: Floats,
    before: Floats,
    at_risk: Floats,
    mine: Floats,
    every: Floats,
    confidence: float,
) -> tuple[Floats, Floats]:
    """Limits of a cumulative incidence from its variance by the delta method.

    Var I(t) = sum (I(t) - I(s))^2 d/(n(n-d)) + sum S^2 dj(n-dj)/n^3 - 2 sum (I(t) - I(s)) S dj/n^2
    over the event days s up to t, written with running sums.
    """
    spread = at_risk * (at_risk - every)
    a = np.divide(every, spread, out=np.zeros(len(every)), where=spread > 0)
    b = before**2 * mine * (at_risk - mine) / at_risk**3
    c = before * mine / at_risk**2
    first = (
        incidence**2 * np.cumsum(a)
        - 2 * incidence * np.cumsum(a * incidence)
        + np.cumsum(a * incidence**2)
    )
    variance = first + np.cumsum(b) - 2 * (incidence * np.cumsum(c) - np.cumsum(c * incidence))
    z = z_score(confidence)
    low, high = np.full(len(incidence), np.nan), np.full(len(incidence), np.nan)
    inside = (incidence > 0) & (incidence < 1) & (variance > 0)
    f = incidence[inside]
    half = z * np.sqrt(variance[inside]) / np.abs(f * np.log(f))
    low[inside], high[inside] = f ** np.exp(half), f ** np.exp(-half)
    return low, high


def _quadratic(difference: Floats, covariance: Floats) -> TestResult:
    if not np.diag(covariance).any():
        raise NotEstimableError("no event while more than one group was at risk")
    value = float(difference @ np.linalg.solve(covariance, difference))
    return TestResult(value, len(difference), float(chi2.sf(value, len(difference))))
