"""Patients who were withdrawn: the list that keeps their files and records out of the tables.

The list holds keyed hashes of keys, so that it shows whether a given key is withdrawn and cannot be
joined with any other table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.warehouse import Warehouse
from cac_core.keys import Keyring
from schemas.forgotten import FORGOTTEN

#: Columns of any table whose values tell whose a row is.
KEY_COLUMNS = ("patient_key", "study_key")
#: Columns with an identifier of the registry, whose key tells whose a row is.
IDENTIFIER_COLUMN = "patient_id"


@dataclass(frozen=True)
class Forgotten:
    """The list of withdrawn patients of a warehouse, and the secret to look a key up.

    Without a secret, nothing can be looked up, and nothing is withdrawn.
    """

    suppressed: frozenset[str]
    keyring: Keyring | None
    _answers: dict[str, bool] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, store: Warehouse, keyring: Keyring | None) -> Forgotten:
        """The list of a warehouse; empty if nobody was withdrawn.

        Raises
        ------
        CacError
            If the table cannot be read.
        """
        rows = store.columns(FORGOTTEN, ["suppression_key"])
        return cls(frozenset(rows["suppression_key"].to_pylist()), keyring)

    def __bool__(self) -> bool:
        return bool(self.suppressed) and self.keyring is not None

    def holds(self, key: str) -> bool:
        """Whether a patient_key or study_key is withdrawn."""
        if not self:
            return False
        known = self._answers.get(key)
        if known is None:
            assert self.keyring is not None
            known = self.keyring.suppression_key(key) in self.suppressed
            self._answers[key] = known
        return known

    def holds_patient(self, patient_id: str) -> bool:
        """Whether the patient of an identifier is withdrawn."""
        return (
            bool(self)
            and self.keyring is not None
            and self.holds(self.keyring.patient_key(patient_id))
        )

    def mask(self, table: pa.Table) -> pa.Array:
        """Rows of a table that belong to a withdrawn patient or a study of one.

        Returns
        -------
        Booleans, one per row.
        """
        mask = pa.repeat(pa.scalar(False), table.num_rows)
        if not self:
            return mask
        for name in (*KEY_COLUMNS, IDENTIFIER_COLUMN):
            if name in table.column_names:
                test = self.holds_patient if name == IDENTIFIER_COLUMN else self.holds
                mask = pc.or_(mask, _is_any(table[name], test))
        if "study_key" in table.column_names:
            # Files of a new study that lack PatientID are those of its other files.
            studies = table["study_key"].filter(mask).drop_null().unique()
            mask = pc.or_(mask, pc.is_in(table["study_key"], studies))
        return mask

    def without(self, table: pa.Table) -> pa.Table:
        """The table without the rows of withdrawn patients; the same object if it has none."""
        mask = self.mask(table)
        return table.filter(pc.invert(mask)) if pc.any(mask).as_py() else table


def add_forgotten(
    store: Warehouse, keyring: Keyring, keys: Iterable[str], run_id: str
) -> Forgotten:
    """Add patient and study keys to the list of a warehouse, and return the list.

    Raises
    ------
    CacError
        If the table cannot be read or written.
    """
    listed = store.read(FORGOTTEN)
    known = set(listed["suppression_key"].to_pylist())
    new = {keyring.suppression_key(key) for key in keys} - known
    if new:
        rows = FORGOTTEN.from_rows({"suppression_key": key, "run_id": run_id} for key in new)
        store.replace(FORGOTTEN, pa.concat_tables([listed, rows]).sort_by("suppression_key"))
    return Forgotten(frozenset(known | new), keyring)


def _is_any(column: pa.ChunkedArray, test: object) -> pa.ChunkedArray:
    values = column.unique().drop_null().to_pylist()
    found = [value for value in values if test(value)]  # type: ignore[operator]
    return pc.is_in(column, pa.array(found, column.type))
