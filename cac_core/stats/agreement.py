"""Agreement of two ordered ratings: concordance matrix and weighted kappa."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

Weighting = Literal["linear", "quadratic", "unweighted"]


@dataclass(frozen=True, slots=True)
class Kappa:
    """Weighted kappa with its large-sample standard error and confidence interval.

    1 is perfect agreement, 0 is what chance gives. NaN where it is not defined (all ratings of
    both raters in one category, or no rating).
    """

    value: float
    standard_error: float
    ci_low: float
    ci_high: float
    n: int


def concordance(
    first: Sequence[str], second: Sequence[str], levels: Sequence[str]
) -> NDArray[np.int64]:
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
    counts = np.asarray(matrix, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.shape[0] < 2:
        raise ValueError(f"a square table of two or more levels is needed, not {counts.shape}")
    if (counts < 0).any():
        raise ValueError("counts are negative")
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
    half = float(norm.ppf(0.5 + confidence / 2)) * error
    return Kappa(float(kappa), error, float(kappa) - half, min(float(kappa) + half, 1.0), int(n))


def _weights(levels: int, weighting: Weighting) -> NDArray[np.float64]:
    at = np.arange(levels)
    distance = np.abs(at[:, None] - at[None, :]) / (levels - 1)
    if weighting == "linear":
        return np.asarray(1 - distance)
    if weighting == "quadratic":
        return np.asarray(1 - distance**2)
    return np.asarray(distance == 0, np.float64)
