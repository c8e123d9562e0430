"""Cox proportional hazards with Efron's ties: fit, baseline, absolute risk.

One Newton kernel serves the reported fit, its thousand refits in the bootstrap and the tests of
its assumptions (`cox_diagnostics`), so that they cannot differ. lifelines is the second opinion of
the tests, not the engine: its baseline hazard is Breslow's under Efron ties, its test of
proportional hazards is the approximation of before 2019, and a fit takes some forty times as long
(docs/decisions.md).

Everywhere `days` and `event` are the follow-up and whether it ended with the event (1) or not (0);
a positive coefficient means that more of the covariate shortens the time to the event.

Sources: Cox, J R Stat Soc B 1972;34:187; Efron, J Am Stat Assoc 1977;72:557.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm

from cac_core.errors import NotEstimableError
from cac_core.stats.censoring import checked_times
from cac_core.stats.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: A change of the log-likelihood (relative) below this ends the iterations.
_TOLERANCE = 1e-13
_MOST_STEPS = 50
#: A column of whose variance less than this share is its own follows from those before it.
SMALLEST_PIVOT = 1e-10
#: A last step (per standard deviation of the covariate) above this is no convergence.
_STILL_MOVING = 1e-2
CONVERGED, SINGULAR, NOT_CONVERGED, UNBOUNDED = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class CoxFit:
    """A fitted model; arrays (p,) and (p, p) in the order of the design's columns.

    `means` are the column means that were taken off before the fit (coefficients do not depend on
    them).
    """

    coefficients: Floats
    covariance: Floats
    log_likelihood: float
    log_likelihood_null: float
    n: int
    n_events: int
    means: Floats

    @property
    def standard_errors(self) -> Floats:
        """Of the coefficients, from the observed information."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def likelihood_ratio(self) -> float:
        """Twice the gain in log partial likelihood over a model without covariates."""
        return 2 * (self.log_likelihood - self.log_likelihood_null)

    def linear_predictor(self, design: Floats) -> Floats:
        """Sum of covariates times coefficients, uncentred, shape (n,)."""
        return np.asarray(design @ self.coefficients)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A hazard ratio with its Wald interval and two-sided p value."""

    value: float
    ci_low: float
    ci_high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """Cumulative baseline hazard (Efron) at covariates of zero: a step at each event time."""

    days: Floats
    cumulative_hazard: Floats

    def at(self, horizon_days: float) -> float:
        """The cumulative hazard up to and including a day; 0 before the first event."""
        at = int(np.searchsorted(self.days, horizon_days, side="right"))
        return float(self.cumulative_hazard[at - 1]) if at else 0.0


def fit_cox(design: ArrayLike, days: ArrayLike, event: ArrayLike) -> CoxFit:
    """Maximum partial likelihood with Efron's approximation for tied event times.

    Parameters
    ----------
    design : shape (n, p), p may be 0.
    days, event : shape (n,).

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, days are negative or `event` holds other than 0, 1.
    NotEstimableError
        If there is no event, columns are constant or collinear, or the likelihood has no maximum
        (separation).
    """
    x, t, d = checked_design(design, days, event)
    if not d.any():
        raise NotEstimableError("no events")
    order = time_order(t, d)
    means = x.mean(axis=0) if len(x) else np.zeros(x.shape[1])
    centred = x - means
    if x.shape[1] == 0:
        null = _null_log_likelihood(t[order], d[order])
        return CoxFit(np.zeros(0), np.zeros((0, 0)), null, null, len(t), int(d.sum()), means)
    require_rank(centred)
    scale = centred.std(axis=0)
    beta, information, null, top, status = newton(
        np.ascontiguousarray((centred / scale)[order]),
        t[order],
        d[order],
        np.zeros(x.shape[1]),
        _MOST_STEPS,
        _TOLERANCE,
    )
    if status != CONVERGED:
        raise NotEstimableError("separation: the likelihood grows without bound")
    covariance = np.linalg.inv(information) / np.outer(scale, scale)
    return CoxFit(beta / scale, covariance, top, null, len(t), int(d.sum()), means)


def hazard_ratio(fit: CoxFit, column: int, confidence: float = 0.95) -> Ratio:
    """exp(coefficient), above 1 where the covariate goes with earlier events; Wald interval."""
    value, error = float(fit.coefficients[column]), float(fit.standard_errors[column])
    half = float(norm.ppf(0.5 + confidence / 2)) * error
    low, middle, high = np.exp([value - half, value, value + half])
    return Ratio(float(middle), float(low), float(high), 2 * float(norm.sf(abs(value) / error)))


def likelihood_ratio_test(smaller: CoxFit, larger: CoxFit) -> tuple[float, int, float]:
    """Chi-square, degrees of freedom and p of nested models on the same patients."""
    value = 2 * (larger.log_likelihood - smaller.log_likelihood)
    df = len(larger.coefficients) - len(smaller.coefficients)
    return value, df, float(chi2.sf(max(value, 0.0), df))


def baseline_hazard(fit: CoxFit, design: ArrayLike, days: ArrayLike, event: ArrayLike) -> Baseline:
    """Cumulative baseline hazard whose ties are Efron's, as R's `survfit` of an Efron model."""
    x, t, d = checked_design(design, days, event)
    order = time_order(t, d)
    centre = float(fit.linear_predictor(x).mean()) if len(x) else 0.0
    risk = np.exp(fit.linear_predictor(x) - centre)
    times, steps = hazard_steps(risk[order], t[order], d[order])
    return Baseline(times, np.cumsum(steps) * np.exp(-centre))


def absolute_risk(
    fit: CoxFit, baseline: Baseline, design: ArrayLike, horizon_days: float
) -> Floats:
    """Probability of the event by the horizon for each row of the design, shape (n,)."""
    eta = fit.linear_predictor(np.asarray(design, np.float64))
    return np.asarray(-np.expm1(-baseline.at(horizon_days) * np.exp(eta)))


def comparable(linear_predictor: Floats) -> Floats:
    """Linear predictors to ten decimals, so that patients of the same covariates tie.

    A product of matrices sums its rows in an order that depends on where they lie.
    """
    return np.asarray(np.round(linear_predictor, 10))


def time_order(days: Floats, event: Bools) -> Ints:
    """Indices that sort by time, events before censorings, the order of rows else kept."""
    return np.lexsort((~event, days)).astype(np.int64)


# -- kernels: everything sorted by time, events before censorings --------------------------------


@compiled
def newton(
    x: Floats, days: Floats, event: Bools, start: Floats, most: int, tolerance: float
) -> tuple[Floats, Floats, float, float, int]:
    """Coefficients, information, log-likelihood at the start and at the end, and status."""
    p = x.shape[1]
    beta = start.copy()
    gradient, information = np.zeros(p), np.zeros((p, p))
    first = _derivatives(x, days, event, beta, gradient, information)
    last, status = first, NOT_CONVERGED
    factor, step = np.zeros((p, p)), np.zeros(p)
    trial_gradient, trial_information = np.zeros(p), np.zeros((p, p))
    for iteration in range(most):
        if not _cholesky(information, factor):
            # What was regular at the start has become singular where a coefficient ran away.
            status = UNBOUNDED if iteration else SINGULAR
            break
        _solve(factor, gradient, step)
        size, found, trial = 1.0, -np.inf, beta
        for _halving in range(30):
            trial = beta + size * step
            found = _derivatives(x, days, event, trial, trial_gradient, trial_information)
            if found >= last - 1e-12 * abs(last):
                break
            size /= 2
        change = abs(found - last)
        beta, last = trial, found
        gradient[:], information[:] = trial_gradient, trial_information
        if change <= tolerance * max(abs(last), 1.0):
            # Where the likelihood has no maximum it levels off, and the steps stay as they were.
            status = UNBOUNDED if np.abs(size * step).max() > _STILL_MOVING else CONVERGED
            break
    return beta, information, first, last, status


@compiled
def _derivatives(
    x: Floats,
    days: Floats,
    event: Bools,
    beta: Floats,
    gradient: Floats,
    information: Floats,
) -> float:
    """Log partial likelihood; fills its gradient and the information, from the last time back."""
    n, p = x.shape
    eta = np.zeros(n)
    top = -np.inf
    for i in range(n):
        for a in range(p):
            eta[i] += x[i, a] * beta[a]
        top = max(top, eta[i])
    gradient[:], information[:] = 0.0, 0.0
    s0, s1, s2 = 0.0, np.zeros(p), np.zeros((p, p))
    t1, t2, mean = np.zeros(p), np.zeros((p, p)), np.zeros(p)
    log_likelihood = 0.0
    i = n - 1
    while i >= 0:
        day, deaths, t0 = days[i], 0, 0.0
        t1[:], t2[:] = 0.0, 0.0
        while i >= 0 and days[i] == day:
            risk = np.exp(eta[i] - top)
            s0 += risk
            for a in range(p):
                xa = risk * x[i, a]
                s1[a] += xa
                for b in range(a + 1):
                    s2[a, b] += xa * x[i, b]
            if event[i]:
                deaths += 1
                t0 += risk
                log_likelihood += eta[i] - top
                for a in range(p):
                    gradient[a] += x[i, a]
                    xa = risk * x[i, a]
                    t1[a] += xa
                    for b in range(a + 1):
                        t2[a, b] += xa * x[i, b]
            i -= 1
        for done in range(deaths):
            share = done / deaths
            at_risk = s0 - share * t0
            if not at_risk > 0.0:  # hazards so far apart that the sum is lost
                return -np.inf
            log_likelihood -= np.log(at_risk)
            for a in range(p):
                mean[a] = (s1[a] - share * t1[a]) / at_risk
                gradient[a] -= mean[a]
                for b in range(a + 1):
                    information[a, b] += (s2[a, b] - share * t2[a, b]) / at_risk - mean[a] * mean[b]
    for a in range(p):
        for b in range(a):
            information[b, a] = information[a, b]
    return log_likelihood


@compiled
def _cholesky(matrix: Floats, factor: Floats) -> bool:
    """Lower factor of a positive definite matrix; False where it is none."""
    p = matrix.shape[0]
    largest = 0.0
    for a in range(p):
        largest = max(largest, matrix[a, a])
    for a in range(p):
        for b in range(a + 1):
            total = matrix[a, b]
            for c in range(b):
                total -= factor[a, c] * factor[b, c]
            if a == b:
                if not total > 1e-12 * largest:
                    return False
                factor[a, a] = np.sqrt(total)
            else:
                factor[a, b] = total / factor[b, b]
    return True


@compiled
def _solve(factor: Floats, right: Floats, out: Floats) -> None:
    p = factor.shape[0]
    for a in range(p):
        total = right[a]
        for b in range(a):
            total -= factor[a, b] * out[b]
        out[a] = total / factor[a, a]
    for a in range(p - 1, -1, -1):
        total = out[a]
        for b in range(a + 1, p):
            total -= factor[b, a] * out[b]
        out[a] = total / factor[a, a]


@compiled
def hazard_steps(risk: Floats, days: Floats, event: Bools) -> tuple[Floats, Floats]:
    """Event times in order, and the step of the Efron cumulative hazard at each."""
    n = len(days)
    times, steps = np.zeros(n), np.zeros(n)
    found, i, s0 = 0, n - 1, 0.0
    while i >= 0:
        day, deaths, t0 = days[i], 0, 0.0
        while i >= 0 and days[i] == day:
            s0 += risk[i]
            if event[i]:
                deaths += 1
                t0 += risk[i]
            i -= 1
        if deaths:
            times[found] = day
            for done in range(deaths):
                steps[found] += 1.0 / (s0 - done / deaths * t0)
            found += 1
    return times[:found][::-1].copy(), steps[:found][::-1].copy()


def _null_log_likelihood(days: Floats, event: Bools) -> float:
    return float(
        _derivatives(
            np.zeros((len(days), 1)), days, event, np.zeros(1), np.zeros(1), np.zeros((1, 1))
        )
    )


def require_rank(centred: Floats) -> None:
    """Refuse constant and collinear columns of a centred design (n, p).

    Raises
    ------
    ConstantColumnError, CollinearColumnError
        With the numbers of the columns.
    """
    spread = centred.std(axis=0)
    largest = np.abs(centred).max(axis=0, initial=0.0)
    constant = np.flatnonzero(spread <= 1e-12 * np.maximum(largest, 1e-300))
    if constant.size:
        raise ConstantColumnError(tuple(int(column) for column in constant))
    scaled = centred / spread
    # Not by BLAS: its threads sum in an order of their own, and wait for each other.
    correlation = np.einsum("ia,ib->ab", scaled, scaled) / len(scaled)
    columns = range(len(correlation))
    pivots = np.array([_pivot(correlation, column) for column in columns])
    bad = np.flatnonzero(pivots < SMALLEST_PIVOT)
    if bad.size:
        raise CollinearColumnError(tuple(int(column) for column in bad))


def _pivot(correlation: Floats, column: int) -> float:
    """Share of a column's variance that the columns before it leave unexplained."""
    before = correlation[:column, :column]
    other = correlation[:column, column]
    explained, *_ = np.linalg.lstsq(before, other, rcond=SMALLEST_PIVOT)
    return float(1 - other @ explained)


class ConstantColumnError(NotEstimableError):
    """Columns without variation; `columns` are their numbers."""

    def __init__(self, columns: tuple[int, ...]) -> None:
        super().__init__(columns)
        self.columns = columns

    def __str__(self) -> str:
        return f"constant column {', '.join(map(str, self.columns))} of the design"


class CollinearColumnError(NotEstimableError):
    """Columns that follow from those before them; `columns` are their numbers."""

    def __init__(self, columns: tuple[int, ...]) -> None:
        super().__init__(columns)
        self.columns = columns

    def __str__(self) -> str:
        return f"collinear column {', '.join(map(str, self.columns))} of the design"


def checked_design(
    design: ArrayLike, days: ArrayLike, event: ArrayLike
) -> tuple[Floats, Floats, Bools]:
    """A design (n, p), follow-up and events (n,) as float64, float64 and bool.

    Raises
    ------
    ValueError
        If shapes differ, a covariate is not finite, or follow-up is wrong (`checked_times`).
    """
    x = np.asarray(design, np.float64)
    t, d = checked_times(days, event)
    if x.ndim != 2 or len(x) != len(t):
        raise ValueError(f"shapes {x.shape} and {t.shape} do not fit together")
    if not np.isfinite(x).all():
        raise ValueError("covariates that are missing or not finite")
    return x, t, d
