"""Cox proportional hazards with Efron's ties: fit, hazard ratios, tests.

lifelines is the second opinion of the tests and not the engine: its baseline hazard is Breslow's
under Efron ties, its test of proportional hazards is the approximation of before 2019, and a fit
takes some forty times as long (docs/decisions.md). A positive coefficient means that a greater
covariate goes with a shorter time to the event.

Sources: Cox, J R Stat Soc B 1972;34:187; Efron, J Am Stat Assoc 1977;72:557.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2

from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats, Ints
from cac_core.stats.censoring import checked_follow_up
from cac_core.stats.intervals import wald_p, z_score
from cac_core.stats.partial_likelihood import (
    CONVERGED,
    log_likelihood_without_covariates,
    maximise,
)

#: A relative change of the log-likelihood below this ends the iterations.
_TOLERANCE = 1e-13
_MAX_STEPS = 50
#: A column with less than this share of its variance left, given those before it, is collinear.
SMALLEST_PIVOT = 1e-10


@dataclass(frozen=True, slots=True)
class CoxFit:
    """A fitted model; arrays (p,) and (p, p) in the order of the design's columns.

    `means` are the column means subtracted before the fit (coefficients do not depend on them).
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

    def linear_predictor(self, design: Floats) -> Floats:
        """Sum of covariates times coefficients, uncentred, shape (n,)."""
        return np.asarray(design @ self.coefficients)


@dataclass(frozen=True, slots=True)
class HazardRatio:
    """A hazard ratio with its Wald interval and two-sided p value."""

    value: float
    ci_low: float
    ci_high: float
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
    x, t, d = checked_design(design, days, event)
    if not d.any():
        raise NotEstimableError("no events")
    order = time_order(t, d)
    means = x.mean(axis=0) if len(x) else np.zeros(x.shape[1])
    centred = x - means
    if x.shape[1] == 0:
        null = log_likelihood_without_covariates(t[order], d[order])
        return CoxFit(np.zeros(0), np.zeros((0, 0)), null, null, len(t), int(d.sum()), means)
    require_rank(centred)
    scale = centred.std(axis=0)
    scaled, start = np.ascontiguousarray((centred / scale)[order]), np.zeros(x.shape[1])
    found = maximise(scaled, t[order], d[order], start, _MAX_STEPS, _TOLERANCE)
    if found.status != CONVERGED:
        raise NotEstimableError("separation: the likelihood grows without bound")
    covariance = np.linalg.inv(found.information) / np.outer(scale, scale)
    null, top = found.log_likelihood_start, found.log_likelihood
    return CoxFit(found.beta / scale, covariance, top, null, len(t), int(d.sum()), means)


def hazard_ratio(fit: CoxFit, column: int, confidence: float = 0.95) -> HazardRatio:
    """exp(coefficient), above 1 if a greater covariate goes with earlier events; Wald interval."""
    value, error = float(fit.coefficients[column]), float(fit.standard_errors[column])
    half = z_score(confidence) * error
    low, middle, high = np.exp([value - half, value, value + half])
    return HazardRatio(float(middle), float(low), float(high), wald_p(value, error))


def likelihood_ratio_test(smaller: CoxFit, larger: CoxFit) -> tuple[float, int, float]:
    """Chi-square, degrees of freedom and p of nested models on the same patients."""
    value = 2 * (larger.log_likelihood - smaller.log_likelihood)
    df = len(larger.coefficients) - len(smaller.coefficients)
    return value, df, float(chi2.sf(max(value, 0.0), df))


def comparable(linear_predictor: Floats) -> Floats:
    """Linear predictors to ten decimals, so that patients with the same covariates tie.

    The order in which a matrix product sums a row depends on its place in memory.
    """
    return np.asarray(np.round(linear_predictor, 10))


def time_order(days: Floats, event: Bools) -> Ints:
    """Indices that sort by time, events before censorings; otherwise stable."""
    return np.lexsort((~event, days)).astype(np.int64)


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
    # Not BLAS, whose threads sum in varying order and wait for each other.
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
    """Columns that are linear in those before them; `columns` are their numbers."""

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
        If shapes differ, a covariate is not finite, or follow-up is wrong (`checked_follow_up`).
    """
    x = np.asarray(design, np.float64)
    t, d = checked_follow_up(days, event)
    if x.ndim != 2 or len(x) != len(t):
        raise ValueError(f"shapes {x.shape} and {t.shape} do not fit together")
    if not np.isfinite(x).all():
        raise ValueError("covariates that are missing or not finite")
    return x, t, d
