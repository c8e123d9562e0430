"""Absolute risk at a horizon from a Cox model, with Efron's ties and baseline hazard.

Made to be refitted in resamples: a fit starts from the coefficients of another, columns that do not
vary are left out, and where a level has no events the risks are those of the limit of the
likelihood. `cac_core.stats.cox.fit_cox` serves coefficients and their errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.cox import comparable
from cac_core.stats.partial_likelihood import (
    CONVERGED,
    SINGULAR,
    UNBOUNDED,
    NewtonFit,
    hazard_steps,
    maximise,
)

#: Refits start near the maximum and may stop at a wider tolerance than `fit_cox`.
_TOLERANCE, _MAX_STEPS = 1e-10, 40
#: A risk below the first may still be falling to 0: Newton's method then goes on to the last
#: tolerance, and risks below the second are 0.
_NEAR_ZERO, _ZERO, _LAST_TOLERANCE = 1e-6, 1e-9, 1e-15


@dataclass(frozen=True, slots=True)
class RiskModel:
    """A fitted model of the risk by one horizon.

    The risk of a patient is 1 - exp(-hazard exp(eta - highest)), where eta is the sum over columns
    of (column - centre) / spread times `beta`, and `spread` is 1 for a column that does not vary.

    Parameters
    ----------
    coefficients : shape (p,), per standard deviation; where another fit may start.
    risk : shape (n,), of the patients of the fit; NaN if the likelihood has neither a maximum nor a
        limit.
    beta : shape (p,), the coefficients behind the risks; with a level without events further out
        than `coefficients`.
    highest : the largest eta of the fit.
    hazard : cumulative baseline hazard by the horizon at `highest`.
    """

    coefficients: Floats
    risk: Floats
    log_likelihood: float
    beta: Floats
    centre: Floats
    spread: Floats
    highest: float = np.nan
    hazard: float = np.nan

    def predict(self, design: Floats) -> Floats:
        """Risks by the horizon of any patients, shape (n,)."""
        eta = comparable((design - self.centre) / self.spread @ self.beta)
        with np.errstate(over="ignore"):  # far beyond all patients of the fit the risk is 1
            risk = np.asarray(-np.expm1(-self.hazard * np.exp(eta - self.highest)))
        risk[risk < _ZERO] = 0.0
        return risk


def fit_risk_model(
    design: Floats,
    days: Floats,
    event: Bools,
    horizon_days: float,
    start: Floats | None = None,
) -> RiskModel:
    """Fit a Cox model and predict the risk by the horizon.

    Risks are 0 in a level without events, and all NaN if the likelihood has neither a maximum nor
    a limit.

    Parameters
    ----------
    design : shape (n, p), rows in the order of time, events before censorings
        (`cac_core.stats.cox.time_order`). Columns without variation are ignored.
    days, event : shape (n,).
    start : shape (p,), coefficients per standard deviation to start from; 0 if left out.
    """
    centre, spread = design.mean(axis=0), design.std(axis=0)
    varies = spread > 0
    spread = np.where(varies, spread, 1.0)
    scaled = np.ascontiguousarray(((design - centre) / spread)[:, varies])
    found = _newton(scaled, days, event, None if start is None else start[varies])
    coefficients = np.zeros(design.shape[1])
    coefficients[varies] = found.beta
    if found.status not in (CONVERGED, UNBOUNDED):
        none = np.full(len(days), np.nan)
        return RiskModel(coefficients, none, float("nan"), coefficients, centre, spread)
    beta, log_likelihood = coefficients, found.log_likelihood
    risk, highest, hazard = _risks(scaled @ found.beta, days, event, horizon_days)
    if (risk < _NEAR_ZERO).any():
        limit = maximise(scaled, days, event, found.beta, _MAX_STEPS, _LAST_TOLERANCE)
        if limit.status in (CONVERGED, UNBOUNDED):
            beta, log_likelihood = np.zeros(design.shape[1]), limit.log_likelihood
            beta[varies] = limit.beta
            risk, highest, hazard = _risks(scaled @ limit.beta, days, event, horizon_days)
        risk[risk < _ZERO] = 0.0
    return RiskModel(coefficients, risk, log_likelihood, beta, centre, spread, highest, hazard)


def _newton(scaled: Floats, days: Floats, event: Bools, start: Floats | None) -> NewtonFit:
    zeros = np.zeros(scaled.shape[1])
    first = zeros if start is None else np.ascontiguousarray(start)
    found = maximise(scaled, days, event, first, _MAX_STEPS, _TOLERANCE)
    if found.status == SINGULAR and start is not None:
        # The start may lie too far out for these patients.
        found = maximise(scaled, days, event, zeros, _MAX_STEPS, _TOLERANCE)
    return found


def _risks(
    eta: Floats, days: Floats, event: Bools, horizon_days: float
) -> tuple[Floats, float, float]:
    """Absolute risks by the horizon, the highest predictor, and the baseline hazard there."""
    eta = comparable(eta)
    relative = np.exp(eta - eta.max())
    times, steps = hazard_steps(relative, days, event)
    hazard = float(steps[times <= horizon_days].sum())
    return np.asarray(-np.expm1(-hazard * relative)), float(eta.max()), hazard
