"""State of a scored archive over time: runs, reasons, drift, scanners, queue, speed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import sqrt
from typing import Any

import pyarrow as pa

from cac_core.cohort.archive_rows import (
    ModelRow,
    MonthRow,
    ReasonRow,
    ReviewRow,
    RunRow,
    ScannerRow,
    SpeedRow,
)
from cac_core.cohort.database import run_sql
from cac_core.cohort.warehouse import Warehouse
from schemas.codes import CAC_CATEGORIES
from schemas.run import RUNS
from schemas.score import SCORES

#: Largest numbers of runs and months in a figure.
LAST_RUNS, LAST_MONTHS = 60, 24
#: Smallest number of scored studies on both sides of a comparison.
MIN_COMPARED = 20
#: Number of earlier months that the newest month is compared with.
MONTHS_BEFORE = 12
#: Limits of a notable difference: of a share in standard errors and, since many studies make those
#: small, in absolute terms; of noise in units of the others' spread (interquartile range / 1.349).
MAX_SHARE_Z, MAX_SHARE, MAX_NOISE_Z = 3.0, 0.1, 2.0

_COLUMNS = (
    "study_key",
    "study_date",
    "status",
    "reason",
    "agatston",
    "cac_category",
    "needs_review",
    "review_reasons",
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


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """Contents of the archive page; rows as in the SQL files of the same names.

    Parameters
    ----------
    model : model of the newest run; reasons, months and scanners refer to its scores.
    runs : oldest first.
    reviews : scores that need review, in all (reason null) and by reason, most first.
    file_reasons : unusable files of the newest run by reason, most first.
    months : oldest first; the last is compared with the twelve before it.
    scanners : each with `zero_z` and `high_z`, its distance from all others in standard errors of
        the shares of scores of zero and above 400, and with `stands_out`.
    speed : median seconds by run, in the order of `runs`; only runs that still have scores.
    """

    model: str
    runs: list[RunRow]
    reasons: list[ReasonRow]
    reviews: list[ReviewRow]
    file_reasons: list[tuple[str, int]]
    months: list[MonthRow]
    models: list[ModelRow]
    scanners: list[ScannerRow]
    speed: list[SpeedRow]

    @property
    def queued(self) -> int:
        """Number of studies that the newest run left."""
        return int(self.runs[-1]["queued"]) if self.runs else 0

    @property
    def failed(self) -> int:
        """Number of studies to be retried."""
        return sum(row["studies"] for row in self.reasons if row["status"] == "failed")


def archive_state(store: Warehouse) -> ArchiveState:
    """Summarise the runs and scores of a warehouse, without reading the archive itself.

    Raises
    ------
    CacError
        If a table cannot be read.
    """
    runs: list[RunRow] = run_sql(
        "archive_runs", {"last": LAST_RUNS}, runs=store.read(RUNS)
    ).to_pylist()
    newest = runs[-1] if runs else {"model_id": "", "run_id": "", "file_reasons": "{}"}
    model = str(newest["model_id"])
    latest = run_sql("archive_latest", scores=_scores(store))
    speed = run_sql("archive_speed", {"runs": [run["run_id"] for run in runs]}, latest=latest)
    by_run = {row["run_id"]: row for row in speed.to_pylist()}
    categories = {"model": model, "categories": list(CAC_CATEGORIES)}
    files = json.loads(str(newest["file_reasons"]))
    return ArchiveState(
        model=model,
        runs=runs,
        reasons=_rows("archive_reasons", latest, model=model, run_id=newest["run_id"]),
        reviews=_rows("archive_reviews", latest, model=model, run_id=newest["run_id"]),
        file_reasons=sorted(files.items(), key=lambda item: (-item[1], item[0])),
        months=_compared_months(_rows("archive_months", latest, model=model, months=LAST_MONTHS)),
        models=_rows("archive_models", latest, **categories),
        scanners=[_compared(row) for row in _rows("archive_scanners", latest, model=model)],
        speed=[by_run[run["run_id"]] for run in runs if run["run_id"] in by_run],
    )


def _scores(store: Warehouse) -> pa.Table:
    """The needed columns of the scores of all models, with the model id."""
    types = pa.schema([SCORES.arrow_schema.field(name) for name in _COLUMNS])
    tables = [types.append(pa.field("model", pa.string())).empty_table()]
    for model in store.models():
        rows = store.columns(SCORES, _COLUMNS, model)
        tables.append(rows.append_column("model", pa.repeat(pa.scalar(model), rows.num_rows)))
    return pa.concat_tables(tables)


def _rows(name: str, latest: pa.Table, **parameters: Any) -> list[Any]:
    rows: list[Any] = run_sql(name, parameters, latest=latest).to_pylist()
    return rows


def share_z(part: int, whole: int, other_part: int, other_whole: int) -> float | None:
    """Difference of two shares in standard errors (pooled two-proportion z).

    Positive if the first is larger; None if it is not defined.
    """
    if not whole or not other_whole:
        return None
    pooled = (part + other_part) / (whole + other_whole)
    error = sqrt(pooled * (1 - pooled) * (1 / whole + 1 / other_whole))
    return (part / whole - other_part / other_whole) / error if error else None


def _compared(row: dict[str, Any]) -> Any:
    """A row with the distance of its shares from the others', and what stands out in words.

    It has `n`, `n_zero`, `n_high`, the counts of the others (`rest_n`, `rest_zero`, `rest_high`),
    and possibly `noise_z`.
    """
    enough = min(row["n"], row["rest_n"] or 0) >= MIN_COMPARED
    found = {}
    words = []
    for name, what in (("zero", "scores of zero"), ("high", "scores above 400")):
        own, others = row[f"n_{name}"], row[f"rest_{name}"]
        z = share_z(own, row["n"], others, row["rest_n"])
        found[f"{name}_z"] = z
        if enough and z is not None and abs(z) > MAX_SHARE_Z:
            difference = own / row["n"] - others / row["rest_n"]
            if abs(difference) > MAX_SHARE:
                words.append(f"{'more' if z > 0 else 'fewer'} {what}")
    noise_z = row.get("noise_z")
    if enough and noise_z is not None and abs(noise_z) > MAX_NOISE_Z:
        words.append(f"{'more' if noise_z > 0 else 'less'} noise")
    return row | found | {"stands_out": tuple(words)}


def _compared_months(months: list[Any]) -> list[MonthRow]:
    """The months, the last one compared with those before it."""
    if not months:
        return []
    *_, last = months
    before = months[:-1][-MONTHS_BEFORE:]
    rest = {
        f"rest_{name}": sum(row[count] for row in before)
        for name, count in (("n", "n"), ("zero", "n_zero"), ("high", "n_high"))
    }
    return [*months[:-1], _compared(last | rest)]
