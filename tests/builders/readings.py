"""Rows of signed readings, to be varied by tests, and masks with something to correct."""

from __future__ import annotations

import datetime as dt

import numpy as np

from cac_core.protocol import ScoringProtocol
from cac_core.reading.masks import ReadingMasks
from cac_core.scoring.sites import SITE_NUMBERS
from schemas.codes import CalciumSite
from tests.builders.rows import digest, key

SPACING = (3.0, 1.0, 1.0)


def reading_row(study: object = 1, reader: str = "A", number: int = 0, **changes: object) -> dict:
    """A signed reading; `number` orders the readings in time and gives each its id."""
    row: dict[str, object] = {
        "reading_id": key(f"reading {study} {reader} {number}"),
        "study_key": key(study),
        "patient_key": key(f"patient {study}"),
        "reader": reader,
        "kind": "reading",
        "amends": None,
        "opened_at": dt.datetime(2025, 1, 1, 8, tzinfo=dt.UTC),
        "signed_at": dt.datetime(2025, 1, 1, 9, number, tzinfo=dt.UTC),
        "seconds_active": 180.0,
        "reason": None,
        "cause": None,
        "agatston": 12.5,
        "cac_category": "1-100",
        "agatston_lm": 0.0,
        "agatston_lad": 12.5,
        "agatston_lcx": 0.0,
        "agatston_rca": 0.0,
        "agatston_unassigned": 0.0,
        "agatston_noncoronary": 0.0,
        "calcium_volume_mm3": 20.0,
        "n_lesions": 2,
        "heart_volume_ml": 600.0,
        "n_corrections": 0,
        "changed": False,
        "corrections": "[]",
        "model_id": "m",
        "model_agatston": 12.5,
        "model_category": "1-100",
        "rescored_agatston": 12.5,
        "threshold_hu": 130.0,
        "protocol_digest": "p" * 16,
        "pixel_digest": digest(f"pixels {study}"),
        "masks_digest": digest("masks"),
        "core_version": "0.1.0",
    }
    return row | changes


def some_masks() -> ReadingMasks:
    """A heart with one marked coronary calcification over two slices, and an unmarked bright spot.

    Slices 2 and 3, rows and columns 10 to 12: 350 HU, marked coronary. Slice 2, rows and columns 20
    to 21: 250 HU, unmarked. Slice 2, rows 5 and columns 35 to 37: 300 HU outside of the heart.
    """
    hu = np.full((6, 40, 40), 40, np.int16)
    heart = np.zeros(hu.shape, bool)
    heart[1:5, 5:30, 5:30] = True
    sites = np.zeros(hu.shape, np.uint8)
    hu[2:4, 10:13, 10:13] = 350
    sites[2:4, 10:13, 10:13] = SITE_NUMBERS[CalciumSite.CORONARY]
    hu[2, 20:22, 20:22] = 250
    hu[2, 5, 35:38] = 300
    return ReadingMasks(hu, heart, sites, SPACING, ScoringProtocol(), 130.0)
