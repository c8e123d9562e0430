"""The warehouse: tables as Parquet in one folder or fsspec URL, and the ledger of scores.

A published table is replaced as a whole. Rows that a run has finished but not published lie in
`_staging/`; the next run publishes what a killed run left there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from cac_core.cohort.database import run_sql
from cac_core.cohort.extract_parts import Part, PartStore, registry_folder
from cac_core.cohort.suspects import SuspectNotes
from cac_core.cohort.warehouse_files import (
    PARTITION,
    STAGING,
    WarehouseFiles,
)
from cac_core.errors import CacError
from schemas.instance import INSTANCES
from schemas.lesion import LESIONS
from schemas.linkage import QUARANTINE
from schemas.preview import PREVIEWS
from schemas.run import RUNS
from schemas.score import SCORES
from schemas.table import KEY_PATTERN, InvalidTableError, TableSpec

#: Tables that belong to the score rows, and are staged and published before them.
_DETAILS = (LESIONS, PREVIEWS)
#: Size from which a file of such a table gets no further studies: the images of 100,000 studies
#: take gigabytes, and must not be rewritten every five minutes.
_PART_BYTES = 64 * 2**20
#: File with the fingerprint of the secret.
FINGERPRINT_FILE = "secret-fingerprint.txt"


class Warehouse:
    """Tables of one warehouse.

    Parameters
    ----------
    url : a folder, or any fsspec URL (`s3://bucket/cac`, `memory://cac`).
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._files = WarehouseFiles(self.url)
        self.is_local = self._files.is_local

    @property
    def files(self) -> WarehouseFiles:
        """The files of the warehouse, for what goes through all of them."""
        return self._files

    @property
    def folder(self) -> Path:
        """The folder of a warehouse on this machine (`is_local`)."""
        return Path(self._files.root)

    # -- state -----------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the warehouse holds any table."""
        return any(self.has(spec) for spec in (INSTANCES, SCORES, RUNS))

    def has(self, table: TableSpec) -> bool:
        """Whether a table is published."""
        return bool(self._files.table_files(table))

    def fingerprint(self) -> str | None:
        """Fingerprint of the secret that the keys of the tables were made with, if it is kept.

        Raises
        ------
        CacError
            If its file cannot be read or holds something else.
        """
        data = self._files.read_bytes(self._fingerprint_path)
        if data is None:
            return None
        text = data.decode("ascii", "replace").strip()
        if not re.fullmatch(KEY_PATTERN, text):
            raise CacError(
                f"The file {self._fingerprint_path} of the warehouse holds no fingerprint.",
                "Restore it from a backup, or remove it; the next `cac score` or `cac index` "
                "writes it again if the keys of its archive are those of the warehouse.",
            )
        return text

    def write_fingerprint(self, fingerprint: str) -> None:
        """Keep the fingerprint of the secret, in place of another one.

        Raises
        ------
        CacError
            If the file cannot be written.
        """
        line = f"{fingerprint}\n".encode("ascii")
        self._files.write(self._fingerprint_path, lambda stream: stream.write(line))

    @property
    def _fingerprint_path(self) -> PurePosixPath:
        return self._files.root / FINGERPRINT_FILE

    def check_writable(self) -> None:
        """Write and remove a probe file; leaves no trace.

        Raises
        ------
        CacError
            If the warehouse cannot be created or written.
        """
        self._files.check_writable()

    def lock(self) -> AbstractContextManager[None]:
        """Lock the warehouse for one writer, see `cac_core.cohort.lock`.

        A warehouse that this call created and that got no table is removed at the end.

        Raises
        ------
        LockedError
            If another process on this machine is writing.
        CacError
            If another run is writing, or the warehouse cannot be written.
        """
        from cac_core.cohort.lock import locked  # readers do not need it

        return locked(self._files)

    # -- tables ----------------------------------------------------------------------------

    def read(
        self,
        spec: TableSpec,
        model: str | None = None,
        studies: Sequence[str] | None = None,
        paths: Sequence[PurePosixPath] | None = None,
    ) -> pa.Table:
        """A published table, checked against its schema; empty if it does not exist yet.

        Nullable columns that an earlier version did not write are null.

        Parameters
        ----------
        studies : keep only the rows of these study keys; other row groups are not decoded.
        paths : files of the table, instead of all.

        Raises
        ------
        CacError
            If a file cannot be read or breaks the schema.
        """
        parts = self._files.table_files(spec, model) if paths is None else paths
        found = [self._files.read_table(path, studies=studies) for path in parts]
        if not found:
            return spec.empty()
        try:
            return spec.validate(pa.concat_tables([spec.completed(table) for table in found]))
        except (InvalidTableError, pa.ArrowInvalid) as error:
            raise self._unfit(spec, error) from None

    def columns(self, spec: TableSpec, names: Sequence[str], model: str | None = None) -> pa.Table:
        """Some columns of a published table, not validated; empty if it does not exist.

        Nullable columns that an earlier version did not write are null.

        Raises
        ------
        CacError
            If a file cannot be read or lacks a column.
        """
        types = pa.schema([spec.arrow_schema.field(name) for name in names])
        wanted = None if spec.migrations else list(names)  # a migration may need others
        found = [
            self._files.read_table(path, wanted) for path in self._files.table_files(spec, model)
        ]
        try:
            parts = [spec.completed(table) for table in found]
            # Neither a cast without need nor `empty_table`: what they import is most of the time of
            # `cac status`.
            chosen = [part.select(list(names)) for part in parts]
            tables = [part if part.schema.equals(types) else part.cast(types) for part in chosen]
            return pa.concat_tables([pa.Table.from_batches([], types), *tables])
        except (InvalidTableError, pa.ArrowInvalid, KeyError) as error:
            raise self._unfit(spec, error) from None

    def models(self) -> tuple[str, ...]:
        """Model ids with published scores, in alphabetical order."""
        names = {path.parent.name for path in self._files.table_files(SCORES)}
        return tuple(sorted(name.removeprefix(PARTITION) for name in names))

    def replace(self, spec: TableSpec, table: pa.Table, model: str | None = None) -> None:
        """Publish a table in place of the old one.

        Raises
        ------
        InvalidTableError
            If the table breaks its schema; then nothing is written.
        CacError
            If the file cannot be written.
        """
        path = self._files.table_folder(spec, model) / f"{spec.name}.parquet"
        self._files.write_table(path, spec.validate(table))

    def write_page(self, name: str, text: str) -> str:
        """Write a page below `reports/`, in place of an older one, and return its path or URL.

        Parameters
        ----------
        name : path below `reports/`, for instance `archive/index.html`.

        Raises
        ------
        CacError
            If the file cannot be written.
        """
        path = self._files.root / "reports" / name
        self._files.write(path, lambda stream: stream.write(text.encode("utf-8")))
        return str(path) if self.is_local else f"{self.url.rstrip('/')}/reports/{name}"

    def read_results(self, name: str) -> dict[str, bytes]:
        """Files below `reports/<name>`, by their path there.

        Raises
        ------
        CacError
            If a file cannot be read.
        """
        folder = self._files.root / "reports" / name
        found = {path: self._files.read_bytes(folder / path) for path in self._files.below(folder)}
        return {path: data for path, data in found.items() if data is not None}

    def write_result(self, name: str, path: str, data: bytes) -> None:
        """Write a file below `reports/<name>`, in place of an older one.

        Raises
        ------
        CacError
            If it cannot be written.
        """
        place = self._files.root / "reports" / name / path
        self._files.write(place, lambda stream: stream.write(data))

    def remove_result(self, name: str, path: str) -> None:
        """Remove a file below `reports/<name>`."""
        self._files.remove(self._files.root / "reports" / name / path)

    def add_run(self, row: dict[str, object], table: TableSpec = RUNS) -> None:
        """Append a row to `runs`, or to another table of runs."""
        path = self._files.root / table.name / f"run-{row['run_id']}.parquet"
        self._files.write_table(path, table.from_rows([row]))

    def parts(self, registry: Path | None = None) -> PartStore:
        """Where the canonical tables of the registry are.

        They hold identifiers, which do not leave this machine: those of a warehouse at a URL lie
        in a folder of this machine.

        Parameters
        ----------
        registry : that folder, for a warehouse at a URL; None for a private one of the user.
        """
        root = self.folder if self.is_local else registry_folder(self.url, registry)
        return PartStore(root, root / STAGING / "linkage")

    def publish_quarantine(self, parts: Sequence[Part]) -> None:
        """Copy what the extracts set aside, which holds no identifiers, into a store.

        In a folder it lies there already (`PartStore.publish`).

        Raises
        ------
        CacError
            If it cannot be written.
        """
        self._files.guard()
        if self.is_local:
            return
        folder = self._files.table_folder(QUARANTINE, None)
        kept = {f"{QUARANTINE.name}.parquet"}
        for part in parts:
            name = f"{part.extract.source.table}-{part.digest}.parquet"
            kept.add(name)
            self._files.write_table(folder / name, pq.ParquetFile(part.quarantine).read())
        for name in self._files.names(folder):
            if name not in kept and name.endswith(".parquet"):
                self._files.remove(folder / name)

    # -- scores: stage, publish, ledger ------------------------------------------------------

    def stage(
        self,
        model: str,
        part: str,
        scores: pa.Table,
        lesions: pa.Table,
        previews: pa.Table | None = None,
    ) -> None:
        """Store the finished rows of one shard until they are published.

        Scores are written last, so that no score row exists without its lesions and previews.
        """
        tables = ((LESIONS, lesions), (PREVIEWS, previews), (SCORES, scores))
        for spec, table in tables:
            rows = spec.empty() if table is None else spec.validate(table)
            self._files.write_table(
                self._files.staging_folder(model) / f"{spec.name}-{part}.parquet", rows
            )

    def staged_models(self) -> set[str]:
        """Models with files among the staged rows."""
        names = {name.split("/")[0] for name in self._files.below(self._files.root / STAGING)}
        return {name.removeprefix(PARTITION) for name in names if name.startswith(PARTITION)}

    def suspects(self, model: str) -> SuspectNotes:
        """Notes on studies that may end a whole run."""
        return SuspectNotes(self._files, self._files.staging_folder(model))

    def publish(self, model: str) -> int:
        """Merge the staged rows of a model into its published tables; the newest row wins.

        Returns
        -------
        The number of score rows that were staged.
        """
        self._files.guard()  # also where nothing is found, which would look like a success
        staged = self._files.staged_files(SCORES, model)
        if not staged:
            return 0
        new_scores = pa.concat_tables(
            [SCORES.validate(SCORES.completed(self._files.read_table(path))) for path in staged]
        )
        scores = run_sql("latest_scores", old=self.read(SCORES, model), new=new_scores)
        rescored = new_scores.select(["study_key", "protocol_digest"])
        for spec in _DETAILS:
            self._merge(spec, model, self._complete(spec, model, staged), rescored)
        self.replace(SCORES, scores, model)
        for spec in (SCORES, *_DETAILS):
            for path in self._files.staged_files(spec, model):
                self._files.remove(path)
        return int(new_scores.num_rows)

    def _complete(
        self, spec: TableSpec, model: str, staged_scores: Sequence[PurePosixPath]
    ) -> pa.Table:
        """Staged rows whose score rows are staged too: scores are written last."""
        complete = {path.name.removeprefix(f"{SCORES.name}-") for path in staged_scores}
        parts = [
            self._files.read_table(path)
            for path in self._files.staged_files(spec, model)
            if path.name.removeprefix(f"{spec.name}-") in complete
        ]
        return pa.concat_tables(parts) if parts else spec.empty()

    def _merge(self, spec: TableSpec, model: str, new: pa.Table, rescored: pa.Table) -> None:
        """Replace the rows of rescored studies and add those of new ones.

        A study stays in its file and each file is replaced by one rename, so that a reader never
        sees its rows twice or not at all. New studies go to the smallest file, or to a new one if
        that is full.
        """
        paths = self._files.table_files(spec, model)
        sizes = [self._files.size(path) for path in paths]
        smallest = sizes.index(min(sizes)) if sizes and min(sizes) < _PART_BYTES else len(paths)
        keys = [self._files.read_table(path, columns=rescored.column_names) for path in paths]
        homes = run_sql("homes", keys=_numbered(keys, rescored.schema), rescored=rescored)
        for number in sorted({smallest, *homes["part"].to_pylist()}):
            is_new = number == len(paths)
            rows = run_sql(
                "rows_of_part",
                {"part": number, "smallest": smallest},
                old=spec.empty() if is_new else self._files.read_table(paths[number]),
                new=new,
                rescored=rescored,
                homes=homes,
            )
            path = self._new_part(spec, model, paths) if is_new else paths[number]
            self._files.write_table(path, spec.validate(rows))

    def _new_part(
        self, spec: TableSpec, model: str, paths: Sequence[PurePosixPath]
    ) -> PurePosixPath:
        folder = self._files.table_folder(spec, model)
        names = (folder / f"{spec.name}-{number:05d}.parquet" for number in count(len(paths)))
        return next(path for path in names if path not in paths)

    def pending(
        self,
        wanted: pa.Table,
        model: str,
        *,
        retry_failed: bool = False,
        reasons: Sequence[str] = (),
    ) -> pa.Table:
        """Rows of `wanted` whose identity is not in the ledger yet.

        Parameters
        ----------
        wanted : columns `study_key`, `instances_digest`, `model_digest`, `protocol_digest`,
            `core_version`; further columns are kept.
        retry_failed : also return studies whose last row has status `failed`.
        reasons : of these, only those that failed for one of these reasons; default: any.
        """
        return run_sql(
            "pending",
            {"retry_failed": retry_failed, "reasons": list(reasons)},
            wanted=wanted,
            scores=self.read(SCORES, model),
        )

    def changed_files(
        self, wanted: pa.Table, model: str, *, retry_failed: bool = False
    ) -> pa.Table:
        """Rows of `wanted` in the ledger whose files changed since, with what was scored of them.

        See `sql/changed_files.sql`; the parameters are those of `pending`.
        """
        scores = self.read(SCORES, model)
        return run_sql(
            "changed_files", {"retry_failed": retry_failed}, wanted=wanted, scores=scores
        )

    def restamp(self, model: str, stamps: pa.Table) -> None:
        """Set `files_digest` of published scores by `study_key` and `protocol_digest`."""
        if stamps.num_rows:
            rows = run_sql("restamped", scores=self.read(SCORES, model), stamps=stamps)
            self.replace(SCORES, rows, model)

    def _unfit(self, spec: TableSpec, why: object) -> CacError:
        return CacError(
            f"The table `{spec.name}` in {self.url} does not fit this version: {why}.",
            "Another version wrote it, or it was edited by hand: update this program, score into a "
            "new warehouse, or restore the table.",
        )


def _numbered(parts: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Rows of all files with the number of their file."""
    numbers = [n for n, part in enumerate(parts) for _ in range(part.num_rows)]
    rows = pa.concat_tables([schema.empty_table(), *parts], promote_options="permissive")
    return rows.append_column("part", pa.array(numbers, pa.int32()))
