"""Protection of persons in output: small counts, and values that may identify someone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Counts from 1 to below this can identify a person.
SMALL = 5


@dataclass(frozen=True, slots=True)
class Disclosure:
    """How counts are shown: as they are, or with small ones suppressed."""

    suppress: bool

    def table(self, counts: Sequence[int]) -> list[int | str]:
        """Counts of a table whose total is known."""
        return suppress_small(counts) if self.suppress else list(counts)

    def single(self, count: int) -> int | str:
        """A count that is not part of a table."""
        return self.table([count])[0]


def suppress_small(counts: Sequence[int]) -> list[int | str]:
    """Counts of a table whose total is known, with small ones as `<5`.

    A single small count could be derived from the total, so the smallest other count is suppressed
    too (as `suppressed`). Zero is shown: it concerns nobody.
    """
    is_small = [0 < count < SMALL for count in counts]
    shown: list[int | str] = [
        f"<{SMALL}" if small else count for small, count in zip(is_small, counts, strict=True)
    ]
    others = [at for at, small in enumerate(is_small) if not small and counts[at]]
    if sum(is_small) == 1 and others:
        shown[min(others, key=lambda at: counts[at])] = "suppressed"
    return shown


def value_shape(value: str) -> str:
    """A value with letters as `A` and digits as `9`, at most 24 characters."""
    return re.sub(r"\d", "9", re.sub(r"[^\W\d_]", "A", value))[:24]
