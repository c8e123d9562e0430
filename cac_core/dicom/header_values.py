"""Decodes single header values; an invalid value gives None, never an error."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from datetime import date
from functools import lru_cache


def uid_text(values: dict[int, bytes], tag: int) -> str:
    """Decode a UID as written; empty where it is absent or blank."""
    return values.get(tag, b"").decode("latin-1").strip(" \0\t\r\n")


_STANDARD_UID = re.compile(r"1\.2\.840\.10008(?:\.\d{1,3}){1,8}|1\.2\.840\.113619\.5\.2")


@lru_cache(maxsize=256)
def standard_uid(content: bytes) -> str | None:
    """Decode a UID that DICOM defines (PS3.6), or the transfer syntax of GE, else None.

    Sites and devices generate the others, which may contain anything.
    """
    text = content.decode("latin-1").strip(" \0")
    return text if _STANDARD_UID.fullmatch(text) else None


def lossy_code(content: bytes) -> str | None:
    """Decode LossyImageCompression: 00, 01, else None."""
    text = content.strip(b" \0")
    return text.decode() if text in (b"00", b"01") else None


@lru_cache(maxsize=256)
def calendar_date(content: bytes) -> date | None:
    """Decode a date (DA), including the old form with dots, else None."""
    digits = content.decode("latin-1").strip(" \0").replace(".", "")
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


_WRITTEN_DATE = re.compile(
    r"(?:(\d{4})([-./ ]?)(\d{2})\2(\d{2}))(?:[T ]?\d{2}[\d:]*(?:\.\d*)?(?:Z|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)


@lru_cache(maxsize=256)
def repaired_date(content: bytes) -> date | None:
    """Decode a date written as year, month, day in another form than DA, with or without a time.

    The day is read as written, without regard to the time zone. Dates that begin with day or month
    are ambiguous and give None.
    """
    text = content.decode("latin-1").strip(" \0\t\r\n")
    match = _WRITTEN_DATE.fullmatch(text)
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None


def seconds_of_day(content: bytes) -> float | None:
    """Decode a time (TM) as seconds since midnight, including the old form with colons."""
    text = content.decode("latin-1").strip(" \0").replace(":", "")
    match = re.fullmatch(r"([01]\d|2[0-3])([0-5]\d)?([0-5]\d|60)?(\.\d{1,6})?", text, re.ASCII)
    if match is None:
        return None
    hours, minutes, seconds, fraction = match.groups(default="0")
    return int(hours) * 3600.0 + int(minutes) * 60 + int(seconds) + float(fraction)


def integer_string(content: bytes) -> int | None:
    """Decode an integer string (IS) within 32 bits, else None."""
    try:
        number = int(content.strip(b" \0")) if len(content) <= 16 else None
    except ValueError:
        return None
    return number if number is not None and -(2**31) <= number < 2**31 else None


def unsigned_integer(content: bytes, little_endian: bool) -> int | None:
    """Decode an unsigned binary integer (US, UL), else None."""
    if len(content) not in (2, 4):
        return None
    number = int.from_bytes(content, "little" if little_endian else "big")
    return number if number < 2**31 else None


_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_MAYBE_THOUSANDS = re.compile(r"[+-]?[1-9],\d{3}")


def plain_decimals(parts: Sequence[str], largest: float = 9999.0) -> list[str]:
    """Replace decimal commas by points in the decimal strings of one element.

    DICOM allows the point only (PS3.5 6.2), but some writers follow their locale. A comma is a
    decimal comma where it is the only one and the element has no point. "1,024" is ambiguous: it is
    read as 1.024 only where another value of the element has a comma that must be a decimal comma,
    or where `largest` rules out a thousand; otherwise it is left as it is, which is not a number.

    Parameters
    ----------
    parts : values of the element.
    largest : largest plausible value.
    """
    texts = [part.strip(" \0") for part in parts]
    if not any("," in text for text in texts):
        return texts
    commas = [bool(_DECIMAL_COMMA.fullmatch(text)) for text in texts]
    unclear = [bool(_MAYBE_THOUSANDS.fullmatch(text)) for text in texts]
    settled = largest < 1000.0 or any(
        comma and not doubt for comma, doubt in zip(commas, unclear, strict=True)
    )
    if any("." in text for text in texts):
        return texts
    return [
        text.replace(",", ".") if comma and (settled or not doubt) else text
        for text, comma, doubt in zip(texts, commas, unclear, strict=True)
    ]


def decimal_string(content: bytes) -> float | None:
    """Decode a single decimal string (DS) that is a finite, plausible number, else None."""
    (text,) = plain_decimals([content.decode("latin-1")]) if len(content) <= 32 else ("",)
    try:
        # Python reads "1_0" as ten; DICOM does not.
        number = math.nan if "_" in text else float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e9 else None


def decimal_strings(content: bytes, count: int) -> tuple[float, ...] | None:
    """Decode exactly `count` decimal strings, else None."""
    parts = content.split(b"\\") if content else ()
    if len(parts) != count:
        return None
    texts = plain_decimals([part.decode("latin-1") for part in parts])
    numbers = [decimal_string(text.encode("latin-1")) for text in texts]
    kept = tuple(number for number in numbers if number is not None)
    return kept if len(kept) == count else None


def binary_double(content: bytes, little_endian: bool) -> float | None:
    """Decode a binary double (FD), else None."""
    if len(content) != 8:
        return None
    (number,) = struct.unpack("<d" if little_endian else ">d", content)
    return float(number) if abs(number) < 1e9 else None
