"""Files at a URL, through fsspec: opening, listing and reading them, and their faults in words.

Credentials come from the environment, as the library of the store reads them (`AWS_*` for S3).
Importing this module is cheap: fsspec is imported where a URL is opened.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cac_core.errors import CacError, UsageError

#: A place that matches is a URL of fsspec; anything else is a path of this machine.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
#: Listings must be fresh, and a store that does not answer must be reported within 30 s.
_S3 = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 4,
        "read_timeout": 20,
        "retries": {"mode": "standard", "total_max_attempts": 3},
    },
}
#: The same for the first request of a command, which only has to show that the store answers.
_S3_PROBE = _S3 | {
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 10,
        "retries": {"mode": "standard", "total_max_attempts": 2},
    }
}
#: Requests of one study at the same time.
_CONNECTIONS = 8
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
_TAGS = ("ETag", "etag", "content_md5", "md5Hash")

_ACCESS = "Give the credentials in AWS_* the right to list, read, write and delete there."
_REGION = "Set AWS_DEFAULT_REGION to the region of the bucket, or correct AWS_ENDPOINT_URL."
_FULL = "Free space or raise the quota, then run the same command: it goes on."
_SESSION = "Renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."
_NETWORK = "Check AWS_ENDPOINT_URL, the network and the proxy, then run the same command."
#: What error codes of S3 mean, and what to do.
_CODES: Mapping[str, tuple[str, str]] = {
    "NoSuchBucket": ("the bucket does not exist", "Create it, or correct its name."),
    "InvalidBucketName": ("that is no name of a bucket", "Correct it."),
    "AccessDenied": ("access is denied", _ACCESS),
    "AllAccessDisabled": ("access is denied", _ACCESS),
    "AccountProblem": ("access is denied", _ACCESS),
    "403": ("access is denied", _ACCESS),
    "InvalidAccessKeyId": ("the access key is not known there", "Correct AWS_ACCESS_KEY_ID."),
    "SignatureDoesNotMatch": ("the secret key is wrong", "Correct AWS_SECRET_ACCESS_KEY."),
    "ExpiredToken": ("the session has expired", _SESSION),
    "ExpiredTokenException": ("the session has expired", _SESSION),
    "TokenRefreshRequired": ("the session has expired", _SESSION),
    "InvalidToken": ("the session token is invalid", _SESSION),
    "RequestTimeTooSkewed": ("the clock of this machine is wrong", "Set it."),
    "PermanentRedirect": ("the bucket is in another region", _REGION),
    "301": ("the bucket is in another region", _REGION),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", _REGION),
    "XMinioStorageFull": ("the storage is full", _FULL),
    "XMinioAdminBucketQuotaExceeded": ("the quota is used up", _FULL),
    "QuotaExceeded": ("the quota is used up", _FULL),
    "InsufficientStorage": ("the storage is full", _FULL),
    "507": ("the storage is full", _FULL),
}
_KEYS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment."
#: The same for exceptions of the libraries, which are not imported where they are not needed.
_CLASSES: Mapping[str, tuple[str, str]] = {
    "NoCredentialsError": ("there are no credentials", _KEYS),
    "PartialCredentialsError": ("the credentials are incomplete", _KEYS),
    "ProfileNotFound": ("the profile of AWS_PROFILE does not exist", "Correct or unset it."),
    "NoRegionError": ("no region is named", "Set AWS_DEFAULT_REGION."),
    "SSLError": ("its certificate cannot be checked", "Name its authority in AWS_CA_BUNDLE."),
    "ProxyConnectionError": ("the proxy does not answer", _NETWORK),
    "ConnectionError": ("it does not answer", _NETWORK),
    "HTTPClientError": ("it does not answer", _NETWORK),
    "FSTimeoutError": ("it does not answer", _NETWORK),
    "TimeoutError": ("it does not answer", _NETWORK),
    "ParamValidationError": ("that is no name of a bucket", "Correct it."),
    "ResponseParserError": ("it answers, but not as S3 does", "Correct AWS_ENDPOINT_URL."),
}


def is_url(place: str) -> bool:
    """Whether a place is a URL of fsspec, and not a path of this machine."""
    return _URL.match(place) is not None


def open_url(url: str, *, probe: bool = False) -> tuple[Any, str]:
    """The file system of a URL, and the path of the URL in it.

    Nothing in the path is a pattern, nor is `::` in it a chain of file systems.

    Parameters
    ----------
    probe : give up soon where the store does not answer.

    Raises
    ------
    UsageError
        If the package of the store is missing, or the URL is malformed or holds credentials.
    """
    protocol, _, rest = url.partition("://")
    if "@" in rest.partition("/")[0] and protocol == "s3":
        raise UsageError(
            "A URL of S3 holds credentials.", "Name only bucket and path; credentials go in AWS_*."
        )
    if protocol == "s3" and not rest.strip("/"):
        raise UsageError(f"The URL {url} names no bucket.", "Give s3://BUCKET/PATH.")
    import fsspec

    try:
        if "::" in protocol:
            chained: tuple[Any, str] = fsspec.core.url_to_fs(url)
            return chained
        filesystem = fsspec.filesystem(protocol, **_options(protocol, probe))
    except ImportError as error:
        package = "s3fs" if protocol == "s3" else f"a package ({error})"
        raise UsageError(
            f"The URL {url} needs {package}, which is not installed.",
            "Install it with: python -m pip install s3fs" if protocol == "s3" else "Install it.",
        ) from None
    except ValueError as error:
        raise UsageError(
            f"The URL {url} cannot be opened ({error}).",
            "Give a folder, s3://BUCKET/PATH, or another URL that fsspec knows.",
        ) from None
    if protocol == "s3":
        filesystem.retries = 1  # those of its options are enough
    return filesystem, filesystem._strip_protocol(url)


def _options(protocol: str, probe: bool) -> dict[str, Any]:
    if protocol != "s3":
        return {}
    return _S3_PROBE if probe else _S3


@contextmanager
def plain_faults(url: str, what: str = "store") -> Iterator[None]:
    """Turn faults of a store into one line that says what to do.

    A missing or existing file, and one that was replaced while it was read, stay what they are.

    Raises
    ------
    CacError
        If the store does not answer, refuses the request, or is full.
    """
    try:
        yield
    except Exception as error:
        found = _described(error)
        if found is None:
            raise
        cause, hint = found
        raise CacError(f"The {what} {url} cannot be used: {cause}.", hint) from None


def _described(error: BaseException) -> tuple[str, str] | None:
    """What a fault of a store means, and what to do; None for any other error."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    if code in _CODES:
        return _CODES[code]
    if isinstance(error, FileNotFoundError | FileExistsError) or _is_replaced(error):
        return None
    names = [kind.__name__ for kind in type(error).__mro__]
    for name in names:
        if name in _CLASSES:
            return _CLASSES[name]
    if code:
        return f"it answers {code}", "Correct the address, or ask those who run the store."
    if isinstance(error, PermissionError) and error.errno is None:
        return _CODES["AccessDenied"]
    if type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp"):
        return f"{type(error).__name__}", _NETWORK
    return None


def _is_replaced(error: BaseException) -> bool:
    return type(error).__name__ == "FileExpired"


def require_answer(url: str, what: str) -> None:
    """Check that a store answers and lets itself be listed; within 30 s.

    Raises
    ------
    CacError
        If it does not.
    """
    filesystem, path = open_url(url, probe=True)
    with plain_faults(url, what):
        try:
            filesystem.ls(path, detail=False)
        except FileNotFoundError as error:
            if getattr(error.__cause__, "response", None):  # of the bucket, not of the path
                cause, hint = _CODES["NoSuchBucket"]
                raise CacError(f"The {what} {url} cannot be used: {cause}.", hint) from None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of an archive at a URL; has the methods of `pathlib.Path` that reading needs.

    `size` is that of the listing, and saves a request; None asks for it.
    """

    url: str = field(repr=False)  # names of files can hold names of people
    size: int | None = None

    def version(self) -> tuple[int, int]:
        """Size and modification time (`modification_ns`) as the store tells now.

        Raises
        ------
        OSError
            If the file is gone or the store cannot be used.
        """
        filesystem, path = _opened(self.url)
        with _as_os_error():
            info = filesystem.info(path)
        return int(info["size"]), modification_ns(info)

    def read_bytes(self) -> bytes:
        """The whole content.

        Raises
        ------
        OSError
            If the file is gone or the store cannot be used.
        """
        size = self.version()[0] if self.size is None else self.size
        return self.read_range(size, 0)

    def read_range(self, count: int, start: int) -> bytes:
        """At most `count` bytes from `start`, in the order of arguments of `os.pread`.

        Raises
        ------
        OSError
            If the file is gone or the store cannot be used.
        """
        if self.size is not None:
            count = min(count, self.size - start)
        if count <= 0:
            return b""
        filesystem, path = _opened(self.url)
        with _as_os_error():
            data: bytes = filesystem.cat_file(path, start=start, end=start + count)
        return data


#: A file of an archive: in a folder, or in a store.
ArchiveFile = Path | RemoteFile


def archive_file(path: str, size: int | None = None) -> ArchiveFile:
    """A file of an archive by its path or URL."""
    return RemoteFile(path, size) if is_url(path) else Path(path)


def place_of(file: ArchiveFile) -> str:
    """The path or URL of a file."""
    return file.url if isinstance(file, RemoteFile) else str(file)


def file_size(file: ArchiveFile) -> int:
    """Size in bytes; of a file of a store as it was listed.

    Raises
    ------
    OSError
        If the file is gone or cannot be used.
    """
    if isinstance(file, RemoteFile):
        return file.version()[0] if file.size is None else file.size
    return file.stat().st_size


def read_all(files: Sequence[ArchiveFile]) -> Iterator[bytes]:
    """The content of each file in turn; several files of a store are read at the same time.

    Raises
    ------
    OSError
        If a file is gone or cannot be used.
    """
    if not any(isinstance(file, RemoteFile) for file in files):
        yield from (file.read_bytes() for file in files)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        yield from pool.map(lambda file: file.read_bytes(), files)


def versions(files: Sequence[RemoteFile]) -> Iterator[tuple[int, int]]:
    """Size and modification time of each file, asked at the same time.

    Raises
    ------
    OSError
        If a file is gone or cannot be used.
    """
    if not files:
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        yield from pool.map(RemoteFile.version, files)


def beginnings(files: Sequence[RemoteFile], count: int) -> list[bytes | OSError]:
    """The first bytes of several files, read at the same time; of each the fault, if any."""
    if not files:
        return []
    filesystem, _ = _opened(files[0].url)
    paths = [filesystem._strip_protocol(file.url) for file in files]
    ends = [count if file.size is None else min(count, file.size) for file in files]
    found: list[bytes | OSError] = []
    for data in filesystem.cat_ranges(paths, [0] * len(paths), ends, on_error="return"):
        found.append(_os_error(data) if isinstance(data, BaseException) else data)
    return found


def list_files(url: str) -> list[tuple[str, int, int]]:
    """URL, size and modification time (`modification_ns`) of every file below a URL.

    Raises
    ------
    CacError
        If the store cannot be used.
    """
    filesystem, path = open_url(url)
    protocol = url.partition("://")[0]
    if "::" in protocol:
        raise UsageError(f"The archive {url} is a chain of URLs.", "Give a single URL.")
    with plain_faults(url, "archive"):
        try:
            found = filesystem.find(path, detail=True)
        except FileNotFoundError as error:
            if getattr(error.__cause__, "response", None):
                raise
            found = {}
    return [
        (f"{protocol}://{name}", int(info["size"]), modification_ns(info))
        for name, info in found.items()
        if info["type"] == "file" and not name.endswith("/")  # S3 marks empty folders so
    ]


def modification_ns(info: Mapping[str, Any]) -> int:
    """Modification time of a file in a store, in nanoseconds.

    Stores tell whole seconds, and listings and single requests round differently. In place of the
    fraction of a second stands a digest of the ETag, so that an object that was replaced within a
    second has another time.
    """
    when = next((info[name] for name in _TIMES if info.get(name) is not None), 0)
    seconds = int(when.timestamp()) if isinstance(when, dt.datetime) else int(float(when))
    tag = next((str(info[name]) for name in _TAGS if info.get(name)), "").strip('"')
    number = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8], "big")
    return seconds * 10**9 + (number % 10**9 if tag else 0)


@lru_cache(maxsize=64)
def _store(protocol: str) -> Any:
    return open_url(f"{protocol}://bucket")[0]


def _opened(url: str) -> tuple[Any, str]:
    filesystem = _store(url.partition("://")[0])
    return filesystem, filesystem._strip_protocol(url)


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if _described(error) is None:
            raise
        raise _os_error(error) from None


def _os_error(error: BaseException) -> OSError:
    """The fault as an error of reading a file; its text may name the file and is dropped."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return type(error)()
    return ConnectionError(type(error).__name__)
