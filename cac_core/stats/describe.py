"""Description of a cohort by groups: summaries, the choice of mean or median, tests of difference.

Groups and levels are integer codes from 0, -1 for missing; numbers are NaN if missing. A patient
outside all groups counts in the summary of all patients, not in a test.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from cac_core.stats.arrays import Floats, Ints

#: Largest sample of Shapiro and Wilk's test (Royston, Appl Stat 1995;44:547).
SHAPIRO_LARGEST = 5000
NORMALITY_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean with standard deviation (n - 1), median with quartiles; NaN if undefined."""

    n: int
    missing: int
    mean: float
    sd: float
    median: float
    q1: float
    q3: float


@dataclass(frozen=True, slots=True)
class GroupTest:
    """A test that groups do not differ; NaN, with the reason, if it cannot be done."""

    statistic: float
    df: tuple[float, ...]
    p_value: float
    n: int
    method: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A continuous variable: summary of all patients and by group, and a test of difference.

    If `normal`, mean (SD) is the summary to print and the test compares means; else median (IQR)
    and ranks.
    """

    normal: bool
    overall: Summary
    groups: tuple[Summary, ...]
    test: GroupTest


@dataclass(frozen=True, slots=True)
class Counts:
    """A categorical variable: counts of all patients and by group, and a test of difference.

    `counts` has one row per level and one column per group; `overall` includes patients outside
    the groups; `missing` is by group.
    """

    overall: tuple[int, ...]
    overall_missing: int
    counts: tuple[tuple[int, ...], ...]
    missing: tuple[int, ...]
    test: GroupTest


def describe_numbers(
    values: ArrayLike,
    group: ArrayLike,
    groups: Sequence[str],
    alpha: float = NORMALITY_ALPHA,
    normal: bool | None = None,
) -> Numbers:
    """Describe a continuous variable by groups.

    Parameters
    ----------
    values : shape (n,), NaN where missing.
    group : shape (n,), codes of `groups`.
    alpha : level of the tests of normality, see `looks_normal`.
    normal : whether the variable counts as normal; decided by its groups if left out.

    Raises
    ------
    ValueError
        If lengths differ, a code is outside the groups, or a value is infinite.
    """
    numbers = np.asarray(values, np.float64)
    codes = _codes(group, len(groups), numbers.size)
    if np.isinf(numbers).any():
        raise ValueError(f"{int(np.isinf(numbers).sum())} values are infinite")
    parts = [numbers[codes == at] for at in range(len(groups))]
    samples = [part[~np.isnan(part)] for part in parts]
    normal = looks_normal(samples, alpha) if normal is None else normal
    return Numbers(
        normal,
        summarise(numbers),
        tuple(summarise(part) for part in parts),
        compare_numbers(samples, groups, normal),
    )


def describe_counts(
    level: ArrayLike, levels: Sequence[str], group: ArrayLike, groups: Sequence[str]
) -> Counts:
    """Describe a categorical variable by groups, with Pearson's chi-square.

    Parameters
    ----------
    level : shape (n,), codes of `levels`.
    group : shape (n,), codes of `groups`.

    Raises
    ------
    ValueError
        If lengths differ or a code is outside the levels or groups.
    """
    level_codes = np.asarray(level)
    level_codes = _codes(level_codes, len(levels), level_codes.size)
    codes = _codes(group, len(groups), level_codes.size)
    table = np.zeros((len(levels) + 1, len(groups) + 1), np.int64)
    np.add.at(table, (level_codes, codes), 1)  # -1, missing, is the last row and column
    known = table[:-1]
    return Counts(
        tuple(int(count) for count in known.sum(axis=1)),
        int(table[-1].sum()),
        tuple(tuple(int(count) for count in row) for row in known[:, :-1]),
        tuple(int(count) for count in table[-1, :-1]),
        chi_square(known[:, :-1], groups),
    )


def summarise(values: ArrayLike) -> Summary:
    """Summary of one sample; quartiles of type 7 of Hyndman and Fan, Am Stat 1996;50:361.

    Type 7 is R's default; Stata and SAS use type 2, SPSS type 6.
    """
    numbers = np.asarray(values, np.float64)
    known = numbers[~np.isnan(numbers)]
    missing = numbers.size - known.size
    if known.size == 0:
        return Summary(0, missing, np.nan, np.nan, np.nan, np.nan, np.nan)
    q1, median, q3 = (float(q) for q in np.quantile(known, (0.25, 0.5, 0.75), method="linear"))
    sd = float(known.std(ddof=1)) if known.size > 1 else np.nan
    return Summary(known.size, missing, float(known.mean()), sd, median, q1, q3)


def looks_normal(samples: Sequence[Floats], alpha: float = NORMALITY_ALPHA) -> bool:
    """Whether no sample contradicts a normal distribution.

    Each sample is tested at `alpha`: by Shapiro and Wilk up to 5000 values, above by D'Agostino
    and Pearson (Biometrika 1973;60:613). A sample of fewer than three values or without spread
    is not normal. In large samples small departures suffice, so medians are the rule.
    """
    return bool(samples) and all(normality_p(sample) >= alpha for sample in samples)


def normality_p(sample: Floats) -> float:
    """P value of the test of `looks_normal` for one sample; NaN if it cannot be done."""
    if sample.size < 3 or np.ptp(sample) == 0:
        return np.nan
    test = stats.shapiro if sample.size <= SHAPIRO_LARGEST else stats.normaltest
    return float(test(sample).pvalue)


def compare_numbers(samples: Sequence[Floats], groups: Sequence[str], normal: bool) -> GroupTest:
    """Test whether a continuous variable differs between groups.

    If `normal`, Student's t test with pooled variance for two groups (positive if the first has
    the higher mean), one-way analysis of variance for more. Otherwise the test of Wilcoxon, Mann
    and Whitney for two groups (statistic: W of R, the U of the first group; normal approximation
    with corrections for ties and continuity), of Kruskal and Wallis with correction for ties for
    more.

    Parameters
    ----------
    samples : one array per group, without missing values.
    """
    two = len(samples) == 2
    n = sum(sample.size for sample in samples)
    method = (
        ("Student t, pooled variance" if two else "one-way ANOVA")
        if normal
        else ("Mann-Whitney, tie-corrected, continuity-corrected" if two else "Kruskal-Wallis")
    )
    reason = _why_not(samples, groups, normal)
    if reason:
        return GroupTest(np.nan, (), np.nan, n, method, reason)
    df: tuple[float, ...] = ()
    if normal:
        statistic, p_value = (
            _run(stats.ttest_ind, *samples, equal_var=True)
            if two
            else _run(stats.f_oneway, *samples)
        )
        df = (float(n - 2),) if two else (float(len(samples) - 1), float(n - len(samples)))
    elif two:
        statistic, p_value = _run(
            stats.mannwhitneyu, *samples, use_continuity=True, method="asymptotic"
        )
    else:
        statistic, p_value = _run(stats.kruskal, *samples)
        df = (float(len(samples) - 1),)
    return GroupTest(statistic, df, p_value, n, method)


def chi_square(counts: ArrayLike, groups: Sequence[str]) -> GroupTest:
    """Pearson's chi-square of a table, levels by groups, without continuity correction.

    Levels without patients are left out. The method names the number of cells with fewer than
    five expected (Cochran, Biometrics 1954;10:417).

    Parameters
    ----------
    counts : shape (levels, groups).
    """
    table = np.asarray(counts, np.int64)
    n = int(table.sum())
    seen = table[table.sum(axis=1) > 0]
    method = "Pearson chi-square without continuity correction"
    empty = [name for name, total in zip(groups, table.sum(axis=0), strict=True) if total == 0]
    reason = ""
    if len(groups) < 2:
        reason = "fewer than two groups"
    elif empty:
        reason = f"no values in {', '.join(empty)}"
    elif len(seen) < 2:
        reason = "all values are of one level"
    if reason:
        return GroupTest(np.nan, (), np.nan, n, method, reason)
    found = stats.chi2_contingency(seen, correction=False)
    small = int((found.expected_freq < 5).sum())
    if small:
        method += f"; fewer than 5 expected in {small} of {seen.size} cells"
    return GroupTest(float(found.statistic), (float(found.dof),), float(found.pvalue), n, method)


def _why_not(samples: Sequence[Floats], groups: Sequence[str], normal: bool) -> str:
    empty = [name for name, sample in zip(groups, samples, strict=True) if sample.size == 0]
    if len(samples) < 2:
        return "fewer than two groups"
    if empty:
        return f"no values in {', '.join(empty)}"
    if np.ptp(np.concatenate(samples)) == 0:
        return "all values are equal"
    if normal and all(np.ptp(sample) == 0 for sample in samples):
        return "no spread within the groups"
    return ""


def _run(test: Callable[..., Any], *samples: Floats, **options: object) -> tuple[float, float]:
    with warnings.catch_warnings():
        # scipy warns of lost precision for nearly equal values; the p value is valid.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = test(*samples, **options)
    return float(found.statistic), float(found.pvalue)


def _codes(values: ArrayLike, count: int, n: int) -> Ints:
    codes = np.asarray(values)
    if codes.shape != (n,):
        raise ValueError(f"{codes.shape} codes for {n} values")
    if codes.size and not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes are whole numbers, not {codes.dtype}")
    outside = (codes < -1) | (codes >= count)
    if outside.any():
        raise ValueError(f"{int(outside.sum())} codes outside -1 to {count - 1}")
    return codes.astype(np.int64)
