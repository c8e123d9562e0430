"""Files of a registry extract: finding, identifying and opening them.

No file or folder name is interpreted as a pattern or a column by any library.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from cac_core.cohort.mapping import Source
from cac_core.errors import UsageError

#: Compressions by file suffix that Python opens; `.zip` and `.zst` have readers of their own.
OPENERS: Mapping[str, Callable[[Path], object]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
}


@dataclass(frozen=True, slots=True)
class Extract:
    """One file of a source; `digest` is the SHA-256 of its bytes, `number` counts from 1."""

    source: Source
    path: Path
    digest: str
    number: int = 1

    @property
    def label(self) -> str:
        """Name of the file in tables: the real name may contain names of people."""
        return f"{self.source.name}/{self.number}"


def find_extracts(source: Source, base: Path) -> list[Extract]:
    """The files of a source, in order of their names.

    Leading folders that exist under the literal name are taken as such; only the rest of the path
    is a pattern.

    Raises
    ------
    UsageError
        If no file matches, or one is empty or cannot be read.
    """
    pattern = Path(source.files)
    root = Path(pattern.anchor) if pattern.is_absolute() else base
    parts = list(pattern.relative_to(pattern.anchor).parts)
    while parts and (root / parts[0]).exists():
        root /= parts.pop(0)
    found = root.glob(str(Path(*parts))) if parts else [root]
    paths = sorted(path for path in found if path.is_file())
    if not paths:
        raise UsageError(
            f"Source {source.name}: no file matches `{source.files}` in {base}.",
            "Correct `files` in the mapping, or fetch the extract.",
        )
    empty = [path.name for path in paths if not path.stat().st_size]
    if empty:
        raise UsageError(
            f"Source {source.name}: the file {', '.join(empty)} is empty (0 bytes).",
            "Request it again; a table without rows still has its header.",
        )
    numbered = enumerate(paths, start=1)
    return [Extract(source, path, _digest(source, path), number) for number, path in numbered]


def open_packed(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed according to its suffix.

    Raises
    ------
    zipfile.BadZipFile
        If a ZIP archive holds several files, or an encrypted one.
    """
    packed = path.suffix.lower()
    if packed == ".zst":
        return cast(IO[bytes], pa.input_stream(path.open("rb"), compression="zstd"))
    if packed == ".zip":
        archive = zipfile.ZipFile(path)
        # macOS adds a metadata file for each one.
        members = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX/")
        ]
        if len(members) != 1:
            raise zipfile.BadZipFile(f"{len(members)} files in it")
        if archive.getinfo(members[0]).flag_bits & 1:
            raise zipfile.BadZipFile("encrypted")
        return archive.open(members[0])
    return cast(IO[bytes], OPENERS[packed](path) if packed in OPENERS else path.open("rb"))


def _digest(source: Source, path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"Source {source.name}: the file {path.name} cannot be read ({error.strerror}).",
            "Check its permissions.",
        ) from None


def extract_fault(extract: Extract, what: str, hint: str = "") -> UsageError:
    """The error of an extract file; `what` continues a sentence about the file."""
    return UsageError(
        f"Source {extract.source.name}: the file {extract.path.name} {what}.",
        hint or "Request the file again, or correct `format` and `encoding` in the mapping.",
    )
