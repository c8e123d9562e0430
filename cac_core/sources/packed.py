"""Zip and tar archives of studies: their members are unpacked once, under names of our own.

Nothing of an archive decides where a file is written: the name of a member only enters the digest
that its file is named by. Links, devices and members whose names lead out of the archive are
refused, and what unpacking may cost is limited.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cac_core.dicom.files import ScannedFile, scan_archive
from cac_core.errors import CacError
from cac_core.scratch import scratch_folder
from cac_core.storage import is_url
from schemas.codes import FileReason

_ZIP = (".zip",)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_STAMP = "unpacked.json"
_CHUNK = 2**20
#: What a damaged archive can raise; zipfile raises RuntimeError for an encrypted member.
_FAULTS = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError),
    *(NotImplementedError, ValueError, KeyError, UnicodeError, OverflowError),
)

#: Errors of the disk that is written to, not of the archive.
_OF_OUR_DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS))


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What one archive may cost; beyond it the rest is left out, with the reason `medium_limits`.

    Parameters
    ----------
    members : entries of the archive.
    member_bytes : size of one unpacked member.
    total_bytes : size of all unpacked members.
    ratio : unpacked bytes per packed byte of the archive; images have less than 20.
    """

    members: int = 1_000_000
    member_bytes: int = 2**30
    total_bytes: int = 64 * 2**30
    ratio: float = 200.0


#: The limits unless the settings say otherwise.
UNPACK_LIMITS = UnpackLimits()


class _LimitError(Exception):
    """The archive exceeds one of its limits."""


@dataclass(frozen=True, slots=True)
class _Member:
    """One entry: its name, identity (name, size, time, checksum), time, and how to read it."""

    name: str
    identity: str
    mtime_s: float
    open: Callable[[], IO[bytes] | None]
    regular: bool = True


def is_packed(path: str) -> bool:
    """Whether a file is an archive, by the end of its name."""
    return not is_url(path) and path.lower().endswith((*_ZIP, *_TAR))


def with_members(
    files: Sequence[ScannedFile],
    folder: Path,
    limits: UnpackLimits = UNPACK_LIMITS,
    say: Callable[[str], None] = lambda line: None,
) -> list[ScannedFile]:
    """Replace each archive among the files of a scan by its members.

    Parameters
    ----------
    files : from `scan_archive`.
    folder : private folder that holds the members; those of archives that are gone are removed.
    say : called with one line for each archive that is unpacked.

    Returns
    -------
    Other files as they are; members as files below `folder`. An archive that cannot be read to its
    end keeps a row with its reason beside the members before the fault.

    Raises
    ------
    CacError
        If the folder cannot be written.
    """
    packed = [item for item in files if item.reason is None and is_packed(item.path)]
    if not packed and not folder.exists():
        return list(files)
    found = [item for item in files if item.reason is not None or not is_packed(item.path)]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        _remove_orphans(folder)
        for number, item in enumerate(packed, start=1):
            home = folder / hashlib.sha256(os.fsencode(item.path)).hexdigest()[:32]
            if _stamp_of(home).get("version") != _version(item):
                say(f"unpacking archive {number} of {len(packed)}")
                _unpack(item, home, limits)
            found += _members_of(item, home)
    except OSError as error:
        raise CacError(
            f"The folder of unpacked archives {folder} cannot be written ({error.strerror}).",
            "Free space there, or name another folder as `cache` under [source].",
        ) from None
    return found


def _version(item: ScannedFile) -> list[int]:
    return [item.size_bytes, item.mtime_ns]


def _members_of(item: ScannedFile, home: Path) -> list[ScannedFile]:
    stamp = _stamp_of(home)
    rows = [file for file in scan_archive([home]) if not file.path.endswith(_STAMP)]
    for name in stamp.get("refused", ()):
        path = f"{item.path}::{name}"
        rows.append(ScannedFile(path, 0, item.mtime_ns, FileReason.OUTSIDE_MEDIUM))
    if stamp.get("reason"):
        reason = FileReason(stamp["reason"])
        rows.append(ScannedFile(item.path, item.size_bytes, item.mtime_ns, reason))
    return rows


def _stamp_of(home: Path) -> dict[str, Any]:
    try:
        stamp: dict[str, Any] = json.loads((home / _STAMP).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamp


def _remove_orphans(folder: Path) -> None:
    """Remove what was unpacked from archives that no longer exist."""
    for home in folder.iterdir():
        path = _stamp_of(home).get("path")
        if isinstance(path, str) and not Path(path).exists():
            shutil.rmtree(home, ignore_errors=True)


def _unpack(item: ScannedFile, home: Path, limits: UnpackLimits) -> None:
    """Unpack into a folder beside `home`, which then takes its place in one rename."""
    with scratch_folder("unpacking-", home.parent) as work:
        inner = work / "members"
        inner.mkdir(mode=0o700)
        refused: list[str] = []
        reason: FileReason | None = None
        try:
            _write_members(item, inner, limits, refused)
        except _LimitError:
            reason = FileReason.MEDIUM_LIMITS
        except _FAULTS as error:
            if isinstance(error, OSError) and error.errno in _OF_OUR_DISK:
                raise
            reason = FileReason.UNREADABLE_MEDIUM
        stamp = {
            "path": item.path,
            "version": _version(item),
            "refused": refused,
            "reason": reason and reason.value,
        }
        (inner / _STAMP).write_text(json.dumps(stamp))
        if home.exists():
            shutil.rmtree(home)
        inner.rename(home)


def _write_members(
    item: ScannedFile, folder: Path, limits: UnpackLimits, refused: list[str]
) -> None:
    allowed = min(limits.total_bytes, int(limits.ratio * max(item.size_bytes, 2**20)))
    for number, member in enumerate(_members(item.path)):
        if number >= limits.members:
            raise _LimitError
        if not member.regular or _leads_out(member.name):
            refused.append(hashlib.sha256(member.name.encode("utf-8", "replace")).hexdigest())
            continue
        name = hashlib.sha256(member.identity.encode("utf-8", "replace")).hexdigest()[:32]
        stream = member.open()
        if stream is None:
            continue
        path = folder / name[:2] / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with stream, path.open("wb") as out:
                allowed -= _copy(stream, out, min(allowed, limits.member_bytes))
        except BaseException:
            path.unlink()
            raise
        with contextlib.suppress(OSError, OverflowError, ValueError):
            os.utime(path, (member.mtime_s, member.mtime_s))


def _copy(stream: IO[bytes], out: IO[bytes], most: int) -> int:
    written = 0
    while chunk := stream.read(_CHUNK):
        written += len(chunk)
        if written > most:
            raise _LimitError
        out.write(chunk)
    return written


def _leads_out(name: str) -> bool:
    """Whether a member asks for a place outside of its archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 1 and name[1] == ":"
    return path.is_absolute() or ".." in path.parts or drive or "\0" in name


def _members(path: str) -> Iterator[_Member]:
    if path.lower().endswith(_ZIP):
        yield from _zip_members(path)
    else:
        yield from _tar_members(path)


def _zip_members(path: str) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            identity = f"{info.filename} {info.file_size} {info.date_time} {info.CRC}"
            try:
                when = time.mktime((*info.date_time, 0, 0, -1))
            except (ValueError, OverflowError):
                when = 0.0

            def opened(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return archive.open(info)

            yield _Member(info.filename, identity, when, opened, kind in (0, stat.S_IFREG))


def _tar_members(path: str) -> Iterator[_Member]:
    # A stream: a compressed archive is read once, and never backwards.
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            if info.isdir():
                continue
            identity = f"{info.name} {info.size} {info.mtime} {info.chksum}"

            def opened(info: tarfile.TarInfo = info) -> IO[bytes] | None:
                return archive.extractfile(info)

            # Sparse members can claim any size; images are never stored so.
            regular = info.isreg() and not info.issparse()
            yield _Member(info.name, identity, float(info.mtime), opened, regular)
