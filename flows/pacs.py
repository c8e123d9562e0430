"""The PACS among the archives of a run: what they hold, and the pulls of their studies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa

from cac_core.cohort.forgotten import Forgotten
from cac_core.dicom.index import ArchiveIndex, joined
from cac_core.errors import CacError
from cac_core.sources.cache import SeriesCache
from cac_core.sources.collect import Collector, SourceContent
from cac_core.sources.known import KnownStudies, known_file
from cac_core.sources.open import limits_of, open_source, pace_of, query_of
from cac_core.sources.pace import Window
from cac_core.sources.place import is_pacs
from cac_core.sources.puller import Puller
from cac_core.sources.source import Source, SourceError
from flows.request import PreparedIndexing
from flows.runtime.progress import RunProgress
from tasks.arrivals import Arrivals


@dataclass(eq=False)
class PacsOfRun:
    """The PACS of one run.

    Parameters
    ----------
    sources : by their places.
    arrivals : pulls of the chosen series.
    unread : keys of studies whose headers could not be had.
    """

    sources: dict[str, Source]
    arrivals: Arrivals
    unread: frozenset[str] = frozenset()

    def close(self) -> None:
        """Close all connections; a later request opens them again."""
        for source in self.sources.values():
            source.close()

    def end(self) -> None:
        """End a run that came to its end: close, and keep no more than the cache may."""
        self.close()
        self.arrivals.puller.trim()


def open_pacs(prepared: PreparedIndexing, progress: RunProgress) -> PacsOfRun | None:
    """The PACS among the archives of a request; None if there is none.

    Raises
    ------
    CacError
        If an address, a credential or the cache folder cannot be used.
    """
    places = [str(root).rstrip("/") for root in prepared.roots if is_pacs(root)]
    if not places:
        return None
    settings, pace = prepared.settings.source, pace_of(prepared.settings.source)
    sources = {place: open_source(place, settings, pace) for place in places}
    cache = SeriesCache(settings.folder / "series", int(settings.cache_gb * 10**9))
    puller = Puller(sources, cache, prepared.keyring.pseudonym_uid, pace, limits_of(settings))
    arrivals = Arrivals(
        puller,
        pace,
        settings.connections,
        settings.ahead,
        _hours(prepared),
        progress.say,
    )
    return PacsOfRun(sources, arrivals)


def _hours(prepared: PreparedIndexing) -> Callable[[], bool]:
    hours, zone = prepared.settings.source.window, ZoneInfo(prepared.settings.schedule.timezone)
    if hours is None:
        return lambda: True
    window = Window(*hours)
    return lambda: window.is_open(dt.datetime.now(zone))


def with_pacs(
    index: ArchiveIndex,
    pacs: PacsOfRun,
    prepared: PreparedIndexing,
    previous: pa.Table | None,
    progress: RunProgress,
) -> ArchiveIndex:
    """The index with the studies of the PACS; a study that is also in a folder is taken from there.

    Outside of their hours nothing is asked, and what is known of them stays. One that cannot be
    used is a warning where other archives are left.

    Raises
    ------
    CacError
        If the only archive is a PACS that cannot be used.
    """
    only = len(pacs.sources) == len(prepared.roots) == 1
    for place, source in pacs.sources.items():
        collector = Collector(
            source,
            KnownStudies(known_file(prepared.settings.source.folder)),
            prepared.keyring,
            prepared.texts,
            prepared.settings.source.connections,
            Forgotten.read(prepared.warehouse, prepared.keyring).holds,
            pacs.arrivals.is_open,
        )
        content = _content(collector, place, pacs, prepared, previous, progress, only)
        pacs.unread |= content.unread
        if content.malformed:
            progress.say(f"warning: {content.malformed} studies of the PACS have malformed UIDs")
        if content.left:
            progress.say(f"{content.left} new studies of the PACS are left to its next hours")
        index = joined(index, content.rows, content.places, content.n_read)
    pacs.close()
    return index


def _content(
    collector: Collector,
    place: str,
    pacs: PacsOfRun,
    prepared: PreparedIndexing,
    previous: pa.Table | None,
    progress: RunProgress,
    only: bool,
) -> SourceContent:
    if not pacs.arrivals.is_open():
        progress.say("It is outside of the hours of the PACS: what is known of it stays.")
        return collector.known(previous)
    today = dt.datetime.now(ZoneInfo(prepared.settings.schedule.timezone)).date()
    try:
        with progress.counting("studies asked for") as report:
            return collector.read(query_of(prepared.settings.source, today), previous, report)
    except SourceError as error:
        fault = unusable(place, error)
        if only:
            raise fault from None
        progress.say(f"warning: {fault}")
        return collector.known(previous)


def unusable(place: str, error: SourceError) -> CacError:
    """The fault of a PACS as it is shown."""
    hint = error.hint or "`cac doctor` checks the connection; what is known of it stays."
    return CacError(f"The PACS {place} cannot be used: {error.detail}.", hint)


def folders_of(roots: Sequence[Path | str]) -> tuple[Path | str, ...]:
    """The archives that are no PACS."""
    return tuple(root for root in roots if not is_pacs(root))
