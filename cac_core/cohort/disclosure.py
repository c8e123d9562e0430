"""Counts that may leave the house: small ones are not told."""

from __future__ import annotations

from collections.abc import Sequence

#: Counts from 1 to below this can point at a person.
SMALL = 5


def suppress_small(counts: Sequence[int]) -> list[int | str]:
    """Counts of a table whose total is known, with small ones as `<5`.

    A single small count could be found from the total, so the smallest of the others goes with it
    (as `suppressed`). Zero is told: it is about nobody.
    """
    small = [0 < count < SMALL for count in counts]
    told: list[int | str] = [
        f"<{SMALL}" if hidden else count for hidden, count in zip(small, counts, strict=True)
    ]
    others = [at for at, hidden in enumerate(small) if not hidden and counts[at]]
    if sum(small) == 1 and others:
        told[min(others, key=lambda at: counts[at])] = "suppressed"
    return told
