"""Signed readings of a warehouse: added one file each, never changed, and read by role.

Each reading is a file of its own with a random name, written aside, flushed and renamed. So it
needs no lock, several readers sign at once while a night run writes, and a killed process leaves
the whole reading or none. Its masks are written first: no row refers to masks that are missing.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from schemas.codes import ReadingKind
from schemas.reading import ASSIGNMENTS, SIGNED_READINGS

Row = dict[str, Any]
#: Folder of the masks.
MASKS = "reading_masks"


@dataclass(frozen=True, slots=True)
class StudyReadings:
    """Readings of one study, by what counts.

    Parameters
    ----------
    by_reader : the reading of each reader that counts, corrected ones in place of what they
        correct; in the order of first signing, repeats and adjudications aside.
    repeats : pairs of a reader's first reading and the repeat.
    adjudication : the newest adjudication.
    """

    by_reader: tuple[Row, ...] = ()
    repeats: tuple[tuple[Row, Row], ...] = ()
    adjudication: Row | None = None

    @property
    def final(self) -> Row | None:
        """The reading that stands for the study; None without one.

        The adjudication; else the only reading; of two readers the first if their categories
        agree, and None while they differ and wait for the third.
        """
        if self.adjudication is not None:
            return self.adjudication
        if not self.by_reader or self.differs:
            return None
        return self.by_reader[0]

    @property
    def differs(self) -> bool:
        """Whether two readers found different categories."""
        return len({row["cac_category"] for row in self.by_reader}) > 1


@dataclass(frozen=True)
class Readings:
    """All signed readings of a warehouse, by study."""

    studies: Mapping[str, StudyReadings]
    rows: Sequence[Row] = field(repr=False)

    def of(self, study_key: str) -> StudyReadings:
        """Readings of a study; an empty object without any."""
        return self.studies.get(study_key, _NONE)

    def final(self) -> dict[str, Row]:
        """The reading that stands for each study that has one."""
        found = ((key, one.final) for key, one in self.studies.items())
        return {key: row for key, row in found if row is not None}


_NONE = StudyReadings()


def read_readings(store: Warehouse) -> Readings:
    """The signed readings of a warehouse.

    Raises
    ------
    CacError
        If a file cannot be read or breaks the schema.
    """
    return grouped(store.read(SIGNED_READINGS).to_pylist())


def grouped(rows: Iterable[Row]) -> Readings:
    """Rows of `signed_readings` by study and role."""
    ordered = sorted(rows, key=lambda row: (row["signed_at"], row["reading_id"]))
    by_study: dict[str, list[Row]] = {}
    for row in ordered:
        by_study.setdefault(row["study_key"], []).append(row)
    return Readings({key: _roles(mine) for key, mine in by_study.items()}, ordered)


def _roles(rows: Sequence[Row]) -> StudyReadings:
    first: dict[str, Row] = {}
    current: dict[str, Row] = {}
    repeats: list[tuple[Row, Row]] = []
    adjudication: Row | None = None
    for row in rows:
        reader, kind = row["reader"], row["kind"]
        if kind == ReadingKind.ADJUDICATION:
            adjudication = row
        elif kind == ReadingKind.REPEAT and reader in first:
            repeats.append((first[reader], row))
        elif kind == ReadingKind.CORRECTION and adjudication is not None:
            if adjudication["reading_id"] == row["amends"]:
                adjudication = row
            else:
                current[reader] = row
        else:
            first.setdefault(reader, row)
            current[reader] = row
    return StudyReadings(tuple(current.values()), tuple(repeats), adjudication)


def new_id() -> str:
    """A random id of a reading or assignment, 32 hexadecimal digits."""
    return uuid.uuid4().hex


def masks_path(study_key: str, reading_id: str) -> str:
    """Path of the masks of a reading, below the folder of the warehouse."""
    return f"{MASKS}/{study_key}/{reading_id}.dcm"


def sign(store: Warehouse, row: Mapping[str, object], masks: bytes) -> None:
    """Add a signed reading: its masks, then its row; both are on disk when this returns.

    Parameters
    ----------
    row : a row of `signed_readings` without `masks_digest`.
    masks : DICOM SEG.

    Raises
    ------
    CacError
        If it cannot be written; then there is no reading.
    InvalidTableError
        If the row breaks its schema; then nothing is written.
    """
    whole = {**row, "masks_digest": hashlib.sha256(masks).hexdigest()}
    table = SIGNED_READINGS.from_rows([whole])
    path = store.files.root / masks_path(str(row["study_key"]), str(row["reading_id"]))
    store.files.write(path, lambda stream: stream.write(masks))
    store.files.add_table(SIGNED_READINGS, str(row["reading_id"]), table)


def assign(store: Warehouse, rows: Sequence[Mapping[str, object]]) -> None:
    """Add assignments of studies to readers.

    Raises
    ------
    CacError
        If they cannot be written.
    InvalidTableError
        If a row breaks the schema.
    """
    if rows:
        store.files.add_table(ASSIGNMENTS, new_id(), ASSIGNMENTS.from_rows(rows))


def read_masks(store: Warehouse, row: Row) -> bytes:
    """The file of the masks of a reading.

    Raises
    ------
    CacError
        If it is missing, unreadable, or not what was signed.
    """
    path = store.files.root / masks_path(row["study_key"], row["reading_id"])
    data = store.files.read_bytes(path)
    if data is None or hashlib.sha256(data).hexdigest() != row["masks_digest"]:
        what = "are missing" if data is None else "are not those that were signed"
        raise CacError(
            f"The masks of the reading {row['reading_id']} {what}.",
            f"Restore {MASKS} in the warehouse from a backup.",
        )
    return data


class ReadingLog:
    """The readings of a warehouse as they grow, also by other processes.

    Parameters
    ----------
    store : the warehouse.
    """

    def __init__(self, store: Warehouse) -> None:
        self._store = store
        self._names: set[str] = set()
        self._rows: dict[str, Row] = {}
        self.readings = grouped([])
        self.refresh()

    def refresh(self) -> bool:
        """Read what was signed since; whether there was anything.

        Raises
        ------
        CacError
            If a file cannot be read or breaks the schema.
        """
        files = self._store.files
        folder = files.root / SIGNED_READINGS.name
        new = [
            name
            for name in files.names(folder)
            if name.endswith(".parquet") and name not in self._names
        ]
        if not new:
            return False
        # Checked together: to check a table costs a tenth of a second, whatever its length.
        found = self._store.read(SIGNED_READINGS, paths=[folder / name for name in new])
        self._rows |= {row["reading_id"]: row for row in found.to_pylist()}
        self._names.update(new)
        self.readings = grouped(self._rows.values())
        return True

    def row(self, reading_id: str) -> Row | None:
        """A reading by its id; None if there is none."""
        return self._rows.get(reading_id)
