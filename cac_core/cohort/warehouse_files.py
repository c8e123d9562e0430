"""Files of a warehouse: where each table lies, and how a file is read and replaced.

A file is written aside, flushed to disk and renamed, so that a reader sees the old file or the new
one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from cac_core.errors import CacError
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import SCORES
from schemas.table import TableSpec

#: Folder for files that are being written or not yet published, outside every table's folder.
STAGING = "_staging"
#: Prefix of the hive partition of a model.
PARTITION = "model="
#: A warehouse that matches is a URL of fsspec; anything else is a folder.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
#: Tables with one hive partition `model=<id>` per model.
_PER_MODEL = {SCORES.name, LESIONS.name, PREVIEWS.name}
#: Rows per row group of tables with images, so that reading one study decodes few of them.
_PICTURE_ROWS = 256


class WarehouseFiles:
    """File operations of one warehouse.

    Parameters
    ----------
    url : a folder, or any fsspec URL (`s3://bucket/cac`, `memory://cac`).
    """

    def __init__(self, url: str) -> None:
        self.url = url
        if _URL.match(url):
            self._filesystem, root = fsspec.core.url_to_fs(url)
        else:
            # fsspec would interpret `::` and `~` in the name of a folder.
            self._filesystem, root = LocalFileSystem(), Path(url).absolute().as_posix()
        self.root = PurePosixPath(root)
        self.is_local = "file" in self._filesystem.protocol

    def table_folder(self, spec: TableSpec, model: str | None) -> PurePosixPath:
        """Folder of a table, or of its partition for a model."""
        if spec.name in _PER_MODEL:
            return self.root / spec.name / partition(model)
        return self.root / spec.name

    def table_files(self, spec: TableSpec, model: str | None = None) -> list[PurePosixPath]:
        """Published files of a table, of all models or one."""
        folders = [self.root / spec.name]
        if spec.name in _PER_MODEL:
            folders = [
                path
                for path in self._entries(self.root / spec.name)
                if path.name.startswith(PARTITION) and model in (None, path.name[len(PARTITION) :])
            ]
        return sorted(
            path for folder in folders for path in self._entries(folder) if _is_table(path.name)
        )

    def staging_folder(self, model: str) -> PurePosixPath:
        """Folder of the rows of a model that are not yet published."""
        return self.root / STAGING / partition(model)

    def staged_files(self, spec: TableSpec, model: str) -> list[PurePosixPath]:
        """Files of a table that are not yet published."""
        return sorted(
            path
            for path in self._entries(self.staging_folder(model))
            if path.name.startswith(f"{spec.name}-") and _is_table(path.name)
        )

    def _entries(self, folder: PurePosixPath) -> list[PurePosixPath]:
        """Entries of a folder. Listed, not globbed: paths may contain pattern characters."""
        try:
            names = self._filesystem.ls(str(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [folder / PurePosixPath(name).name for name in names]

    def all_files(self) -> list[PurePosixPath]:
        """Every file of the warehouse, in all folders, also those that belong to no table."""
        try:
            names = self._filesystem.find(str(self.root))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(self.root / PurePosixPath(name).relative_to(self.root) for name in names)

    def open(self, path: PurePosixPath) -> IO[bytes]:
        """Open a file for reading.

        Raises
        ------
        OSError
            If it does not exist or cannot be read.
        """
        stream: IO[bytes] = self._filesystem.open(str(path), "rb")
        return stream

    def modified(self, path: PurePosixPath) -> dt.datetime:
        """When a file was last written."""
        time: dt.datetime = self._filesystem.modified(str(path))
        return time if time.tzinfo else time.replace(tzinfo=dt.UTC)

    def size(self, path: PurePosixPath) -> int:
        """Size of a file in bytes."""
        return int(self._filesystem.size(str(path)))

    def remove(self, path: PurePosixPath) -> None:
        """Remove a file."""
        self._filesystem.rm_file(str(path))

    def read_bytes(self, path: PurePosixPath) -> bytes | None:
        """Content of a small file; None if there is none.

        Raises
        ------
        CacError
            If the file cannot be read.
        """
        try:
            data: bytes = self._filesystem.cat_file(str(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CacError(
                f"The file {path} of the warehouse cannot be read ({type(error).__name__}).",
                "Correct its permissions, or restore it from a backup.",
            ) from None
        return data

    def read_table(
        self,
        path: PurePosixPath,
        columns: Sequence[str] | None = None,
        studies: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read a Parquet file.

        Parameters
        ----------
        columns : columns to read, those that the file has; default: all.
        studies : keep only the rows of these study keys; other row groups are not decoded.

        Raises
        ------
        CacError
            If the file cannot be read.
        """
        filters = None
        if studies is not None:
            # With its type: no study at all is a list without one.
            filters = pc.field("study_key").isin(pa.array(studies, pa.string()))
        try:
            with self._filesystem.open(str(path), "rb") as stream:
                if filters is None:  # half the time of `read_table`, which imports pandas
                    file = pq.ParquetFile(stream)
                    known = file.schema_arrow.names
                    wanted = known if columns is None else [n for n in columns if n in known]
                    return file.read(columns=wanted)
                return pq.read_table(stream, columns=columns, filters=filters, partitioning=None)
        except (OSError, pa.ArrowInvalid) as error:
            raise CacError(
                f"The file {path} of the warehouse cannot be read ({type(error).__name__}).",
                "Restore it from a backup, or move it away and score again.",
            ) from None

    def write_table(self, path: PurePosixPath, table: pa.Table) -> None:
        """Write a Parquet file in place of an older one.

        Raises
        ------
        CacError
            If the file cannot be written.
        """
        group = _PICTURE_ROWS if any(map(pa.types.is_binary, table.schema.types)) else None
        self.write(
            path,
            lambda stream: pq.write_table(table, stream, compression="zstd", row_group_size=group),
        )

    def write(self, path: PurePosixPath, write: Callable[[Any], object]) -> None:
        """Write a file aside, flush it, and rename it.

        Raises
        ------
        CacError
            If the file cannot be written.
        """
        aside = self.root / STAGING / f"write-{uuid.uuid4().hex}.tmp"
        try:
            for folder in (aside.parent, path.parent):
                self._filesystem.makedirs(str(folder), exist_ok=True)
            with self._filesystem.open(str(aside), "wb") as stream:
                write(stream)
                stream.flush()
                if self.is_local:
                    os.fsync(stream.fileno())
            if self.is_local:
                Path(aside).replace(Path(path))
                _sync_folder(Path(path.parent))
            else:
                self._filesystem.mv(str(aside), str(path))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._filesystem.rm_file(str(aside))
            raise self.unwritable(error) from None

    def check_writable(self) -> None:
        """Write and remove a probe file; leaves no trace.

        Raises
        ------
        CacError
            If the warehouse cannot be created or written.
        """
        probe = self.root / f".probe-{uuid.uuid4().hex}"
        created: list[Path] = []
        try:
            if self.is_local:
                created = missing_folders(Path(self.root))
            self._filesystem.makedirs(str(self.root), exist_ok=True)
            with self._filesystem.open(str(probe), "wb") as stream:
                stream.write(b"probe")
            self._filesystem.rm_file(str(probe))
        except (OSError, NotImplementedError, ValueError) as error:
            raise self.unwritable(error) from None
        finally:
            remove_empty(created)

    def unwritable(self, error: Exception) -> CacError:
        """The error of a warehouse that cannot be written."""
        cause = getattr(error, "strerror", None) or type(error).__name__
        return CacError(
            f"The warehouse {self.url} cannot be written ({cause}).",
            "Choose another folder with --warehouse, or free space and permissions there.",
        )


def partition(model: str | None) -> str:
    """Name of the hive partition of a model.

    Raises
    ------
    CacError
        If the name would lead out of the table's folder.
    """
    if not model or "/" in model or "\\" in model or model.startswith("."):
        raise CacError(f"{model!r} is not the id of a model.", "Use an id that `cac status` shows.")
    return f"{PARTITION}{model}"


def missing_folders(folder: Path) -> list[Path]:
    """Folders that creating `folder` would create, deepest first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    return missing


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders that are empty, in the given order."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _is_table(name: str) -> bool:
    """Whether a file belongs to a table; hidden files are being written."""
    return name.endswith(".parquet") and not name.startswith(".")


def _sync_folder(folder: Path) -> None:
    """Flush a rename to disk, so that a power cut cannot undo it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
