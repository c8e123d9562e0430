"""Lists the files of an archive, their sizes and modification times, without opening any."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cac_core.errors import UsageError
from cac_core.storage import is_url, list_files
from schemas.codes import FileReason


class ScannedFile(NamedTuple):
    """A file found by the scan; `reason` is set where it must not or cannot be opened."""

    path: str
    size_bytes: int
    mtime_ns: int
    reason: FileReason | None = None


def modification_ns(status: os.stat_result) -> int:
    """Modification time in nanoseconds, clipped to 64 bits (the years 1677 to 2262).

    Wrong clocks and copies cause other values, which the column of the table cannot hold.
    """
    return max(-(2**63), min(2**63 - 1, status.st_mtime_ns))


class _Walk:
    """State of one scan: files found, folders seen (by device and inode), links to follow."""

    def __init__(self) -> None:
        self.files: dict[str, ScannedFile] = {}
        self.seen: set[tuple[int, int]] = set()
        self.links: list[str] = []

    def folder(self, top: str) -> None:
        """Scan the real folders and files below `top`; links are deferred."""
        pending = [top]
        while pending:
            path = pending.pop()
            try:
                status = os.stat(path)  # noqa: PTH116 - a Path per folder and file is slow
                identity = (status.st_dev, status.st_ino)
                if identity in self.seen:
                    continue
                self.seen.add(identity)
                with os.scandir(path) as entries:
                    self._entries(entries, pending)
            except OSError as error:
                self.add(path, _refusal(error))

    def _entries(self, entries: Iterator[os.DirEntry[str]], pending: list[str]) -> None:
        for entry in entries:
            try:
                self._entry(entry, pending)
            except OSError as error:
                self.add(entry.path, _refusal(error))

    def _entry(self, entry: os.DirEntry[str], pending: list[str]) -> None:
        path = entry.path
        if entry.is_file(follow_symlinks=False):
            # By far the most entries: this branch determines the time for an unchanged archive.
            status = entry.stat(follow_symlinks=False)
            self.files[path] = ScannedFile(path, status.st_size, modification_ns(status))
        elif entry.is_symlink():
            self.links.append(path)
        elif entry.is_dir(follow_symlinks=False):
            pending.append(path)
        else:
            self.add(path, FileReason.NOT_DICOM)

    def file(self, path: str, status: os.stat_result) -> None:
        """Record a file that was reached by a link or given as a root."""
        reason = None if stat.S_ISREG(status.st_mode) else FileReason.NOT_DICOM
        size = status.st_size if reason is None else 0
        self.files[path] = ScannedFile(path, size, modification_ns(status), reason)

    def add(self, path: str, reason: FileReason) -> None:
        """Record an entry that cannot be read."""
        self.files[path] = ScannedFile(path, 0, 0, reason)

    def follow_links(self) -> None:
        """Follow the links in order of their names; each real folder is scanned at most once.

        Real folders are scanned first, so that a file keeps its own path, and links that lead to
        known folders add no further paths.
        """
        while self.links:
            batch, self.links = sorted(self.links), []
            for path in batch:
                self._link(path)

    def _link(self, path: str) -> None:
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            self.add(path, _refusal(error))
            return
        if not stat.S_ISDIR(status.st_mode):
            self.file(path, status)
            return
        target = os.path.realpath(path)
        parent = os.path.realpath(os.path.dirname(path))  # noqa: PTH120
        if parent == target or parent.startswith(target.rstrip("/") + "/"):
            self.add(path, FileReason.SYMLINK_LOOP)
        else:
            self.folder(path)


def scan_archive(roots: Sequence[Path | str]) -> list[ScannedFile]:
    """List every file below `roots`, including hidden files and targets of symbolic links.

    Parameters
    ----------
    roots : folders or files, or URLs; they may overlap, no file is listed twice.

    Returns
    -------
    Files with absolute paths below the resolved roots. Broken links, loops, special files and
    unreadable folders are listed with their reason.

    Raises
    ------
    UsageError
        If a root does not exist, or is neither a readable folder nor a file.
    CacError
        If the store of a URL cannot be used.
    """
    walk = _Walk()
    for root in roots:
        if is_url(str(root)):
            for name, size, mtime_ns in list_files(str(root)):
                walk.files[name] = ScannedFile(name, size, mtime_ns)
            continue
        top = os.path.realpath(root)
        try:
            status = os.stat(top)  # noqa: PTH116
            if stat.S_ISDIR(status.st_mode):
                os.scandir(top).close()
                walk.folder(top)
            else:
                walk.file(top, status)
        except OSError as error:
            raise UsageError(
                f"The archive {root} cannot be read ({error.strerror}).",
                "Name an existing folder or file for which you have read permission.",
            ) from None
    walk.follow_links()
    return list(walk.files.values())


def _refusal(error: OSError) -> FileReason:
    if error.errno == errno.ELOOP:
        return FileReason.SYMLINK_LOOP
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileReason.VANISHED
    return FileReason.NO_PERMISSION
