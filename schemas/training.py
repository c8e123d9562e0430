"""Table `training_set`: what a lab hands in to train networks of its own."""

from __future__ import annotations

import pyarrow as pa

from schemas.codes import CAC_CATEGORIES
from schemas.table import ColumnSpec, TableSpec

SPLITS = ("training", "validation", "internal_test", "external_test")

TRAINING_SET = TableSpec(
    "training_set",
    "One row per study and reader: scan, annotation, and the part of the split that it belongs "
    "to. An input of `cac train`, not a table of the warehouse: it holds the lab's own paths and "
    "patient identifiers and never leaves the lab.",
    (
        ColumnSpec(
            "study",
            pa.string(),
            "folder of the CTAC series; `synthetic:SEED`, which may end in `:teaching`, "
            "`:low-dose` or both in this order; or `implanted:HOST:SEED`; relative paths begin at "
            "the table",
            pattern=r"\S",
        ),
        ColumnSpec(
            "annotation",
            pa.string(),
            "DICOM SEG or NIfTI label map, several files separated by `;`; `truth` or `reader` "
            "for a study that is made",
            pattern=r"\S",
        ),
        ColumnSpec("reader", pa.string(), "who annotated; readers are kept apart"),
        ColumnSpec("patient", pa.string(), "whose scan it is: no patient is in two parts"),
        ColumnSpec(
            "site",
            pa.string(),
            "where it was made; a site can be held out as external test",
            nullable=True,
        ),
        ColumnSpec(
            "cac_category",
            pa.string(),
            "category by the reader's score; the split is stratified by it",
            nullable=True,
            codes=CAC_CATEGORIES,
        ),
        ColumnSpec(
            "split",
            pa.string(),
            "part of the split; null until `cac train split`",
            nullable=True,
            codes=SPLITS,
        ),
    ),
    unique_together=("study", "reader"),
)
