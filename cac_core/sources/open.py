"""Opens the PACS that the settings name: credentials, certificates, throttle and limits."""

from __future__ import annotations

import datetime as dt
from importlib.util import find_spec
from pathlib import Path

from cac_core.errors import UsageError
from cac_core.source_settings import SourceSettings
from cac_core.sources.credentials import PASSWORD, TOKEN, USER, require_private, secret
from cac_core.sources.incoming import IncomingLimits
from cac_core.sources.pace import Pace
from cac_core.sources.place import dimse_place, is_loopback, is_web, static_folder, web_url
from cac_core.sources.source import Source, StudyQuery

_PACKAGES = ("dicomweb_client", "pynetdicom")


def require_usable(place: str) -> None:
    """Check the address of a PACS and that its library is installed; asks nothing.

    Raises
    ------
    UsageError
        If it is malformed, or a package is missing.
    """
    folder = static_folder(place)
    if folder is not None:
        if not (folder / "studies").is_dir():
            raise UsageError(
                f"The archive {place} holds no folder `studies`.", "Check the path and the mount."
            )
        return
    if is_web(place):
        web_url(place)
    else:
        dimse_place(place)
    package = _PACKAGES[0 if is_web(place) else 1]
    if find_spec(package) is None:
        raise UsageError(
            f"A PACS needs the package {package.replace('_', '-')}, which is not installed.",
            "Install it with: python -m pip install 'cac-cohort[pacs]'",
        )


def open_source(place: str, settings: SourceSettings, pace: Pace) -> Source:
    """The PACS at a place; connects at the first request.

    Raises
    ------
    UsageError
        If the address, a credential or a certificate cannot be used.
    """
    require_usable(place)
    for file in (settings.tls_ca_file, settings.tls_cert, settings.tls_key):
        if file is not None and not file.is_file():
            raise UsageError(f"The file {file} of [source] does not exist.", "Check its path.")
    if settings.tls_key is not None:
        require_private(settings.tls_key)
    folder = static_folder(place)
    if folder is not None:
        from cac_core.sources.static_web import StaticWeb

        return StaticWeb(place, folder, int(settings.series_gb * 10**9))
    if not is_web(place):
        from cac_core.sources.dimse import open_dimse

        return open_dimse(place, settings, pace)
    from cac_core.sources.dicomweb import DicomWeb, WebAccess

    user = settings.user or secret(USER, None)
    token = secret(TOKEN, settings.token_file)
    password = secret(PASSWORD, settings.password_file)
    url = web_url(place)
    if (user or token) and url.startswith("http://") and not is_loopback(url):
        raise UsageError(
            "Credentials would be sent to the PACS without encryption.",
            "Give dicomweb+https://, or unset them.",
        )
    access = WebAccess(
        timeout_s=settings.timeout_s,
        user=user,
        password=password,
        token=token,
        ca_file=_text(settings.tls_ca_file),
        cert=_text(settings.tls_cert),
        key=_text(settings.tls_key),
        max_instance_bytes=int(settings.series_gb * 10**9),
    )
    return DicomWeb(place, access, pace)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def pace_of(settings: SourceSettings) -> Pace:
    """Throttle and attempts of the settings."""
    rate = settings.megabytes_per_s
    return Pace(
        requests_per_s=settings.requests_per_s,
        bytes_per_s=None if rate is None else rate * 10**6,
        attempts=settings.attempts,
        delay_s=settings.retry_delay_s,
    )


def limits_of(settings: SourceSettings) -> IncomingLimits:
    """What one series may cost by the settings."""
    return IncomingLimits(settings.series_instances, int(settings.series_gb * 10**9))


def query_of(settings: SourceSettings, today: dt.date) -> StudyQuery:
    """The studies that the settings ask for."""
    first = settings.first_date
    if settings.last_days is not None:
        recent = today - dt.timedelta(days=settings.last_days)
        first = recent if first is None else max(first, recent)
    modalities = tuple(name.strip().upper() for name in settings.modalities)
    return StudyQuery(first, settings.last_date, modalities, settings.descriptions)
