"""Files of a warehouse: where each table lies, and how a file is read and replaced.

A file of a folder is written aside, flushed to disk and renamed; an object of a store is put as a
whole. So a reader sees the old file or the new one.
"""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from cac_core.errors import CacError
from cac_core.storage import is_url, open_url, plain_faults
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import SCORES
from schemas.table import TableSpec

if TYPE_CHECKING:
    import pyarrow.compute as pc

#: Folder for files that are being written or not yet published, outside every table's folder.
STAGING = "_staging"
#: Prefix of the hive partition of a model.
PARTITION = "model="
#: Tables with one hive partition `model=<id>` per model.
_PER_MODEL = {SCORES.name, LESIONS.name, PREVIEWS.name}
#: How often a file is read again that another run has replaced meanwhile.
_READ_TRIES = 3
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
        #: Called before anything is written; the holder of the lock sets it.
        self.guard: Callable[[], None] = lambda: None
        if is_url(url):
            self._filesystem, root = open_url(url)
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
            with self._plain():
                names = self._filesystem.ls(str(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [folder / PurePosixPath(name).name for name in names]

    def _plain(self) -> AbstractContextManager[None]:
        """Faults of a store as errors of one line; those of a folder are left as they are."""
        return contextlib.nullcontext() if self.is_local else plain_faults(self.url, "warehouse")

    def names(self, folder: PurePosixPath) -> list[str]:
        """Names of the files in a folder; empty if there is none."""
        return [path.name for path in self._entries(folder)]

    def below(self, folder: PurePosixPath) -> list[str]:
        """Paths of all files below a folder, relative to it."""
        try:
            with self._plain():
                found = self._filesystem.find(str(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [PurePosixPath(name).relative_to(folder).as_posix() for name in found]

    def all_files(self) -> list[PurePosixPath]:
        """Every file of the warehouse, in all folders, also those that belong to no table."""
        return sorted(self.root / name for name in self.below(self.root))

    def open(self, path: PurePosixPath) -> IO[bytes]:
        """Open a file for reading.

        Raises
        ------
        OSError
            If it does not exist or cannot be read.
        """
        with self._plain():
            stream: IO[bytes] = self._filesystem.open(str(path), "rb")
        return stream

    def size(self, path: PurePosixPath) -> int:
        """Size of a file in bytes."""
        with self._plain():
            return int(self._filesystem.size(str(path)))

    def modified(self, path: PurePosixPath) -> float:
        """When a file was last written, by the clock of its store, in seconds.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        with self._plain():
            when: float = self._filesystem.modified(str(path)).timestamp()
        return when

    def remove(self, path: PurePosixPath) -> None:
        """Remove a file."""
        self.guard()
        with self._plain():
            self._filesystem.rm_file(str(path))

    def create(self, path: PurePosixPath, data: bytes) -> None:
        """Write a small file that must not exist; of several processes one succeeds.

        Raises
        ------
        FileExistsError
            If it exists.
        CacError
            If it cannot be written.
        """
        try:
            if self.is_local:
                Path(path.parent).mkdir(parents=True, exist_ok=True)
                with Path(path).open("xb") as stream:
                    stream.write(data)
                return
            with self._plain():
                self._filesystem.pipe_file(str(path), data, mode="create")
        except FileExistsError:
            raise
        except OSError as error:
            raise self.unwritable(error) from None

    def read_bytes(self, path: PurePosixPath) -> bytes | None:
        """Content of a small file; None if there is none.

        Raises
        ------
        CacError
            If the file cannot be read.
        """
        try:
            with self._plain():
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
            import pyarrow.compute as pc  # a tenth of a second, which `cac status` does not need

            filters = pc.field("study_key").isin(pa.array(studies, pa.string()))
        for left in reversed(range(_READ_TRIES)):
            try:
                with self._plain():
                    return self._parsed(path, columns, filters)
            except (OSError, pa.ArrowInvalid) as error:
                if left and not self.is_local:  # an object that was replaced since it was opened
                    continue
                raise CacError(
                    f"The file {path} of the warehouse cannot be read ({type(error).__name__}).",
                    "Restore it from a backup, or move it away and score again.",
                ) from None
        raise AssertionError

    def _parsed(
        self, path: PurePosixPath, columns: Sequence[str] | None, filters: pc.Expression | None
    ) -> pa.Table:
        with self._filesystem.open(str(path), "rb") as stream:
            if filters is None:  # half the time of `read_table`, which imports pandas
                file = pq.ParquetFile(stream)
                known = file.schema_arrow.names
                wanted = known if columns is None else [n for n in columns if n in known]
                return file.read(columns=wanted)
            return pq.read_table(stream, columns=columns, filters=filters, partitioning=None)

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

    def add_table(self, spec: TableSpec, name: str, table: pa.Table) -> None:
        """Add rows to a table that only grows, as a file of its own; this needs no lock.

        Parameters
        ----------
        name : of the file, unlike that of all others.

        Raises
        ------
        CacError
            If the file cannot be written.
        """
        self.write_table(self.root / spec.name / f"{spec.name}-{name}.parquet", table)

    def write(self, path: PurePosixPath, write: Callable[[Any], object]) -> None:
        """Write a file aside, flush it, and rename it; to a store, as one object.

        Raises
        ------
        CacError
            If the file cannot be written, or the lock of this run is lost.
        """
        self.guard()
        if not self.is_local:
            content = io.BytesIO()
            write(content)
            self.put(path, content.getvalue())
            return
        aside = Path(self.root) / STAGING / f"write-{uuid.uuid4().hex}.tmp"
        try:
            for folder in (aside.parent, Path(path.parent)):
                folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(Path(path))
            _sync_folder(Path(path.parent))
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise self.unwritable(error) from None

    def put(self, path: PurePosixPath, data: bytes) -> None:
        """Write an object of a store, in place of an older one.

        Raises
        ------
        CacError
            If it cannot be written.
        """
        try:
            with self._plain():
                self._filesystem.pipe_file(str(path), data)
        except OSError as error:
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
                Path(self.root).mkdir(parents=True, exist_ok=True)
            with self._plain():
                self._filesystem.pipe_file(str(probe), b"probe")
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
