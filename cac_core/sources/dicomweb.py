"""A PACS by DICOMweb: QIDO-RS for studies and series, WADO-RS for headers and instances."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from urllib3.exceptions import ReadTimeoutError

from cac_core.least_rate import require_least_rate
from cac_core.quiet import silence
from cac_core.sources.dates import date_ranges, date_text
from cac_core.sources.dicom_json import Item, found_study, source_header, text_of
from cac_core.sources.multipart import boundary_of, parts
from cac_core.sources.pace import Pace
from cac_core.sources.place import is_uid, web_url
from cac_core.sources.source import (
    HEADER_MODALITIES,
    Fault,
    FoundStudy,
    SourceError,
    SourceHeader,
    StudyQuery,
    count_of,
)

# Their messages can quote addresses, which hold UIDs.
silence("dicomweb_client", "retrying", "urllib3")

#: Requests that an overloaded server, or a proxy in front of it, may answer later.
_LATER = frozenset((408, 425, 429, 500, 502, 503, 504))
_CHUNK = 2**20
#: A header of an instance as JSON has some kilobytes, that of a thousand frames some megabytes.
_MAX_JSON_BYTES = 128 * 2**20
_PAGE = 200
#: Two gigabytes at 0.6 MB/s.
_LONGEST_ANSWER_S = 3600
#: A server that names more goes on for ever.
_MAX_STUDIES = 5_000_000
_DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_COUNTS = ["00201206", "00201208", "00080061", "00081030"]
#: A server that asks to be left alone for longer is asked again after this time.
_LONGEST_WAIT_S = 120.0


@dataclass(frozen=True)
class WebAccess:
    """How a DICOMweb service is reached.

    Parameters
    ----------
    timeout_s : time to connect, between two packets of an answer, and of a whole answer beyond what
        it takes at 16 KiB a second.
    user, password, token : credentials, of which a token goes first.
    ca_file, cert, key : PEM files: the authority of the server, and our certificate and key.
    max_instance_bytes : largest instance that is taken.
    """

    timeout_s: float = 60.0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert: str | None = None
    key: str | None = None
    max_instance_bytes: int = 2**30


class _Session(requests.Session):
    """A session whose requests wait for their turn, and whose answers have a largest size."""

    def __init__(self, access: WebAccess, pace: Pace) -> None:
        super().__init__()
        self._pace = pace
        require_least_rate(self)
        # Neither proxies nor passwords of other programs: a PACS is inside the hospital.
        self.trust_env = False
        if access.token:
            self.headers["Authorization"] = f"Bearer {access.token}"
        elif access.user:
            self.auth = (access.user, access.password or "")
        # Servers that compress take ten times as long as to send the images as they are.
        self.headers["Accept-Encoding"] = "identity"
        if access.ca_file:
            self.verify = access.ca_file
        if access.cert:
            self.cert = (access.cert, access.key) if access.key else access.cert

    def get(  # type: ignore[override]
        self, url: str | bytes, **options: Any
    ) -> requests.Response:
        """Request with throttle; an answer that is not streamed is read within its limit."""
        self._pace.request()
        whole = not options.get("stream")
        response = super().get(url, **options | {"stream": True, "allow_redirects": False})
        if response.is_redirect:
            response.close()
            hint = "Give the address that it redirects to as `archive`."
            raise SourceError(Fault.REFUSED, "it redirects elsewhere", hint)
        if whole:
            response._content = b"".join(self._limited(response))
        return response

    def _limited(self, response: requests.Response) -> Iterator[bytes]:
        size = 0
        for chunk in _in_time(response.iter_content(_CHUNK)):
            size += len(chunk)
            self._pace.received(len(chunk))
            if size > _MAX_JSON_BYTES:
                raise SourceError(Fault.STUDY, "an answer of more than 128 MiB")
            yield chunk


class DicomWeb:
    """A DICOMweb service as a source of studies (`cac_core.sources.source.Source`).

    Parameters
    ----------
    place : `dicomweb+https://HOST/PATH`.
    access : credentials, certificates and limits.
    pace : throttle and attempts.
    """

    def __init__(self, place: str, access: WebAccess, pace: Pace) -> None:
        self.place, self._url = place, web_url(place)
        self._access, self._pace = access, pace
        self._local = threading.local()
        self._clients: list[tuple[DICOMwebClient, _Session]] = []

    def check(self) -> str:
        """Ask for one study."""
        found = self._ask(lambda client: client.search_for_studies(limit=1))
        return f"QIDO-RS answers ({'a study' if found else 'no studies'})"

    def studies(self, query: StudyQuery) -> Iterator[FoundStudy]:
        """Studies month by month and page by page; ones that come again are left out."""
        seen: set[str] = set()
        for first, last in date_ranges(query):
            filters: dict[str, Any] = {}
            if first or last:
                filters["StudyDate"] = f"{date_text(first)}-{date_text(last)}"
            if len(query.modalities) == 1:
                filters["ModalitiesInStudy"] = query.modalities[0]
            yield from self._pages(filters, seen)

    def _pages(self, filters: dict[str, Any], seen: set[str]) -> Iterator[FoundStudy]:
        offset = 0
        while True:
            page = self._ask(
                lambda client, at=offset: client.search_for_studies(  # type: ignore[misc]
                    fields=_COUNTS, limit=_PAGE, offset=at, search_filters=filters
                )
            )
            new = [item for item in page if text_of(item, "0020000D") not in seen]
            for item in new:
                uid = text_of(item, "0020000D")
                if uid is not None:
                    seen.add(uid)
                    yield found_study(uid, item)
            # A server that ignores the offset answers the same page again.
            if len(page) < _PAGE or not new:
                return
            if len(seen) > _MAX_STUDIES:
                raise SourceError(Fault.STUDY, f"more than {_MAX_STUDIES} studies")
            offset += len(page)

    def headers(self, study_uid: str) -> list[SourceHeader]:
        """Headers of the CT and nuclear series of a study, each instance once."""
        series = self._ask(lambda client: client.search_for_series(study_uid, fields=["00201209"]))
        found: list[SourceHeader] = []
        for item in series:
            uid, modality = text_of(item, "0020000E"), text_of(item, "00080060")
            if uid is None or (modality is not None and modality not in HEADER_MODALITIES):
                continue
            if not is_uid(uid):
                raise SourceError(Fault.STUDY, "a series with a malformed UID")
            found += self._series_headers(study_uid, uid, count_of(text_of(item, "00201209")))
        return found

    def _series_headers(self, study: str, series: str, count: int | None) -> list[SourceHeader]:
        def ask() -> list[SourceHeader]:
            items = self._asked(lambda client: client.retrieve_series_metadata(study, series))
            headers = {header.instance_uid: header for header in map(source_header, items)}
            if any((h.study_uid, h.series_uid) != (study, series) for h in headers.values()):
                raise SourceError(Fault.STUDY, "headers of another study or series")
            if count is not None and len(headers) < count:
                raise SourceError(Fault.STUDY, f"headers of {len(headers)} of {count} instances")
            return list(headers.values())

        return self._pace.attempt(ask, partial_too=True)

    def pull(self, study_uid: str, series_uid: str, add: Callable[[bytes], None]) -> None:
        """Deliver the instances of a series one by one while they arrive; one attempt."""
        url = f"{self._url}/studies/{study_uid}/series/{series_uid}"
        with _faults():
            _, session = self._client()
            response = session.get(
                url, headers={"Accept": _DICOM}, stream=True, timeout=self._access.timeout_s
            )
            with response:
                response.raise_for_status()
                boundary = boundary_of(response.headers.get("Content-Type", ""))
                if boundary is None:
                    raise SourceError(Fault.STUDY, "the answer is not a multipart message")
                chunks = self._paced(response.iter_content(_CHUNK))
                for content in parts(chunks, boundary, self._access.max_instance_bytes):
                    add(content)

    def _paced(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in _in_time(chunks):
            self._pace.received(len(chunk))
            yield chunk

    def close(self) -> None:
        """Close the connections of all threads."""
        for _, session in self._clients:
            session.close()
        self._clients.clear()
        self._local = threading.local()

    def _client(self) -> tuple[DICOMwebClient, _Session]:
        """Client and session of this thread: sessions are not made for several."""
        found: tuple[DICOMwebClient, _Session] | None = getattr(self._local, "client", None)
        if found is None:
            session = _Session(self._access, self._pace)
            client = DICOMwebClient(self._url, session=session, timeout=self._access.timeout_s)
            client.set_http_retry_params(retry=False)
            found = self._local.client = (client, session)
            self._clients.append(found)
        return found

    def _ask(self, question: Callable[[DICOMwebClient], list[Any]]) -> list[Item]:
        """Ask with further attempts."""
        return self._pace.attempt(lambda: self._asked(question))

    def _asked(self, question: Callable[[DICOMwebClient], list[Any]]) -> list[Item]:
        with _faults():
            found = question(self._client()[0])
            if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
                raise SourceError(Fault.AWAY, "the answer is not DICOM JSON")
            return found


def _in_time(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Chunks of an answer; a server that sends a byte now and then is given up."""
    end = monotonic() + _LONGEST_ANSWER_S
    for chunk in chunks:
        yield chunk
        if monotonic() > end:
            raise SourceError(Fault.AWAY, f"an answer that takes more than {_LONGEST_ANSWER_S} s")


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what requests and the client raise into a fault without addresses or identifiers."""
    try:
        yield
    except SourceError:
        raise
    except requests.exceptions.SSLError as error:
        cause = re.search(r"certificate verify failed: ([A-Za-z' -]{1,80})", str(error))
        detail = f"TLS: {cause[1].strip() if cause else 'no agreement with the server'}"
        hint = "Name the authority of the server as `tls_ca_file` under [source]."
        raise SourceError(Fault.REFUSED, detail, hint) from None
    except requests.exceptions.HTTPError as error:
        raise _status_fault(error.response) from None
    except requests.exceptions.Timeout:
        raise SourceError(Fault.AWAY, "no answer in time") from None
    except (requests.exceptions.JSONDecodeError, requests.exceptions.ContentDecodingError):
        raise SourceError(Fault.AWAY, "an answer that cannot be decoded") from None
    except requests.exceptions.RequestException as error:
        if any(isinstance(cause, ReadTimeoutError) for cause in error.args):
            raise SourceError(Fault.AWAY, "no answer in time") from None
        raise SourceError(Fault.AWAY, f"no connection ({type(error).__name__})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise SourceError(Fault.AWAY, "an answer that cannot be read") from None


def _status_fault(response: requests.Response | None) -> SourceError:
    status = 0 if response is None else response.status_code
    if status in (401, 403):
        hint = "Set CAC_PACS_USER and CAC_PACS_PASSWORD, or CAC_PACS_TOKEN (docs/pacs.md)."
        return SourceError(Fault.REFUSED, f"HTTP {status}", hint)
    fault = Fault.AWAY if status in _LATER else Fault.STUDY
    after = "" if response is None else response.headers.get("Retry-After", "")
    wait = min(float(count_of(after) or 0), _LONGEST_WAIT_S)
    return SourceError(fault, f"HTTP {status}", wait_s=wait)
