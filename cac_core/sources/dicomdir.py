"""Media with a DICOMDIR (PS3.10 section 8): the files that it lists, and no others."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from cac_core.dicom.files import ScannedFile, modification_ns
from schemas.codes import FileReason

#: The name that PS3.10 prescribes; file systems of CDs may show it in lower case.
NAME = "DICOMDIR"
#: A directory of a DVD with 100,000 images has about 50 MB.
_MAX_BYTES = 256 * 2**20
#: ReferencedFileID (0004,1500) in explicit VR little endian, as PS3.10 requires, and implicit.
_FILE_ID = re.compile(rb"\x04\x00\x00\x15(?:CS(..)|(..)\x00\x00)", re.DOTALL)
#: Eight components of eight characters and their separators (PS3.10 8.2), and some more.
_MAX_ID = 1024


def is_dicomdir(path: str | Path) -> bool:
    """Whether a path names the directory of a medium."""
    return Path(path).name.upper() == NAME


def listed_files(dicomdir: str) -> list[ScannedFile]:
    """The files that a DICOMDIR lists, each once.

    The list is searched for its file names, and not parsed: nesting, lengths and offsets of a
    damaged or hostile directory then cost nothing. Whether each file is what it should be, its own
    header tells.

    Returns
    -------
    Files with absolute paths; one that is missing has the reason `vanished`, one that leads out of
    the medium `outside_medium`, and a directory that is too large `header_limits`.
    """
    root = os.path.realpath(os.path.dirname(dicomdir))  # noqa: PTH120
    found: dict[str, ScannedFile] = {}
    try:
        with Path(dicomdir).open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError:
        return [ScannedFile(dicomdir, 0, 0, FileReason.NO_PERMISSION)]
    if len(content) > _MAX_BYTES:
        return [ScannedFile(dicomdir, len(content), 0, FileReason.HEADER_LIMITS)]
    for components in _file_ids(content):
        item = _listed(root, components)
        found.setdefault(item.path, item)
    return list(found.values())


def _file_ids(content: bytes) -> Iterator[tuple[str, ...]]:
    for match in _FILE_ID.finditer(content):
        length = int.from_bytes(match[1] or match[2], "little")
        if 0 < length <= _MAX_ID:
            value = content[match.end() : match.end() + length].decode("latin-1")
            yield tuple(part.strip(" \0") for part in value.split("\\"))


def _listed(root: str, components: tuple[str, ...]) -> ScannedFile:
    shown = os.path.join(root, *(part.replace("/", "_") for part in components))  # noqa: PTH118
    if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in components):
        return ScannedFile(_inside(root, shown), 0, 0, FileReason.OUTSIDE_MEDIUM)
    path = _as_written(root, components)
    if path is None:
        return ScannedFile(shown, 0, 0, FileReason.VANISHED)
    if not os.path.realpath(path).startswith(root.rstrip("/") + "/"):
        return ScannedFile(path, 0, 0, FileReason.OUTSIDE_MEDIUM)
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        return ScannedFile(path, 0, 0, FileReason.NOT_DICOM)
    return ScannedFile(path, status.st_size, modification_ns(status))


def _inside(root: str, shown: str) -> str:
    """A name for a refused file that lies below the medium: it only keys the row."""
    return f"{root}/refused/{shown.encode('utf-8', 'surrogateescape').hex()[:200]}"


def _as_written(root: str, components: tuple[str, ...]) -> str | None:
    """The path of a file, whose names the file system may show in lower case; None if missing."""
    for change in (str, str.lower, str.upper):
        path = os.path.join(root, *map(change, components))  # noqa: PTH118
        if os.path.exists(path):  # noqa: PTH110
            return path
    return None
