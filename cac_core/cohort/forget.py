"""Removes withdrawn patients from every table of a warehouse.

A row belongs to a patient by its `patient_key`, `study_key` or `patient_id`; which keys are
withdrawn is asked of the list (`cac_core.cohort.forgotten`), which is written first. So a removal
that was interrupted is completed by running it again: it needs nothing that is removed already.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.forgotten import IDENTIFIER_COLUMN, KEY_COLUMNS, Forgotten
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.warehouse_files import STAGING
from schemas.forgotten import FORGOTTEN
from schemas.linkage import EVENTS, FLOW, MATCHES, QUARANTINE
from schemas.linked import LINKED
from schemas.results import DISCREPANCIES, ESTIMATES

#: Tables whose rows show that a patient is in the cohort.
_COHORT = (LINKED.name, EVENTS.name, FLOW.name, DISCREPANCIES.name)
#: Tables of numbers over the cohort: removed as a whole, and made again by the next run.
_DERIVED = (MATCHES, ESTIMATES)
#: Columns with other pseudonyms and digests of a patient's files.
_PSEUDONYMS = (
    *("path_key", "accession_key", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"),
    *("instances_digest", "pixel_digest", "content_digest", "layout_digest"),
)
_IDENTIFIERS = (IDENTIFIER_COLUMN, "accession_number")
_LINE = ("source_file", "source_line")


@dataclass
class PatientRows:
    """Rows of withdrawn patients in a warehouse.

    Parameters
    ----------
    rows : number by table.
    files : Parquet files that hold any.
    pseudonyms, identifiers : values that occur in these rows and in no other row of their file.
    lines : file and line of extracts that rows of the registry tables come from.
    """

    rows: Counter[str] = field(default_factory=Counter)
    files: list[PurePosixPath] = field(default_factory=list)
    pseudonyms: set[str] = field(default_factory=set)
    identifiers: set[str] = field(default_factory=set)
    lines: set[tuple[str, int]] = field(default_factory=set)

    @property
    def in_cohort(self) -> bool:
        """Whether any of the patients is in the linked cohort."""
        return any(self.rows[name] for name in _COHORT)


def studies_of(store: Warehouse, forgotten: Forgotten) -> set[str]:
    """Study keys of withdrawn patients, in any table or staged part.

    A study whose files name several patients counts as that of each.
    """
    found: set[str] = set()
    for path in table_paths(store):
        keys = store.files.read_table(path, list(KEY_COLUMNS))
        if set(KEY_COLUMNS) <= set(keys.column_names):
            mine = keys.filter(forgotten.mask(keys.select(["patient_key"])))
            found.update(mine["study_key"].drop_null().to_pylist())
    return found


def find_rows(store: Warehouse, forgotten: Forgotten) -> PatientRows:
    """Find the rows of withdrawn patients; writes nothing.

    Raises
    ------
    CacError
        If a file cannot be read.
    """
    found = PatientRows()
    for path in table_paths(store):
        keys = store.files.read_table(path, [*KEY_COLUMNS, IDENTIFIER_COLUMN, *_LINE])
        mask = forgotten.mask(keys)
        if not pc.any(mask).as_py():
            continue
        name = table_name(store, path)
        found.rows[name] += pc.sum(mask).as_py()
        found.files.append(path)
        if set(_LINE) <= set(keys.column_names):
            lines = keys.filter(mask).select(list(_LINE)).to_pylist()
            found.lines.update((row["source_file"], row["source_line"]) for row in lines)
        _collect(found, store.files.read_table(path, [*_PSEUDONYMS, *_IDENTIFIERS]), mask)
    return found


def remove_rows(store: Warehouse, forgotten: Forgotten, found: PatientRows) -> Counter[str]:
    """Remove the rows that `find_rows` found, and return their number by table.

    Numbers over the cohort go first, and registry tables last: they tell which rows of quarantine
    are the patient's.

    Raises
    ------
    CacError
        If a file cannot be read or written.
    """
    removed: Counter[str] = Counter()
    if found.in_cohort:
        for spec in _DERIVED:
            for path in store.files.table_files(spec):
                removed[spec.name] += store.files.read_table(path, []).num_rows
                store.files.remove(path)
    for path in _quarantine_paths(store):
        removed[QUARANTINE.name] += _without_lines(store, path, found.lines)
    registry_last = sorted(found.files, key=lambda path: "registry" in path.parts)
    for path in registry_last:
        table = store.files.read_table(path)
        kept = forgotten.without(table)
        removed[table_name(store, path)] += table.num_rows - kept.num_rows
        if kept.num_rows or not _is_staged(store, path):
            store.files.write_table(path, kept)
        else:
            store.files.remove(path)
    return +removed


def table_paths(store: Warehouse) -> list[PurePosixPath]:
    """Every Parquet file of a warehouse but the list of withdrawn patients."""
    own = store.files.root / FORGOTTEN.name
    return [
        path
        for path in store.files.all_files()
        if path.suffix == ".parquet" and own not in path.parents
    ]


def table_name(store: Warehouse, path: PurePosixPath) -> str:
    """Name of the table that a file belongs to."""
    parts = path.relative_to(store.files.root).parts
    if parts[0] == STAGING:
        return "staging"
    return parts[1] if parts[0] == "registry" and len(parts) > 2 else parts[0]


def _is_staged(store: Warehouse, path: PurePosixPath) -> bool:
    return path.relative_to(store.files.root).parts[0] == STAGING


def _quarantine_paths(store: Warehouse) -> list[PurePosixPath]:
    return [path for path in table_paths(store) if QUARANTINE.name in path.parts]


def _without_lines(store: Warehouse, path: PurePosixPath, lines: set[tuple[str, int]]) -> int:
    """Remove the rows of these lines from a file of quarantine; their number."""
    keys = store.files.read_table(path, list(_LINE)).to_pylist()
    keep = [(row["source_file"], row["source_line"]) not in lines for row in keys]
    if all(keep):
        return 0
    store.files.write_table(path, store.files.read_table(path).filter(pa.array(keep, pa.bool_())))
    return keep.count(False)


def _collect(found: PatientRows, table: pa.Table, mask: pa.Array) -> None:
    """Add the values of the patients' rows that no other row of the file has."""
    mine, others = table.filter(mask), table.filter(pc.invert(mask))
    for name in table.column_names:
        values = mine[name].drop_null().unique()
        shared = pc.is_in(values, others[name].combine_chunks())
        into = found.identifiers if name in _IDENTIFIERS else found.pseudonyms
        into.update(values.filter(pc.invert(shared)).to_pylist())
