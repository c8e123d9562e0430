"""Instances on their way from a PACS to a file: checked against what was asked for, within limits.

A PACS can send other studies than asked for, an instance twice, or without end. Nothing that it
sends decides the name of a file.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cac_core.dicom import tags
from cac_core.dicom.byte_window import (
    LimitExceededError,
    MalformedHeaderError,
    NotDicomError,
    TruncatedHeaderError,
    Window,
)
from cac_core.dicom.header_values import uid_text
from cac_core.dicom.limits import HeaderLimits, ReadLimits
from cac_core.dicom.part10 import RawHeader, walk_header
from cac_core.sources.source import Fault, SourceError

_UIDS = frozenset((tags.StudyInstanceUID, tags.SeriesInstanceUID, tags.SOPInstanceUID))
#: What a header that cannot be walked raises.
HEADER_FAULTS = (NotDicomError, MalformedHeaderError, TruncatedHeaderError, LimitExceededError)


@dataclass(frozen=True, slots=True)
class IncomingLimits:
    """What one series may cost; beyond it the transfer is cut off.

    Parameters
    ----------
    instances : instances, copies included.
    total_bytes : bytes of all instances.
    """

    instances: int = 2 * ReadLimits().max_slices
    total_bytes: int = 2 * ReadLimits().max_bytes


#: The limits unless the settings say otherwise.
INCOMING_LIMITS = IncomingLimits()


def identity_of(content: bytes) -> tuple[str, str, str]:
    """StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID of a Part 10 file.

    Raises
    ------
    SourceError
        If it is none.
    """

    def read(count: int, position: int) -> bytes:
        return content[position : position + count]

    raw = RawHeader()
    try:
        walk_header(Window(read, len(content), HeaderLimits()), raw, _UIDS, frozenset())
    except HEADER_FAULTS:
        if not all(raw.values.get(tag) for tag in _UIDS):
            raise SourceError(Fault.STUDY, "an answer that is no DICOM instance") from None
    study, series, instance = (
        uid_text(raw.values, tag)
        for tag in (tags.StudyInstanceUID, tags.SeriesInstanceUID, tags.SOPInstanceUID)
    )
    return study, series, instance


class IncomingSeries:
    """Writes the instances of one series into a folder; can be called from several threads.

    Parameters
    ----------
    folder : empty folder for the files.
    asked : study and series, as the PACS names them.
    expected : pseudonyms of the instances that the headers announced.
    pseudonym : makes the pseudonym of an instance from its SOPInstanceUID.
    limits : largest number and size.
    """

    def __init__(
        self,
        folder: Path,
        asked: tuple[str, str],
        expected: frozenset[str],
        pseudonym: Callable[[str], str],
        limits: IncomingLimits = INCOMING_LIMITS,
    ) -> None:
        self._folder, self._asked, self._expected = folder, asked, expected
        self._pseudonym, self._limits = pseudonym, limits
        self._copies: dict[str, list[Path]] = {}
        self._count = self._bytes = self._strangers = 0
        self._lock = threading.Lock()

    def add(self, content: bytes) -> None:
        """Take one Part 10 file; one that was not announced, or came before, is dropped.

        Raises
        ------
        SourceError
            If it belongs to another study or series, is no DICOM file, or exceeds the limits.
        """
        with self._lock:
            self._count += 1
            self._bytes += len(content)
            if self._count > self._limits.instances:
                raise SourceError(Fault.STUDY, f"more than {self._limits.instances} instances")
            if self._bytes > self._limits.total_bytes:
                limit = self._limits.total_bytes // 2**20
                raise SourceError(Fault.STUDY, f"more than {limit} MiB in one series")
        name = self._checked(content)
        if name is None:
            return
        stem = hashlib.sha256(name.encode()).hexdigest()[:32]
        with self._lock:
            copies = self._copies.setdefault(name, [])
            # Compared with what is on disk: to digest every instance would take most of the time.
            if any(path.read_bytes() == content for path in copies):
                return
            mark = f"-{len(copies) + 1}" if copies else ""
            path = self._folder / f"{stem}{mark}.dcm"
            path.write_bytes(content)
            copies.append(path)

    def _checked(self, content: bytes) -> str | None:
        """The pseudonym of an instance of this series; None for one that is not expected."""
        study, series, instance = identity_of(content)
        if (study, series) != self._asked:
            raise SourceError(Fault.STUDY, "an instance of another study or series")
        name = self._pseudonym(instance)
        return name if name in self._expected else None

    def require_complete(self) -> None:
        """Check that every announced instance arrived.

        Raises
        ------
        SourceError
            If one is missing.
        """
        have, want = len(self._copies), len(self._expected)
        if have < want:
            raise SourceError(Fault.STUDY, f"{have} of {want} instances")
