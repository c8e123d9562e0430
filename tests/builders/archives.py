"""A warehouse with a few runs, without an archive."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np

from cac_core.cohort.warehouse import Warehouse
from schemas.codes import CAC_CATEGORIES
from schemas.score import SCORES
from tests.builders.rows import run_row, score_row

SCANNERS = (
    ("ACME", "Hybrid 6", 0.35, 24.0),
    ("Globex", "Intro", 0.34, 27.0),
    (None, None, 0.8, 45.0),
)
_SCORES = (0.0, 40.0, 200.0, 900.0)


def warehouse_of_nights(folder: Path, nights: int = 14, studies: int = 20) -> Warehouse:
    """Scores of two models from three scanners, some studies without; a night was cut short."""
    store = Warehouse(folder)
    rng = np.random.default_rng(5)
    for model in ("convlstm-old", "convlstm-test"):
        rows = [_score(rng, i, i // studies) for i in range(nights * studies)]
        store.replace(SCORES, SCORES.from_rows(rows), model)
    for night in range(nights):
        outcome = "interrupted" if night == 5 else "completed"
        store.add_run(run_row(night, outcome=outcome, file_reasons='{"not_dicom": 3}'))
    return store


def _score(rng: np.random.Generator, study: int, night: int) -> dict[str, object]:
    maker, scanner, zeros, noise = SCANNERS[study % len(SCANNERS)]
    row: dict[str, object] = {
        "study_date": dt.date(2024, 1, 1) + dt.timedelta(days=12 * night),
        "Manufacturer": maker,
        "ManufacturerModelName": scanner,
        "run_id": f"run-{night:03d}",
    }
    if study % 19 == 3:
        reason = ("timeout", "failed") if study % 2 else ("no_ctac_series", "rejected")
        none = {"agatston": None, "cac_category": None, "noise_hu": None, "seconds_read": None}
        return score_row(study, **row | none | {"reason": reason[0], "status": reason[1]})
    rest = (1 - zeros) / 3
    category = int(rng.choice(4, p=[zeros, rest, rest, rest]))
    return score_row(
        study,
        **row,
        agatston=_SCORES[category],
        cac_category=CAC_CATEGORIES[category],
        noise_hu=float(rng.normal(noise, 2.0)),
        seconds_read=float(rng.gamma(4, 0.05)),
    )
