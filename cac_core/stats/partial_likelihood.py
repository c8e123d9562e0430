"""Efron's partial likelihood of a Cox model: its maximum by Newton's method, and the hazard.

One kernel serves the reported fit, its refits in the bootstrap and the tests of its assumptions, so
that they cannot differ. Patients are in the order of time, events before censorings
(`cac_core.stats.cox.time_order`); nothing is checked.

Sources: Cox, J R Stat Soc B 1972;34:187; Efron, J Am Stat Assoc 1977;72:557.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.compiled import compiled

#: A last step (per standard deviation of the covariate) above this is no convergence.
_STILL_MOVING = 1e-2
CONVERGED, SINGULAR, NOT_CONVERGED, UNBOUNDED = 0, 1, 2, 3


class NewtonFit(NamedTuple):
    """Where Newton's method ended.

    Parameters
    ----------
    beta : shape (p,).
    information : shape (p, p), observed information at `beta`.
    log_likelihood_start, log_likelihood : at the start and at `beta`.
    status : `CONVERGED`; `SINGULAR` if the information is singular at the start; `UNBOUNDED` if the
        likelihood levels off while a coefficient runs away; `NOT_CONVERGED`.
    """

    beta: Floats
    information: Floats
    log_likelihood_start: float
    log_likelihood: float
    status: int


def maximise(
    x: Floats, days: Floats, event: Bools, start: Floats, max_steps: int, tolerance: float
) -> NewtonFit:
    """Maximum of the partial likelihood by Newton's method with step halving.

    Parameters
    ----------
    x : shape (n, p), contiguous, columns scaled to unit standard deviation.
    days, event : shape (n,).
    start : shape (p,).
    tolerance : relative change of the log-likelihood that ends the iterations.
    """
    return NewtonFit(*_newton(x, days, event, start, max_steps, tolerance))


def log_likelihood_without_covariates(days: Floats, event: Bools) -> float:
    """Log partial likelihood of a model without covariates."""
    none = np.zeros((len(days), 1))
    return float(_derivatives(none, days, event, np.zeros(1), np.zeros(1), np.zeros((1, 1))))


@compiled
def _newton(
    x: Floats, days: Floats, event: Bools, start: Floats, max_steps: int, tolerance: float
) -> tuple[Floats, Floats, float, float, int]:
    """Coefficients, information, log-likelihood at the start and at the end, and status."""
    p = x.shape[1]
    beta = start.copy()
    gradient, information = np.zeros(p), np.zeros((p, p))
    first = _derivatives(x, days, event, beta, gradient, information)
    last, status = first, NOT_CONVERGED
    factor, step = np.zeros((p, p)), np.zeros(p)
    trial_gradient, trial_information = np.zeros(p), np.zeros((p, p))
    for iteration in range(max_steps):
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
    """Log partial likelihood; fills its gradient and the information.

    One pass back in time. s0, s1, s2 sum risk, risk x and risk x x' of the patients at risk; t0,
    t1, t2 those of the day's events, of which Efron's method subtracts a share for each event. Long
    on purpose: with a separate function for the risk set the bootstrap is a tenth slower.
    """
    n, p = x.shape
    eta, top = _linear_predictor(x, beta)
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
            _add_moments(x, i, risk, s1, s2)
            if event[i]:
                deaths += 1
                t0 += risk
                log_likelihood += eta[i] - top
                for a in range(p):
                    gradient[a] += x[i, a]
                _add_moments(x, i, risk, t1, t2)
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
    _mirror(information)
    return log_likelihood


@compiled
def _linear_predictor(x: Floats, beta: Floats) -> tuple[Floats, float]:
    """Linear predictor of each patient, and the highest."""
    eta = np.zeros(len(x))
    top = -np.inf
    for i in range(len(x)):
        for a in range(len(beta)):
            eta[i] += x[i, a] * beta[a]
        top = max(top, eta[i])
    return eta, top


@compiled
def _add_moments(x: Floats, i: int, risk: float, first: Floats, second: Floats) -> None:
    """Add risk x and the lower triangle of risk x x' of a patient."""
    for a in range(len(first)):
        xa = risk * x[i, a]
        first[a] += xa
        for b in range(a + 1):
            second[a, b] += xa * x[i, b]


@compiled
def _mirror(matrix: Floats) -> None:
    """Copy the lower triangle to the upper."""
    for a in range(len(matrix)):
        for b in range(a):
            matrix[b, a] = matrix[a, b]


@compiled
def _cholesky(matrix: Floats, factor: Floats) -> bool:
    """Lower factor of a positive definite matrix; False if it is not."""
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
