"""Agreement of paired scores: categories, scores, visual grades, groups of studies."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cac_core.categories import VISUAL_LEVELS, cac_category, visual_level
from cac_core.errors import UsageError
from cac_core.evaluation.certainty import certainty, certainty_estimates
from cac_core.evaluation.results import (
    CategoryAgreement,
    Groups,
    ScoreAgreement,
    SourceComparison,
)
from cac_core.evaluation.sources import Pairs
from cac_core.stats.agreement import (
    bland_altman,
    concordance,
    intraclass_correlation,
    squared_correlation,
    weighted_kappa,
)
from schemas.codes import CAC_CATEGORIES
from schemas.results import ESTIMATES
from schemas.score import SCORES

#: Statistics of the table `estimates`, with their method.
_STATISTICS = (
    ("kappa_linear", "Fleiss, Cohen and Everitt 1969"),
    ("r2_log", "Pearson, Fisher z"),
    ("icc_log", "ICC(2,1), McGraw and Wong 1996"),
)


def agreement(compared: Sequence[float], reference: Sequence[float]) -> ScoreAgreement:
    """Agreement of categories and scores of paired Agatston scores."""
    matrix = concordance(
        [str(cac_category(value)) for value in reference],
        [str(cac_category(value)) for value in compared],
        CAC_CATEGORIES,
    )
    logs = np.log1p(np.asarray(compared, float)), np.log1p(np.asarray(reference, float))
    r2 = squared_correlation(*logs)
    icc = intraclass_correlation(np.stack(logs, axis=1))
    limits = bland_altman(np.asarray(compared, float), np.asarray(reference, float))
    return {
        **_category_agreement(matrix, CAC_CATEGORIES),
        "r2_log": number(r2.value),
        "r2_log_ci": [number(r2.ci_low), number(r2.ci_high)],
        "icc_log": number(icc.value),
        "icc_log_ci": [number(icc.ci_low), number(icc.ci_high)],
        "bland_altman": [
            number(v.value) for v in (limits.bias, limits.limit_low, limits.limit_high)
        ],
        "reference_zero": int(matrix[0].sum()),
        "reference_zero_scored_zero": int(matrix[0, 0]),
        "reference_above_100": int(matrix[2:].sum()),
        "reference_above_100_scored_above_0": int(matrix[2:, 1:].sum()),
    }


def visual_agreement(
    compared: Sequence[float | str], reference: Sequence[float | str]
) -> CategoryAgreement:
    """Agreement with visual grades, at the three levels of Supplemental Table 3.

    Equivocal grades count as present. Agatston scores below 1 are absent, above 400 extensive.
    """
    matrix = concordance(
        [_visual_level(value) for value in reference],
        [_visual_level(value) for value in compared],
        VISUAL_LEVELS,
    )
    return _category_agreement(matrix, VISUAL_LEVELS)


def _visual_level(value: float | str) -> str:
    return str(visual_level(value if isinstance(value, str) else cac_category(value)))


def _category_agreement(matrix: NDArray[np.int64], levels: Sequence[str]) -> CategoryAgreement:
    kappa = weighted_kappa(matrix)
    n = int(matrix.sum())
    return {
        "n": n,
        "categories": list(levels),
        "concordance_reference_by_compared": matrix.tolist(),
        "kappa_linear": number(kappa.value),
        "kappa_linear_ci": [number(kappa.ci_low), number(kappa.ci_high)],
        "same_category": float(np.trace(matrix) / max(1, n)),
    }


def number(value: float) -> float | None:
    """The value, None if it is not a number."""
    return None if np.isnan(value) else float(value)


def compare_sources(pairs: Pairs, by: Sequence[str] = ()) -> SourceComparison:
    """Compare two sources of scores over the studies that have both.

    Parameters
    ----------
    by : columns of the table `scores` to group by.

    Raises
    ------
    UsageError
        If a column to group by does not exist.
    """
    columns = [column.name for column in SCORES.columns]
    rows = pairs.rows
    seconds = (r["seconds_read"] + r["seconds_model"] + r["seconds_score"] for r in rows)
    fields = {
        **_pair_agreement(rows),
        "compared": str(pairs.first),
        "reference": str(pairs.second),
        "only_compared": pairs.only_first,
        "only_reference": pairs.only_second,
        "seconds_per_study_median": statistics.median(seconds),
        "groups": grouped(rows, by, columns, _pair_agreement),
        "studies": [
            {name: row[name] for name in ("study_key", "first", "second", *by)} for row in rows
        ],
    }
    result = cast(SourceComparison, fields)
    if pairs.first.kind == "model" and not _graded(rows):
        result["certainty"] = certainty(rows)
    if pairs.planted:
        found = sum(pairs.reasons.get(key) == defect for key, defect in pairs.planted.items())
        result["defects_planted"], result["defects_found"] = len(pairs.planted), found
    return result


def _pair_agreement(rows: Sequence[Mapping[str, Any]]) -> CategoryAgreement:
    first, second = [row["first"] for row in rows], [row["second"] for row in rows]
    return visual_agreement(first, second) if _graded(rows) else agreement(first, second)


def _graded(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(isinstance(rows[0][name], str) for name in ("first", "second"))


def grouped(
    rows: Sequence[Mapping[str, Any]],
    by: Sequence[str],
    columns: Sequence[str],
    agree: Callable[[Sequence[Mapping[str, Any]]], CategoryAgreement],
) -> Groups:
    """Agreement within each level of each column in `by`.

    Raises
    ------
    UsageError
        If a column is not one of `columns`.
    """
    unknown = sorted(set(by) - set(columns))
    if unknown:
        raise UsageError(
            f"Unknown columns to group by: {', '.join(unknown)}.",
            f"Choose from {', '.join(columns)}.",
        )
    found: Groups = {}
    for column in by:
        groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            groups["not stated" if row[column] is None else str(row[column])].append(row)
        found[column] = {name: agree(members) for name, members in sorted(groups.items())}
    return found


def estimate_rows(result: Mapping[str, Any]) -> pa.Table:
    """Statistics of a comparison or evaluation as rows of the table `estimates`.

    Parameters
    ----------
    result : a `SourceComparison` or `ModelEvaluation`.
    """
    name = _pair_name(result["compared"], result["reference"])
    whole = {name: result}
    for compared, reference, key in (
        ("reader", "truth", "reader"),
        ("model", "reader", "model_against_reader"),
    ):
        if key in result:
            whole[_pair_name(compared, reference)] = result[key]
    rows = [
        row
        for source, found in whole.items()
        for row in _estimates_of(found, model=source, population=result.get("test_set"))
    ]
    for column, levels in result.get("groups", {}).items():
        for level, found in levels.items():
            rows += _estimates_of(
                found, model=name, population=result.get("test_set"), term=column, level=level
            )
    if result.get("certainty"):
        rows += certainty_estimates(result["certainty"], name, result.get("test_set"))
    return ESTIMATES.from_rows(rows)


def _estimates_of(
    found: Mapping[str, Any],
    *,
    model: str,
    population: str | None,
    term: str | None = None,
    level: str | None = None,
) -> list[dict[str, Any]]:
    """One row per statistic; visual grades have statistics of categories only."""
    return [
        {
            "analysis": "agreement",
            "population": population,
            "model": model,
            "term": term,
            "level": level,
            "statistic": statistic,
            "value": found[statistic],
            "ci_low": found[f"{statistic}_ci"][0],
            "ci_high": found[f"{statistic}_ci"][1],
            "n": found["n"],
            "method": method,
        }
        for statistic, method in _STATISTICS
        if statistic in found
    ]


def _pair_name(compared: str, reference: str) -> str:
    return f"{compared} against {reference}"
