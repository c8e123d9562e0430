"""Columns that several tables share, and constructors of the usual kinds of column."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import pyarrow as pa

from schemas.table import KEY_PATTERN, ColumnSpec

#: Replacement UIDs made by `cac_core.keys.Keyring.pseudonym_uid`.
PSEUDONYM_PATTERN = r"^2\.25\.[0-9]{1,39}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
#: BLAKE3; in rows of earlier versions SHA-256, without a name.
PIXEL_DIGEST_PATTERN = r"^(blake3:)?[0-9a-f]{64}$"

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


def text(name: str, description: str) -> ColumnSpec:
    """Return a column of optional text."""
    return ColumnSpec(name, pa.string(), description, nullable=True)


def number(name: str, description: str, unit: str, ge: float | None = None) -> ColumnSpec:
    """Return a column of optional measured values."""
    return ColumnSpec(name, pa.float64(), description, unit=unit, nullable=True, ge=ge)


def integer(name: str, description: str, unit: str = "", ge: float | None = None) -> ColumnSpec:
    """Return a column of optional integers."""
    return ColumnSpec(name, pa.int32(), description, unit=unit, nullable=True, ge=ge)


def count(name: str, description: str, ge: float = 0) -> ColumnSpec:
    """Return a column of counts."""
    return ColumnSpec(name, pa.int32(), description, unit="1", ge=ge)


def code(
    name: str, description: str, codes: type[StrEnum] | Iterable[str], *, nullable: bool = False
) -> ColumnSpec:
    """Return a column whose values are restricted to codes."""
    return ColumnSpec(name, pa.string(), description, nullable=nullable, codes=codes)


def sha256(name: str, description: str, *, nullable: bool = False) -> ColumnSpec:
    """Return a column of SHA-256 digests, 64 hexadecimal digits."""
    return ColumnSpec(name, pa.string(), description, nullable=nullable, pattern=SHA256_PATTERN)


def pixel_digest(description: str, *, nullable: bool = False) -> ColumnSpec:
    """Return the column of a digest of pixels, which names its function."""
    return ColumnSpec(
        "pixel_digest",
        pa.string(),
        f"{description}: `blake3:` and 64 hexadecimal digits; in rows of earlier versions SHA-256, "
        "64 digits alone",
        nullable=nullable,
        pattern=PIXEL_DIGEST_PATTERN,
    )


def pseudonym(name: str, description: str, pattern: str = PSEUDONYM_PATTERN) -> ColumnSpec:
    """Return a column of optional replacement UIDs or keys."""
    return ColumnSpec(name, pa.string(), description, nullable=True, pattern=pattern)


CTAC_ROLE = code(
    "ctac_role",
    "rest or stress acquisition, where the description says so",
    ("rest", "stress"),
    nullable=True,
)
PROTOCOL_DIGEST = ColumnSpec("protocol_digest", pa.string(), "digest of the scoring protocol")
SLICE_INDEX = count("slice_index", "slice of the volume, 0 at the feet end")

#: Header attributes of instances, and of series as the most frequent value of their instances.
STUDY_DATE = ColumnSpec(
    "study_date", pa.date32(), "StudyDate, or a substitute for it", nullable=True
)
MODALITY = text("Modality", "kind of equipment")
SOP_CLASS_UID = text("SOPClassUID", "kind of object")
TRANSFER_SYNTAX_UID = text("TransferSyntaxUID", "encoding of header and pixels")
FRAME_OF_REFERENCE_UID = pseudonym("FrameOfReferenceUID", "pseudonym of FrameOfReferenceUID")
DESCRIPTIONS = (
    text("SeriesDescription", "description of the series; words that may identify are *"),
    text("StudyDescription", "description of the study; words that may identify are *"),
    text("ProtocolName", "acquisition protocol; words that may identify are *"),
    text("Manufacturer", "manufacturer of the equipment"),
    text("ManufacturerModelName", "model of the equipment"),
    text("ConvolutionKernel", "reconstruction kernel, values joined by backslashes"),
    text("LossyImageCompression", "01 where the pixels were once lossily compressed"),
)
SERIES_NUMBER = integer("SeriesNumber", "number of the series")
KVP = number("KVP", "tube voltage", "kV")
SLICE_THICKNESS = number("SliceThickness", "nominal slice thickness", "mm")
