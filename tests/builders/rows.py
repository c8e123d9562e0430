"""Valid rows of the tables, to be varied by tests."""

from __future__ import annotations

import datetime as dt
import hashlib
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def key(name: object) -> str:
    """A syntactically valid key that depends on the name."""
    return hashlib.sha256(str(name).encode()).hexdigest()[:32]


def digest(name: object) -> str:
    """A syntactically valid SHA-256."""
    return hashlib.sha256(str(name).encode()).hexdigest()


def score_row(study: object = 1, **changes: object) -> dict[str, object]:
    """A scored study; any column can be changed."""
    row: dict[str, object] = {
        "study_key": key(study),
        "patient_key": key(f"patient {study}"),
        "study_date": dt.date(2024, 5, 17),
        "status": "scored",
        "agatston": 12.5,
        "agatston_noncoronary": 0.0,
        "cac_category": "1-100",
        "calcium_volume_mm3": 20.0,
        "n_lesions": 2,
        "heart_volume_ml": 640.0,
        "noise_hu": 22.0,
        "quality_flags": "",
        "threshold_hu": 130.0,
        "n_slices": 44,
        "slice_increment_mm": 5.0,
        "row_spacing_mm": 0.98,
        "column_spacing_mm": 0.98,
        "instances_digest": digest(study),
        "pixel_digest": digest(f"pixels {study}"),
        "model_digest": digest("model"),
        "protocol_digest": "p" * 16,
        "core_version": "0.1.0",
        "run_id": "run",
        "scored_at": dt.datetime(2024, 6, 1, tzinfo=dt.UTC),
        "seconds_read": 0.1,
        "seconds_heart": 0.4,
        "seconds_calcium": 0.3,
        "seconds_model": 0.7,
        "seconds_score": 0.05,
    }
    return row | changes


def lesion_row(study: object = 1, **changes: object) -> dict[str, object]:
    """One lesion of a study; any column can be changed."""
    row: dict[str, object] = {
        "study_key": key(study),
        "protocol_digest": "p" * 16,
        "calcium_class": "coronary",
        "slice_index": 5,
        "centroid_row": 200.5,
        "centroid_column": 260.25,
        "n_pixels": 4,
        "area_mm2": 3.8,
        "peak_hu": 310,
        "mean_hu": 240.0,
        "density_weight": 3,
        "agatston": 19.0,
        "volume_mm3": 19.0,
    }
    return row | changes


def png(shape: tuple[int, int] = (8, 10), value: int = 90) -> bytes:
    """A small grey picture."""
    stream = io.BytesIO()
    Image.new("L", shape[::-1], value).save(stream, format="PNG")
    return stream.getvalue()


def label_png(labels: NDArray[np.uint8]) -> bytes:
    """Labels as a picture with a palette."""
    image = Image.fromarray(labels).convert("L")
    image.putpalette([0] * 12)
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def preview_row(study: object = 1, **changes: object) -> dict[str, object]:
    """One key slice of a study; any column can be changed."""
    row: dict[str, object] = {
        "study_key": key(study),
        "protocol_digest": "p" * 16,
        "slice_index": 5,
        "slice_position_mm": -812.5,
        "shown_for": "coronary",
        "agatston": 19.0,
        "first_row": 180,
        "first_column": 200,
        "merged_pixels": 1,
        "row_spacing_mm": 0.98,
        "column_spacing_mm": 0.98,
        "window_low_hu": -160.0,
        "window_high_hu": 240.0,
        "image_png": png(),
        "label_png": png(value=0),
    }
    return row | changes


def run_row(number: int = 1, **changes: object) -> dict[str, object]:
    """A nightly run; the number makes its id and its day."""
    started = dt.datetime(2024, 6, 1, 1, 30, tzinfo=dt.UTC) + dt.timedelta(days=number)
    row: dict[str, object] = {
        "run_id": f"run-{number:03d}",
        "job": "nightly-rescore",
        "started_at": started,
        "finished_at": started + dt.timedelta(minutes=20),
        "outcome": "completed",
        "files": 900,
        "files_opened": 90,
        "studies": 30,
        "scored": 8,
        "rejected": 2,
        "failed": 1,
        "skipped": 15,
        "reasons": "{}",
        "file_reasons": "{}",
        "seconds": 1200.0,
        "model_id": "convlstm-test",
        "model_digest": digest("model"),
        "protocol_digest": "p" * 16,
        "rules_digest": "r" * 16,
        "core_version": "0.1.0",
        "settings": "{}",
        "versions": "{}",
    }
    return row | changes
