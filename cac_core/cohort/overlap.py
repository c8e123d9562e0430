"""Overlap of registry and archive, and common causes of a missing overlap.

With a wrong secret, or identifiers that a spreadsheet has rewritten, every row is valid and none
matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cac_core.cohort.extract_parts import Part
from cac_core.keys import Keyring

_SCIENTIFIC = re.compile(r"[0-9]([.,][0-9]+)?[eE]\+?[0-9]+")
_DECIMAL = re.compile(r"([0-9]+)[.,]0+")
#: Longest number that lost leading zeros are restored to; record numbers are shorter.
_LONGEST = 12
#: Largest number of identifiers tried in other spellings; takes a second or two.
_TRIED = 50_000


@dataclass(frozen=True, slots=True)
class Overlap:
    """Number of clinical rows with a matching study, and the largest possible number.

    `possible` is the smaller of the numbers of clinical rows and of studies, each counted within
    the period of the other, since registry and archive can differ much in size.
    """

    matched: int
    possible: int

    @property
    def rate(self) -> float:
        """Share of `possible`; 0 if nothing could match."""
        return self.matched / self.possible if self.possible else 0.0


@dataclass(frozen=True, slots=True)
class RewrittenIdentifiers:
    """Patient identifiers that are not in the archive as written, by probable cause."""

    unknown: int
    scientific: int
    lost_zeros: int
    extra_zeros: int
    decimal: int

    def described(self) -> list[str]:
        """One message per cause; empty if no other spelling fits either."""
        found = (
            (self.scientific, "are written like 1.2E+11, a number format of spreadsheets"),
            (self.lost_zeros, "are in the archive with leading zeros, which the extract lost"),
            (self.extra_zeros, "are in the archive without their leading zeros"),
            (self.decimal, "are in the archive without the trailing .0"),
        )
        return [f"{n} of {self.unknown} unknown patient identifiers {t}" for n, t in found if n]


def overlap(
    parts: Sequence[Part], scores: pa.Table, matches: pa.Table, window_days: int
) -> Overlap:
    """Count matches; `matches` is the table of the linkage, the others are as for `link`.

    If any study has a score, only scored studies count as possible: an archive also holds studies
    of other kinds, which the registry does not cover.
    """
    dates = _column(parts, "study_date")
    scored = scores.filter(pc.equal(scores["status"], "scored"))
    scores = scored if scored.num_rows else scores
    matched = sum(pc.sum(matches[name]).as_py() or 0 for name in _WAYS)
    possible = min(
        _within(dates, scores["study_date"], window_days),
        _within(scores["study_date"], dates, window_days),
    )
    return Overlap(matched, max(matched, possible))


def rewritten_identifiers(
    parts: Sequence[Part], scores: pa.Table, keyring: Keyring
) -> RewrittenIdentifiers:
    """Look up the identifiers of the clinical table in the archive, also in other spellings."""
    archive = set(scores["patient_key"].drop_null().to_pylist())
    # Sorted, so that the sample is reproducible.
    given = sorted(set(_column(parts, "patient_id").to_pylist()))
    unknown = list(islice((i for i in given if keyring.patient_key(i) not in archive), _TRIED))

    def known(spellings: Callable[[str], list[str]]) -> int:
        return sum(
            any(keyring.patient_key(other) in archive for other in spellings(identifier.strip()))
            for identifier in unknown
        )

    return RewrittenIdentifiers(
        len(unknown),
        sum(bool(_SCIENTIFIC.fullmatch(identifier.strip())) for identifier in unknown),
        known(lambda i: [i.zfill(n) for n in range(len(i) + 1, _LONGEST + 1)]),
        known(lambda i: [i.lstrip("0")] if i.startswith("0") else []),
        known(_without_decimals),
    )


def _without_decimals(identifier: str) -> list[str]:
    number = _DECIMAL.fullmatch(identifier)
    if number is None:
        return []
    whole = number.group(1)
    return [whole.zfill(n) for n in range(len(whole), _LONGEST + 1)]


_WAYS = ("n_by_key_and_date", "n_by_accession")


def _column(parts: Sequence[Part], name: str) -> pa.ChunkedArray:
    """A column of all clinical rows."""
    found = [
        pq.ParquetFile(part.rows).read([name])[name]
        for part in parts
        if part.extract.source.table == "clinical"
    ]
    return pa.chunked_array([chunk for column in found for chunk in column.chunks], found[0].type)


def _within(dates: pa.ChunkedArray, others: pa.ChunkedArray, window_days: int) -> int:
    """Number of dates within the period of `others`; all dates if `others` has none."""
    days, bounds = dates.cast(pa.int32()).drop_null(), pc.min_max(others.cast(pa.int32()))
    if not bounds["min"].is_valid:
        return len(dates)
    low = pc.greater_equal(days, bounds["min"].as_py() - window_days)
    high = pc.less_equal(days, bounds["max"].as_py() + window_days)
    return pc.sum(pc.and_(low, high)).as_py() or 0
