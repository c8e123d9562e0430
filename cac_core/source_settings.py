"""Settings of sources other than plain folders: archives that are unpacked, and PACS."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from cac_core.settings_section import Section, key

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_PEER = re.compile(
    r"[\x21-\x3f\x41-\x5b\x5d-\x7e][\x20-\x3f\x41-\x5b\x5d-\x7e]{0,15}@[0-9A-Fa-f.:]+"
)
_PATHS = ("cache", "tls_ca_file", "tls_cert", "tls_key", "password_file", "token_file")
#: What is not stored with a run: files, addresses, and patterns that could be names.
PRIVATE = frozenset((*_PATHS, "user", "listen", "peers", "descriptions"))


class SourceSettings(Section):
    """How studies come from archives that are no plain folders: PACS, zip and tar archives.

    A PACS is named in `archive`: `dicomweb+https://HOST/PATH` or `dicom://AE_TITLE@HOST:PORT`.
    Credentials come from CAC_PACS_USER, CAC_PACS_PASSWORD and CAC_PACS_TOKEN, or from files.
    """

    cache: Path | None = key(
        None,
        "private folder for what is unpacked or pulled; without a value, one of the user",
        '"/data/cac-cache"',
    )
    unpacked_gb: float = key(
        64.0, "largest unpacked size of one zip or tar archive, gigabytes", gt=0
    )
    cache_gb: float = key(
        0.0, "pulled series that are kept after scoring, gigabytes; 0: none", ge=0
    )
    modalities: tuple[str, ...] = key(
        ("NM",), "PACS: studies with one of these modalities; an empty list: any"
    )
    descriptions: tuple[str, ...] = key(
        (), "PACS: patterns (regular expressions), one of which is in StudyDescription"
    )
    first_date: dt.date | None = key(None, "PACS: earliest study date", "2015-01-01")
    last_date: dt.date | None = key(None, "PACS: latest study date", "2024-12-31")
    last_days: int | None = key(
        None, "PACS: only studies of the last days, beside those that are known", "30", ge=1
    )
    hours: str | None = key(
        None, "PACS: hours in which it is asked, in the time zone of [schedule]", '"22:00-06:00"'
    )
    connections: int = key(2, "PACS: requests at the same time", ge=1, le=32)
    ahead: int = key(6, "PACS: series that are pulled before a worker is free", ge=1, le=1000)
    requests_per_s: float | None = key(
        None, "PACS: requests per second; without a value, no limit", "5", gt=0
    )
    megabytes_per_s: float | None = key(
        None, "PACS: megabytes per second; without a value, no limit", "50", gt=0
    )
    timeout_s: float = key(30.0, "PACS: longest silence, seconds", gt=0)
    attempts: int = key(4, "PACS: attempts of one request", ge=1, le=20)
    retry_delay_s: float = key(
        2.0, "PACS: time before the second attempt, doubled for each further one, seconds", ge=0
    )
    series_gb: float = key(2.0, "PACS: largest series that is taken, gigabytes", gt=0)
    series_instances: int = key(4000, "PACS: most instances of a series that are taken", ge=1)
    user: str | None = key(None, "DICOMweb: user; without a value, CAC_PACS_USER", '"cac"')
    password_file: Path | None = key(
        None, "DICOMweb: file with its password; without a value, CAC_PACS_PASSWORD", '"pacs.key"'
    )
    token_file: Path | None = key(
        None, "DICOMweb: file with a bearer token; without a value, CAC_PACS_TOKEN", '"pacs.token"'
    )
    tls_ca_file: Path | None = key(
        None, "authority of the PACS (PEM); without a value, those of this machine", '"ca.pem"'
    )
    tls_cert: Path | None = key(None, "our certificate (PEM)", '"cac.pem"')
    tls_key: Path | None = key(None, "its key (PEM), readable by its owner only", '"cac.key"')
    ae_title: str = key("CAC", "DIMSE: our AE title", min_length=1, max_length=16)
    retrieve: Literal["get", "move"] = key(
        "get", "DIMSE: C-GET, or C-MOVE to the storage SCP that this program then is"
    )
    listen: str = key("127.0.0.1:11112", "DIMSE, move: address and port of our storage SCP")
    peers: tuple[str, ...] = key(
        (), 'DIMSE, move: who may send to it, as "AE_TITLE@ADDRESS"; others are refused'
    )

    @field_validator("hours")
    @classmethod
    def _are_hours(cls, value: str | None) -> str | None:
        if value is not None and not _HOURS.fullmatch(value):
            raise ValueError('give hours as "22:00-06:00"')
        return value

    @field_validator("descriptions")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"`{pattern}` is no regular expression ({error})") from None
        return value

    @field_validator("peers")
    @classmethod
    def _are_peers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for peer in value:
            if not _PEER.fullmatch(peer):
                raise ValueError(f"`{peer}` is not AE_TITLE@ADDRESS with an IP address")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> SourceSettings:
        if self.first_date and self.last_date and self.first_date > self.last_date:
            raise ValueError("first_date is after last_date")
        if self.tls_key and not self.tls_cert:
            raise ValueError("tls_key needs tls_cert")
        return self

    @property
    def window(self) -> tuple[dt.time, dt.time] | None:
        """Begin and end of `hours`."""
        if self.hours is None:
            return None
        begin, _, end = self.hours.partition("-")
        return dt.time.fromisoformat(begin), dt.time.fromisoformat(end)

    def anchored(self, folder: Path) -> SourceSettings:
        """With relative paths against the folder of the settings file."""
        paths = {name: getattr(self, name) for name in _PATHS}
        update: dict[str, Any] = {n: folder / path for n, path in paths.items() if path is not None}
        return self.model_copy(update=update)

    @property
    def folder(self) -> Path:
        """The folder for what is unpacked or pulled; holds identifiers, for its owner only."""
        if self.cache is not None:
            return self.cache
        data = Path(os.environ.get("XDG_DATA_HOME", ""))
        data = data if data.is_absolute() else Path.home() / ".local" / "share"
        return data / "cac-cohort" / "sources"
