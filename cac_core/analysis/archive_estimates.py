"""Rows of `estimates` that come from the archive and not from the plan.

Acquisition and quality of the studies, training data of the networks, possible causes of discrepant
cases, and how sure the scores are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cac_core.analysis.estimate import Estimate, not_estimable
from cac_core.evaluation.certainty import certainty, certainty_estimates
from schemas.codes import Status

#: Analyses of this module; no step of a plan makes rows of them.
ARCHIVE_ANALYSES = ("acquisition", "training", "discrepancy", "certainty", "reading")
#: Pair of sources whose certainty is estimated.
CERTAINTY_PAIR = "model:expert"
_MEASURES = (
    "noise_hu", "slice_thickness_mm", "slice_increment_mm", "KVP", "XRayTubeCurrent",
    "heart_volume_ml", "seconds_read", "seconds_model", "seconds_score",
)  # fmt: skip
_COUNTED = (
    ("KVP_level", "KVP"),
    ("slice_thickness_level", "slice_thickness_mm"),
    ("ctac_role", "ctac_role"),
    ("status", "status"),
    ("reason", "reason"),
)
_READ = ("study_key", "expert_agatston")
_QUARTILES = (("q1", 0.25), ("median", 0.5), ("q3", 0.75))
_UNKNOWN = "not in the header"


def acquisition(scores: pa.Table, in_analysis: Iterable[str]) -> list[Estimate]:
    """Acquisition and status of the studies.

    Parameters
    ----------
    scores : rows of the table `scores` of one model.
    in_analysis : study keys of the table `linked`.

    Returns
    -------
    Rows of the populations `archive` (every study) and `all` (those of patients in the analysis):
    counts and shares by level of a column, quartiles of measures; noise also by scanner (column
    `model`).
    """
    keys = pa.array(sorted(in_analysis), pa.string())
    linked = scores.filter(pc.is_in(scores["study_key"], keys))
    return [
        row
        for population, table in (("archive", scores), ("all", linked))
        for row in _of_studies(population, table)
    ]


def training(manifest: Mapping[str, Any]) -> list[Estimate]:
    """Training and validation scans of each network, from the manifest of the weights."""
    rows = []
    for network, entry in sorted(manifest.items()):
        for key, level in (
            ("training_samples", "scans that taught"),
            ("validation_samples", "scans that chose the step"),
        ):
            if isinstance(entry, Mapping) and isinstance(entry.get(key), int):
                rows.append(
                    Estimate(
                        "training",
                        "count",
                        float(entry[key]),
                        model=network,
                        term=key,
                        level=f"{network} network, {level}",
                        method="manifest of the weights",
                    )
                )
    return rows


def discrepancy_causes(
    discrepancies: pa.Table, scores: pa.Table, reviews: pa.Table | None = None
) -> list[Estimate]:
    """Numbers of discrepant cases by kind and possible cause.

    Parameters
    ----------
    discrepancies : the table of that name.
    scores : rows of the table `scores` of the linked model.
    reviews : columns `study_key` and `cause` of a manual review; each cause of a study counts once.

    Returns
    -------
    Counts by pair of sources (`model`), kind (`term`) and candidate (`level`, null for all cases).
    A candidate is a finding in the score row of the study, not of a review. A cause that a person
    found also has its share of the reviewed cases of the kind, whose number is `n`.
    """
    candidates = _candidates(scores)
    reviewed: dict[str, set[str]] = {}
    for row in () if reviews is None else reviews.to_pylist():
        reviewed.setdefault(row["study_key"], set()).add(f"reviewed: {row['cause']}")
    counts: dict[tuple[str, str], Counter[str]] = {}
    sizes: Counter[tuple[str, str]] = Counter()
    read: Counter[tuple[str, str]] = Counter()
    for row in discrepancies.to_pylist():
        kind = f"{row['compared']}:{row['reference']}", _kind(row)
        sizes[kind] += 1
        read[kind] += row["study_key"] in reviewed
        known = candidates.get(row["study_key"], set()) | reviewed.get(row["study_key"], set())
        counts.setdefault(kind, Counter()).update(known)
    rows = []
    for (model, term), size in sorted(sizes.items()):
        base = Estimate(
            "discrepancy", "count", float(size), population="all", model=model, term=term, n=size
        )
        rows.append(base)
        for cause, count in sorted(counts[model, term].items(), key=lambda one: (-one[1], one[0])):
            reviewed_case = cause.startswith("reviewed")
            method = "found by a person" if reviewed_case else "candidate, not a review"
            rows.append(replace(base, level=cause, value=float(count), method=method))
            if reviewed_case:
                share = count / read[model, term]
                rows.append(replace(rows[-1], statistic="share", value=share, n=read[model, term]))
    return rows


def certainty_of_scores(scores: pa.Table, linked: pa.Table) -> list[Estimate]:
    """Whether the scores are as sure as they say, against the expert readings of the cohort.

    Parameters
    ----------
    scores : rows of the table `scores` of the linked model.
    linked : the table of that name.

    Returns
    -------
    No row where no patient has both an expert reading and a score that says how sure it is.
    """
    if "expert_agatston" not in linked.column_names:
        return []
    read = dict(zip(*(linked[name].to_pylist() for name in _READ), strict=True))
    known = [
        row | {"first": row["agatston"], "second": read[row["study_key"]]}
        for row in scores.to_pylist()
        if row["agatston"] is not None and read.get(row["study_key"]) is not None
    ]
    found = certainty(known)
    rows = [] if found is None else certainty_estimates(found, CERTAINTY_PAIR, "all")
    return [Estimate(**row) for row in rows]


def _of_studies(population: str, table: pa.Table) -> Iterator[Estimate]:
    base = Estimate("acquisition", "count", population=population, n=table.num_rows)
    yield replace(base, term="studies", value=float(table.num_rows))
    scanner = _scanners(table)
    yield from _levels(replace(base, term="scanner"), scanner)
    for term, column in _COUNTED:
        known = table[column].to_pylist()
        if term == "reason":
            yield from _levels(
                replace(base, term=term), [value for value in known if value], len(known)
            )
        else:
            yield from _levels(replace(base, term=term), [_level(value) for value in known])
    flags = [flag for joined in table["quality_flags"].to_pylist() for flag in joined.split(";")]
    yield from _levels(replace(base, term="quality_flag"), filter(None, flags), table.num_rows)
    yield from _reviews(base, table)
    for name in _MEASURES:
        yield from _quartiles(replace(base, term=name), table[name])
    for one in sorted(set(scanner)):
        mine = table.filter(pa.array([name == one for name in scanner], pa.bool_()))
        yield from _quartiles(replace(base, term="noise_hu", model=one), mine["noise_hu"])


def _reviews(base: Estimate, table: pa.Table) -> Iterator[Estimate]:
    """Scores that need review, among those that say so, and their reasons."""
    known = table.filter(pc.is_valid(table["needs_review"]))
    needed = known["needs_review"].to_pylist()
    yield from _levels(replace(base, term="needs_review"), map(str, needed))
    reasons = [name for joined in known["review_reasons"].to_pylist() for name in joined.split(";")]
    yield from _levels(replace(base, term="review_reason"), filter(None, reasons), len(needed))


def _scanners(table: pa.Table) -> list[str]:
    pairs = zip(
        table["Manufacturer"].to_pylist(), table["ManufacturerModelName"].to_pylist(), strict=True
    )
    return [" ".join(part for part in pair if part) or _UNKNOWN for pair in pairs]


def _level(value: object) -> str:
    if value is None:
        return _UNKNOWN
    return f"{value:g}" if isinstance(value, float) else str(value)


def _levels(base: Estimate, values: Iterable[str], total: int | None = None) -> Iterator[Estimate]:
    counts = Counter(values)
    whole = sum(counts.values()) if total is None else total
    for level, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        row = replace(base, level=level, value=float(count), n=whole)
        yield row
        yield replace(row, statistic="share", value=count / whole)


def _quartiles(base: Estimate, column: pa.ChunkedArray) -> Iterator[Estimate]:
    values = column.drop_null().to_numpy().astype(np.float64)
    base = replace(base, n=len(values), method="quartiles interpolate linearly")
    for statistic, share in _QUARTILES:
        row = replace(base, statistic=statistic)
        if len(values):
            yield replace(row, value=float(np.quantile(values, share)))
        else:
            yield not_estimable(row, "no study has a value")


def _candidates(scores: pa.Table) -> dict[str, set[str]]:
    """Findings of each scored study that may explain a wrong reading."""
    scored = scores.filter(pc.equal(scores["status"], Status.SCORED.value))
    noise = scored["noise_hu"].drop_null().to_numpy()
    limit = float(np.quantile(noise, 0.75)) if len(noise) else np.inf
    names = (
        "study_key", "noise_hu", "agatston_noncoronary", "quality_flags", "review_reasons",
    )  # fmt: skip
    found = {}
    for row in scored.select(list(names)).to_pylist():
        candidates = {f"flag: {flag}" for flag in row["quality_flags"].split(";") if flag}
        reasons = (row["review_reasons"] or "").split(";")
        candidates |= {f"review: {reason}" for reason in reasons if reason}
        if row["noise_hu"] is not None and row["noise_hu"] > limit:
            candidates.add("noise in the highest quarter")
        if (row["agatston_noncoronary"] or 0) >= 1:
            candidates.add("calcium outside the coronaries")
        found[row["study_key"]] = candidates
    return found


def _kind(row: Mapping[str, Any]) -> str:
    """Kind of a case: calcium in one reading only, or a different amount in both."""
    absent = [row[name] in _ABSENT for name in ("compared_category", "reference_category")]
    if absent[0] != absent[1]:
        return "absent_present" if absent[0] else "present_absent"
    return "apart"


#: Categories of scores and visual grades without calcium.
_ABSENT = ("0", "absent")
