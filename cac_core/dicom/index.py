"""The archive index: finds files, opens new and changed ones only, returns `instances`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.dicom.descriptions import TextPolicy
from cac_core.dicom.duplicates import file_digest, mark_duplicates
from cac_core.dicom.files import ScannedFile, scan_archive
from cac_core.dicom.header import HEADER_COLUMNS, HeaderRow
from cac_core.dicom.header_pool import read_headers
from cac_core.dicom.limits import HeaderLimits
from cac_core.dicom.selection_rules import load_rules, text_policy
from cac_core.keys import Keyring
from cac_core.storage import ArchiveFile, RemoteFile, archive_file, is_url, place_of
from schemas.codes import FileReason
from schemas.instance import INSTANCES
from schemas.table import InvalidTableError

#: Reasons that may disappear although size and modification time stay the same.
_TRANSIENT = frozenset((FileReason.NO_PERMISSION.value, FileReason.VANISHED.value))


#: Time limit for files of a store, whose requests are repeated before they fail.
_REMOTE_SECONDS = 120.0


class ArchivePaths(Mapping[str, ArchiveFile]):
    """Paths by `path_key`, in memory only: tables hold keys, no paths."""

    def __init__(self, paths: dict[str, str]) -> None:
        self._paths = paths

    def __getitem__(self, path_key: str) -> ArchiveFile:
        return archive_file(self._paths[path_key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} files)"


@dataclass(frozen=True)
class ArchiveIndex:
    """Content of an archive.

    Parameters
    ----------
    instances : table `instances` (`schemas.instance`), ordered by `path_key`.
    paths : path of each `path_key`.
    n_files : files found.
    n_opened : files opened; the others are unchanged since the previous index.
    reasons : number of unusable files by reason.
    seconds : time of the indexing.
    roots : folders and files that were indexed, resolved.
    """

    instances: pa.Table
    paths: Mapping[str, ArchiveFile]
    n_files: int
    n_opened: int
    reasons: dict[str, int]
    seconds: float
    roots: tuple[Path, ...] = ()


def index_archive(
    roots: Sequence[Path | str],
    keyring: Keyring,
    *,
    previous: pa.Table | None = None,
    workers: int = 2,
    limits: HeaderLimits = HeaderLimits(),  # noqa: B008 - frozen
    texts: TextPolicy | None = None,
    progress: Callable[[int, int], None] | None = None,
    scan: Callable[[Sequence[Path | str]], list[ScannedFile]] = scan_archive,
) -> ArchiveIndex:
    """Index every file below `roots`; an unreadable file becomes a row with its reason.

    Parameters
    ----------
    roots : folders or files of the archive, in any layout.
    keyring : derives the keys; after a change of the secret every file is opened again.
    previous : `instances` of the previous index; files with the same path, size and modification
        time are not opened again, removed files are dropped.
    workers : number of reader processes.
    limits : limits on the cost of one header.
    texts : which words of descriptions are kept; by default allowed terms and the words that the
        shipped selection rules need. After a change every file is opened again.
    progress : called with the number of headers read and the total.
    scan : lists the files below `roots`.

    Raises
    ------
    UsageError
        If a root does not exist or cannot be read.
    CacError
        If the reader processes cannot be started.
    """
    start = perf_counter()
    texts = texts or text_policy(load_rules())
    files = scan(roots)
    keys = keyring.path_keys([item.path for item in files])
    by_key = dict(zip(keys, files, strict=True))
    known = _unchanged(previous, by_key, texts.digest)
    new = [key for key in by_key if key not in known]
    to_open = [key for key in new if by_key[key].reason is None]
    to_read = [_to_read(by_key[key]) for key in to_open]
    if any(is_url(str(root)) for root in roots):
        limits = replace(limits, seconds=max(limits.seconds, _REMOTE_SECONDS))
    rows = read_headers(
        to_read, keyring, workers=workers, limits=limits, texts=texts, progress=progress
    )
    headers = dict(zip(to_open, rows, strict=True))
    paths = ArchivePaths({key: item.path for key, item in by_key.items()})
    if not new and previous is not None and previous.num_rows == len(known):
        table = _ordered(previous.cast(INSTANCES.arrow_schema))
    else:
        table = _merge(previous, known, _new_rows(new, by_key, headers, texts.digest), paths)
    seconds = perf_counter() - start
    resolved = tuple(Path(os.path.realpath(root)) for root in roots)
    return ArchiveIndex(table, paths, len(files), len(to_open), _reasons(table), seconds, resolved)


def _to_read(item: ScannedFile) -> str | RemoteFile:
    return RemoteFile(item.path, item.size_bytes) if is_url(item.path) else item.path


def joined(
    index: ArchiveIndex, rows: pa.Table, places: Mapping[str, str], n_read: int
) -> ArchiveIndex:
    """The index with rows of a PACS, of studies that it does not hold already.

    Parameters
    ----------
    rows : rows of `instances` that are no files.
    places : place of each of them by its path key.
    n_read : how many of them were asked for in this run.
    """
    here = index.instances["study_key"].unique()
    rows = rows.filter(pc.invert(pc.is_in(rows["study_key"], here.drop_null())))
    table = _ordered(pa.concat_tables([index.instances, rows]).combine_chunks())
    held = {key: place_of(path) for key, path in index.paths.items()}
    kept = {key: places[key] for key in rows["path_key"].to_pylist() if key in places}
    return replace(
        index,
        instances=table,
        paths=ArchivePaths(held | kept),
        n_files=index.n_files + rows.num_rows,
        n_opened=index.n_opened + n_read,
        reasons=_reasons(table),
    )


def withheld(index: ArchiveIndex, is_withheld: Callable[[pa.Table], pa.Array]) -> ArchiveIndex:
    """The index with the files of withdrawn patients reduced to their reason `forgotten`.

    They keep what tells whether the file has changed, so that it is not opened each night.

    Parameters
    ----------
    is_withheld : tells by `study_key` and `patient_key` which rows of `instances` are theirs.
    """
    mask = is_withheld(index.instances)
    if not pc.any(mask).as_py():
        return index
    columns = ["path_key", "size_bytes", "mtime_ns", "text_policy"]
    bare = INSTANCES.completed(index.instances.filter(mask).select([*columns]))
    reason = pa.repeat(pa.scalar(FileReason.FORGOTTEN.value), bare.num_rows)
    bare = bare.set_column(bare.column_names.index("reason"), "reason", reason)
    kept = index.instances.filter(pc.invert(mask))
    table = _ordered(pa.concat_tables([kept, INSTANCES.validate(bare)]).combine_chunks())
    return replace(index, instances=table, reasons=_reasons(table))


def _reasons(instances: pa.Table) -> dict[str, int]:
    """Number of unusable files by reason."""
    values = instances["reason"].drop_null().value_counts().to_pylist()
    return dict(sorted((item["values"], item["counts"]) for item in values))


def _unchanged(
    previous: pa.Table | None, by_key: dict[str, ScannedFile], policy: str
) -> dict[str, int]:
    """Row numbers of `previous` that are still valid, by path key.

    A row reduced under another text policy is not: it may hold words that must not be kept, or lack
    words that the rules need.
    """
    if previous is None or previous.column_names != INSTANCES.arrow_schema.names:
        return {}
    columns = (
        previous[name].to_pylist() for name in ("path_key", "size_bytes", "mtime_ns", "text_policy")
    )
    reasons = previous["reason"].to_pylist()
    known: dict[str, int] = {}
    for number, (key, size, mtime, texts) in enumerate(zip(*columns, strict=True)):
        item = by_key.get(key)
        if item is None or item.size_bytes != size or item.mtime_ns != mtime or texts != policy:
            continue
        if item.reason is not None:
            if reasons[number] == item.reason.value:
                known[key] = number
        elif reasons[number] not in _TRANSIENT:
            known[key] = number
    return known


def _new_rows(
    keys: list[str], by_key: dict[str, ScannedFile], headers: dict[str, HeaderRow], policy: str
) -> pa.Table:
    """Build the checked table of new and changed files."""
    blank = (None,) * len(HEADER_COLUMNS)
    rows: list[tuple[object, ...]] = []
    for key in keys:
        item = by_key[key]
        header = headers.get(key) or (item.reason.value if item.reason else None,)
        values = (*header, *blank[len(header) :])
        rows.append((key, item.size_bytes, item.mtime_ns, *values, None, policy))
    return fitting_rows(rows)


_NAMES = ("path_key", "size_bytes", "mtime_ns", *HEADER_COLUMNS, "content_digest", "text_policy")
#: Columns that are kept of a row with invalid values elsewhere.
_KEPT = (
    *("path_key", "size_bytes", "mtime_ns", "study_key", "patient_key", "SeriesInstanceUID"),
    *("SOPInstanceUID", "Modality", "text_policy"),
)


def fitting_rows(rows: Sequence[tuple[object, ...]]) -> pa.Table:
    """Build `instances`; a row with invalid values is reduced to its valid ones, with a reason.

    Parameters
    ----------
    rows : values of `path_key`, `size_bytes`, `mtime_ns`, `HEADER_COLUMNS`, `content_digest` and
        `text_policy`.
    """
    try:
        return INSTANCES.validate(_arrow(rows))
    except (InvalidTableError, pa.ArrowException, *_UNFIT):
        return INSTANCES.validate(_arrow([_fitted(row) for row in rows]))


#: Exceptions of Arrow on a value that its column cannot hold.
_UNFIT = (OverflowError, UnicodeError, TypeError, ValueError)


def _arrow(rows: Sequence[tuple[object, ...]]) -> pa.Table:
    columns = dict(zip(_NAMES, zip(*rows, strict=True), strict=True)) if rows else {}
    schema = INSTANCES.arrow_schema
    return pa.table(
        {name: pa.array(columns.get(name, ()), schema.field(name).type) for name in schema.names}
    )


def _fitted(row: tuple[object, ...]) -> tuple[object, ...]:
    """Return the row if it is valid, else its valid values with the reason."""
    if _fits(row):
        return row
    values = dict(zip(_NAMES, row, strict=True))
    kept: dict[str, object] = {"reason": FileReason.UNREADABLE_HEADER.value, "size_bytes": 0}
    kept["mtime_ns"] = 0
    for name in _KEPT:
        trial = {"path_key": values["path_key"], **kept, name: values[name]}
        if _fits(tuple(map(trial.get, _NAMES))):
            kept = trial
    return tuple(map(kept.get, _NAMES))


def _fits(row: tuple[object, ...]) -> bool:
    try:
        INSTANCES.validate(_arrow([row]))
    except (InvalidTableError, pa.ArrowException, *_UNFIT):
        return False
    return True


def _merge(
    previous: pa.Table | None, known: dict[str, int], new: pa.Table, paths: ArchivePaths
) -> pa.Table:
    """Combine known and new rows, ordered by `path_key`, and mark duplicates again."""
    if previous is not None and known:
        kept = previous.take(pa.array(list(known.values()), pa.int64()))
        new = pa.concat_tables([kept.cast(new.schema), new])
    return mark_duplicates(
        _ordered(new).combine_chunks(), lambda path_key: file_digest(paths[path_key])
    )


def _ordered(table: pa.Table) -> pa.Table:
    """Order by `path_key`; a table in order is returned unchanged."""
    keys = table["path_key"]
    if len(keys) < 2 or pc.all(pc.less(keys[:-1], keys[1:])).as_py():
        return table
    return table.take(pc.sort_indices(table, sort_keys=[("path_key", "ascending")]))
