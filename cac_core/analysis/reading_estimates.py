"""Rows of `estimates` about signed readings: changes, time, vessels, agreement of readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cac_core.analysis.estimate import Estimate, not_estimable
from cac_core.reading.readings import Readings, StudyReadings
from cac_core.stats.agreement import (
    bland_altman,
    concordance,
    intraclass_correlation,
    proportion,
    weighted_kappa,
)
from schemas.codes import CAC_CATEGORIES, ReadingKind
from schemas.reading import VESSEL_SCORES

#: Analysis of these rows.
ANALYSIS = "reading"
#: Agreement that is estimated: of two readers, of a reader's own readings, of model and review.
PAIRS = ("readers", "same_reader", "model_reviewed")
_QUARTILES = (("q1", 0.25), ("median", 0.5), ("q3", 0.75))
_KAPPA = "Cohen's kappa, interval of Fleiss, Cohen and Everitt 1969"
Row = dict[str, Any]
Pair = tuple[Row, Row]


def reading_estimates(readings: Readings) -> list[Estimate]:
    """Everything the report says about signed readings; no row without any reading.

    Returns
    -------
    Counts of studies, readings and readers; shares of studies whose score and category a review
    changed; quartiles of minutes per reading; share and quartiles of the score of each vessel;
    causes of discrepancies; kappa, ICC and bias of each pair of `PAIRS`.
    """
    if not readings.rows:
        return []
    final = list(readings.final().values())
    base = Estimate(ANALYSIS, "count", population="read")
    rows = [
        replace(base, term="studies", value=float(len(readings.studies))),
        replace(base, term="readings", value=float(len(readings.rows))),
        replace(base, term="readers", value=float(len({r["reader"] for r in readings.rows}))),
        replace(base, term="settled", value=float(len(final)), n=len(readings.studies)),
    ]
    rows += _changes(base, final)
    rows += _quartiles(
        replace(base, term="minutes"),
        [row["seconds_active"] / 60 for row in readings.rows if row["kind"] == ReadingKind.READING],
    )
    rows += _vessels(base, final)
    rows += _causes(base, final)
    for name, pairs in _pairs(readings).items():
        rows += _agreement(replace(base, model=name), pairs)
    return rows


def _changes(base: Estimate, final: Sequence[Row]) -> Iterator[Estimate]:
    categories = sum(row["cac_category"] != row["model_category"] for row in final)
    counts = {"score_changed": sum(row["changed"] for row in final), "category_changed": categories}
    for term, count in counts.items():
        row = replace(base, statistic="share", term=term, n=len(final))
        if final:
            yield replace(row, statistic="count", value=float(count))
            found = proportion(count, len(final))
            yield row.estimated(found, method="share of reviewed studies; Wilson")
        else:
            yield not_estimable(row, "no study is settled")


def _vessels(base: Estimate, final: Sequence[Row]) -> Iterator[Estimate]:
    for name in (*VESSEL_SCORES, "agatston_unassigned"):
        values = [row[name] for row in final]
        present = sum(value > 0 for value in values)
        row = replace(base, statistic="share", term=name, n=len(values))
        if values:
            yield replace(row, statistic="count", value=float(present))
            yield row.estimated(proportion(present, len(values)), method="with calcium; Wilson")
        yield from _quartiles(replace(base, term=name), [value for value in values if value > 0])


def _causes(base: Estimate, final: Sequence[Row]) -> Iterator[Estimate]:
    causes = Counter(row["cause"] for row in final if row["cause"] is not None)
    whole = sum(causes.values())
    for cause, count in sorted(causes.items(), key=lambda one: (-one[1], one[0])):
        row = replace(base, term="cause", level=cause, n=whole, value=float(count))
        yield row
        yield replace(row, statistic="share", value=count / whole)


def _quartiles(base: Estimate, values: Sequence[float]) -> Iterator[Estimate]:
    base = replace(base, n=len(values), method="quartiles interpolate linearly")
    for statistic, share in _QUARTILES:
        row = replace(base, statistic=statistic)
        if values:
            yield replace(row, value=float(np.quantile(values, share)))
        else:
            yield not_estimable(row, "no reading has a value")


def _pairs(readings: Readings) -> dict[str, list[Pair]]:
    """Pairs of readings by kind; of readers, their first ones, made without sight of another."""
    blind: dict[str, list[Row]] = {}
    for row in readings.rows:
        if row["kind"] == ReadingKind.READING:
            blind.setdefault(row["study_key"], []).append(row)
    found: dict[str, list[Pair]] = {name: [] for name in PAIRS}
    for key, study in readings.studies.items():
        mine = blind.get(key, [])
        found["readers"] += [(mine[0], other) for other in mine[1:2]]
        found["same_reader"] += study.repeats
        found["model_reviewed"] += _with_model(study)
    return found


def _with_model(study: StudyReadings) -> list[Pair]:
    final = study.final
    if final is None:
        return []
    model = {"agatston": final["model_agatston"], "cac_category": final["model_category"]}
    return [(model, final)]


def _agreement(base: Estimate, pairs: Sequence[Pair]) -> Iterator[Estimate]:
    row = replace(base, statistic="kappa_linear", n=len(pairs))
    if len(pairs) < 2:
        yield not_estimable(row, "fewer than two studies were read so")
        return
    names = [[one[at]["cac_category"] for one in pairs] for at in (0, 1)]
    kappa = weighted_kappa(concordance(names[0], names[1], CAC_CATEGORIES))
    yield row.estimated(kappa, method=_KAPPA)
    scores = np.array([[a["agatston"], b["agatston"]] for a, b in pairs], np.float64)
    icc = intraclass_correlation(np.log1p(scores))
    yield row.estimated(icc, statistic="icc_log", method="ICC(2,1) of log(1 + Agatston)")
    bias = bland_altman(scores[:, 1], scores[:, 0]).bias
    yield row.estimated(bias, statistic="bias", method="mean difference, second less first")
    same = sum(a == b for a, b in zip(*names, strict=True))
    yield row.estimated(proportion(same, len(pairs)), statistic="same_category", method="Wilson")
