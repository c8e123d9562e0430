"""A PACS by DIMSE: C-FIND for studies, series and instances, C-GET or C-MOVE for the objects.

C-FIND gives few attributes, so the header of a series comes from one of its instances, which is
retrieved; the others differ from it in UID, number and, where the PACS tells, position.
"""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pydicom import Dataset, config
from pynetdicom import evt

from cac_core.dicom import tags
from cac_core.dicom.byte_window import Window
from cac_core.dicom.header import NESTED, WANTED
from cac_core.dicom.header_values import calendar_date
from cac_core.dicom.limits import HeaderLimits
from cac_core.dicom.part10 import RawHeader, walk_header
from cac_core.source_settings import SourceSettings
from cac_core.sources.dates import date_ranges, date_text
from cac_core.sources.dimse_association import ECHO, FIND, GET, MOVE, Peer, cut_off, require_success
from cac_core.sources.dimse_watch import Watch
from cac_core.sources.incoming import HEADER_FAULTS, identity_of
from cac_core.sources.pace import Pace, StoppedError
from cac_core.sources.place import dimse_place, is_uid
from cac_core.sources.source import (
    HEADER_MODALITIES,
    Fault,
    FoundStudy,
    SourceError,
    SourceHeader,
    StudyQuery,
    count_of,
)
from cac_core.sources.storage_scp import StorageScp

#: More answers to one query, of a month or a series, are no answer.
_MAX_ANSWERS = 100_000
Add = Callable[[bytes], None]


def open_dimse(place: str, settings: SourceSettings, pace: Pace) -> Dimse:
    """The application entity at a place.

    Raises
    ------
    UsageError
        If C-MOVE is asked for and nobody may send.
    """
    return Dimse(place, settings, pace)


class Dimse:
    """An application entity as a source of studies (`cac_core.sources.source.Source`)."""

    def __init__(self, place: str, settings: SourceSettings, pace: Pace) -> None:
        self.place = place
        self._settings, self._pace = settings, pace
        where = dimse_place(place)
        self._peer = Peer(where, settings, pace)
        moves = settings.retrieve == "move"
        self._scp = StorageScp(settings, tls=where.tls) if moves else None

    def check(self) -> str:
        """C-ECHO, and whether queries and retrieval are offered."""
        with self._peer.association(ECHO) as association:
            require_success(association.send_c_echo())
        for model in (FIND, GET if self._scp is None else MOVE):
            with self._peer.association(model, receiving=model == GET):
                pass
        return f"C-ECHO answers; C-FIND and C-{self._settings.retrieve.upper()} are offered"

    def studies(self, query: StudyQuery) -> Iterator[FoundStudy]:
        """Studies month by month; ones that come again are left out."""
        seen: set[str] = set()
        for first, last in date_ranges(query):
            keys = _keys("STUDY", "StudyInstanceUID", "ModalitiesInStudy", "StudyDescription")
            keys.NumberOfStudyRelatedInstances = keys.NumberOfStudyRelatedSeries = None
            dates = f"{date_text(first)}-{date_text(last)}" if first or last else ""
            keys.StudyDate = dates
            if len(query.modalities) == 1:
                keys.ModalitiesInStudy = query.modalities[0]
            for answer in self._pace.attempt(lambda keys=keys: self._find(keys)):  # type: ignore[misc]
                uid = _value(answer, "StudyInstanceUID")
                if uid and uid not in seen:
                    seen.add(uid)
                    yield _found(uid, answer)

    def headers(self, study_uid: str) -> list[SourceHeader]:
        """Headers of the CT and nuclear series of a study."""
        keys = _keys("SERIES", "SeriesInstanceUID", "Modality")
        keys.StudyInstanceUID, keys.NumberOfSeriesRelatedInstances = study_uid, None
        found: list[SourceHeader] = []
        for answer in self._pace.attempt(lambda: self._find(keys)):
            series, modality = _value(answer, "SeriesInstanceUID"), _value(answer, "Modality")
            if modality and modality not in HEADER_MODALITIES:
                continue
            if not is_uid(series):
                raise SourceError(Fault.STUDY, "a series with a malformed UID")
            count = _number(answer, "NumberOfSeriesRelatedInstances")
            found += self._pace.attempt(
                lambda series=series, count=count: self._series(study_uid, series, count),  # type: ignore[misc]
                partial_too=True,
            )
        return found

    def _series(self, study: str, series: str, count: int | None) -> list[SourceHeader]:
        keys = _keys("IMAGE", "SOPInstanceUID", "InstanceNumber", "ImagePositionPatient")
        keys.StudyInstanceUID, keys.SeriesInstanceUID = study, series
        answers = {
            uid: answer
            for answer in self._find(keys)
            if (uid := _value(answer, "SOPInstanceUID")) and is_uid(uid)
        }
        if not answers or (count is not None and len(answers) < count):
            detail = f"{len(answers)} of {count or 'unknown'} instances named"
            raise SourceError(Fault.STUDY, detail)
        ordered = sorted(answers, key=lambda uid: _number(answers[uid], "InstanceNumber") or 0)
        # A localizer, if there is one in the series, comes first or last.
        sample = ordered[len(ordered) // 2]
        raw = self._sample(study, series, sample)
        return [
            SourceHeader(study, series, uid, raw if uid == sample else _like(raw, answers[uid]))
            for uid in ordered
        ]

    def _sample(self, study: str, series: str, instance: str) -> RawHeader:
        """The header of one instance."""
        taken: list[bytes] = []

        def add(content: bytes) -> None:
            if len(taken) < 2 and identity_of(content) == (study, series, instance):
                taken.append(content)

        self._retrieve(study, series, add, instance)
        if not taken:
            raise SourceError(Fault.STUDY, "an instance that was named is not delivered")
        raw, stream = RawHeader(), io.BytesIO(taken[0])
        try:
            walk_header(Window(_reader(stream), len(taken[0]), HeaderLimits()), raw, WANTED, NESTED)
        except HEADER_FAULTS:
            raise SourceError(Fault.STUDY, "a header that cannot be read") from None
        raw.pixel_offset = None
        return raw

    def pull(self, study_uid: str, series_uid: str, add: Add) -> None:
        """Deliver the instances of a series while they arrive; one attempt."""
        self._retrieve(study_uid, series_uid, add)

    def _retrieve(self, study: str, series: str, add: Add, instance: str | None = None) -> None:
        keys = _keys("SERIES" if instance is None else "IMAGE")
        keys.StudyInstanceUID, keys.SeriesInstanceUID = study, series
        if instance is not None:
            keys.SOPInstanceUID = instance
        if self._scp is None:
            self._get(keys, add)
        else:
            self._move(self._scp, (study, series), keys, add)

    def _get(self, keys: Dataset, add: Add) -> None:
        refused: list[SourceError | StoppedError] = []
        budget = _Budget(int(self._settings.series_gb * 10**9))

        def store(event: evt.Event) -> int:
            content = event.encoded_dataset()
            try:
                self._pace.received(len(content))
                add(content)
            except (SourceError, StoppedError) as error:
                refused.append(error)
                cut_off(event.assoc)
                return 0xA700
            return 0x0000

        handlers = [(evt.EVT_C_STORE, store), (evt.EVT_DATA_RECV, budget.count)]
        fault: SourceError | None = None
        try:
            with self._peer.association(GET, receiving=True, handlers=handlers) as association:
                for status, _ in association.send_c_get(keys, GET):
                    _require_delivered(status)
        except SourceError as error:
            fault = error
        if refused:
            raise refused[0]
        if fault is not None:
            raise budget.fault() if budget.spent else fault

    def _move(self, scp: StorageScp, series: tuple[str, str], keys: Dataset, add: Add) -> None:
        watch = Watch(self._settings)

        def paced(content: bytes) -> None:
            watch.more(len(content))
            self._pace.received(len(content))
            add(content)

        scp.start()
        scp.wait_for(series, paced)
        fault: SourceError | None = None
        try:
            with self._peer.association(MOVE, watch=watch) as association:
                for status, _ in association.send_c_move(keys, self._settings.ae_title, MOVE):
                    _require_delivered(status)
        except SourceError as error:
            fault = error
        refused = scp.end(series)
        if refused or fault:
            raise refused or fault or AssertionError

    def close(self) -> None:
        """Stop the storage SCP."""
        if self._scp is not None:
            self._scp.stop()

    def _find(self, keys: Dataset) -> list[Dataset]:
        answers: list[Dataset] = []
        with self._peer.association(FIND) as association:
            for status, identifier in association.send_c_find(keys, FIND):
                require_success(status)
                if isinstance(identifier, Dataset):
                    answers.append(identifier)
                if len(answers) > _MAX_ANSWERS:
                    raise SourceError(Fault.STUDY, f"more than {_MAX_ANSWERS} answers")
        return answers


class _Budget:
    """Bytes that one retrieval may bring."""

    def __init__(self, most: int) -> None:
        self._left, self._lock = 2 * most, threading.Lock()

    @property
    def spent(self) -> bool:
        return self._left < 0

    def count(self, event: evt.Event) -> None:
        with self._lock:
            self._left -= len(event.data)
        if self.spent:
            cut_off(event.assoc)

    def fault(self) -> SourceError:
        return SourceError(Fault.STUDY, "more bytes than a series may have")


def _require_delivered(status: Any) -> None:
    """Check a response of C-GET or C-MOVE; failed sub-operations are a partial study."""
    code = getattr(status, "Status", None)
    if code == 0xB000:
        failed = status.get("NumberOfFailedSuboperations", "some")
        raise SourceError(Fault.STUDY, f"{failed} instances not delivered")
    require_success(status)


def _keys(level: str, *wanted: str) -> Dataset:
    keys = Dataset()
    keys.QueryRetrieveLevel = level
    for name in wanted:
        setattr(keys, name, "" if name != "ImagePositionPatient" else None)
    return keys


def _value(answer: Dataset, name: str) -> str | None:
    """The value of an element as text; None where it has none that can be read."""
    config.settings.reading_validation_mode = config.IGNORE
    try:
        value: Any = answer.get(name)
    except (ValueError, TypeError, NotImplementedError, LookupError):
        return None
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value.strip()
    try:
        return "\\".join(map(str, value))
    except TypeError:
        return str(value)


def _number(answer: Dataset, name: str) -> int | None:
    return count_of(_value(answer, name))


def _found(uid: str, answer: Dataset) -> FoundStudy:
    modalities = frozenset((_value(answer, "ModalitiesInStudy") or "").split("\\")) - {""}
    date = calendar_date((_value(answer, "StudyDate") or "").encode("latin-1", "replace"))
    instances = _number(answer, "NumberOfStudyRelatedInstances")
    series = _number(answer, "NumberOfStudyRelatedSeries")
    described = _value(answer, "StudyDescription")
    return FoundStudy(uid, date, modalities or None, described, instances, series)


def _like(sample: RawHeader, answer: Dataset) -> RawHeader:
    """The header of an instance, from that of another of its series and what C-FIND tells."""
    raw = copy.copy(sample)
    raw.values = dict(sample.values)
    named = {
        tags.SOPInstanceUID: _value(answer, "SOPInstanceUID"),
        tags.InstanceNumber: _value(answer, "InstanceNumber"),
        tags.ImagePositionPatient: _value(answer, "ImagePositionPatient"),
    }
    for tag, text in named.items():
        if text is None:
            raw.values.pop(tag, None)
        else:
            raw.values[tag] = text.encode("latin-1", "replace")
    return raw


def _reader(stream: io.BytesIO) -> Callable[[int, int], bytes]:
    view = stream.getvalue()
    return lambda count, position: view[position : position + count]
