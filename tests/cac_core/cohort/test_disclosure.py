"""Small counts are hidden and cannot be derived from the total."""

from __future__ import annotations

import pytest

from cac_core.cohort.disclosure import suppress_small


@pytest.mark.parametrize(
    ("counts", "reported"),
    [
        ([0, 5, 100], [0, 5, 100]),
        ([1, 3, 100], ["<5", "<5", 100]),
        ([4, 20, 100, 0], ["<5", "suppressed", 100, 0]),
        ([4], ["<5"]),
        ([], []),
    ],
)
def test_suppression(counts: list[int], reported: list[int | str]) -> None:
    assert suppress_small(counts) == reported
