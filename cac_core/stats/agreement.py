"""Agreement of two readings: concordance, kappa, presence, ICC, Bland-Altman, correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import f as f_distribution
from scipy.stats import nct, rankdata
from scipy.stats import t as t_distribution

from cac_core.stats.arrays import Floats, Ints
from cac_core.stats.intervals import z_score

Weighting = Literal["linear", "quadratic", "unweighted"]
#: Standard deviations from the bias to a limit of agreement.
_LIMIT = 1.96


@dataclass(frozen=True, slots=True)
class Kappa:
    """Weighted kappa with its large-sample standard error and confidence interval.

    1 is perfect agreement, 0 agreement by chance. NaN if undefined (all ratings of both raters in
    one category, or no ratings).
    """

    value: float
    standard_error: float
    ci_low: float
    ci_high: float
    n: int


def concordance(first: Sequence[str], second: Sequence[str], levels: Sequence[str]) -> Ints:
    """Counts of each pair of ratings, shape (levels, levels), rows the first rater.

    Raises
    ------
    ValueError
        If the raters differ in length or a rating is no level.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} ratings")
    position = {level: at for at, level in enumerate(levels)}
    unknown = sorted({*first, *second} - set(position))
    if unknown:
        raise ValueError(f"ratings outside the levels: {', '.join(unknown)}")
    matrix = np.zeros((len(levels), len(levels)), np.int64)
    for a, b in zip(first, second, strict=True):
        matrix[position[a], position[b]] += 1
    return matrix


def weighted_kappa(
    matrix: ArrayLike, weighting: Weighting = "linear", confidence: float = 0.95
) -> Kappa:
    """Cohen's kappa with agreement weights from a square table of counts.

    With weights w_ij = 1 - |i - j| / (k - 1) (linear) or its square of the distance (quadratic),
    kappa = (P_o - P_e) / (1 - P_e); the variance is that of Fleiss, Cohen and Everitt, Psychol
    Bull 1969;72:323, eq. 7, for kappa other than zero.

    Parameters
    ----------
    matrix : shape (k, k), counts, rows one rater and columns the other.

    Raises
    ------
    ValueError
        If the table is not square, has fewer than two levels, or holds negative counts.
    """
    counts = _square_counts(matrix)
    n = counts.sum()
    weights = _weights(counts.shape[0], weighting)
    if n == 0:
        return Kappa(np.nan, np.nan, np.nan, np.nan, 0)
    share = counts / n
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    observed = float((weights * share).sum())
    expected = float(rows @ weights @ columns)
    if np.isclose(expected, 1.0):
        return Kappa(np.nan, np.nan, np.nan, np.nan, int(n))
    kappa = (observed - expected) / (1 - expected)
    row_mean = weights @ columns
    column_mean = rows @ weights
    inner = weights - (row_mean[:, None] + column_mean[None, :]) * (1 - kappa)
    spread = float((share * inner**2).sum()) - (kappa - expected * (1 - kappa)) ** 2
    error = float(np.sqrt(max(spread, 0.0) / n) / (1 - expected))
    half = z_score(confidence) * error
    return Kappa(float(kappa), error, float(kappa) - half, min(float(kappa) + half, 1.0), int(n))


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval; NaN if undefined."""

    value: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True, slots=True)
class BlandAltman:
    """Mean difference and 95 % limits of agreement, each with its interval.

    NaN with fewer than two pairs.
    """

    bias: Interval
    limit_low: Interval
    limit_high: Interval
    n: int


def intraclass_correlation(ratings: ArrayLike, confidence: float = 0.95) -> Interval:
    """ICC(2,1): two-way random effects, absolute agreement, single rating.

    1 is perfect agreement. Point estimate and interval of McGraw and Wong, Psychol Methods
    1996;1:30, tables 4 and 7, case 2A (what `psych::ICC` in R gives as ICC2).

    Parameters
    ----------
    ratings : shape (studies, raters).
    """
    ratings = np.asarray(ratings, np.float64)
    n, k = ratings.shape
    if n < 3:
        return Interval(np.nan, np.nan, np.nan, n)
    grand, rows, columns = ratings.mean(), ratings.mean(axis=1), ratings.mean(axis=0)
    between = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    raters = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    rest = ratings - rows[:, None] - columns + grand
    error = float((rest**2).sum()) / ((n - 1) * (k - 1))
    bottom = between + (k - 1) * error + k * (raters - error) / n
    if bottom <= 0 or (between == 0 and error == 0):
        return Interval(np.nan, np.nan, np.nan, n)
    icc = (between - error) / bottom
    if error == 0 and raters == 0:
        return Interval(icc, icc, icc, n)
    a = k * icc / (n * (1 - icc)) if icc < 1 else np.inf
    b = 1 + k * icc * (n - 1) / (n * (1 - icc)) if icc < 1 else np.inf
    v = (a * raters + b * error) ** 2 / (
        (a * raters) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    tail = 1 - (1 - confidence) / 2
    upper_f = float(f_distribution.ppf(tail, n - 1, v))
    lower_f = float(f_distribution.ppf(tail, v, n - 1))
    spread = k * raters + (k * n - k - n) * error
    low = n * (between - upper_f * error) / (upper_f * spread + n * between)
    high = n * (lower_f * between - error) / (spread + n * lower_f * between)
    return Interval(float(icc), float(low), float(high), n)


def bland_altman(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> BlandAltman:
    """Bias (first minus second) and limits of agreement, Bland and Altman, Lancet 1986;1:307.

    The limits are bias -/+ 1.96 SD. The interval of the bias is Student's; that of each limit is
    exact for normal differences (noncentral t; Carkeet, Optom Vis Sci 2015;92:e71), of which the
    interval of Bland and Altman, Stat Methods Med Res 1999;8:135, is the approximation in large
    samples.
    """
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    n = difference.size
    if n < 2:
        nothing = Interval(np.nan, np.nan, np.nan, n)
        return BlandAltman(nothing, nothing, nothing, n)
    bias, spread = float(difference.mean()), float(difference.std(ddof=1))
    half = float(t_distribution.ppf((1 + confidence) / 2, n - 1)) * spread / np.sqrt(n)
    near, far = (factor * spread for factor in limit_factors(n, confidence))
    wide = _LIMIT * spread
    return BlandAltman(
        Interval(bias, bias - half, bias + half, n),
        Interval(bias - wide, bias - far, bias - near, n),
        Interval(bias + wide, bias + near, bias + far, n),
        n,
    )


def limit_factors(n: int, confidence: float = 0.95, z: float = _LIMIT) -> tuple[float, float]:
    """Standard deviations from the mean to both ends of the interval of mean + z SD.

    The exact interval of a percentile of a normal distribution: quantiles of a noncentral t with
    n - 1 degrees of freedom and noncentrality z sqrt(n), over sqrt(n).

    Parameters
    ----------
    n : observations, at least 2.
    """
    root = np.sqrt(n)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    low, high = (float(nct.ppf(tail, n - 1, z * root) / root) for tail in tails)
    return low, high


def squared_correlation(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """Pearson's r squared; interval of r by Fisher's z, squared (from 0 where it spans 0)."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.size < 4 or a.std() == 0 or b.std() == 0:
        return Interval(np.nan, np.nan, np.nan, a.size)
    r = float(np.corrcoef(a, b)[0, 1])
    half = z_score(confidence) / np.sqrt(a.size - 3)
    z = np.arctanh(min(max(r, -1 + 1e-15), 1 - 1e-15))
    low, high = float(np.tanh(z - half)), float(np.tanh(z + half))
    squares = sorted((low**2, high**2))
    return Interval(r**2, 0.0 if low < 0 < high else squares[0], squares[1], a.size)


def spearman(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """Spearman's rank correlation, ties by mean rank.

    Interval: Fisher's z of the coefficient r with variance (1 + r^2 / 2) / (n - 3), Bonett and
    Wright, Psychometrika 2000;65:23. NaN with fewer than four pairs or if one side is constant.
    """
    a, b = rankdata(np.asarray(first, np.float64)), rankdata(np.asarray(second, np.float64))
    if a.size < 4 or a.std() == 0 or b.std() == 0:
        return Interval(np.nan, np.nan, np.nan, a.size)
    r = float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))
    half = z_score(confidence) * np.sqrt((1 + r**2 / 2) / (a.size - 3))
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    return Interval(r, float(np.tanh(z - half)), float(np.tanh(z + half)), a.size)


@dataclass(frozen=True, slots=True)
class Presence:
    """Agreement on the presence of calcium; the first rater is the reference.

    Sensitivity and specificity have Wilson's interval; NaN if the reference never, or always,
    finds calcium.
    """

    kappa: Kappa
    sensitivity: Interval
    specificity: Interval


def presence(matrix: ArrayLike) -> Presence:
    """Agreement on presence; the first level is absence.

    Parameters
    ----------
    matrix : shape (k, k), counts, rows the reference and columns the compared rater.

    Raises
    ------
    ValueError
        If the table is not square, has fewer than two levels, or holds negative counts.
    """
    counts = _square_counts(matrix)
    both, neither = int(counts[1:, 1:].sum()), int(counts[0, 0])
    over, missed = int(counts[0, 1:].sum()), int(counts[1:, 0].sum())
    return Presence(
        weighted_kappa([[neither, over], [missed, both]], "unweighted"),
        proportion(both, both + missed),
        proportion(neither, neither + over),
    )


def proportion(count: int, n: int, confidence: float = 0.95) -> Interval:
    """A share with the interval of Wilson, J Am Stat Assoc 1927;22:209."""
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    z = z_score(confidence)
    p = count / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(p, max(0.0, float(centre - half)), min(1.0, float(centre + half)), n)


def _square_counts(matrix: ArrayLike) -> Floats:
    counts = np.asarray(matrix, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.shape[0] < 2:
        raise ValueError(f"a square table of two or more levels is needed, not {counts.shape}")
    if (counts < 0).any():
        raise ValueError("counts are negative")
    return counts


def _weights(levels: int, weighting: Weighting) -> Floats:
    at = np.arange(levels)
    distance = np.abs(at[:, None] - at[None, :]) / (levels - 1)
    if weighting == "linear":
        return np.asarray(1 - distance)
    if weighting == "quadratic":
        return np.asarray(1 - distance**2)
    return np.asarray(distance == 0, np.float64)
