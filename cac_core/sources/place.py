"""Places of PACS as the settings name them: DICOMweb services and DICOM application entities."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cac_core.errors import UsageError

_WEB = ("dicomweb+https", "dicomweb+http")
_STATIC = "dicomweb+file"
_DIMSE = ("dicom", "dicoms")
_UID = re.compile(r"[0-9][0-9.]{0,63}")
_SERIES = re.compile(r"(.+)/studies/([0-9.]+)/series/([0-9.]+)")
#: PS3.5 6.2: at most 16 characters without backslash and control characters.
_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]{0,15}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class DimsePlace:
    """An application entity: `dicom://TITLE@HOST:PORT`, with TLS `dicoms://`."""

    title: str
    host: str
    port: int
    tls: bool


def is_pacs(place: object) -> bool:
    """Whether a place of an archive is a PACS, and not a folder or store of files."""
    scheme, mark, _ = str(place).partition("://")
    return bool(mark) and scheme.lower() in (*_WEB, *_DIMSE, _STATIC)


def is_web(place: str) -> bool:
    """Whether a PACS is asked by DICOMweb."""
    return place.lower().startswith(_WEB)


def static_folder(place: str) -> Path | None:
    """The folder of `dicomweb+file:///PATH`, which holds `studies`; None for any other place.

    Raises
    ------
    UsageError
        If the path is not absolute.
    """
    scheme, _, path = place.partition("://")
    if scheme.lower() != _STATIC:
        return None
    if not path.startswith("/"):
        raise UsageError(
            "The folder of a static DICOMweb archive is not absolute.",
            "Give dicomweb+file:///PATH, where PATH holds the folder `studies`.",
        )
    return Path(path)


def web_url(place: str) -> str:
    """The base URL of a DICOMweb service, without a slash at its end.

    Raises
    ------
    UsageError
        If it names no host, or holds credentials or a query.
    """
    url = place[len("dicomweb+") :].rstrip("/")
    parts = urlsplit(url)
    if parts.username or parts.password or "@" in parts.netloc:
        raise UsageError(
            "The address of the PACS holds credentials.",
            "Name only host and path; credentials come from CAC_PACS_* (docs/pacs.md).",
        )
    if not parts.hostname or parts.query or parts.fragment:
        raise UsageError(
            "The address of the PACS is not that of a DICOMweb service.",
            "Give dicomweb+https://HOST/PATH.",
        )
    return url


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine only."""
    return urlsplit(url).hostname in _LOOPBACK


def dimse_place(place: str) -> DimsePlace:
    """The application entity of a place.

    Raises
    ------
    UsageError
        If it is malformed.
    """
    parts = urlsplit(place)
    try:
        port = parts.port
    except ValueError:
        port = None
    title = parts.netloc.partition("@")[0]
    if not (port and parts.hostname and _AE_TITLE.fullmatch(title)) or "@" not in parts.netloc:
        raise UsageError(
            "The address of the PACS is not that of a DICOM application entity.",
            "Give dicom://AE_TITLE@HOST:PORT, or dicoms:// for TLS.",
        )
    return DimsePlace(title, parts.hostname, port, parts.scheme == "dicoms")


def is_uid(text: object) -> bool:
    """Whether a text is a UID (PS3.5 9.1); others never become part of an address."""
    return isinstance(text, str) and _UID.fullmatch(text) is not None


def series_place(place: str, study_uid: str, series_uid: str) -> str:
    """The place of a series in a PACS, in the form of DICOMweb."""
    return f"{place.rstrip('/')}/studies/{study_uid}/series/{series_uid}"


def parse_series_place(place: str) -> tuple[str, str, str] | None:
    """PACS, StudyInstanceUID and SeriesInstanceUID of such a place; None for any other place."""
    match = _SERIES.fullmatch(place) if is_pacs(place) else None
    return None if match is None else (match[1], match[2], match[3])
