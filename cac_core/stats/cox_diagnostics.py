"""Diagnostics of a Cox model: residuals, influence, test of proportional hazards.

With Efron's handling of tied events, as R's `residuals` and `cox.zph` (survival 3).

Sources: Grambsch and Therneau, Biometrika 1994;81:515; Therneau and Grambsch, Modeling Survival
Data, Springer 2000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2

from cac_core.stats.arrays import Bools, Floats, Ints
from cac_core.stats.censoring import checked_follow_up
from cac_core.stats.cox import SMALLEST_PIVOT, CoxFit, checked_design, time_order


@dataclass(frozen=True, slots=True)
class ProportionalityTest:
    """Score test that the effect of a term does not change over time.

    NaN if it cannot be estimated, for instance if a term varies at one event time only.
    """

    chi2: float
    df: int
    p_value: float


def martingale_residuals(
    fit: CoxFit, design: ArrayLike, days: ArrayLike, event: ArrayLike
) -> Floats:
    """Events less expected events of each patient, shape (n,); sum to zero."""
    x, t, d = checked_design(design, days, event)
    order = time_order(t, d)
    eta = fit.linear_predictor(x)
    residual, _ = _residuals(
        x[order] - fit.means, np.exp(eta - eta.mean())[order], t[order], d[order]
    )
    return _in_place(residual, order)


def dfbeta(fit: CoxFit, design: ArrayLike, days: ArrayLike, event: ArrayLike) -> Floats:
    """First-order change of each coefficient when a patient is left out, shape (n, p)."""
    x, t, d = checked_design(design, days, event)
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
    *,
    infinite: Sequence[int] = (),
    followed: tuple[ArrayLike, ArrayLike] | None = None,
) -> tuple[tuple[ProportionalityTest, ...], ProportionalityTest]:
    """Score tests of time-varying effects, per term and global: `cox.zph` of R's survival 3.

    Tests covariate x g(time), g being 1 - Kaplan-Meier just before the event (`km`) or the time.

    Parameters
    ----------
    terms : for each term, its columns of the design.
    infinite : for each term, the number of coefficients that are infinite, of levels without
        events, and have no column. They count as degrees of freedom and add 0 to the chi-square,
        as in `cox.zph` of the model with all levels.
    followed : days and events of all patients, those of such levels included, for the
        Kaplan-Meier estimate; those of the design if left out.
    """
    x, t, d = checked_design(design, days, event)
    order = time_order(t, d)
    x, t, d = x[order] - fit.means, t[order], d[order]
    every = (t, d) if followed is None else checked_follow_up(*followed)
    g = _time_scale(t, d, transform, *every)
    eta = x @ fit.coefficients
    score, whole = _time_score(np.ascontiguousarray(x), np.exp(eta - eta.max()), t, d, g)
    full = np.concatenate([np.zeros(p := x.shape[1]), score])

    def test(columns: Sequence[int], more: int) -> ProportionalityTest:
        keep = [*range(p), *(p + column for column in columns)]
        value, df = _quadratic_form(full[keep], whole[np.ix_(keep, keep)]), len(columns) + more
        return ProportionalityTest(value, df, float(chi2.sf(value, df)) if df else np.nan)

    more = infinite or [0] * len(terms)
    return tuple(map(test, terms, more)), test(range(p), sum(more))


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

    Patients with a tied event are exposed to a decreasing share of the steps of their time
    (Therneau and Grambsch 2000, section 4.2 and its appendix).
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
    if len(scaled) and float(np.linalg.eigvalsh(scaled)[0]) < SMALLEST_PIVOT:
        return float("nan")
    return float(vector / scale @ np.linalg.solve(scaled, vector / scale))


def _time_scale(
    days: Floats, event: Bools, transform: str, all_days: Floats, all_events: Bools
) -> Floats:
    """G at each event, centred on its mean over the events; 0 for censored patients."""
    if transform == "identity":
        g = days.copy()
    else:
        order = np.argsort(all_days, kind="stable")
        times, starts = np.unique(all_days[order], return_index=True)
        at_risk = len(all_days) - starts
        deaths = np.add.reduceat(all_events[order].astype(np.float64), starts)
        before = np.concatenate([[1.0], np.cumprod(1 - deaths / at_risk)[:-1]])
        g = 1 - before[np.searchsorted(times, days)]
    return np.where(event, g - g[event].mean(), 0.0)


def _in_place(sorted_values: Floats, order: Ints) -> Floats:
    out = np.empty_like(sorted_values)
    out[order] = sorted_values
    return out
