"""Agreement of readings of calcium: Figure 3, Supplemental Figure 1, Supplemental Table 3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from cac_core.analysis.design import Patients, level_names, levels_of
from cac_core.analysis.estimate import Estimate, Question, guarded, not_estimable
from cac_core.analysis.plan import Plan, ScoreSource
from cac_core.errors import NotEstimableError
from cac_core.stats.agreement import (
    BlandAltman,
    Interval,
    Kappa,
    Weighting,
    bland_altman,
    concordance,
    intraclass_correlation,
    presence,
    proportion,
    spearman,
    squared_correlation,
    weighted_kappa,
)
from cac_core.stats.arrays import Floats, Ints
from schemas.results import DISCREPANCIES

_WEIGHTINGS: tuple[Weighting, ...] = ("linear", "quadratic", "unweighted")
_KAPPA = "Cohen's kappa, interval of Fleiss, Cohen and Everitt 1969"


@dataclass(frozen=True)
class _Pair:
    """Patients with both readings: categories by name, and on a common scale."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    levels: tuple[str, ...]
    first_common: tuple[str, ...]
    second_common: tuple[str, ...]
    rows: Ints


def concordance_of_sources(question: Question) -> Iterator[Estimate]:
    """Agreement of the pairs of sources of the plan; the second is the reference."""
    for first, second in question.plan.compare:
        model = f"{first}:{second}"
        base = question.base("concordance", "count", model=model)
        yield from guarded(base, partial(_matrix, question, base, first, second))
        base = question.base("agreement", "kappa_linear", model=model)
        yield from guarded(base, partial(_categories, question, base, first, second))
        base = question.base("agreement", "r2", model=model)
        yield from guarded(base, partial(_scores, question, base, first, second))


def discrepancies(linked: pa.Table, plan: Plan) -> pa.Table:
    """Patients whose two readings differ in the presence of calcium, or by two categories or more.

    One row per patient and pair of sources of the plan, for manual review.
    """
    patients = Patients.from_table(linked)
    keys = linked["study_key"].to_pylist()
    rows = []
    for first, second in plan.compare:
        try:
            pair = _pair(patients, plan.sources[first], plan.sources[second])
        except NotEstimableError:
            continue  # the table `estimates` has the reason
        order = {name: at for at, name in enumerate(pair.levels)}
        scores = [_score(patients, plan.sources[name]) for name in (first, second)]
        for at, row in enumerate(pair.rows):
            apart = order[pair.first_common[at]] - order[pair.second_common[at]]
            present = [order[side[at]] > 0 for side in (pair.first_common, pair.second_common)]
            if abs(apart) < 2 and present[0] == present[1]:
                continue
            rows.append(
                {
                    "study_key": keys[row],
                    "compared": first,
                    "reference": second,
                    "compared_category": pair.first[at],
                    "reference_category": pair.second[at],
                    "compared_agatston": _number(scores[0], row),
                    "reference_agatston": _number(scores[1], row),
                    "categories_apart": apart,
                }
            )
    rows.sort(
        key=lambda r: (r["compared"], r["reference"], -abs(r["categories_apart"]), r["study_key"])
    )
    return DISCREPANCIES.from_rows(rows)


def _pair(patients: Patients, first: ScoreSource, second: ScoreSource) -> _Pair:
    codes = [levels_of(patients, source.term) for source in (first, second)]
    rows = np.flatnonzero((codes[0] >= 0) & (codes[1] >= 0))
    if not rows.size:
        raise NotEstimableError("no patient has both readings")
    names = [
        tuple(level_names(source.term)[code] for code in side[rows])
        for source, side in zip((first, second), codes, strict=True)
    ]
    levels = first.term.levels
    common = names
    if first.term.levels != second.term.levels:
        levels = min((first.term.levels, second.term.levels), key=len)
        common = [
            _translated(side, source, levels)
            for side, source in zip(names, (first, second), strict=True)
        ]
    return _Pair(names[0], names[1], levels, common[0], common[1], rows)


def _translated(
    names: Sequence[str], source: ScoreSource, levels: tuple[str, ...]
) -> tuple[str, ...]:
    """Categories of a source on the scale of another."""
    if source.term.levels == levels:
        return tuple(names)
    missing = [name for name in source.term.levels if source.grades.get(name) not in levels]
    if missing:
        raise NotEstimableError(
            f"the plan does not say which of {', '.join(levels)} the category {missing[0]} of "
            f"{source.label} is (`grades`)"
        )
    return tuple(source.grades[name] for name in names)


def _matrix(question: Question, base: Estimate, first: str, second: str) -> Iterator[Estimate]:
    """Counts and shares of all in each pair of categories, in the categories of each source."""
    sources = question.plan.sources
    pair = _pair(question.patients, sources[first], sources[second])
    base = replace(base, n=len(pair.rows), method="patients with both readings")
    counts = Counter(zip(pair.first, pair.second, strict=True))
    for one in sources[first].term.levels:
        for other in sources[second].term.levels:
            count = counts[one, other]
            cell = replace(base, term=one, level=other)
            yield replace(cell, value=float(count))
            yield replace(cell, statistic="share", value=count / len(pair.rows))


def _categories(question: Question, base: Estimate, first: str, second: str) -> Iterator[Estimate]:
    sources = question.plan.sources
    pair = _pair(question.patients, sources[first], sources[second])
    matrix = concordance(pair.second_common, pair.first_common, pair.levels)
    base = replace(base, n=len(pair.rows))
    scale = f"{len(pair.levels)} categories: {', '.join(pair.levels)}"
    for weighting in _WEIGHTINGS:
        kappa = weighted_kappa(matrix, weighting, question.plan.confidence)
        row = replace(base, statistic=f"kappa_{weighting}", method=f"{_KAPPA}; {scale}")
        yield _kappa(row, kappa)
    same = proportion(int(np.trace(matrix)), len(pair.rows), question.plan.confidence)
    yield _interval(base, "same_category", same, f"Wilson; {scale}")
    found = presence(matrix)
    reference = sources[second].label
    for statistic, interval, whom in (
        ("presence_sensitivity", found.sensitivity, "with"),
        ("presence_specificity", found.specificity, "without"),
    ):
        method = f"Wilson; any calcium, in patients {whom} calcium by {reference}"
        yield _interval(replace(base, n=interval.n), statistic, interval, method)
    row = replace(base, statistic="presence_kappa", method=f"{_KAPPA}; any calcium or none")
    yield _kappa(row, found.kappa)


def _kappa(row: Estimate, kappa: Kappa) -> Estimate:
    if not np.isfinite(kappa.value):
        return not_estimable(row, "all readings lie in one category")
    return row.estimated(kappa, method=row.method)


def _scores(question: Question, base: Estimate, first: str, second: str) -> Iterator[Estimate]:
    """Agreement of the scores, if both sources have one."""
    scores = [_score(question.patients, question.plan.sources[name]) for name in (first, second)]
    if any(side is None for side in scores):
        return
    a, b = (np.asarray(side, np.float64) for side in scores)
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 2:
        raise NotEstimableError("fewer than two patients have both scores")
    a, b = a[both], b[both]
    logs = np.log1p(a), np.log1p(b)
    base, confidence = replace(base, n=len(a)), question.plan.confidence
    yield _interval(
        base, "r2", squared_correlation(a, b, confidence), "Pearson, interval by Fisher's z"
    )
    yield _interval(
        base,
        "r2_log",
        squared_correlation(*logs, confidence),
        "Pearson of log(1 + Agatston), interval by Fisher's z",
    )
    yield _interval(base, "spearman", spearman(a, b, confidence), "rank correlation")
    icc = intraclass_correlation(np.stack(logs, axis=1), confidence)
    yield _interval(base, "icc_log", icc, "ICC(2,1) of log(1 + Agatston), McGraw and Wong 1996")
    labels = [question.plan.sources[name].label for name in (first, second)]
    yield from _limits(base, bland_altman(a, b, confidence), *labels)
    yield from _log_limits(base, bland_altman(*logs, confidence), *labels)


def _limits(base: Estimate, found: BlandAltman, first: str, second: str) -> Iterator[Estimate]:
    """Mean difference and limits of agreement in units of the score."""
    for name, one, interval in _parts_of(found):
        method = f"Agatston, {first} less {second}; {interval}"
        yield _interval(base, name, one, method)


def _log_limits(base: Estimate, found: BlandAltman, first: str, second: str) -> Iterator[Estimate]:
    """The same of log(1 + Agatston), and transformed back, which makes differences ratios."""
    for name, one, interval in _parts_of(found):
        method = f"log(1 + Agatston), {first} less {second}; {interval}"
        yield _interval(base, f"{name}_log", one, method)
    for name, one, interval in _parts_of(found):
        value, low, high = (float(np.exp(part)) for part in (one.value, one.ci_low, one.ci_high))
        method = f"(1 + Agatston) of {first} over that of {second}, from the logarithms; {interval}"
        yield _interval(base, f"{name}_ratio", Interval(value, low, high, one.n), method)


def _parts_of(found: BlandAltman) -> tuple[tuple[str, Interval, str], ...]:
    """Bias and limits by the name of their statistic, with the method of their interval."""
    exact = "Bland and Altman 1986, exact interval of Carkeet 2015"
    return (
        ("bias", found.bias, "Bland and Altman 1986, interval of Student"),
        ("limit_low", found.limit_low, exact),
        ("limit_high", found.limit_high, exact),
    )


def _interval(base: Estimate, statistic: str, found: Interval, method: str) -> Estimate:
    row = replace(base, statistic=statistic, method=method)
    if not np.isfinite(found.value):
        return not_estimable(row, "too few patients, or no variation")
    return row.estimated(found, method=method)


def _score(patients: Patients, source: ScoreSource) -> Floats | None:
    return None if source.score is None else patients.numbers(source.score)


def _number(scores: Floats | None, row: int) -> float | None:
    if scores is None or not np.isfinite(scores[row]):
        return None
    return float(scores[row])
