"""Static DICOMweb: a folder of files in the layout of DICOMweb's addresses.

As static-dicomweb writes it, `studies/UID/series/UID/metadata.gz` holds the headers of a series,
and `instances/UID/frames/1.gz` the pixels of a frame, mostly as a multipart message. Files may also
be there without compression. An instance is put together again when its series is pulled.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from cac_core.dicom.datafile import PARSE_ERRORS, quiet_pydicom
from cac_core.sources.dicom_json import Item, found_study, source_header, text_of
from cac_core.sources.multipart import parts
from cac_core.sources.place import is_uid
from cac_core.sources.source import (
    HEADER_MODALITIES,
    Fault,
    FoundStudy,
    SourceError,
    SourceHeader,
    StudyQuery,
    count_of,
)

_PIXELS = "7FE00010"
_SYNTAX = re.compile(rb"transfer-syntax=\"?([0-9.]+)", re.IGNORECASE)
_MAX_FRAMES = 10_000


class StaticWeb:
    """A folder in the layout of DICOMweb as a source (`cac_core.sources.source.Source`).

    Parameters
    ----------
    place : its place in the settings.
    folder : holds `studies`.
    most : largest file that is read, unpacked, in bytes.
    """

    def __init__(self, place: str, folder: Path, most: int) -> None:
        self.place, self._studies, self._most = place, folder / "studies", most

    def check(self) -> str:
        """Look for a study."""
        found = next(self.studies(StudyQuery()), None)
        return f"the folder is there ({'a study' if found else 'no studies'})"

    def studies(self, query: StudyQuery) -> Iterator[FoundStudy]:
        """Every study; the caller filters."""
        for home in self._folders(self._studies):
            entries = self._json(home / "index.json") or [{}]
            series = [f for f in self._folders(home / "series") if _stamp(f / "metadata")]
            stamp = " ".join(str(_stamp(f / "metadata")) for f in series)
            yield found_study(home.name, entries[0], stamp)

    def headers(self, study_uid: str) -> list[SourceHeader]:
        """Headers of the CT and nuclear series of a study."""
        found = []
        for home in self._folders(self._studies / study_uid / "series"):
            items = self._json(home / "metadata") or []
            if items and text_of(items[0], "00080060") in HEADER_MODALITIES:
                found += [source_header(item) for item in items]
        if any(header.study_uid != study_uid for header in found):
            raise SourceError(Fault.STUDY, "headers of another study or series")
        return found

    def pull(self, study_uid: str, series_uid: str, add: Callable[[bytes], None]) -> None:
        """Put the instances of a series together, one by one."""
        home = self._studies / study_uid / "series" / series_uid
        for item in self._json(home / "metadata") or []:
            instance = text_of(item, "00080018")
            if is_uid(instance):
                add(self._part10(item, home / "instances" / str(instance)))

    def close(self) -> None:
        """Nothing is open."""

    def _folders(self, parent: Path) -> list[Path]:
        """Folders whose names are UIDs."""
        try:
            return sorted(path for path in parent.iterdir() if is_uid(path.name) and path.is_dir())
        except OSError:
            return []

    def _part10(self, item: Item, home: Path) -> bytes:
        frames: list[bytes] = []
        syntax = text_of(item, "00083002")
        count = count_of(text_of(item, "00280008"))
        for number in range(1, min(1 if count is None else count, _MAX_FRAMES) + 1):
            pixels, own = self._frame(home / "frames" / str(number))
            frames.append(pixels)
            syntax = own or syntax
        try:
            with quiet_pydicom():
                return _encoded(item, frames, UID(syntax or ExplicitVRLittleEndian))
        except PARSE_ERRORS:
            raise SourceError(Fault.STUDY, "headers that make no instance") from None

    def _frame(self, path: Path) -> tuple[bytes, str | None]:
        """The pixels of a frame, and the transfer syntax that its file names."""
        content = self._read(path)
        if content is None:
            raise SourceError(Fault.STUDY, "a frame is missing")
        if not content.lstrip(b"\r\n").startswith(b"--"):
            return content, None
        head = content.lstrip(b"\r\n")
        boundary = head[2 : head.index(b"\r\n")] if b"\r\n" in head[:300] else b""
        if not boundary:
            return content, None  # pixels that begin with two hyphens
        named = _SYNTAX.search(head[:2000])
        body = next(parts([b"\r\n" + head], boundary, self._most), b"")
        return body, named[1].decode() if named else None

    def _json(self, path: Path) -> list[Item] | None:
        content = self._read(path)
        if content is None:
            return None
        try:
            found: Any = json.loads(content)
        except (ValueError, RecursionError):
            raise SourceError(Fault.STUDY, "metadata that are not DICOM JSON") from None
        items = found if isinstance(found, list) else [found]
        return [item for item in items if isinstance(item, dict)]

    def _read(self, path: Path) -> bytes | None:
        """A file, or its compressed form; None if there is neither."""
        try:
            for candidate, opened in ((_packed(path), gzip.open), (path, open)):
                if candidate.is_file():
                    with opened(candidate, "rb") as stream:
                        content: bytes = stream.read(self._most + 1)
                    if len(content) > self._most:
                        raise SourceError(Fault.STUDY, "a file is too large")
                    return content
        except (OSError, EOFError, zlib.error):
            raise SourceError(Fault.STUDY, "a file that cannot be read") from None
        return None


def _packed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def _stamp(path: Path) -> tuple[int, int] | None:
    for candidate in (_packed(path), path):
        if candidate.is_file():
            status = candidate.stat()
            return status.st_size, status.st_mtime_ns
    return None


def _encoded(item: Item, frames: list[bytes], syntax: UID) -> bytes:
    """A Part 10 file from the header of an instance and its frames."""
    plain = {tag: element for tag, element in item.items() if tag != _PIXELS}
    dataset = Dataset.from_json(plain, bulk_data_uri_handler=lambda tag, vr, uri: None)
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = encapsulate(frames) if syntax.is_encapsulated else b"".join(frames)
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()
