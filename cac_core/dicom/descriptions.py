"""Reduces the texts of a header to words that identify nobody, before they leave the reader.

Descriptions contain names of referrers, telephone numbers and other patients, which masking the
identifiers of the patient does not find. So a word is kept only where it is an allowed term, or
where the result of a selection rule depends on it. Imported by header readers: it must load fast.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

#: Replaces a word that is not kept. It counts as a word, so that its neighbours stay apart.
HIDDEN = "*"
_TERMS = Path(__file__).with_name("allowed_terms.toml")
#: Increase it when the reduction changes: every header is then read again.
_VERSION = 2

_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_PLAIN = re.compile(r"[^\W\d_]+|\d+|\*+")
#: Asterisks of the original text (a masked identifier has three). They only separate words: "U*MAP"
#: is read as "U MAP".
_OWN_ASTERISKS = re.compile(r"(?<!\*)\*{1,2}(?!\*)")
#: Numbers that are kept: slice thickness ("3.0"), a quantity with its unit, a kernel ("B30f").
#: Others may be dates, telephone numbers or record numbers.
_TECHNICAL = re.compile(
    r"(?<![\w.,/+-])(?:\d[.,]\d{1,2}|\d{1,2}[.,]0)(?![\w.,/-])"
    r"|(?<![\d.,/+-])\d{1,3}(?:[.,]\d{1,2})? ?(?:mm|cm|kvp?|mas?|sec|s|min|d)(?![^\W_])"
    r"|(?<![^\W_])[a-z]{1,2}\d{2}[a-z]?(?![^\W_])",
    re.IGNORECASE,
)
_UNSAFE_IN_DEVICE = re.compile(r"\S*[@^]\S*|\S*\d{5,}\S*")
_LONGEST_DEVICE_TEXT = 64
#: DICOM allows 64 characters; a hostile text must not slow the reader down.
_LONGEST_DESCRIPTION = 256
_LONGEST_WORD = 24


class TextPolicy(NamedTuple):
    """Which words of a header are kept, beside the allowed terms.

    Parameters
    ----------
    patterns : regular expressions of the selection rules on descriptions.
    image_types : values of ImageType that the rules name.
    keep : keep descriptions whole, except for identifiers of the patient.
    device_patterns : regular expressions of the selection rules on model and kernel.
    """

    patterns: tuple[str, ...] = ()
    image_types: tuple[str, ...] = ()
    keep: bool = False
    device_patterns: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over everything that affects the kept words."""
        state = hashlib.sha256(_TERMS.read_bytes())
        state.update(repr((_VERSION, *self)).encode())
        return state.hexdigest()[:16]


@lru_cache(maxsize=4096)
def plain_words(text: str) -> str:
    """Return words and numbers of a description, upper case, separated by single spaces.

    >>> plain_words("CT_AC-rest 3.0mm")
    'CT AC REST 3 0 MM'
    """
    words = _PLAIN.findall(text.upper())
    return " ".join(HIDDEN if word.startswith("*") else word for word in words)


@lru_cache(maxsize=4096)
def reduce_description(text: str, policy: TextPolicy) -> str:
    """Replace the words of a description that are neither allowed nor needed by `*`.

    Every pattern of the policy gives the same result on the reduced text as on the original.
    """
    text = _OWN_ASTERISKS.sub(" ", text)
    if policy.keep:
        return text
    text = text[:_LONGEST_DESCRIPTION]
    listed = _listed()["descriptions"]
    technical = [match.span() for match in _TECHNICAL.finditer(text)]
    hidden = [
        match.span()
        for match in _TOKEN.finditer(text)
        if match.group().upper() not in listed
        and not any(start <= match.start() and match.end() <= end for start, end in technical)
    ]
    matches = _matches(text, policy)
    reduced = _hide(text, hidden)
    if _matches(reduced, policy) == matches:
        return reduced
    # A rule needs one of the words: hide as much of each as leaves the results unchanged.
    done: list[tuple[int, int]] = []
    for start, end in hidden:
        for trial in _parts(start, end):
            if _matches(_hide(text, [*done, *trial]), policy) == matches:
                done += trial
                break
    return _hide(text, done)


def _parts(start: int, end: int) -> Iterator[list[tuple[int, int]]]:
    """Parts of a word to hide, largest first: all, then all but increasingly long parts."""
    yield [(start, end)]
    for length in range(1, min(end - start, _LONGEST_WORD)):
        for first in range(start, end - length + 1):
            around = ((start, first), (first + length, end))
            yield [span for span in around if span[0] < span[1]]


def reduce_image_type(text: str, policy: TextPolicy) -> str:
    """Replace the values of ImageType that are neither allowed nor named by the rules by `*`."""
    listed = _listed()["image_types"]
    parts = (part.strip() for part in text.split("\\"))
    return "\\".join(
        part if not part or part.upper() in listed or part.upper() in policy.image_types else HIDDEN
        for part in parts
    )


@lru_cache(maxsize=4096)
def reduce_device_text(
    text: str,
    policy: TextPolicy = TextPolicy(),  # noqa: B008 - immutable
) -> str:
    """Remove addresses and long numbers from manufacturer, model or kernel.

    They are kept where a rule depends on them: a site may name its scanner by a number.
    """
    text = text[:_LONGEST_DEVICE_TEXT]
    reduced = _UNSAFE_IN_DEVICE.sub(HIDDEN, text)
    patterns = _compiled(policy.device_patterns)
    needed = any(bool(one.search(text)) != bool(one.search(reduced)) for one in patterns)
    return text if needed else reduced


@lru_cache(maxsize=256)
def defined_modality(content: bytes) -> str | None:
    """Return a modality that DICOM defines, OT ("other") for another word, else None."""
    text = content.decode("latin-1").strip(" \0")
    if text in _listed()["modalities"]:
        return text
    return "OT" if text.isprintable() and text else None


def same_matches(one: str, other: str, policy: TextPolicy) -> bool:
    """Whether every pattern of the policy gives the same result on both texts."""
    own, others = (_matches(_OWN_ASTERISKS.sub(" ", text), policy) for text in (one, other))
    return own == others


def allowed_terms() -> frozenset[str]:
    """Return the upper-case words of descriptions that identify nobody (`allowed_terms.toml`)."""
    return _listed()["descriptions"]


def _matches(text: str, policy: TextPolicy) -> tuple[bool, ...]:
    words = plain_words(text)
    return tuple(bool(pattern.search(words)) for pattern in _compiled(policy.patterns))


def _hide(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts, last = [], 0
    for start, end in spans:
        parts += [text[last:start], HIDDEN]
        last = end
    return "".join((*parts, text[last:]))


@lru_cache(maxsize=8)
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


@lru_cache(maxsize=1)
def _listed() -> dict[str, frozenset[str]]:
    values = tomllib.loads(_TERMS.read_text(encoding="utf-8"))
    words = values["descriptions"].split()
    return {name: frozenset(values[name]) for name in ("image_types", "modalities")} | {
        "descriptions": frozenset(words)
    }
