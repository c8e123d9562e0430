"""Table `previews`: images of the heart, a few slices per scored study.

They are encoded while the study is scored, so that reports do not open DICOM. Only the heart with a
margin is kept, which excludes text that scanners burn into the corners of an image.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import PreviewChoice
from schemas.columns import PROTOCOL_DIGEST, SLICE_INDEX, STUDY_KEY, code
from schemas.table import ColumnSpec, TableSpec

#: Values of the pixels of `label_png`. The larger one wins where pixels are merged.
LABEL_BACKGROUND, LABEL_HEART, LABEL_NONCORONARY, LABEL_CORONARY = 0, 1, 2, 3

PREVIEWS = TableSpec(
    "previews",
    "One row per key slice of a scored study: the heart as a grey image, its contour and calcium "
    "as a second image of the same size. At most 4 rows and 60,000 bytes per study.",
    (
        STUDY_KEY,
        PROTOCOL_DIGEST,
        SLICE_INDEX,
        ColumnSpec(
            "slice_position_mm",
            pa.float64(),
            "position of the slice along the body axis, increasing towards the head",
            unit="mm",
        ),
        code("shown_for", "why the slice was chosen", PreviewChoice),
        ColumnSpec(
            "agatston",
            pa.float64(),
            "contribution of the slice to the Agatston score",
            unit="1",
            ge=0,
        ),
        ColumnSpec(
            "first_row", pa.int32(), "row of the volume where the image begins", "pixel", ge=0
        ),
        ColumnSpec(
            "first_column",
            pa.int32(),
            "column of the volume where the image begins",
            "pixel",
            ge=0,
        ),
        ColumnSpec(
            "merged_pixels",
            pa.int32(),
            "pixels of the volume per side of an image pixel; 1 where none are merged",
            "pixel",
            ge=1,
        ),
        ColumnSpec("row_spacing_mm", pa.float64(), "distance between image rows", "mm", ge=0),
        ColumnSpec("column_spacing_mm", pa.float64(), "distance between image columns", "mm", ge=0),
        ColumnSpec("window_low_hu", pa.float64(), "HU at and below which pixels are black", "HU"),
        ColumnSpec("window_high_hu", pa.float64(), "HU at and above which pixels are white", "HU"),
        ColumnSpec("image_png", pa.binary(), "grey image, PNG of 8 bits"),
        ColumnSpec(
            "label_png",
            pa.binary(),
            "PNG with a palette: 0 outside the heart, 1 heart, 2 non-coronary, 3 coronary calcium",
        ),
    ),
    unique_together=("study_key", "protocol_digest", "slice_index"),
)
