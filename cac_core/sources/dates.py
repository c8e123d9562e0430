"""Ranges of study dates in the form of queries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from cac_core.sources.source import StudyQuery

_DAYS_PER_QUERY = 31


def date_ranges(query: StudyQuery) -> Iterator[tuple[dt.date | None, dt.date | None]]:
    """The range of a query in parts: years may be more than a server answers at once."""
    if query.first is None:
        yield None, query.last
        return
    # A scanner ahead of our time zone, or whose clock is wrong, is a day early.
    last = query.last or dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    begin = query.first
    while begin <= last:
        end = min(last, begin + dt.timedelta(days=_DAYS_PER_QUERY - 1))
        yield begin, end
        begin = end + dt.timedelta(days=1)


def date_text(day: dt.date | None) -> str:
    """A date in the form of DICOM (DA); empty for an open end."""
    return "" if day is None else day.strftime("%Y%m%d")
