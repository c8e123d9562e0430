"""What every PACS source can do, and the faults that it raises."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cac_core.dicom.part10 import RawHeader

#: Series whose headers can bear on the choice of the CTAC.
HEADER_MODALITIES = frozenset(("CT", "NM", "PT"))


class Fault(Enum):
    """Kind of a fault: it decides whether another attempt, or another study, can help."""

    AWAY = "away"  # no connection, no answer in time, an overloaded server
    REFUSED = "refused"  # credentials, certificate, AE title
    STUDY = "study"  # what was delivered is not what was asked for


class SourceError(Exception):
    """A PACS did not do what was asked.

    Parameters
    ----------
    fault : kind of the fault.
    detail : numbers and codes, never identifiers.
    hint : what to do, one sentence.
    wait_s : how long the server asks to be left alone.
    """

    def __init__(self, fault: Fault, detail: str, hint: str = "", wait_s: float = 0.0) -> None:
        super().__init__(fault, detail, hint, wait_s)
        self.fault, self.detail, self.hint, self.wait_s = fault, detail, hint, wait_s

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class StudyQuery:
    """Which studies of a PACS are wanted.

    Parameters
    ----------
    first, last : range of StudyDate, both included; None is open.
    modalities : a study has one of these among its modalities; empty for any.
    descriptions : patterns, one of which is found in StudyDescription; empty for any.
    """

    first: dt.date | None = None
    last: dt.date | None = None
    modalities: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study as a query answers it; texts are for filtering and are not kept.

    `n_instances` is None where the PACS does not tell.
    """

    uid: str
    date: dt.date | None = None
    modalities: frozenset[str] | None = None
    description: str | None = None
    n_instances: int | None = None
    n_series: int | None = None
    stamp: str | None = None

    @property
    def version(self) -> str | None:
        """Digest of what tells that a study has changed; None where nothing does."""
        if self.n_instances is None and self.stamp is None:
            return None
        text = f"{self.date} {self.n_instances} {self.n_series} {self.stamp}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SourceHeader:
    """The header of one instance, without pixels."""

    study_uid: str
    series_uid: str
    instance_uid: str
    raw: RawHeader


class Source(Protocol):
    """A PACS. Every method can raise `SourceError`."""

    place: str

    def check(self) -> str:
        """Ask for as little as shows that it answers; returns what was found, in words."""
        ...

    def studies(self, query: StudyQuery) -> Iterator[FoundStudy]:
        """Studies that the server thinks fit the query; the caller filters again."""
        ...

    def headers(self, study_uid: str) -> list[SourceHeader]:
        """Headers of the instances of a study that decide about its CTAC series."""
        ...

    def pull(self, study_uid: str, series_uid: str, add: Callable[[bytes], None]) -> None:
        """Deliver every instance of a series as a Part 10 file to `add`, which may refuse it."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def count_of(text: str | None) -> int | None:
    """A number of instances or frames as a PACS tells it; None where it is none."""
    found = text is not None and text.isascii() and text.isdigit() and len(text) < 10
    return int(text) if found and text is not None else None


def fits(study: FoundStudy, query: StudyQuery, matches: Callable[[str, str], bool]) -> bool:
    """Whether a study is wanted: servers ignore keys that they do not know.

    What the server does not tell cannot exclude a study.

    Parameters
    ----------
    matches : whether a pattern is found in a text.
    """
    if study.date is not None:
        if query.first is not None and study.date < query.first:
            return False
        if query.last is not None and study.date > query.last:
            return False
    if query.modalities and study.modalities and not study.modalities & set(query.modalities):
        return False
    described = study.description
    if not query.descriptions or described is None:
        return True
    return any(matches(pattern, described) for pattern in query.descriptions)
