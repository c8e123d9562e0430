"""Whether scores are as sure as they say: reliability, Brier score, coverage, value of reviews."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cac_core.categories import cac_category
from cac_core.evaluation.results import Certainty, ReliabilityRow, ReviewRow
from cac_core.scoring.confidence import COVERAGE
from cac_core.stats.agreement import concordance, proportion, weighted_kappa
from schemas.codes import CAC_CATEGORIES
from schemas.score import CATEGORY_CHANCES

#: Limits of the chances that are compared with shares; certain and impossible are frequent.
_EDGES = (0.0, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.98, 1.0)
#: Shares of studies that are reviewed.
_REVIEWED = tuple(n / 20 for n in range(21))
#: Rounding of a score must not put it outside its own interval.
_TOLERANCE = 1e-6


def certainty(rows: Sequence[Mapping[str, Any]]) -> Certainty | None:
    """Compare what scores say of themselves with a reference.

    Parameters
    ----------
    rows : score (`first`), reference score (`second`) and the columns of `scores` on certainty;
        rows without them, of an earlier version, are left out.

    Returns
    -------
    None where no row says how sure it is.
    """
    known = [row for row in rows if row.get(CATEGORY_CHANCES[0]) is not None]
    if not known:
        return None
    chances = np.array([[row[name] for name in CATEGORY_CHANCES] for row in known], float)
    found, truth = (
        np.array([CAC_CATEGORIES.index(str(cac_category(row[name]))) for row in known])
        for name in ("first", "second")
    )
    true = np.eye(len(CAC_CATEGORIES))[truth]
    inside = sum(
        row["agatston_low"] - _TOLERANCE <= row["second"] <= row["agatston_high"] + _TOLERANCE
        for row in known
    )
    covered = proportion(inside, len(known))
    flagged = np.array([bool(row["needs_review"]) for row in known])
    return {
        "n": len(known),
        "brier": float(((chances - true) ** 2).sum(axis=1).mean()),
        "mean_chance_of_category": float(chances[np.arange(len(known)), found].mean()),
        "same_category": float((found == truth).mean()),
        "reliability": list(_reliability(chances.ravel(), true.ravel())),
        "interval": COVERAGE,
        "coverage": float(covered.value),
        "coverage_ci": [float(covered.ci_low), float(covered.ci_high)],
        "needs_review": int(flagged.sum()),
        "kappa_after_needed_reviews": _kappa(np.where(flagged, truth, found), truth),
        "wrong_category": int((found != truth).sum()),
        "wrong_category_needs_review": int((flagged & (found != truth)).sum()),
        "kappa_by_reviewed": _by_reviewed(chances, found, truth),
    }


def _reliability(
    chances: NDArray[np.float64], true: NDArray[np.float64]
) -> Iterator[ReliabilityRow]:
    """Mean chance and share of true categories, over all studies and categories.

    Parameters
    ----------
    chances, true : (studies x categories,); 1 for the true category, else 0.
    """
    at = np.clip(np.searchsorted(_EDGES, chances, side="right") - 1, 0, len(_EDGES) - 2)
    for number in range(len(_EDGES) - 1):
        here = at == number
        n = int(here.sum())
        if n:
            share = proportion(int(true[here].sum()), n)
            yield {
                "from": _EDGES[number],
                "to": _EDGES[number + 1],
                "n": n,
                "mean_chance": float(chances[here].mean()),
                "share": float(share.value),
                "ci": [float(share.ci_low), float(share.ci_high)],
            }


def _by_reviewed(
    chances: NDArray[np.float64], found: NDArray[np.intp], truth: NDArray[np.intp]
) -> list[ReviewRow]:
    """Kappa where a share of the studies, the most doubtful first, has the reference instead.

    The doubt of a study is one minus the chance of its category; of equal ones the first is first.
    """
    sure = chances[np.arange(len(found)), found]
    order = np.argsort(sure, kind="stable")
    rows: list[ReviewRow] = []
    for share in _REVIEWED:
        reviewed = order[: round(share * len(order))]
        after = found.copy()
        after[reviewed] = truth[reviewed]
        rows.append({"share": share, "n": len(reviewed), "kappa_linear": _kappa(after, truth)})
    return rows


def _kappa(found: NDArray[np.intp], truth: NDArray[np.intp]) -> float | None:
    names = [[CAC_CATEGORIES[index] for index in part] for part in (truth, found)]
    kappa = weighted_kappa(concordance(names[0], names[1], CAC_CATEGORIES)).value
    return None if np.isnan(kappa) else float(kappa)


def certainty_estimates(
    found: Certainty, model: str | None, population: str | None
) -> list[dict[str, Any]]:
    """Rows of the table `estimates`: Brier score, coverage, reliability, kappa by reviews."""
    base: dict[str, Any] = {
        "analysis": "certainty",
        "population": population,
        "model": model,
        "n": found["n"],
    }
    rows = [*_summary_rows(found), *_reliability_rows(found), *_review_rows(found)]
    return [base | row for row in rows]


def _summary_rows(found: Certainty) -> list[dict[str, Any]]:
    low, high = found["coverage_ci"]
    return [
        {"statistic": "brier", "value": found["brier"], "method": "all categories, 0 to 2"},
        {
            "statistic": "coverage",
            "at": found["interval"],
            "value": found["coverage"],
            "ci_low": low,
            "ci_high": high,
            "method": "share of references in the interval of the score; Wilson",
        },
        {"statistic": "count", "term": "needs_review", "value": float(found["needs_review"])},
        {
            "statistic": "kappa_linear",
            "term": "needs_review",
            "value": found["kappa_after_needed_reviews"],
            "method": "scores that need review are replaced by the reference",
        },
    ]


def _reliability_rows(found: Certainty) -> list[dict[str, Any]]:
    return [
        {
            "statistic": "reliability",
            "at": row["mean_chance"],
            "level": f"{row['from']:g}-{row['to']:g}",
            "value": row["share"],
            "ci_low": row["ci"][0],
            "ci_high": row["ci"][1],
            "n": row["n"],
            "method": "share of true categories by their chance; Wilson",
        }
        for row in found["reliability"]
    ]


def _review_rows(found: Certainty) -> list[dict[str, Any]]:
    return [
        {
            "statistic": "kappa_linear",
            "term": "reviewed",
            "at": row["share"],
            "value": row["kappa_linear"],
            "method": "the most doubtful share is replaced by the reference",
        }
        for row in found["kappa_by_reviewed"]
    ]
