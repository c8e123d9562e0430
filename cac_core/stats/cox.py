"""Cox proportional hazards with Efron's ties: fit, baseline, absolute risk, residuals, tests.

One Newton kernel serves the reported fit, its thousand refits in the bootstrap and the tests of
its assumptions, so that they cannot differ. lifelines is the second opinion of the tests, not the
engine: its baseline hazard is Breslow's under Efron ties, its test of proportional hazards is the
approximation of before 2019, and a fit takes some hundred times as long (docs/decisions.md).

Everywhere `days` and `event` are the follow-up and whether it ended with the event (1) or not (0);
a positive coefficient means that more of the covariate shortens the time to the event.

Sources: Cox, J R Stat Soc B 1972;34:187; Efron, J Am Stat Assoc 1977;72:557; Grambsch and
Therneau, Biometrika 1994;81:515; Therneau and Grambsch, Modeling Survival Data, Springer 2000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm

from cac_core.stats.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: A change of the log-likelihood (relative) below this ends the iterations.
_TOLERANCE = 1e-13
_MOST_STEPS = 50
#: A column of whose variance less than this share is its own follows from those before it.
_PIVOT = 1e-10
#: A last step (per standard deviation of the covariate) above this is no convergence.
_STILL_MOVING = 1e-2
CONVERGED, SINGULAR, NOT_CONVERGED, UNBOUNDED = 0, 1, 2, 3


class NotEstimableError(Exception):
    """A quantity that these data cannot give; the text says why and becomes the row's reason."""


@dataclass(frozen=True, slots=True)
class CoxFit:
    """A fitted model; arrays (p,) and (p, p) in the order of the design's columns.

    `order` sorts patients by time, events before censorings; `means` are the column means that
    were taken off before the fit (coefficients do not depend on them).
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


@dataclass(frozen=True, slots=True)
class ProportionalityTest:
    """Score test that the effect of a term does not change over time.

    NaN where the data cannot tell, such as a term that varies at one event time alone.
    """

    chi2: float
    df: int
    p_value: float


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
    x, t, d = _checked(design, days, event)
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
    x, t, d = _checked(design, days, event)
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


def martingale_residuals(
    fit: CoxFit, design: ArrayLike, days: ArrayLike, event: ArrayLike
) -> Floats:
    """Events less expected events of each patient, shape (n,); sum to zero."""
    x, t, d = _checked(design, days, event)
    order = time_order(t, d)
    eta = fit.linear_predictor(x)
    residual, _ = _residuals(
        x[order] - fit.means, np.exp(eta - eta.mean())[order], t[order], d[order]
    )
    return _in_place(residual, order)


def dfbeta(fit: CoxFit, design: ArrayLike, days: ArrayLike, event: ArrayLike) -> Floats:
    """Change of each coefficient were a patient left out (first order), shape (n, p)."""
    x, t, d = _checked(design, days, event)
    order = time_order(t, d)
    eta = fit.linear_predictor(x)
    _, score = _residuals(x[order] - fit.means, np.exp(eta - eta.mean())[order], t[order], d[order])
    return _in_place(score @ fit.covariance, order)


def proportional_hazards_test(
    fit: CoxFit,
    design: ArrayLike,
    days: ArrayLike,
    event: ArrayLike,
    terms: Sequence[Sequence[int]],
    transform: Literal["km", "identity"] = "km",
) -> tuple[tuple[ProportionalityTest, ...], ProportionalityTest]:
    """Score test of time-varying effects, per term and over all: R's `cox.zph` since survival 3.

    Tests the coefficient of covariate x g(time), g being one less the Kaplan-Meier estimate just
    before the event (`km`), or the time itself.

    Parameters
    ----------
    terms : for each term, the columns of the design that belong to it.
    """
    x, t, d = _checked(design, days, event)
    order = time_order(t, d)
    x, t, d = x[order] - fit.means, t[order], d[order]
    g = _time_scale(t, d, transform)
    eta = x @ fit.coefficients
    score, whole = _time_score(np.ascontiguousarray(x), np.exp(eta - eta.max()), t, d, g)
    p = x.shape[1]
    full = np.concatenate([np.zeros(p), score])

    def test(columns: Sequence[int]) -> ProportionalityTest:
        keep = [*range(p), *(p + column for column in columns)]
        value = _quadratic_form(full[keep], whole[np.ix_(keep, keep)])
        return ProportionalityTest(value, len(columns), float(chi2.sf(value, len(columns))))

    return tuple(test(columns) for columns in terms), test(range(p))


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


def _groups(days: Floats, event: Bools) -> list[tuple[int, int, int]]:
    """Tie groups in order: first row, row after the last, number of events (which come first)."""
    _, starts = np.unique(days, return_index=True)
    stops = [*starts[1:], len(days)]
    return [
        (int(start), int(stop), int(event[start:stop].sum()))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _residuals(x: Floats, risk: Floats, days: Floats, event: Bools) -> tuple[Floats, Floats]:
    """Martingale (n,) and score (n, p) residuals under Efron's weights of tied events.

    Of the steps of a tied time, those who have the event share the later ones in part (Therneau
    and Grambsch 2000, section 4.2 and its appendix).
    """
    n, p = x.shape
    weighted = risk[:, None] * x
    martingale, score = np.zeros(n), np.zeros((n, p))
    s0 = np.cumsum(risk[::-1])[::-1]
    s1 = np.cumsum(weighted[::-1], axis=0)[::-1]
    hazard, mean_hazard = 0.0, np.zeros(p)
    for start, stop, deaths in _groups(days, event):
        dead = slice(start, start + deaths)
        share = np.arange(deaths) / max(deaths, 1)
        steps = 1 / (s0[start] - share * risk[dead].sum())
        means = (s1[start] - share[:, None] * weighted[dead].sum(axis=0)) * steps[:, None]
        own0, own1 = (
            hazard + ((1 - share) * steps).sum(),
            mean_hazard + ((1 - share) * steps) @ means,
        )
        hazard, mean_hazard = hazard + steps.sum(), mean_hazard + steps @ means
        martingale[dead] = 1 - risk[dead] * own0
        score[dead] = x[dead] - means.mean(axis=0) if deaths else 0.0
        score[dead] -= weighted[dead] * own0 - np.outer(risk[dead], own1)
        stay = slice(start + deaths, stop)
        martingale[stay] = -risk[stay] * hazard
        score[stay] = np.outer(risk[stay], mean_hazard) - weighted[stay] * hazard
    return martingale, score


def _time_score(
    x: Floats, risk: Floats, days: Floats, event: Bools, g: Floats
) -> tuple[Floats, Floats]:
    """Score of x g(t) at zero (p,), and the information of x and x g(t) together (2p, 2p)."""
    p = x.shape[1]
    weighted = risk[:, None] * x
    score, spreads = np.zeros(p), np.zeros((3, p, p))
    s0, s1, s2 = 0.0, np.zeros(p), np.zeros((p, p))
    for start, stop, deaths in reversed(_groups(days, event)):
        rows, dead = slice(start, stop), slice(start, start + deaths)
        s0 += risk[rows].sum()
        s1 = s1 + weighted[rows].sum(axis=0)
        s2 = s2 + x[rows].T @ weighted[rows]
        if not deaths:
            continue
        t0, t1, t2 = risk[dead].sum(), weighted[dead].sum(axis=0), x[dead].T @ weighted[dead]
        score += g[start] * x[dead].sum(axis=0)
        for share in np.arange(deaths) / deaths:
            at_risk = s0 - share * t0
            mean = (s1 - share * t1) / at_risk
            spread = (s2 - share * t2) / at_risk - np.outer(mean, mean)
            score -= g[start] * mean
            spreads += np.array([1.0, g[start], g[start] ** 2])[:, None, None] * spread
    plain, once, twice = spreads
    return score, np.block([[plain, once], [once, twice]])


def _quadratic_form(vector: Floats, matrix: Floats) -> float:
    """Vector' matrix^-1 vector of an information; NaN where that is singular."""
    scale = np.sqrt(np.diag(matrix))
    if not (scale > 0).all():
        return float("nan")
    scaled = matrix / np.outer(scale, scale)
    if len(scaled) and float(np.linalg.eigvalsh(scaled)[0]) < _PIVOT:
        return float("nan")
    return float(vector / scale @ np.linalg.solve(scaled, vector / scale))


def _time_scale(days: Floats, event: Bools, transform: str) -> Floats:
    """G at each event (0 elsewhere), its mean over the events taken off."""
    if transform == "identity":
        g = days.copy()
    else:
        times, starts = np.unique(days, return_index=True)
        at_risk = len(days) - starts
        deaths = np.add.reduceat(event.astype(np.float64), starts)
        before = np.concatenate([[1.0], np.cumprod(1 - deaths / at_risk)[:-1]])
        g = 1 - before[np.searchsorted(times, days)]
    return np.where(event, g - g[event].mean(), 0.0)


def _null_log_likelihood(days: Floats, event: Bools) -> float:
    return float(
        _derivatives(
            np.zeros((len(days), 1)), days, event, np.zeros(1), np.zeros(1), np.zeros((1, 1))
        )
    )


def _in_place(sorted_values: Floats, order: Ints) -> Floats:
    out = np.empty_like(sorted_values)
    out[order] = sorted_values
    return out


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
    bad = np.flatnonzero(pivots < _PIVOT)
    if bad.size:
        raise CollinearColumnError(tuple(int(column) for column in bad))


def _pivot(correlation: Floats, column: int) -> float:
    """Share of a column's variance that the columns before it leave unexplained."""
    before = correlation[:column, :column]
    other = correlation[:column, column]
    explained, *_ = np.linalg.lstsq(before, other, rcond=_PIVOT)
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


def checked_times(days: ArrayLike, event: ArrayLike) -> tuple[Floats, Bools]:
    """Follow-up as float64 and events as bool, both (n,).

    Raises
    ------
    ValueError
        For different lengths, times that are missing or negative, codes other than 0 and 1.
    """
    t, codes = np.asarray(days, np.float64), np.asarray(event, np.float64)
    if t.ndim != 1 or t.shape != codes.shape:
        raise ValueError(f"shapes {t.shape} and {codes.shape} do not fit together")
    if not np.isfinite(t).all():
        raise ValueError(f"{int((~np.isfinite(t)).sum())} missing times")
    if (t < 0).any():
        raise ValueError(f"{int((t < 0).sum())} negative times")
    wrong = ~np.isin(codes, (0, 1))
    if wrong.any():
        raise ValueError(f"{int(wrong.sum())} event codes other than 0 and 1")
    return t, codes.astype(np.bool_)


def _checked(design: ArrayLike, days: ArrayLike, event: ArrayLike) -> tuple[Floats, Floats, Bools]:
    x = np.asarray(design, np.float64)
    t, d = checked_times(days, event)
    if x.ndim != 2 or len(x) != len(t):
        raise ValueError(f"shapes {x.shape} and {t.shape} do not fit together")
    if not np.isfinite(x).all():
        raise ValueError("covariates that are missing or not finite")
    return x, t, d
