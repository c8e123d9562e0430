"""Masks identifiers of the patient in the texts of a header, before they leave the reader.

Technologists type names and record numbers into descriptions. Names, identifiers and birth date of
the patient, as given in the same header, are replaced by `***` in any spelling: case, accents and
umlauts (Müller, Mueller, Muller), leading zeros and separators of numbers, order and form of dates.
This finds the data of the patient only; `cac_core.dicom.descriptions` removes other words.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from functools import lru_cache
from typing import NamedTuple

MASK = "***"
#: Shorter names are masked as whole words only: "Li" must not match in "slice".
_SHORTEST_FREE_NAME = 3
#: A record number of one character does not identify; masking it would remove every "1".
_SHORTEST_NUMBER = 2
#: A longer record number is masked inside words too.
_LONGEST_BOUNDED_NUMBER = 3
#: Fewest digits of a record number that identify on their own.
_SHORTEST_DIGITS = 5
_BETWEEN = r"[-./_ ]?"
_WORD = re.compile(r"[^\W\d_]+")
_SEPARATOR = r"[-./_, ]{1,2}"
#: Letters without a Unicode decomposition, and what is typed instead.
_BASE_LETTERS = {
    "ø": "o",
    "æ": "ae",
    "œ": "oe",
    "ł": "l",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "\u0131": "i",
}
#: Pairs whose second letter is dropped: "ue" is typed for an umlaut, "ss" for a sharp s, "aa" for a
#: ring. Text and names are shortened alike, so that all spellings match.
_SECOND_LETTERS = frozenset(("ae", "oe", "ue", "ss", "aa"))
_MONTHS = (
    *("jan|gen|ene", "feb|fev", "mar|mrt|mrz", "apr|abr|avr", "may|mai|mag|mei", "jun|juin|giu"),
    *("jul|juil|lug", "aug|ago|aout", "sep|set", "oct|okt|ott|out", "nov", "dec|dez|dic"),
)


class Identity(NamedTuple):
    """Identifiers of the patient in a header, as undecoded bytes (hashable, for the cache)."""

    names: tuple[bytes, ...]
    numbers: tuple[bytes, ...]
    birth_date: bytes
    charset: bytes


@lru_cache(maxsize=1024)
def decode_text(content: bytes, charset: bytes) -> str:
    """Decode a text by SpecificCharacterSet (PS3.5 6.1); invalid bytes become replacement marks."""
    if content.isascii() and b"\x1b" not in content:
        return content.decode("ascii").strip(" \0")
    from pydicom.charset import convert_encodings, decode_bytes

    names = [part.strip(" \0") for part in charset.decode("latin-1").split("\\")]
    # Warnings of pydicom quote the bytes, which may be a name.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            text = decode_bytes(content, convert_encodings(names), set(b"\\^="))
        except (LookupError, UnicodeError, ValueError, AttributeError):
            text = content.decode("latin-1")
    return text.strip(" \0")


@lru_cache(maxsize=1024)
def mask_anywhere(
    content: bytes, charset: bytes, identity: Identity, spared: frozenset[str] = frozenset()
) -> str | None:
    """Mask identifiers anywhere in a text, also inside words; None where the text is empty.

    Parameters
    ----------
    content, charset : text and SpecificCharacterSet.
    identity : identifiers of the patient.
    spared : upper-case words that are not masked although they contain a name, such as "STRESS" of
        a patient named Ress.
    """
    return _masked(described_text(content, charset) or "", _pattern(identity, False), spared)


@lru_cache(maxsize=1024)
def mask_whole_words(
    content: bytes, charset: bytes, identity: Identity, spared: frozenset[str] = frozenset()
) -> str | None:
    """Mask whole words only: for a patient named Philip, Philips stays.

    Parameters as `mask_anywhere`.
    """
    return _masked(_clean(decode_text(content, charset)), _pattern(identity, True), spared)


def described_text(content: bytes, charset: bytes) -> str | None:
    """Return the printable text of a description; None where it is empty."""
    return _clean(decode_text(content, charset)) or None


def _clean(text: str) -> str:
    """Replace control characters and lone surrogates, which corrupt tables and terminals."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _masked(
    text: str, pattern: re.Pattern[str] | None, spared: frozenset[str] = frozenset()
) -> str | None:
    if pattern is None or not text:
        return text or None
    folded, places = _folded(text)
    words = [match.span() for match in _WORD.finditer(text) if match.group().upper() in spared]
    parts, last = [], 0
    for match in pattern.finditer(folded):
        start, end = places[match.start()], places[match.end()]
        if any(first <= start and end <= stop for first, stop in words):
            continue
        parts += [text[last:start], MASK]
        last = end
    return "".join((*parts, text[last:]))


def _folded(text: str) -> tuple[str, list[int]]:
    """Lower-case base letters, and the position of each (and of the end) in the text."""
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for part in unicodedata.normalize("NFKD", character.casefold()):
            if unicodedata.combining(part):
                continue
            for letter in _BASE_LETTERS.get(part, part):
                if letters and letters[-1] + letter in _SECOND_LETTERS:
                    continue
                letters.append(letter)
                places.append(place)
    return "".join(letters), [*places, len(text)]


@lru_cache(maxsize=256)
def _pattern(identity: Identity, whole_words: bool) -> re.Pattern[str] | None:
    free: set[str] = set()
    bounded: set[str] = set()
    for content in identity.names:
        _add_names(decode_text(content, identity.charset), free, bounded)
    for content in identity.numbers:
        for number in decode_text(content, identity.charset).split("\\"):
            _add_number(_folded(number)[0], free, bounded)
    dates = _birth_date_patterns(decode_text(identity.birth_date, identity.charset))
    if whole_words:
        bounded |= free
        free = set()
    # Longest first, so that a short match does not leave the rest of a longer one.
    parts = sorted(dates, key=lambda item: (-len(item), item))
    parts += sorted(free, key=lambda item: (-len(item), item))
    parts += [
        rf"(?<![^\W_]){item}(?![^\W_])" for item in sorted(bounded, key=lambda s: (-len(s), s))
    ]
    return re.compile("|".join(parts)) if parts else None


def _add_names(text: str, free: set[str], bounded: set[str]) -> None:
    for part in re.split(r"[\W\d_]+", unicodedata.normalize("NFKC", text)):
        folded = _folded(part)[0]
        # A single ideograph or syllable can be a whole name.
        if len(folded) >= _SHORTEST_FREE_NAME or (part and not part.isascii() and part > "\u2e80"):
            free.add(re.escape(folded))
        elif len(part) >= _SHORTEST_FREE_NAME - 1:
            bounded.add(re.escape(folded))


def _add_number(number: str, free: set[str], bounded: set[str]) -> None:
    """Add a record number: as written, without separators and leading zeros, its digits alone."""
    characters = re.sub(r"[\W_]+", "", number)
    # "MRN 0012345" is typed as "12345", "0012345", "MRN-12345" or "001-23-45" too.
    for digits in re.findall(r"\d+", characters):
        core = digits.lstrip("0")
        if len(digits) >= _SHORTEST_DIGITS and len(core) >= _SHORTEST_NUMBER:
            target = free if len(core) >= _SHORTEST_DIGITS else bounded
            target.add("0*" + _BETWEEN.join(core))
    core = characters.lstrip("0") if characters.isdigit() else characters
    if len(core) < _SHORTEST_NUMBER:
        core = characters
    if len(core) > _LONGEST_BOUNDED_NUMBER:
        free.add(("0*" if core.isdigit() else "") + _BETWEEN.join(map(re.escape, core)))
    elif len(core) >= _SHORTEST_NUMBER:
        bounded.add(("0*" if core.isdigit() else "") + _BETWEEN.join(map(re.escape, core)))


def _birth_date_patterns(text: str) -> set[str]:
    digits = re.sub(r"\D", "", text)[:8]
    if len(digits) != 8:
        return set()
    year, month, day = digits[:4], digits[4:6], digits[6:]
    orders = ((year, month, day), (day, month, year), (month, day, year))
    patterns = {_BETWEEN.join(order) for order in orders}
    if not 1 <= int(month) <= 12:
        return patterns
    # With separators: without leading zeros, with two digits of the year, with the month's name.
    short = [f"0?{int(part)}" for part in (day, month)]
    name = rf"(?:{_MONTHS[int(month) - 1]})[a-z]*"
    years = f"(?:{year[:2]})?{year[2:]}"
    for numeral in (short[1], name):
        orders = (
            (years, numeral, short[0]),
            (short[0], numeral, years),
            (numeral, short[0], years),
        )
        patterns |= {rf"(?<!\d){_SEPARATOR.join(order)}(?!\d)" for order in orders}
    glued = ((short[0], name, years), (year[2:], month, day), (day, month, year[2:]))
    patterns |= {rf"(?<!\d){''.join(order)}(?!\d)" for order in glued}
    return patterns
