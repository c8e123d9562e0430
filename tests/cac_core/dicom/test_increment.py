"""Slice increment and extent from positions, by hand and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cac_core.dicom.increment import SAME_POSITION_MM, increment_and_extent
from cac_core.dicom.series import increments


@pytest.mark.parametrize(
    ("along", "increment", "extent"),
    [
        ([9.0, 0.0, 6.0, 3.0], 3.0, 9.0),
        ([0.0, 0.0, 3.0, 3.0, 6.0], 3.0, 6.0),
        ([0.0, SAME_POSITION_MM / 2, 3.0], 3.0 - SAME_POSITION_MM / 2, 3.0),
        ([0.0, 2.0, 5.0], 2.5, 5.0),
        ([4.0], None, 0.0),
        ([4.0, 4.0], None, 0.0),
    ],
)
def test_repeated_positions_count_once(
    along: list[float], increment: float | None, extent: float
) -> None:
    assert increment_and_extent(along) == (increment, extent)


@given(st.lists(st.floats(0.1, 20.0), min_size=1, max_size=30))
def test_median_of_the_gaps(gaps: list[float]) -> None:
    along = np.concatenate([[0.0], np.cumsum(gaps)])
    increment, extent = increment_and_extent(along.tolist())
    assert increment == pytest.approx(float(np.median(gaps)))
    assert extent == pytest.approx(sum(gaps))


_POSITIONS = st.lists(st.sampled_from([0.0, 0.04, 2.5, 5.0, 5.02, 7.5, 40.0]), min_size=1)


@given(st.dictionaries(st.integers(0, 50), _POSITIONS, min_size=1), st.randoms())
def test_all_series_at_once_as_one_by_one(positions, mixed) -> None:  # type: ignore[no-untyped-def]
    rows = [(series, value) for series, values in positions.items() for value in values]
    mixed.shuffle(rows)
    names, along = (np.array(column) for column in zip(*rows, strict=True))
    found = increments(names.astype(np.int64), along)
    assert sorted(found.index) == sorted(positions)
    for series, values in positions.items():
        increment, extent = increment_and_extent(values)
        row = found.loc[series]
        assert row["extent_mm"] == extent
        expected = np.nan if increment is None else increment
        np.testing.assert_equal(row["slice_increment_mm"], expected)
