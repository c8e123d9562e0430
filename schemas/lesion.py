"""Table `lesions`: one row per calcified lesion and slice."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import CalciumClass
from schemas.columns import PROTOCOL_DIGEST, SLICE_INDEX, STUDY_KEY, code, count
from schemas.table import ColumnSpec, TableSpec

LESIONS = TableSpec(
    "lesions",
    "One row per calcified lesion: a connected component of calcium pixels within one slice.",
    (
        STUDY_KEY,
        PROTOCOL_DIGEST,
        code("calcium_class", "coronary or non-coronary lesion", CalciumClass),
        SLICE_INDEX,
        ColumnSpec(
            "centroid_row",
            pa.float64(),
            "row of the centroid of the lesion, 0 at the front of the patient",
            unit="pixel",
            ge=0,
        ),
        ColumnSpec(
            "centroid_column",
            pa.float64(),
            "column of the centroid of the lesion, 0 at the right of the patient",
            unit="pixel",
            ge=0,
        ),
        count("n_pixels", "pixels of the lesion", ge=1),
        ColumnSpec("area_mm2", pa.float64(), "area of the lesion", unit="mm2", ge=0),
        ColumnSpec("peak_hu", pa.int32(), "largest HU of the lesion", unit="HU"),
        ColumnSpec("mean_hu", pa.float64(), "mean HU of the lesion", unit="HU"),
        ColumnSpec(
            "density_weight", pa.int32(), "Agatston density weight by peak HU", unit="1", ge=1, le=4
        ),
        ColumnSpec(
            "agatston",
            pa.float64(),
            "contribution to the Agatston score, scaled by slice increment / 3 mm",
            unit="1",
            ge=0,
        ),
        ColumnSpec("volume_mm3", pa.float64(), "number of voxels x voxel volume", unit="mm3", ge=0),
    ),
)
