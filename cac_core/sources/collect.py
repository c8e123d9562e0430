"""From a PACS to rows of `instances`: query, headers of new and changed studies, and nothing else.

A row of a PACS has no size (`size_bytes` 0) and, in place of a modification time, a digest of the
header. The digest of a series then rests on UIDs, patient and date alone, so that it is the same
by DICOMweb and by DIMSE; headers that changed make the study be pulled and compared again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.dicom.descriptions import TextPolicy
from cac_core.dicom.header import HEADER_COLUMNS, header_row
from cac_core.dicom.index import fitting_rows
from cac_core.dicom.part10 import RawHeader
from cac_core.keys import Keyring
from cac_core.sources.known import KnownStudies, KnownStudy
from cac_core.sources.place import is_uid, series_place
from cac_core.sources.source import (
    Fault,
    FoundStudy,
    Source,
    SourceError,
    SourceHeader,
    StudyQuery,
    fits,
)
from schemas.codes import FileReason
from schemas.instance import INSTANCES

#: After so many studies in a row without an answer, the PACS is away.
GIVE_UP_AFTER = 5
#: Rows that are collected before they become a table, which takes less memory.
_BATCH = 20_000
_Row = tuple[object, ...]


@dataclass(eq=False)
class SourceContent:
    """What a PACS holds.

    Parameters
    ----------
    rows : rows of `instances`.
    places : place of each instance by its `path_key`: that of its series, and its pseudonym.
    n_read : headers that were asked for in this run.
    unread : keys of the studies whose headers could not be had.
    malformed : studies that were left out because their UIDs are none.
    left : studies that are to be asked for in another run.
    """

    rows: pa.Table
    places: dict[str, str] = field(default_factory=dict)
    n_read: int = 0
    unread: frozenset[str] = frozenset()
    malformed: int = 0
    left: int = 0


@dataclass(eq=False)
class _Read:
    """What was asked for in this run: rows in batches, and the studies they belong to."""

    tables: list[pa.Table] = field(default_factory=list)
    known: list[KnownStudy] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    n_headers: int = 0
    left: int = 0


class Collector:
    """Reads what a PACS holds.

    Parameters
    ----------
    source : the PACS.
    known : what is known of it from earlier nights.
    keyring, texts : as for `cac_core.dicom.index.index_archive`.
    connections : studies that are asked for at the same time.
    is_withheld : whether a study key is that of a withdrawn patient; such studies are not asked
        for, and what is known of them is removed.
    may_ask : whether the PACS may still be asked at this time of the day; what is read until then
        is kept, and the next run goes on.
    """

    def __init__(
        self,
        source: Source,
        known: KnownStudies,
        keyring: Keyring,
        texts: TextPolicy,
        connections: int = 2,
        is_withheld: Callable[[str], bool] = lambda key: False,
        may_ask: Callable[[], bool] = lambda: True,
    ) -> None:
        self._source, self._known, self._keyring = source, known, keyring
        self._texts, self._connections = texts, connections
        self._is_withheld, self._may_ask = is_withheld, may_ask

    def read(
        self,
        query: StudyQuery,
        previous: pa.Table | None,
        progress: Callable[[int, int], None] | None = None,
    ) -> SourceContent:
        """Rows of every wanted study; those of unchanged ones are taken from `previous`.

        Studies outside the query stay as they are known; studies inside it that the PACS no longer
        names are dropped.

        Raises
        ------
        SourceError
            If the PACS refuses, is away, or suddenly names no studies at all.
        """
        state = self._known.read(self._source.place)
        found, malformed = self._found(query)
        withheld = {uid for uid in state if self._withholds(uid)}
        covered = {uid for uid, study in state.items() if _covers(query, study)} - withheld
        if covered and not found:
            raise SourceError(Fault.AWAY, f"it names no studies, of which {len(covered)} are known")
        rows = _rows_of_pacs(previous, self._texts.digest)
        whole = self._whole(state, rows)
        gone = (covered - found.keys()) | withheld
        kept = {
            uid
            for uid in whole - gone
            if uid not in found or (found[uid].version and found[uid].version == state[uid].version)
        }
        wanted = [study for uid, study in sorted(found.items()) if uid not in kept]
        read = self._headers(wanted, progress)
        # A study that was read before stays as it was until its headers can be had again.
        stale = {study.uid for study in wanted} & whole - {study.uid for study in read.known}
        content = self._joined(rows, {uid: state[uid] for uid in kept | stale}, read)
        self._known.write(self._source.place, read.known, gone)
        content.malformed, content.left = malformed, read.left
        return content

    def known(self, previous: pa.Table | None) -> SourceContent:
        """What is known from earlier nights; asks nothing."""
        state = self._known.read(self._source.place)
        rows = _rows_of_pacs(previous, self._texts.digest)
        kept = {uid: state[uid] for uid in self._whole(state, rows)}
        return self._joined(rows, kept, _Read())

    def _found(self, query: StudyQuery) -> tuple[dict[str, FoundStudy], int]:
        found: dict[str, FoundStudy] = {}
        malformed = 0
        for study in self._source.studies(query):
            if not is_uid(study.uid):
                malformed += 1
            elif fits(study, query, _matches) and not self._withholds(study.uid):
                found[study.uid] = study
        return found, malformed

    def _withholds(self, uid: str) -> bool:
        return self._is_withheld(self._keyring.study_key(uid))

    def _whole(self, state: dict[str, KnownStudy], rows: pa.Table) -> set[str]:
        """Known studies of which `rows` has every instance."""
        counts = rows.group_by("study_key").aggregate([("path_key", "count")])
        by_key = dict(
            zip(counts["study_key"].to_pylist(), counts["path_key_count"].to_pylist(), strict=True)
        )
        return {
            uid
            for uid, study in state.items()
            if by_key.get(self._keyring.study_key(uid)) == study.instances
        }

    def _headers(
        self, studies: list[FoundStudy], progress: Callable[[int, int], None] | None
    ) -> _Read:
        read, silent, done = _Read(), 0, 0
        batch: list[_Row] = []
        for study, headers in self._answers(studies):
            done += 1
            if isinstance(headers, SourceError):
                if headers.fault is Fault.REFUSED:
                    raise headers
                silent = silent + 1 if headers.fault is Fault.AWAY else 0
                if silent >= GIVE_UP_AFTER:
                    raise headers
                read.unread.add(study.uid)
            else:
                silent = 0
                distinct = _distinct(headers)
                batch += self._rows(distinct)
                read.known.append(_known(study, distinct))
                read.n_headers += len(distinct)
            if len(batch) >= _BATCH:
                read.tables.append(fitting_rows(batch))
                batch = []
            if progress is not None:
                progress(done, len(studies))
        read.tables.append(fitting_rows(batch))
        read.left = len(studies) - done
        return read

    def _answers(
        self, studies: Iterable[FoundStudy]
    ) -> Iterator[tuple[FoundStudy, list[SourceHeader] | SourceError]]:
        """Each study with its headers or the fault, as they come, a few at a time."""
        queue, asked = iter(studies), dict[Future[list[SourceHeader]], FoundStudy]()
        pool = ThreadPoolExecutor(self._connections, thread_name_prefix="cac-pacs")
        try:
            while True:
                while (
                    len(asked) < 2 * self._connections
                    and self._may_ask()
                    and (study := next(queue, None))
                ):
                    asked[pool.submit(self._source.headers, study.uid)] = study
                if not asked:
                    return
                for future in wait(asked, return_when=FIRST_COMPLETED).done:
                    study = asked.pop(future)
                    try:
                        yield study, future.result()
                    except SourceError as error:
                        yield study, error
        finally:
            pool.shutdown(cancel_futures=True)

    def _joined(self, rows: pa.Table, kept: dict[str, KnownStudy], read: _Read) -> SourceContent:
        keys = {self._keyring.study_key(uid) for uid in kept}
        old = rows.filter(pc.is_in(rows["study_key"], pa.array(sorted(keys), pa.string())))
        missing = read.unread - kept.keys()
        unread = fitting_rows([self._unread_row(uid) for uid in sorted(missing)])
        table = pa.concat_tables([old.cast(INSTANCES.arrow_schema), *read.tables, unread])
        series = {
            (self._keyring.study_key(study.uid), self._keyring.pseudonym_uid(name)): (
                study.uid,
                name,
            )
            for study in (*kept.values(), *read.known)
            for name in study.series
        }
        unread_keys = frozenset(map(self._keyring.study_key, missing))
        return SourceContent(table, self._places(table, series), read.n_headers, unread_keys)

    def _places(
        self, table: pa.Table, series: dict[tuple[str, str], tuple[str, str]]
    ) -> dict[str, str]:
        names = ("path_key", "study_key", "SeriesInstanceUID", "SOPInstanceUID")
        places: dict[str, str] = {}
        for key, study, one, instance in zip(
            *(table[name].to_pylist() for name in names), strict=True
        ):
            uids = series.get((study, one))
            if uids is not None:
                places[key] = f"{series_place(self._source.place, *uids)}/instances/{instance}"
        return places

    def _rows(self, headers: list[SourceHeader]) -> list[_Row]:
        paths = [
            f"{series_place(self._source.place, h.study_uid, h.series_uid)}"
            f"/instances/{h.instance_uid}"
            for h in headers
        ]
        keys = self._keyring.path_keys(paths)
        blank = (None,) * len(HEADER_COLUMNS)
        found = []
        for key, header in zip(keys, headers, strict=True):
            values = header_row(header.raw, self._keyring, self._texts)
            values = (*values, *blank[len(values) :])
            stamp = self._stamp(header.raw)
            found.append((key, 0, stamp, *values, None, self._texts.digest))
        return found

    def _unread_row(self, uid: str) -> _Row:
        values: dict[str, object] = {
            "reason": FileReason.NOT_RETRIEVED.value,
            "study_key": self._keyring.study_key(uid),
        }
        key = self._keyring.path_key(f"{self._source.place}/studies/{uid}")
        return (key, 0, 0, *map(values.get, HEADER_COLUMNS), None, self._texts.digest)

    def _stamp(self, raw: RawHeader) -> int:
        """A number that changes with the header; keyed, for headers hold names."""
        state = hashlib.sha256()
        for part in (raw.values, raw.nested):
            for tag in sorted(part):
                state.update(b"%d %d " % (tag, len(part[tag])) + part[tag])
        for position in raw.positions:
            state.update(position + b"\n")
        return int(self._keyring.path_key(state.hexdigest())[:15], 16)


def _distinct(headers: list[SourceHeader]) -> list[SourceHeader]:
    """Each instance once: of one that is named twice, the last."""
    return list({(header.series_uid, header.instance_uid): header for header in headers}.values())


def _known(study: FoundStudy, headers: list[SourceHeader]) -> KnownStudy:
    series = tuple(sorted({header.series_uid for header in headers}))
    return KnownStudy(study.uid, study.date, study.version, len(headers), series)


def _covers(query: StudyQuery, study: KnownStudy) -> bool:
    """Whether a query would name a known study if it were still there."""
    if study.date is None:
        return query.first is None and query.last is None
    return (query.first is None or study.date >= query.first) and (
        query.last is None or study.date <= query.last
    )


def _rows_of_pacs(previous: pa.Table | None, policy: str) -> pa.Table:
    """Rows of earlier nights that came from a PACS and still hold the right words."""
    if previous is None or previous.column_names != INSTANCES.arrow_schema.names:
        return INSTANCES.empty()
    mask = pc.and_(
        pc.and_(pc.equal(previous["size_bytes"], 0), pc.is_null(previous["reason"])),
        pc.equal(previous["text_policy"], policy),
    )
    return previous.filter(mask)


def _matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None
