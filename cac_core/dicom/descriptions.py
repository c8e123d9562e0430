"""Reduces the texts of a header to words that name nobody, before they leave the reader.

People type names of referrers, telephone numbers and other patients into descriptions; no scrubbing
of the patient's own data finds those. So a word stays only where it is a listed term, or where
the answer of a selection rule depends on it. Imported by header readers: it must load fast.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

#: What stands for a word that is not kept. It counts as a word, so that its neighbours do not meet.
HIDDEN = "*"
_WORDS = Path(__file__).with_name("allowed_terms.toml")
#: Raise it when the reduction itself changes: every header is read again then.
_VERSION = 2

_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_PLAIN = re.compile(r"[^\W\d_]+|\d+|\*+")
#: Asterisks of the text itself; a mask of the patient's data has three. They separate words only:
#: "U*MAP" is read as "U MAP".
_OWN_ASTERISKS = re.compile(r"(?<!\*)\*{1,2}(?!\*)")
#: Numbers that stay: slice thickness ("3.0"), a quantity with its unit, a kernel ("B30f"). Others
#: may be telephone or record numbers or dates.
_TECHNICAL = re.compile(
    r"(?<![\w.,/+-])(?:\d[.,]\d{1,2}|\d{1,2}[.,]0)(?![\w.,/-])"
    r"|(?<![\d.,/+-])\d{1,3}(?:[.,]\d{1,2})? ?(?:mm|cm|kvp?|mas?|sec|s|min|d)(?![^\W_])"
    r"|(?<![^\W_])[a-z]{1,2}\d{2}[a-z]?(?![^\W_])",
    re.IGNORECASE,
)
_UNSAFE_IN_DEVICE = re.compile(r"\S*[@^]\S*|\S*\d{5,}\S*")
_LONGEST_DEVICE_TEXT = 64
#: DICOM allows 64 characters; a hostile text must not keep the reader busy.
_LONGEST_DESCRIPTION = 256
_LONGEST_WORD = 24


class TextPolicy(NamedTuple):
    """Which words of a header are kept: those that these patterns need, or all.

    Parameters
    ----------
    patterns : regular expressions of the selection rules on descriptions.
    image_types : values of ImageType that the rules name.
    keep : keep descriptions as they are (scrubbed of the patient's own data only).
    device_patterns : regular expressions of the selection rules on model and kernel.
    """

    patterns: tuple[str, ...] = ()
    image_types: tuple[str, ...] = ()
    keep: bool = False
    device_patterns: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over all that decides which words are kept."""
        state = hashlib.sha256(_WORDS.read_bytes())
        state.update(repr((_VERSION, *self)).encode())
        return state.hexdigest()[:16]


@lru_cache(maxsize=4096)
def plain_words(text: str) -> str:
    """Words and numbers of a description, upper case, in single spaces.

    >>> plain_words("CT_AC-rest 3.0mm")
    'CT AC REST 3 0 MM'
    """
    words = _PLAIN.findall(text.upper())
    return " ".join(HIDDEN if word.startswith("*") else word for word in words)


@lru_cache(maxsize=4096)
def reduce_description(text: str, policy: TextPolicy) -> str:
    """Replace the words of a description that are neither listed nor needed by `*`.

    Every pattern of the policy gives the same answer on the result as on the text.
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
    answers = _answers(text, policy)
    reduced = _hide(text, hidden)
    if _answers(reduced, policy) == answers:
        return reduced
    # A rule needs one of the words: hide of each as much as makes no difference.
    done: list[tuple[int, int]] = []
    for start, end in hidden:
        for trial in _parts(start, end):
            if _answers(_hide(text, [*done, *trial]), policy) == answers:
                done += trial
                break
    return _hide(text, done)


def _parts(start: int, end: int) -> Iterator[list[tuple[int, int]]]:
    """What to hide of a word, the most first: all, then all but ever longer parts of it."""
    yield [(start, end)]
    for length in range(1, min(end - start, _LONGEST_WORD)):
        for first in range(start, end - length + 1):
            around = ((start, first), (first + length, end))
            yield [span for span in around if span[0] < span[1]]


def reduce_image_type(text: str, policy: TextPolicy) -> str:
    """Replace the values of ImageType that are neither listed nor named by the rules by `*`."""
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
    """Take from maker, model or kernel what no such text holds: addresses and long numbers.

    They stay where a rule depends on them: a site may name its scanner by a number.
    """
    text = text[:_LONGEST_DEVICE_TEXT]
    reduced = _UNSAFE_IN_DEVICE.sub(HIDDEN, text)
    patterns = _compiled(policy.device_patterns)
    needed = any(bool(one.search(text)) != bool(one.search(reduced)) for one in patterns)
    return text if needed else reduced


@lru_cache(maxsize=256)
def defined_modality(content: bytes) -> str | None:
    """Modality where DICOM defines it, OT ("other") for another word, else None."""
    text = content.decode("latin-1").strip(" \0")
    if text in _listed()["modalities"]:
        return text
    return "OT" if text.isprintable() and text else None


def same_answers(one: str, other: str, policy: TextPolicy) -> bool:
    """Tell whether every pattern of the policy gives the same answer on both texts."""
    own, others = (_answers(_OWN_ASTERISKS.sub(" ", text), policy) for text in (one, other))
    return own == others


def allowed_terms() -> frozenset[str]:
    """Upper-case words of descriptions that name nobody (`allowed_terms.toml`)."""
    return _listed()["descriptions"]


def _answers(text: str, policy: TextPolicy) -> tuple[bool, ...]:
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
    values = tomllib.loads(_WORDS.read_text(encoding="utf-8"))
    words = values["descriptions"].split()
    return {name: frozenset(values[name]) for name in ("image_types", "modalities")} | {
        "descriptions": frozenset(words)
    }
