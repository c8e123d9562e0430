"""Columns that several tables share, and short forms for the usual kinds of header column."""

from __future__ import annotations

import pyarrow as pa

from schemas.table import KEY_PATTERN, ColumnSpec

#: Replacement UIDs made by `cac_core.keys.Keyring.pseudonym_uid`.
PSEUDONYM_PATTERN = r"^2\.25\.[0-9]{1,39}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"

STUDY_KEY = ColumnSpec(
    "study_key", pa.string(), "keyed pseudonym of the study", pattern=KEY_PATTERN
)
PATIENT_KEY = ColumnSpec(
    "patient_key",
    pa.string(),
    "keyed pseudonym of the patient; null where PatientID is absent",
    nullable=True,
    pattern=KEY_PATTERN,
)
CTAC_ROLE = ColumnSpec(
    "ctac_role",
    pa.string(),
    "rest or stress acquisition, where the description says so",
    nullable=True,
    codes=("rest", "stress"),
)


def text(name: str, description: str) -> ColumnSpec:
    """A text that may be absent."""
    return ColumnSpec(name, pa.string(), description, nullable=True)


def number(name: str, description: str, unit: str, ge: float | None = None) -> ColumnSpec:
    """A measured value that may be absent."""
    return ColumnSpec(name, pa.float64(), description, unit=unit, nullable=True, ge=ge)


def integer(name: str, description: str) -> ColumnSpec:
    """A whole number that may be absent."""
    return ColumnSpec(name, pa.int32(), description, nullable=True)


def pseudonym(name: str, description: str, pattern: str = PSEUDONYM_PATTERN) -> ColumnSpec:
    """A replaced UID or a key that may be absent."""
    return ColumnSpec(name, pa.string(), description, nullable=True, pattern=pattern)
