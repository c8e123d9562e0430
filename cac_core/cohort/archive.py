"""The state of a scored archive over time: nights, reasons, drift, scanners, queue, speed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cac_core.cohort.store import Warehouse, run_sql
from schemas.codes import CAC_CATEGORIES
from schemas.run import RUNS
from schemas.score import SCORES

#: As many runs and months as a picture can show.
LAST_RUNS, LAST_MONTHS = 60, 24
#: Scanners with fewer scored studies, or with fewer on all others, are not compared.
MIN_COMPARED = 20
#: How far a share must be off: in standard errors, and in itself, for with many studies the first
#: is soon reached. Noise: in standard deviations.
MAX_SHARE_Z, MAX_SHARE, MAX_NOISE_Z = 3.0, 0.1, 2.0

_COLUMNS = (
    "study_key",
    "study_date",
    "status",
    "reason",
    "agatston",
    "cac_category",
    "noise_hu",
    "Manufacturer",
    "ManufacturerModelName",
    "protocol_digest",
    "run_id",
    "scored_at",
    "seconds_read",
    "seconds_heart",
    "seconds_calcium",
    "seconds_score",
    "seconds_preview",
)

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """What the page of the archive shows; rows as the SQL files of the same names give them.

    Parameters
    ----------
    model : model of the newest run; reasons, months and scanners are those of its scores.
    runs : oldest first.
    file_reasons : files without use in the newest run, by reason, most first.
    scanners : with `stands_out`, what differs from the other scanners, empty where nothing does.
    speed : median seconds by run, in the order of `runs`; only runs that still have scores.
    """

    model: str
    runs: Rows
    reasons: Rows
    file_reasons: list[tuple[str, int]]
    months: Rows
    models: Rows
    scanners: Rows
    speed: Rows

    @property
    def queued(self) -> int:
        """Studies that the newest run left to do."""
        return int(self.runs[-1]["queued"]) if self.runs else 0

    @property
    def failed(self) -> int:
        """Studies that wait for a retry."""
        return sum(row["studies"] for row in self.reasons if row["status"] == "failed")


def archive_state(store: Warehouse) -> ArchiveState:
    """Read runs and scores of a warehouse and count; no pixel and no file of the archive is read.

    Raises
    ------
    CacError
        If a table cannot be read.
    """
    runs = run_sql("archive_runs", {"last": LAST_RUNS}, runs=store.read(RUNS)).to_pylist()
    newest = runs[-1] if runs else {"model_id": "", "run_id": "", "file_reasons": "{}"}
    model = str(newest["model_id"])
    latest = run_sql("archive_latest", scores=_scores(store))
    speed = run_sql("archive_speed", {"runs": [run["run_id"] for run in runs]}, latest=latest)
    by_run = {row["run_id"]: row for row in speed.to_pylist()}
    categories = {"model": model, "categories": list(CAC_CATEGORIES)}
    files = json.loads(newest["file_reasons"])
    return ArchiveState(
        model=model,
        runs=runs,
        reasons=_rows("archive_reasons", latest, model=model, run_id=newest["run_id"]),
        file_reasons=sorted(files.items(), key=lambda item: (-item[1], item[0])),
        months=_rows("archive_months", latest, model=model, months=LAST_MONTHS),
        models=_rows("archive_models", latest, **categories),
        scanners=[
            row | {"stands_out": _stands_out(row)}
            for row in _rows("archive_scanners", latest, model=model)
        ],
        speed=[by_run[run["run_id"]] for run in runs if run["run_id"] in by_run],
    )


def _scores(store: Warehouse) -> pa.Table:
    """The columns that count, of all models, with the model's name."""
    types = pa.schema([SCORES.arrow_schema.field(name) for name in _COLUMNS])
    tables = [types.append(pa.field("model", pa.string())).empty_table()]
    for model in store.models():
        rows = store.columns(SCORES, _COLUMNS, model)
        tables.append(rows.append_column("model", pa.repeat(pa.scalar(model), rows.num_rows)))
    return pa.concat_tables(tables)


def _rows(name: str, latest: pa.Table, **parameters: Any) -> Rows:
    rows: Rows = run_sql(name, parameters, latest=latest).to_pylist()
    return rows


def _stands_out(row: dict[str, Any]) -> tuple[str, ...]:
    """What sets a scanner apart from all others, in words."""
    if min(row["n"], row["rest_n"] or 0) < MIN_COMPARED:
        return ()
    found = []
    for name, count, rest in (
        ("scores of zero", "zero", "rest_zero"),
        ("scores above 400", "high", "rest_high"),
    ):
        z = row[f"{count}_z"]
        difference = row[f"n_{count}"] / row["n"] - row[rest] / row["rest_n"]
        if z is not None and abs(z) > MAX_SHARE_Z and abs(difference) > MAX_SHARE:
            found.append(f"{'more' if z > 0 else 'fewer'} {name}")
    if row["noise_z"] is not None and abs(row["noise_z"]) > MAX_NOISE_Z:
        found.append(f"{'more' if row['noise_z'] > 0 else 'less'} noise")
    return tuple(found)
