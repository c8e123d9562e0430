"""Pulls the chosen series of a study from its PACS into files that a worker reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from cac_core.dicom.files import modification_ns
from cac_core.sources.cache import SeriesCache
from cac_core.sources.incoming import IncomingLimits, IncomingSeries
from cac_core.sources.pace import Pace
from cac_core.sources.place import is_pacs, parse_series_place
from cac_core.sources.source import Fault, Source, SourceError
from cac_core.study import FileStamp, StudyWork


class Puller:
    """Exchanges the places of a study in a PACS for files of the cache.

    Parameters
    ----------
    sources : the PACS by their places.
    cache : where series lie until they are scored.
    pseudonym : makes the pseudonym of an instance from its SOPInstanceUID.
    pace : attempts.
    limits : what one series may cost.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        cache: SeriesCache,
        pseudonym: Callable[[str], str],
        pace: Pace,
        limits: IncomingLimits,
    ) -> None:
        self._sources, self._cache, self._pseudonym = sources, cache, pseudonym
        self._pace, self._limits = pace, limits

    @staticmethod
    def concerns(work: StudyWork) -> bool:
        """Whether the files of a study lie in a PACS."""
        return bool(work.files) and is_pacs(work.files[0].path)

    def pulled(self, work: StudyWork) -> StudyWork:
        """The study with files of the cache, where they stay until `release`.

        Raises
        ------
        SourceError
            If the PACS does not deliver the series whole, after all attempts.
        """
        name = _name(work)
        files = self._cache.files(name)
        if files is None:
            self._pace.attempt(lambda: self._pull(work, name), partial_too=True)
            files = self._cache.files(name) or []
        roots = tuple({str(path.parent) for path in files[:1]})
        return dataclasses.replace(work, files=_stamps(files), roots=roots)

    def release(self, work: StudyWork) -> None:
        """The study is scored, or will not be in this run."""
        self._cache.release(_name(work))

    def trim(self) -> None:
        """Remove what the cache may not keep; at the end of a run."""
        self._cache.trim()

    def _pull(self, work: StudyWork, name: str) -> None:
        places = [stamp.path.rpartition("/instances/") for stamp in work.files]
        asked = parse_series_place(places[0][0])
        if asked is None or asked[0] not in self._sources:
            raise SourceError(Fault.STUDY, "its PACS is not among the archives of this run")
        place, study, series = asked
        expected = frozenset(pseudonym for _, _, pseudonym in places)
        with self._cache.arriving(name) as (folder, whole):
            incoming = IncomingSeries(
                folder, (study, series), expected, self._pseudonym, self._limits
            )
            self._sources[place].pull(study, series, incoming.add)
            incoming.require_complete()
            whole()


def _name(work: StudyWork) -> str:
    """Name of a series in the cache; another one if its headers changed."""
    return f"{work.study_key}-{(work.files_digest or '')[:16]}"


def _stamps(files: list[Path]) -> tuple[FileStamp, ...]:
    """Files as indexed; those of one instance in different bytes share a number."""
    stems = [path.stem.partition("-")[0] for path in files]
    numbers = {stem: number for number, stem in enumerate(sorted(set(stems)))}
    stamps = []
    for path, stem in zip(files, stems, strict=True):
        status = path.stat()
        copy = numbers[stem] if stems.count(stem) > 1 else None
        stamps.append(FileStamp(str(path), status.st_size, modification_ns(status), copy))
    return tuple(stamps)
