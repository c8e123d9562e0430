"""Canaries: scored studies whose scores are made again each night and compared bit for bit."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.warehouse import Warehouse
from cac_core.dicom.pixel_digest import comparable
from schemas.canary import CANARIES
from schemas.codes import Status
from schemas.score import SCORES

Row = dict[str, Any]
#: The reference of a study holds for the same files, model, protocol and version of the core.
IDENTITY = ("study_key", "instances_digest", "model_digest", "protocol_digest", "core_version")
#: Columns of `scores` that are not a result.
_NO_RESULT = frozenset((*IDENTITY, "patient_key", "run_id", "scored_at"))
_PIXELS = "pixel_digest"
_COMPARED = tuple(
    column.name
    for column in SCORES.columns
    if column.name not in _NO_RESULT and not column.name.startswith("seconds_")
)


def choose_canaries(
    store: Warehouse, wanted: pa.Table, model: str, studies: int, keys: Sequence[str]
) -> pa.Table:
    """Rows of `wanted` whose current score is to be checked again.

    Parameters
    ----------
    wanted : as `cac_core.cohort.worklist.wanted_studies` returns it.
    studies : number of studies; those that have a reference first, then by key.
    keys : study keys to check instead; those without a current score are left out.

    Raises
    ------
    CacError
        If a table cannot be read.
    """
    if not (studies or keys):
        return wanted.slice(0, 0)
    columns = store.columns(SCORES, (*IDENTITY, "status"), model).to_pylist()
    scored = {_identity(row) for row in columns if row["status"] == Status.SCORED.value}
    known = {_identity(row) for row in store.columns(CANARIES, IDENTITY).to_pylist()}
    candidates = [row for row in map(_identity, wanted.to_pylist()) if row in scored]
    candidates.sort(key=lambda row: (row not in known, row))
    chosen = [row[0] for row in candidates if not keys or row[0] in keys]
    most = len(chosen) if keys else studies
    return wanted.filter(pc.is_in(wanted["study_key"], pa.array(chosen[:most], pa.string())))


def compare_canaries(
    store: Warehouse, model: str, run_id: str, results: Sequence[Mapping[str, object]]
) -> list[Row]:
    """Compare new score rows of canaries with their references, and add both to `canaries`.

    A study without a reference gets its row in `scores` as one. A study that failed this time is
    not compared: its row has the reason.

    Parameters
    ----------
    results : complete rows of `scores`; the table itself is not changed.

    Returns
    -------
    The new rows that are not references.

    Raises
    ------
    CacError
        If a table cannot be read or written.
    """
    table = store.read(CANARIES)
    references = {_identity(row): row for row in table.to_pylist() if row["is_reference"]}
    new: list[Row] = []
    checked: list[Row] = []
    studies = [str(row["study_key"]) for row in results]
    first = {_identity(row): row for row in store.read(SCORES, model, studies).to_pylist()}
    for row in SCORES.from_rows(results).to_pylist():
        identity = _identity(row)
        reference = references.get(identity)
        if reference is None:
            reference = _row(first[identity], model, str(first[identity]["run_id"]))
            new.append(reference | {"is_reference": True})
        now = _row(row, model, run_id)
        differs = [] if row["status"] == Status.FAILED.value else _differing(reference, now)
        now |= {"drifted": bool(differs), "differs": ";".join(differs) or None}
        checked.append(now)
    store.replace(CANARIES, pa.concat_tables([table, CANARIES.from_rows([*new, *checked])]))
    return checked


def without_old_nights(table: pa.Table, nights: int) -> pa.Table:
    """The table `canaries` with the references and the newest nights."""
    begun: dict[str, dt.datetime] = {}
    for row in table.filter(pc.invert(table["is_reference"])).to_pylist():
        begun[row["run_id"]] = max(row["checked_at"], begun.get(row["run_id"], row["checked_at"]))
    kept = sorted(begun, key=lambda run: begun[run])[-nights:]
    newest = pc.is_in(table["run_id"], pa.array(kept, pa.string()))
    return table.filter(pc.or_(table["is_reference"], newest))


def _row(score: Row, model: str, run_id: str) -> Row:
    """The row of `canaries` for a score row."""
    result = {name: score[name] for name in _COMPARED}
    return {name: score[name] for name in (*IDENTITY, "status", "reason", "agatston")} | {
        "run_id": run_id,
        "checked_at": dt.datetime.now(dt.UTC),
        "model_id": model,
        "is_reference": False,
        # Python writes the shortest decimal of a float, which gives the same bits back.
        "result": json.dumps(result, sort_keys=True, default=str),
        "drifted": False,
        "differs": None,
    }


def _differing(reference: Row, now: Row) -> list[str]:
    """Compared columns whose values are not the same; a column of one version only is left out.

    So are digests of the pixels by different functions, which cannot be compared.
    """
    first, second = json.loads(reference["result"]), json.loads(now["result"])
    shared = first.keys() & second.keys()
    if not comparable(str(first.get(_PIXELS)), str(second.get(_PIXELS))):
        shared -= {_PIXELS}
    return sorted(name for name in shared if repr(first[name]) != repr(second[name]))


def _identity(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in IDENTITY)
