"""A PACS of pynetdicom on this machine that answers as it should, or as badly as a test wants."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from cac_core.sources.dimse_association import STORED, SYNTAXES, without_delay
from tests.builders.pacs import free_port

_LEVELS = {
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


@dataclass
class DimsePacs:
    """Content and behaviour; every fault is off at first."""

    files: list[Path]
    port: int
    #: Changes the data sets that a retrieval sends.
    change: Callable[[list[Dataset]], list[Dataset]] = lambda found: found
    ignores_queries: bool = False
    #: Status of the next answers to queries.
    failures: list[int] = field(default_factory=list)
    #: Aborts the association after so many sent objects, so often.
    aborts: list[int] = field(default_factory=list)
    entity: Any = None
    tls: bool = False

    @property
    def place(self) -> str:
        """Its place in the settings."""
        return f"dicom{'s' if self.tls else ''}://PACS@127.0.0.1:{self.port}"

    def matching(self, keys: Dataset) -> list[Dataset]:
        """Headers of the files that fit the UIDs of a query."""
        found = [dcmread(path) for path in self.files]
        for name in _LEVELS.values():
            wanted = keys.get(name)
            if wanted:
                found = [item for item in found if item.get(name) == wanted]
        return found


def _find(event: evt.Event, pacs: DimsePacs) -> Iterator[tuple[int, Dataset | None]]:
    if pacs.failures:
        yield pacs.failures.pop(0), None
        return
    keys = event.identifier
    name = _LEVELS[keys.QueryRetrieveLevel]
    groups: dict[str, list[Dataset]] = {}
    for item in pacs.matching(keys):
        groups.setdefault(item.get(name), []).append(item)
    for items in groups.values():
        answer = Dataset()
        for element in keys:
            if element.keyword in items[0] and element.keyword != "QueryRetrieveLevel":
                answer[element.keyword] = items[0][element.keyword]
        answer.QueryRetrieveLevel = keys.QueryRetrieveLevel
        if "ModalitiesInStudy" in keys:
            answer.ModalitiesInStudy = sorted({item.Modality for item in items})
        for count in ("NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"):
            if count in keys:
                setattr(answer, count, len(items))
        asked = keys.get("ModalitiesInStudy")
        if pacs.ignores_queries or not asked or asked in answer.ModalitiesInStudy:
            yield 0xFF00, answer


def _get(event: evt.Event, pacs: DimsePacs) -> Iterator[Any]:
    found = pacs.change(pacs.matching(event.identifier))
    yield len(found)
    limit = pacs.aborts.pop(0) if pacs.aborts and len(found) > 1 else None
    for number, item in enumerate(found):
        if limit is not None and number >= limit:
            event.assoc.abort()
            return
        yield 0xFF00, item


@contextlib.contextmanager
def dimse_pacs(files: list[Path], tls: ssl.SSLContext | None = None) -> Iterator[DimsePacs]:
    """An application entity `PACS` with these files."""
    pacs = DimsePacs(files, free_port(), tls=tls is not None)
    entity = pacs.entity = AE("PACS")
    entity.require_called_aet = True
    find = StudyRootQueryRetrieveInformationModelFind
    get = StudyRootQueryRetrieveInformationModelGet
    entity.add_supported_context(find)
    entity.add_supported_context(get)
    for one in STORED:
        entity.add_supported_context(one, list(SYNTAXES), scu_role=True, scp_role=True)
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, without_delay),
        (evt.EVT_C_FIND, _find, [pacs]),
        (evt.EVT_C_GET, _get, [pacs]),
    ]
    server = entity.start_server(
        ("127.0.0.1", pacs.port), block=False, evt_handlers=handlers, ssl_context=tls
    )
    try:
        yield pacs
    finally:
        server.shutdown()
