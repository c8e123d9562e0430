"""Table `training_set`: the input of a lab that trains its own networks."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import CAC_CATEGORIES
from schemas.table import ColumnSpec, TableSpec

SPLITS = ("training", "validation", "internal_test", "external_test")

TRAINING_SET = TableSpec(
    "training_set",
    "One row per study and reader: scan, annotation, and part of the split. An input of "
    "`cac train`, not a table of the warehouse: it holds paths and patient identifiers of the lab "
    "and must stay there.",
    (
        ColumnSpec(
            "study",
            pa.string(),
            "folder of the CTAC series; `synthetic:SEED`, optionally followed by `:teaching`, "
            "`:low-dose` or both in this order; or `implanted:HOST:SEED`; relative paths start at "
            "the folder of the table",
            pattern=r"\S",
        ),
        ColumnSpec(
            "annotation",
            pa.string(),
            "DICOM SEG or NIfTI label map, several files separated by `;`; `truth` or `reader` "
            "for a generated study",
            pattern=r"\S",
        ),
        ColumnSpec("reader", pa.string(), "name of the annotator"),
        ColumnSpec("patient", pa.string(), "patient identifier; no patient is in two parts"),
        ColumnSpec(
            "site",
            pa.string(),
            "site of the scan; a site can be held out as external test",
            nullable=True,
        ),
        ColumnSpec(
            "cac_category",
            pa.string(),
            "category by the reader's score, used for stratification",
            nullable=True,
            codes=CAC_CATEGORIES,
        ),
        ColumnSpec(
            "split",
            pa.string(),
            "part of the split; null before `cac train split`",
            nullable=True,
            codes=SPLITS,
        ),
    ),
    unique_together=("study", "reader"),
)
