"""Whether registry and archive are about the same people at all, and why they may seem not to be.

A wrong secret, or identifiers that a spreadsheet rewrote, break no row: everything is read, and
nothing belongs together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cac_core.cohort.parts import Part
from cac_core.keys import Keyring

_SCIENTIFIC = re.compile(r"[0-9]([.,][0-9]+)?[eE]\+?[0-9]+")
_DECIMAL = re.compile(r"([0-9]+)[.,]0+")
#: Longest number that lost zeros are put before; DICOM allows more, record numbers have fewer.
_LONGEST = 12
#: Identifiers that are tried in other spellings: enough to know, in a second or two.
_TRIED = 50_000


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many clinical rows found their study, of those that could have found one.

    `possible` is the smaller of the numbers of clinical rows and of studies, each counted where
    the other side has dates: a registry may know many more patients than an archive, or the other
    way round.
    """

    matched: int
    possible: int

    @property
    def rate(self) -> float:
        """Share of `possible`; 0 where nothing could match."""
        return self.matched / self.possible if self.possible else 0.0


@dataclass(frozen=True, slots=True)
class Misspelt:
    """Patient identifiers that are not in the archive as written, by what seems to be wrong."""

    unknown: int
    scientific: int
    lost_zeros: int
    extra_zeros: int
    decimal: int

    def described(self) -> list[str]:
        """What was found, in words; nothing where no other spelling fits either."""
        found = (
            (self.scientific, "are written like 1.2E+11, as spreadsheets shorten numbers"),
            (self.lost_zeros, "are in the archive with leading zeros, which the extract lost"),
            (self.extra_zeros, "are in the archive without their leading zeros"),
            (self.decimal, "are in the archive without the .0 at their end"),
        )
        return [f"{n} of {self.unknown} unknown patient identifiers {t}" for n, t in found if n]


def overlap(
    parts: Sequence[Part], scores: pa.Table, matches: pa.Table, window_days: int
) -> Overlap:
    """Count what matched; `matches` is the table of the linkage, the others as for `link`.

    An archive also holds studies of other kinds, which no registry of these patients knows: where
    some studies have a score, only those count as possible.
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


def misspelt(parts: Sequence[Part], scores: pa.Table, keyring: Keyring) -> Misspelt:
    """Look for the identifiers of the clinical table in the archive, in other spellings too."""
    archive = set(scores["patient_key"].drop_null().to_pylist())
    # Sorted, so that the sample is the same every time.
    given = sorted(set(_column(parts, "patient_id").to_pylist()))
    unknown = list(islice((i for i in given if keyring.patient_key(i) not in archive), _TRIED))

    def known(spellings: Callable[[str], list[str]]) -> int:
        return sum(
            any(keyring.patient_key(other) in archive for other in spellings(identifier.strip()))
            for identifier in unknown
        )

    return Misspelt(
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
    """How many dates lie where the others do; all that are there, where those have none."""
    days, bounds = dates.cast(pa.int32()).drop_null(), pc.min_max(others.cast(pa.int32()))
    if not bounds["min"].is_valid:
        return len(dates)
    low = pc.greater_equal(days, bounds["min"].as_py() - window_days)
    high = pc.less_equal(days, bounds["max"].as_py() + window_days)
    return pc.sum(pc.and_(low, high)).as_py() or 0
