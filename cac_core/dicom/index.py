"""The archive index: finds the files, opens only new and changed ones, gives `instances`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.dicom.header import HEADER_COLUMNS, HeaderRow
from cac_core.dicom.header_pool import read_headers
from cac_core.dicom.part10 import HeaderLimits
from cac_core.dicom.scan import ScannedFile, scan_archive
from cac_core.keys import Keyring
from schemas.codes import FileReason
from schemas.instance import INSTANCES

__all__ = ["ArchiveIndex", "ArchivePaths", "HeaderLimits", "index_archive"]

#: Reasons that may be gone tomorrow although size and modification time are the same.
_TRANSIENT = frozenset((FileReason.NO_PERMISSION.value, FileReason.VANISHED.value))
#: With `study_key`: what two files agree in where one is a copy of the other.
_IDENTITY = (
    *("SeriesInstanceUID", "SOPInstanceUID", "InstanceNumber"),
    *("position_x_mm", "position_y_mm", "position_z_mm"),
)
_REASON = INSTANCES.arrow_schema.get_field_index("reason")


class ArchivePaths(Mapping[str, Path]):
    """Paths by `path_key`, in memory only: at rest there are keys, no paths."""

    def __init__(self, paths: dict[str, str]) -> None:
        self._paths = paths

    def __getitem__(self, path_key: str) -> Path:
        return Path(self._paths[path_key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} files)"


@dataclass(frozen=True)
class ArchiveIndex:
    """What is in an archive.

    Parameters
    ----------
    instances : table `instances` (`schemas.instance`), ordered by `path_key`.
    paths : path of each `path_key`.
    n_files : files found.
    n_opened : files opened this time; the others were known from the previous index.
    reasons : number of files by reason why they are no instance.
    seconds : time the indexing took.
    """

    instances: pa.Table
    paths: Mapping[str, Path]
    n_files: int
    n_opened: int
    reasons: dict[str, int]
    seconds: float


def index_archive(
    roots: Sequence[Path],
    keyring: Keyring,
    *,
    previous: pa.Table | None = None,
    workers: int = 2,
    limits: HeaderLimits = HeaderLimits(),  # noqa: B008 - frozen
    progress: Callable[[int, int], None] | None = None,
) -> ArchiveIndex:
    """Index every file below `roots`; a file that cannot be read is a row with its reason.

    Parameters
    ----------
    roots : folders (or files) of the archive, in any layout.
    keyring : makes the keys; with another secret than last time every file is opened again.
    previous : `instances` of the last index: files of the same path, size and modification time
        are taken from it unopened; files that are gone drop out.
    workers : reader processes.
    limits : what one header may cost.
    progress : called with (headers read, headers to read).

    Raises
    ------
    UsageError
        If a root does not exist or cannot be read.
    CacError
        If the reader processes cannot be started.
    """
    start = perf_counter()
    files = scan_archive(roots)
    keys = keyring.path_keys([item.path for item in files])
    by_key = dict(zip(keys, files, strict=True))
    known = _unchanged(previous, by_key)
    new = [key for key in by_key if key not in known]
    to_open = [key for key in new if by_key[key].reason is None]
    rows = read_headers(
        [by_key[key].path for key in to_open],
        keyring,
        workers=workers,
        limits=limits,
        progress=progress,
    )
    headers = dict(zip(to_open, rows, strict=True))
    if not new and previous is not None and previous.num_rows == len(known):
        table = _ordered(previous.cast(INSTANCES.arrow_schema))
    else:
        table = _merge(previous, known, _new_rows(new, by_key, headers))
    counts = {item["values"]: item["counts"] for item in table["reason"].value_counts().to_pylist()}
    counts.pop(None, None)
    return ArchiveIndex(
        instances=table,
        paths=ArchivePaths({key: item.path for key, item in by_key.items()}),
        n_files=len(files),
        n_opened=len(to_open),
        reasons=dict(sorted(counts.items())),
        seconds=perf_counter() - start,
    )


def _unchanged(previous: pa.Table | None, by_key: dict[str, ScannedFile]) -> dict[str, int]:
    """Row numbers of `previous` that still hold, by path key."""
    if previous is None or previous.column_names != INSTANCES.arrow_schema.names:
        return {}
    columns = (previous[name].to_pylist() for name in ("path_key", "size_bytes", "mtime_ns"))
    reasons = previous["reason"].to_pylist()
    known: dict[str, int] = {}
    for number, (key, size, mtime) in enumerate(zip(*columns, strict=True)):
        item = by_key.get(key)
        if item is None or item.size_bytes != size or item.mtime_ns != mtime:
            continue
        if item.reason is not None:
            if reasons[number] == item.reason.value:
                known[key] = number
        elif reasons[number] not in _TRANSIENT:
            known[key] = number
    return known


def _new_rows(
    keys: list[str], by_key: dict[str, ScannedFile], headers: dict[str, HeaderRow]
) -> pa.Table:
    """Build the checked table of the files that were looked at this time."""
    blank = (None,) * len(HEADER_COLUMNS)
    rows = []
    for key in keys:
        item = by_key[key]
        header = headers.get(key) or (item.reason.value if item.reason else None,)
        rows.append((key, item.size_bytes, item.mtime_ns, *header, *blank[len(header) :]))
    names = ("path_key", "size_bytes", "mtime_ns", *HEADER_COLUMNS)
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    schema = INSTANCES.arrow_schema
    table = pa.table(
        {name: pa.array(columns.get(name, ()), schema.field(name).type) for name in schema.names}
    )
    return INSTANCES.validate(table)


def _merge(previous: pa.Table | None, known: dict[str, int], new: pa.Table) -> pa.Table:
    """Known and new rows together, ordered by `path_key`, duplicates marked afresh."""
    if previous is not None and known:
        kept = previous.take(pa.array(list(known.values()), pa.int64()))
        new = pa.concat_tables([kept.cast(new.schema), new])
    return _mark_duplicates(_ordered(new).combine_chunks())


def _ordered(table: pa.Table) -> pa.Table:
    """Order by `path_key`; a table that is in order is returned as it is."""
    keys = table["path_key"]
    if len(keys) < 2 or pc.all(pc.less(keys[:-1], keys[1:])).as_py():
        return table
    return table.take(pc.sort_indices(table, sort_keys=[("path_key", "ascending")]))


def _mark_duplicates(table: pa.Table) -> pa.Table:
    """Give all but the first of the instances with the same identity `duplicate_instance`.

    Files that differ in InstanceNumber or position are different slices even where some software
    has given them all one SOPInstanceUID.

    First is by path key: arbitrary, but the same every night. A truncated copy keeps its own
    reason; whoever counts a series passes over it where a whole copy is there.
    """
    duplicate = FileReason.DUPLICATE_INSTANCE.value
    names = ("reason", "study_key", *_IDENTITY)
    seen: set[tuple[object, ...]] = set()
    reasons: list[str | None] = []
    for reason, *identity in zip(*(table[name].to_pylist() for name in names), strict=True):
        if reason is None or reason == duplicate:
            reason = duplicate if tuple(identity) in seen else None
            seen.add(tuple(identity))
        reasons.append(reason)
    field = table.schema.field(_REASON)
    return table.set_column(_REASON, field, pa.array(reasons, pa.string()))
