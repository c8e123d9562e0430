"""Table `linked`: one row per included patient."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from schemas.codes import CAC_CATEGORIES
from schemas.registry import CLINICAL, PERFUSION, READINGS
from schemas.score import CERTAINTY_COLUMNS, SCORES
from schemas.table import KEY_PATTERN, ColumnSpec, TableSpec

#: Outcome definitions of the paper: primary composite, hard events, death, and the composite
#: without patients revascularised within 90 days.
DEFAULT_OUTCOMES = ("mace", "death_mi", "death", "mace_no_early_revascularisation")


def _category(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.string(), description, nullable=True, codes=CAC_CATEGORIES)


def _outcome_columns(outcome: str) -> tuple[ColumnSpec, ColumnSpec]:
    return (
        ColumnSpec(
            f"{outcome}_event", pa.int8(), f"1 if `{outcome}` occurred", "0/1", True, ge=0, le=1
        ),
        ColumnSpec(
            f"{outcome}_days", pa.int32(), f"days to `{outcome}` or censoring", "d", True, ge=0
        ),
    )


def linked_table(outcomes: Sequence[str] = DEFAULT_OUTCOMES) -> TableSpec:
    """The specification of `linked` for the given outcome definitions."""
    visual_grade = next(c for c in READINGS.columns if c.name == "visual_grade")
    identified = {"patient_id", "study_date", "accession_number"}
    covariates = [c for c in (*CLINICAL.columns, *PERFUSION.columns) if c.name not in identified]
    return TableSpec(
        "linked",
        "One row per included patient: covariates, calcium by three readings, outcomes.",
        (
            ColumnSpec(
                "patient_key", pa.string(), "keyed pseudonym of the patient", pattern=KEY_PATTERN
            ),
            ColumnSpec(
                "study_key", pa.string(), "keyed pseudonym of the study", pattern=KEY_PATTERN
            ),
            ColumnSpec("study_date", pa.date32(), "date of the study, start of follow-up"),
            *covariates,
            ColumnSpec("agatston", pa.float64(), "Agatston score by the cascade", "1", True, ge=0),
            _category("cac_category", "category of `agatston`"),
            *(column for column in SCORES.columns if column.name in CERTAINTY_COLUMNS),
            ColumnSpec(
                "expert_agatston", pa.float64(), "Agatston score by the expert", "1", True, ge=0
            ),
            _category("expert_cac_category", "category of `expert_agatston`"),
            visual_grade,
            ColumnSpec(
                "follow_up_days",
                pa.int32(),
                "days to death, emigration or the end of coverage",
                "d",
                ge=1,
            ),
            *(column for outcome in outcomes for column in _outcome_columns(outcome)),
        ),
        unique_together=("patient_key",),
    )


LINKED = linked_table()
