"""Normal (Wald) intervals and tests."""

from __future__ import annotations

import math

from scipy.stats import norm


def z_score(confidence: float) -> float:
    """Standard normal quantile of a two-sided interval: 1.96 for a confidence of 0.95."""
    return float(norm.ppf(0.5 + confidence / 2))


def normal_interval(
    value: float,
    standard_error: float,
    confidence: float,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> tuple[float, float]:
    """Limits of `value` +- z `standard_error`, clipped to the range of the parameter."""
    half = z_score(confidence) * standard_error
    return max(value - half, lowest), min(value + half, highest)


def wald_p(value: float, standard_error: float) -> float:
    """Two-sided p value of the hypothesis that the parameter is 0."""
    return 2 * float(norm.sf(abs(value) / standard_error))
