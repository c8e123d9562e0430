"""Table `previews`: pictures of the heart, a few slices per scored study.

They are cut out and encoded while the study is scored, so that nothing later opens DICOM. Only the
surroundings of the heart are kept: what a scanner writes into the corners of a picture is outside.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import PreviewChoice
from schemas.columns import STUDY_KEY
from schemas.table import ColumnSpec, TableSpec

#: Values of the pixels of `label_png`. The larger one wins where pixels are merged.
LABEL_BACKGROUND, LABEL_HEART, LABEL_NONCORONARY, LABEL_CORONARY = 0, 1, 2, 3

PREVIEWS = TableSpec(
    "previews",
    "One row per key slice of a scored study: the heart as a grey picture, its contour and calcium "
    "as a second picture of the same size. At most 4 rows and 60,000 bytes per study.",
    (
        STUDY_KEY,
        ColumnSpec("protocol_digest", pa.string(), "digest of the scoring protocol"),
        ColumnSpec(
            "slice_index", pa.int32(), "slice of the volume, 0 at the feet end", unit="1", ge=0
        ),
        ColumnSpec(
            "slice_position_mm",
            pa.float64(),
            "position of the slice along the body axis in the scanner, larger at the head",
            unit="mm",
        ),
        ColumnSpec("shown_for", pa.string(), "why this slice", codes=PreviewChoice),
        ColumnSpec(
            "agatston",
            pa.float64(),
            "contribution of the slice to the Agatston score",
            unit="1",
            ge=0,
        ),
        ColumnSpec(
            "first_row", pa.int32(), "row of the volume where the picture begins", "pixel", ge=0
        ),
        ColumnSpec(
            "first_column",
            pa.int32(),
            "column of the volume where the picture begins",
            "pixel",
            ge=0,
        ),
        ColumnSpec(
            "merged_pixels",
            pa.int32(),
            "pixels of the volume per side of one of the picture; 1 where none are merged",
            "pixel",
            ge=1,
        ),
        ColumnSpec("row_spacing_mm", pa.float64(), "distance of the picture's rows", "mm", ge=0),
        ColumnSpec(
            "column_spacing_mm", pa.float64(), "distance of the picture's columns", "mm", ge=0
        ),
        ColumnSpec("window_low_hu", pa.float64(), "HU shown black, and all below", "HU"),
        ColumnSpec("window_high_hu", pa.float64(), "HU shown white, and all above", "HU"),
        ColumnSpec("image_png", pa.binary(), "grey picture, PNG of 8 bits"),
        ColumnSpec(
            "label_png",
            pa.binary(),
            "PNG with a palette: 0 outside the heart, 1 heart, 2 non-coronary, 3 coronary calcium",
        ),
    ),
    unique_together=("study_key", "protocol_digest", "slice_index"),
)
