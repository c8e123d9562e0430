"""What to do about dates that no format reads: another format, an impossible day, a cut value.

Only the shape of a value is known (`99/99/9999`), and the formats of the mapping. A value with the
shape of one of these is no real day; one that ends before such a shape does is incomplete.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

from cac_core.cohort.disclosure import value_shape

#: Date formats by the shape of the text.
_FORMATS = {
    "99.99.9999": ("%d.%m.%Y",),
    "99.99.99": ("%d.%m.%y",),
    "99/99/9999": ("%d/%m/%Y", "%m/%d/%Y"),
    "99-99-9999": ("%d-%m-%Y", "%m-%d-%Y"),
    "9999/99/99": ("%Y/%m/%d",),
    "9999-99-99": ("%Y-%m-%d",),
    "99999999": ("%Y%m%d",),
    "99AAA9999": ("%d%b%Y",),
    "99-AAA-9999": ("%d-%b-%Y",),
    "99.99.9999 99:99": ("%d.%m.%Y %H:%M",),
    "99.99.9999 99:99:99": ("%d.%m.%Y %H:%M:%S",),
}
#: Accepted beside the formats of every mapping.
_ISO = "%Y-%m-%d"
#: Two-digit day and month; every name of it in full has letters of a number of its own.
_A_DAY = dt.datetime(2015, 12, 28, 10, 10, 10, tzinfo=dt.UTC)


def date_advice(shapes: Sequence[str], dates: Sequence[str] | None) -> str:
    """What to change because of dates of these shapes.

    Parameters
    ----------
    dates : strptime formats of the mapping; None if they are not known.
    """
    given = [_shape(form) for form in (*(dates or ()), _ISO)]
    known = [*given, *_FORMATS]
    impossible = [s for s in shapes if any(_reads(form, s) for form in given)]
    others = [s for s in shapes if s not in impossible]
    new = [s for s in others if s in _FORMATS]
    cut = [s for s in others if s not in new and any(form.startswith(s) for form in known)]
    unclear = [s for s in others if s not in new and s not in cut]
    parts = []
    if new:
        listed = ", ".join(" or ".join(f'"{form}"' for form in _FORMATS[s]) for s in new)
        there = (
            ", unless it is there: then no such day exists"
            if dates is None
            else ", if these are real days (30 February is none)"
        )
        parts.append(f"`dates`: add {listed}{there}")
    if impossible:
        words = ", or a month in another language" if any("A" in s for s in impossible) else ""
        parts.append(
            f"no such day exists for {', '.join(impossible)}, which fits the mapping (or a year "
            f"before 1880 or after 2199{words}): ask the registry; if many rows are affected, "
            "`dates` has day and month exchanged"
        )
    if cut:
        parts.append(f"{', '.join(cut)}: incomplete, so no date is known: ask the registry")
    if unclear or not parts:
        parts.append("`dates`: add the format of these values, or list a placeholder in `missing`")
    return "; ".join(parts)


def _shape(form: str) -> str:
    """Shape of a day in a format, without an offset."""
    return value_shape(_A_DAY.strftime(re.sub(r"\s*%[zZ]$", "", form)))


def _reads(form: str, shape: str) -> bool:
    """Whether a text of a shape is one of a format's: days and months may have one digit."""
    pattern = re.sub(r"(?<!9)99(?!9)", "99?", re.escape(form))
    return re.fullmatch(re.sub("A{4,}", "A+", pattern), shape) is not None
