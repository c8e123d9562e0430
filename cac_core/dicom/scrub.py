"""Takes the patient out of the free texts of a header before they leave the reader.

Technologists type names and record numbers into descriptions. What the same header says about the
patient (name, identifiers, birth date) is looked for in its texts and replaced by `***`. This
finds the patient's own data only; a text about somebody else stays, so descriptions never go into
published tables unreviewed.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import NamedTuple

MASK = "***"
_SHORTEST_NAME = 3
#: A record number of one character identifies nobody; masking it would eat every "1".
_SHORTEST_NUMBER = 2
#: So many digits of a record number, alone, still identify.
_SHORTEST_DIGITS = 5
_BETWEEN = r"[-./_ ]?"


class Identity(NamedTuple):
    """What a header says about its patient, as undecoded bytes (hashable, for the cache)."""

    names: tuple[bytes, ...]
    numbers: tuple[bytes, ...]
    birth_date: bytes
    charset: bytes


@lru_cache(maxsize=1024)
def decode_text(content: bytes, charset: bytes) -> str:
    """Decode a text under SpecificCharacterSet (PS3.5 6.1); bytes that do not fit become marks."""
    if content.isascii() and b"\x1b" not in content:
        return content.decode("ascii").strip(" \0")
    from pydicom.charset import convert_encodings, decode_bytes

    names = [part.strip(" \0") for part in charset.decode("latin-1").split("\\")]
    # pydicom's warnings quote the bytes, which may be a name.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            text = decode_bytes(content, convert_encodings(names), set(b"\\^="))
        except (LookupError, UnicodeError, ValueError, AttributeError):
            text = content.decode("latin-1")
    return text.strip(" \0")


@lru_cache(maxsize=1024)
def scrub_free_text(content: bytes, charset: bytes, identity: Identity) -> str | None:
    """Mask the patient anywhere in a text, inside words too; None where the text is empty."""
    text = _clean(decode_text(content, charset))
    pattern = _pattern(identity, False)
    return (pattern.sub(MASK, text) if pattern else text) or None


@lru_cache(maxsize=1024)
def scrub_word_wise(content: bytes, charset: bytes, identity: Identity) -> str | None:
    """Mask whole words only: a patient named Philip must not turn Philips into `***s`."""
    text = _clean(decode_text(content, charset))
    pattern = _pattern(identity, True)
    return (pattern.sub(MASK, text) if pattern else text) or None


def _clean(text: str) -> str:
    """Control characters and lone surrogates break tables and terminals."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


@lru_cache(maxsize=256)
def _pattern(identity: Identity, whole_words: bool) -> re.Pattern[str] | None:
    free: set[str] = set()
    bounded: set[str] = set()
    for content in identity.names:
        for part in re.split(r"[\W\d_]+", decode_text(content, identity.charset)):
            if len(part) >= _SHORTEST_NAME or (len(part) == 2 and not part.isascii()):
                free.add(re.escape(part))
    for content in identity.numbers:
        for number in decode_text(content, identity.charset).split("\\"):
            trimmed = number.strip()
            # "MRN 0012345" is typed as "0012345" or "MRN0012345" too.
            free.update(re.findall(rf"\d{{{_SHORTEST_DIGITS},}}", trimmed))
            if len(trimmed) > _SHORTEST_NAME:
                free.update((re.escape(trimmed), re.escape("".join(trimmed.split()))))
            elif len(trimmed) >= _SHORTEST_NUMBER:
                bounded.add(re.escape(trimmed))
    free.update(_birth_date_patterns(decode_text(identity.birth_date, identity.charset)))
    if whole_words:
        bounded |= free
        free = set()
    # Longest first, so that a part does not leave the rest of a longer one standing.
    parts = [*sorted(free, key=lambda item: (-len(item), item))]
    parts += [rf"(?<!\w){item}(?!\w)" for item in sorted(bounded, key=lambda s: (-len(s), s))]
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def _birth_date_patterns(text: str) -> set[str]:
    digits = re.sub(r"\D", "", text)
    if len(digits) != 8:
        return set()
    year, month, day = digits[:4], digits[4:6], digits[6:]
    orders = ((year, month, day), (day, month, year), (month, day, year))
    return {_BETWEEN.join(order) for order in orders}
