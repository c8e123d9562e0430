"""Positions of the columns of a mapping in the header of an extract file."""

from __future__ import annotations

import re
from difflib import get_close_matches

from cac_core.cohort.extracts import Extract, extract_fault
from cac_core.errors import UsageError

#: Similarity (0 to 1) from which a column is suggested for a name that the file lacks.
_ALIKE = 0.7


def column_positions(extract: Extract, header: list[str]) -> dict[str, int]:
    """Position of each column that the mapping uses, from 0.

    Raises
    ------
    UsageError
        If one is missing, or occurs twice and the mapping does not name one of them.
    """
    found, missing = {}, []
    for name in extract.source.wanted:
        if header.count(name) == 0:
            position = _numbered_position(name, header)
            if position is None:
                missing.append(name)
            else:
                found[name] = position
            continue
        same = [n for n, other in enumerate(header) if _folded(other) == _folded(name)]
        if len(same) > 1:
            raise extract_fault(
                extract,
                f"has {len(same)} columns `{name}` (columns {', '.join(str(n + 1) for n in same)}; "
                "case and blanks are ignored)",
                f"Name one of them in the mapping: `{name}#1` is the first, `{name}#2` the second.",
            )
        found[name] = same[0]
    if missing:
        raise _missing(extract, header, missing)
    return found


def _numbered_position(name: str, header: list[str]) -> int | None:
    """Position of `NAME#2`: the second column of that name."""
    numbered = re.fullmatch(r"(.*)#([1-9][0-9]?)", name, re.DOTALL)
    if numbered is None:
        return None
    same = [n for n, other in enumerate(header) if _folded(other) == _folded(numbered[1])]
    at = int(numbered[2]) - 1
    return same[at] if at < len(same) else None


def _folded(name: str) -> str:
    return "".join(name.split()).casefold()


def _missing(extract: Extract, header: list[str], missing: list[str]) -> UsageError:
    if not header:
        return extract_fault(
            extract,
            "is empty, or line 1 is no header",
            "Request the file again; a table without rows still has its header.",
        )
    hints = {name: close for name in missing if (close := _closest(name, header)) is not None}
    found = f"{len(header)} columns" if len(header) > 1 else "one column"
    listed = ", ".join(
        f"`{close}`" if _folded(close) == _folded(name) else f"`{close}` (for `{name}`)"
        for name, close in hints.items()
    )
    advice = (
        f"The file has {listed}; correct the mapping."
        if hints
        else "Correct `columns` in the mapping; `cac link --propose FILE` shows the file's header."
    )
    if len(header) <= 1 and extract.source.format in ("csv", "tsv"):
        advice = f"Is `delimiter` = {extract.source.field_delimiter!r} right? " + advice
    return extract_fault(extract, f"has no column {', '.join(missing)} ({found} in line 1)", advice)


def _closest(name: str, header: list[str]) -> str | None:
    """The column whose name is most like a wrong one, if any is."""
    plain = {_letters(given): given for given in reversed(header) if _letters(given)}
    close = get_close_matches(_letters(name), plain, n=1, cutoff=_ALIKE)
    return plain[close[0]] if close else None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()
