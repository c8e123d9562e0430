"""Decodes single header values; text in a number, NaN or an overflow gives None, never an error."""

from __future__ import annotations

import math
import struct
from datetime import date
from functools import lru_cache


def uid_text(values: dict[int, bytes], tag: int) -> str:
    """Decode a UID as it stands; empty where it is absent or blank."""
    return values.get(tag, b"").decode("latin-1").strip(" \0\t\r\n")


_CODE_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._ ")


@lru_cache(maxsize=256)
def code_text(content: bytes) -> str | None:
    """Decode a defined term or standard UID; whatever else a broken header holds is dropped."""
    text = content.decode("latin-1").strip(" \0")
    return text if text and len(text) <= 64 and _CODE_CHARACTERS.issuperset(text) else None


@lru_cache(maxsize=256)
def calendar_date(content: bytes) -> date | None:
    """Decode a date (DA), the old form with dots included, else None."""
    digits = content.decode("latin-1").strip(" \0").replace(".", "")
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


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


def decimal_string(content: bytes) -> float | None:
    """Decode a single decimal string (DS) that is a finite, plausible number, else None."""
    try:
        number = float(content.strip(b" \0")) if len(content) <= 32 else math.nan
    except ValueError:
        return None
    return number if abs(number) < 1e9 else None


def decimal_strings(content: bytes, count: int) -> tuple[float, ...] | None:
    """Exactly `count` decimal strings, else None."""
    parts = content.split(b"\\") if content else ()
    if len(parts) != count:
        return None
    numbers = [decimal_string(part) for part in parts]
    kept = tuple(number for number in numbers if number is not None)
    return kept if len(kept) == count else None


def binary_double(content: bytes, little_endian: bool) -> float | None:
    """Decode a binary double (FD), else None."""
    if len(content) != 8:
        return None
    (number,) = struct.unpack("<d" if little_endian else ">d", content)
    return float(number) if abs(number) < 1e9 else None
