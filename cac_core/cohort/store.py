"""The warehouse: tables as Parquet under one folder or fsspec URL, and the ledger over them.

Published tables are replaced whole, by a file written aside, flushed to the disk and renamed: a
reader sees the old table or the new one. What a run has finished but not yet published lies in
`_staging/`, outside every table's folder; the next run publishes what a killed one left there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from cac_core.cohort.canonical import PartStore
from cac_core.errors import CacError, UsageError
from schemas.instance import INSTANCES
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.run import RUNS
from schemas.score import SCORES
from schemas.table import InvalidTableError, TableSpec

_STAGING = "_staging"
_PARTITION = "model="
#: What makes a warehouse a URL of fsspec; anything else is a folder.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
#: Tables that are kept per model, in a hive partition `model=<id>`.
_PER_MODEL = {SCORES.name, LESIONS.name, PREVIEWS.name}
#: Tables that belong to the score rows, and are staged and published before them.
_DETAILS = (LESIONS, PREVIEWS)
#: A part of such a table that is larger gets no further studies: pictures of 100,000 studies are
#: gigabytes, and must not be written anew every five minutes.
_PART_BYTES = 64 * 2**20
#: Rows of a row group where a column holds pictures: a reader of one study decodes no more.
_PICTURE_ROWS = 256


def run_sql(name: str, parameters: dict[str, object] | None = None, **tables: pa.Table) -> pa.Table:
    """Run the SQL file `cac_core/cohort/sql/<name>.sql` in memory over Arrow tables.

    Parameters
    ----------
    parameters : values of the `$name` placeholders in the file.
    **tables : the tables the file speaks of, by name.
    """
    text = files("cac_core.cohort").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    with duckdb.connect(":memory:") as connection:
        for table_name, table in tables.items():
            connection.register(table_name, table)
        return connection.sql(text, params=parameters).to_arrow_table()


class Warehouse:
    """Tables of one warehouse.

    Parameters
    ----------
    url : a folder, or any fsspec URL (`s3://bucket/cac`, `memory://cac`).
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        if _URL.match(self.url):
            self._filesystem, root = fsspec.core.url_to_fs(self.url)
        else:
            # A folder is taken as it is written: fsspec reads `::` and `~` as signs of its own.
            self._filesystem, root = LocalFileSystem(), Path(self.url).absolute().as_posix()
        self._root = PurePosixPath(root)
        self.is_local = "file" in self._filesystem.protocol

    @property
    def folder(self) -> Path:
        """The folder of a warehouse on this machine (`is_local`)."""
        return Path(self._root)

    # -- state -----------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the warehouse holds any table."""
        return any(self.has(spec) for spec in (INSTANCES, SCORES, RUNS))

    def has(self, table: TableSpec) -> bool:
        """Whether a table was published."""
        return bool(self._parts(table))

    def check_writable(self) -> None:
        """Write and remove a probe file; leaves no trace.

        Raises
        ------
        CacError
            If the warehouse cannot be created or written.
        """
        probe = self._root / f".probe-{uuid.uuid4().hex}"
        created: list[Path] = []
        try:
            if self.is_local:
                created = _missing_parents(self.folder)
            self._filesystem.makedirs(str(self._root), exist_ok=True)
            with self._filesystem.open(str(probe), "wb") as stream:
                stream.write(b"probe")
            self._filesystem.rm_file(str(probe))
        except (OSError, NotImplementedError, ValueError) as error:
            raise self._unwritable(error) from None
        finally:
            _remove_empty(created)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the warehouse for one writer; released by the system if the process dies.

        A warehouse that was made by this call and got no table is removed again at the end.

        Raises
        ------
        CacError
            If another process on this machine is writing, or the folder cannot be written.
        """
        if not self.is_local:
            yield
            return
        created = _missing_parents(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = (self.folder / "_lock").open("w")
        except OSError as error:
            raise self._unwritable(error) from None
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CacError(
                    f"Another run is writing to the warehouse {self.url}.",
                    "Wait for it to end, or stop it; `cac status` shows what is there.",
                ) from None
            try:
                yield
            finally:
                if created and [p.name for p in self.folder.iterdir()] == ["_lock"]:
                    (self.folder / "_lock").unlink()
                    _remove_empty(created)

    # -- tables ----------------------------------------------------------------------------

    def read(
        self,
        spec: TableSpec,
        model: str | None = None,
        studies: Sequence[str] | None = None,
    ) -> pa.Table:
        """A published table, checked against its schema; no rows where it does not exist yet.

        Columns that may be null and that an earlier version did not write are null.

        Parameters
        ----------
        studies : keep only the rows of these study keys; the rest is not even decoded.

        Raises
        ------
        CacError
            If a file cannot be read or breaks the schema.
        """
        parts = self._parts(spec, model)
        tables = [spec.completed(self._read_part(path, studies=studies)) for path in parts]
        if not tables:
            return spec.empty()
        try:
            return spec.validate(pa.concat_tables(tables))
        except (InvalidTableError, pa.ArrowInvalid) as error:
            raise self._unfit(spec, error) from None

    def columns(self, spec: TableSpec, names: Sequence[str], model: str | None = None) -> pa.Table:
        """Some columns of a published table, not checked again; no rows where it does not exist.

        Raises
        ------
        CacError
            If a file cannot be read or lacks a column.
        """
        types = pa.schema([spec.arrow_schema.field(name) for name in names])
        parts = [self._read_part(path, list(names)) for path in self._parts(spec, model)]
        try:
            tables = [part.select(list(names)).cast(types) for part in parts]
            return pa.concat_tables([types.empty_table(), *tables])
        except pa.ArrowInvalid as error:
            raise self._unfit(spec, error) from None

    def models(self) -> tuple[str, ...]:
        """Model ids with published scores, in alphabetical order."""
        names = {path.parent.name for path in self._parts(SCORES)}
        return tuple(sorted(name.removeprefix(_PARTITION) for name in names))

    def replace(self, spec: TableSpec, table: pa.Table, model: str | None = None) -> None:
        """Publish a table in place of the old one; readers see one or the other.

        Raises
        ------
        InvalidTableError
            If the table breaks its schema; nothing is written then.
        CacError
            If the file cannot be written.
        """
        self._write(self._folder(spec, model) / f"{spec.name}.parquet", spec.validate(table))

    def write_page(self, name: str, text: str) -> str:
        """Put a page under `reports/`, in place of an older one, and say where it is.

        Parameters
        ----------
        name : path below `reports/`, for instance `archive/index.html`.

        Raises
        ------
        CacError
            If the file cannot be written.
        """
        path = self._root / "reports" / name
        self._put(path, lambda stream: stream.write(text.encode("utf-8")))
        return str(path)

    def add_run(self, row: dict[str, object], table: TableSpec = RUNS) -> None:
        """Append one row to `runs`, or to another table of runs."""
        path = self._root / table.name / f"run-{row['run_id']}.parquet"
        self._write(path, table.from_rows([row]))

    def parts(self) -> PartStore:
        """Where the canonical tables of the registry lie.

        Raises
        ------
        UsageError
            If the warehouse is no folder of this machine: identifiers stay where they are.
        """
        if not self.is_local:
            raise UsageError(
                f"The warehouse {self.url} is no folder of this machine.",
                "Canonical tables hold identifiers and are linked in a local folder; name one "
                "with --warehouse.",
            )
        return PartStore(self.folder, self.folder / _STAGING / "linkage")

    # -- scores: stage, publish, ledger ------------------------------------------------------

    def stage(
        self,
        model: str,
        part: str,
        scores: pa.Table,
        lesions: pa.Table,
        previews: pa.Table | None = None,
    ) -> None:
        """Keep the finished rows of one shard safe until they are published.

        Scores go last: a score row is never there without its lesions and previews.
        """
        tables = ((LESIONS, lesions), (PREVIEWS, previews), (SCORES, scores))
        for spec, table in tables:
            rows = spec.empty() if table is None else spec.validate(table)
            self._write(self._staging(model) / f"{spec.name}-{part}.parquet", rows)

    def publish(self, model: str) -> int:
        """Merge the staged rows of a model into its published tables; newest row wins.

        Returns
        -------
        The number of score rows that were staged.
        """
        staged = self._staged(SCORES, model)
        if not staged:
            return 0
        new_scores = pa.concat_tables([self._read_part(path) for path in staged])
        scores = run_sql("latest_scores", old=self.read(SCORES, model), new=new_scores)
        rescored = new_scores.select(["study_key", "protocol_digest"])
        for spec in _DETAILS:
            self._merge(spec, model, self._complete(spec, model, staged), rescored)
        self.replace(SCORES, scores, model)
        for spec in (SCORES, *_DETAILS):
            for path in self._staged(spec, model):
                self._filesystem.rm_file(str(path))
        return int(new_scores.num_rows)

    def _complete(
        self, spec: TableSpec, model: str, staged_scores: Sequence[PurePosixPath]
    ) -> pa.Table:
        """Staged rows whose score rows are staged too: a score part tells what is complete."""
        complete = {path.name.removeprefix(f"{SCORES.name}-") for path in staged_scores}
        parts = [
            self._read_part(path)
            for path in self._staged(spec, model)
            if path.name.removeprefix(f"{spec.name}-") in complete
        ]
        return pa.concat_tables(parts) if parts else spec.empty()

    def _merge(self, spec: TableSpec, model: str, new: pa.Table, rescored: pa.Table) -> None:
        """Replace the rows of rescored studies and add those of new ones.

        A study keeps its part and every part is exchanged by one rename, so that a reader never
        sees its rows twice or not at all. New studies go to the smallest part, or to another where
        that is full.
        """
        paths = self._parts(spec, model)
        sizes = [int(self._filesystem.size(str(path))) for path in paths]
        smallest = sizes.index(min(sizes)) if sizes and min(sizes) < _PART_BYTES else len(paths)
        keys = [self._read_part(path, columns=rescored.column_names) for path in paths]
        homes = run_sql("homes", keys=_numbered(keys, rescored.schema), rescored=rescored)
        for number in sorted({smallest, *homes["part"].to_pylist()}):
            is_new = number == len(paths)
            rows = run_sql(
                "rows_of_part",
                {"part": number, "smallest": smallest},
                old=spec.empty() if is_new else self._read_part(paths[number]),
                new=new,
                rescored=rescored,
                homes=homes,
            )
            path = self._new_part(spec, model, paths) if is_new else paths[number]
            self._write(path, spec.validate(rows))

    def _new_part(
        self, spec: TableSpec, model: str, paths: Sequence[PurePosixPath]
    ) -> PurePosixPath:
        folder = self._folder(spec, model)
        names = (folder / f"{spec.name}-{number:05d}.parquet" for number in count(len(paths)))
        return next(path for path in names if path not in paths)

    def pending(self, wanted: pa.Table, model: str, *, retry_failed: bool = False) -> pa.Table:
        """Rows of `wanted` whose identity is not in the ledger yet: one anti-join.

        Parameters
        ----------
        wanted : columns `study_key`, `instances_digest`, `model_digest`, `protocol_digest`,
            `core_version`, and any others, which are handed through.
        retry_failed : also return those whose last row has status `failed`.
        """
        return run_sql(
            "pending",
            {"retry_failed": retry_failed},
            wanted=wanted,
            scores=self.read(SCORES, model),
        )

    # -- files -------------------------------------------------------------------------------

    def _folder(self, spec: TableSpec, model: str | None) -> PurePosixPath:
        if spec.name in _PER_MODEL:
            return self._root / spec.name / _partition(model)
        return self._root / spec.name

    def _parts(self, spec: TableSpec, model: str | None = None) -> list[PurePosixPath]:
        """Files of a table, of all models or one."""
        folders = [self._root / spec.name]
        if spec.name in _PER_MODEL:
            folders = [
                path
                for path in self._entries(self._root / spec.name)
                if path.name.startswith(_PARTITION)
                and model in (None, path.name[len(_PARTITION) :])
            ]
        return sorted(
            path for folder in folders for path in self._entries(folder) if _is_part(path.name)
        )

    def _entries(self, folder: PurePosixPath) -> list[PurePosixPath]:
        """What lies in a folder. Listed, not globbed: paths may hold the signs of a pattern."""
        try:
            names = self._filesystem.ls(str(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [folder / PurePosixPath(name).name for name in names]

    def _staging(self, model: str) -> PurePosixPath:
        return self._root / _STAGING / _partition(model)

    def _staged(self, spec: TableSpec, model: str) -> list[PurePosixPath]:
        return sorted(
            path
            for path in self._entries(self._staging(model))
            if path.name.startswith(f"{spec.name}-") and _is_part(path.name)
        )

    def _read_part(
        self,
        path: PurePosixPath,
        columns: Sequence[str] | None = None,
        studies: Sequence[str] | None = None,
    ) -> pa.Table:
        filters = None if studies is None else [("study_key", "in", list(studies))]
        try:
            with self._filesystem.open(str(path), "rb") as stream:
                return pq.read_table(stream, columns=columns, filters=filters, partitioning=None)
        except (OSError, pa.ArrowInvalid) as error:
            raise CacError(
                f"The file {path} of the warehouse cannot be read ({type(error).__name__}).",
                "Restore it from a backup, or move it away and score again.",
            ) from None

    def _write(self, path: PurePosixPath, table: pa.Table) -> None:
        group = _PICTURE_ROWS if any(map(pa.types.is_binary, table.schema.types)) else None
        self._put(
            path,
            lambda stream: pq.write_table(table, stream, compression="zstd", row_group_size=group),
        )

    def _put(self, path: PurePosixPath, write: Callable[[Any], object]) -> None:
        """Write aside, flush, rename."""
        aside = self._root / _STAGING / f"write-{uuid.uuid4().hex}.tmp"
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
            raise self._unwritable(error) from None

    def _unfit(self, spec: TableSpec, why: object) -> CacError:
        return CacError(
            f"The table `{spec.name}` in {self.url} does not fit this version: {why}.",
            "It was written by another version or changed by hand; score into a new "
            "warehouse, or restore the table.",
        )

    def _unwritable(self, error: Exception) -> CacError:
        cause = getattr(error, "strerror", None) or type(error).__name__
        return CacError(
            f"The warehouse {self.url} cannot be written ({cause}).",
            "Choose another folder with --warehouse, or free space and permissions there.",
        )


def _partition(model: str | None) -> str:
    """Name of the hive partition of a model; a name that would lead elsewhere is a fault."""
    if not model or "/" in model or "\\" in model or model.startswith("."):
        raise CacError(f"{model!r} is no name of a model.", "Name one of `cac status`.")
    return f"{_PARTITION}{model}"


def _is_part(name: str) -> bool:
    """Whether a file belongs to a table; hidden ones are being written."""
    return name.endswith(".parquet") and not name.startswith(".")


def _numbered(parts: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """All rows of the parts with the number of their part."""
    numbers = [n for n, part in enumerate(parts) for _ in range(part.num_rows)]
    rows = pa.concat_tables([schema.empty_table(), *parts], promote_options="permissive")
    return rows.append_column("part", pa.array(numbers, pa.int32()))


def _missing_parents(folder: Path) -> list[Path]:
    """Folders that creating `folder` would create, deepest first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    return missing


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that hold nothing, in the given order."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk, so that a power cut cannot undo it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
