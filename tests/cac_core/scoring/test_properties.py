"""The score against an independent flood fill, and transformations that must not change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import CalciumScore, score_calcium
from cac_core.scoring.lesions import label_lesions

Scan = tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.bool_]]

DEFAULT = ScoringProtocol(mass_calibration_mg_per_ml_hu=0.8)
STEPS = st.sampled_from([0.4, 0.7, 0.98, 1.0, 1.37])
SPACINGS = st.tuples(st.sampled_from([1.5, 2.5, 3.0, 5.0]), STEPS, STEPS)
PROTOCOLS = st.builds(
    replace,
    st.just(DEFAULT),
    connectivity=st.sampled_from([4, 8]),
    min_area_mm2=st.sampled_from([0.0, 1.0, 2.0]),
)


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    """Small volumes full of lesions, around every edge of the density weight."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)))
    level = st.sampled_from([-1000, 0, 129, 130, 199, 200, 299, 300, 399, 400, 900])
    hu = draw(arrays(np.int16, shape, elements=level))
    calcium = draw(arrays(np.uint8, shape, elements=st.sampled_from([1, 1, 1, 2, 0])))
    heart = draw(arrays(np.bool_, shape, elements=st.sampled_from([True, True, True, False])))
    return hu, calcium, heart


def score(
    scan: Scan, spacing_mm: tuple[float, float, float], protocol: ScoringProtocol = DEFAULT
) -> CalciumScore:
    return score_calcium(label_lesions(*scan, spacing_mm, protocol), protocol)


def flood_fill(scan: Scan, spacing_mm: Any, protocol: ScoringProtocol) -> dict[str, float]:
    """Agatston (both classes), volume, mass and lesion count, pixel by pixel with a stack."""
    hu, calcium, heart = scan
    increment, row_mm, column_mm = spacing_mm
    sums = {"agatston": 0.0, "noncoronary": 0.0, "volume": 0.0, "mass": 0.0, "lesions": 0.0}
    seen: set[tuple[int, int, int]] = set()
    for start in np.ndindex(hu.shape):
        if start in seen or not calcium[start]:
            continue
        stack, lesion = [start], []
        while stack:
            at = stack.pop()
            inside = all(0 <= place < size for place, size in zip(at, hu.shape, strict=True))
            if not inside or at in seen or calcium[at] != calcium[start]:
                continue
            if not heart[at] or hu[at] < 130:
                continue
            seen.add(at)
            lesion.append(int(hu[at]))
            for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                stack.append((at[0], at[1] + down, at[2] + right))
            if protocol.connectivity == 8:
                for down, right in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                    stack.append((at[0], at[1] + down, at[2] + right))
        area = len(lesion) * row_mm * column_mm
        if not lesion or area < protocol.min_area_mm2 - 1e-7:
            continue
        peak = max(lesion)
        weight = 1 if peak < 200 else 2 if peak < 300 else 3 if peak < 400 else 4
        contribution = area * weight * increment / 3
        if calcium[start] == 2:
            sums["noncoronary"] += contribution
            continue
        sums["agatston"] += contribution
        sums["volume"] += area * increment
        sums["mass"] += 0.8 * sum(lesion) * row_mm * column_mm * increment / 1000
        sums["lesions"] += 1
    return sums


@given(scans(), SPACINGS, PROTOCOLS)
@settings(max_examples=300, deadline=None)
def test_a_flood_fill_agrees(scan: Scan, spacing_mm: Any, protocol: ScoringProtocol) -> None:
    found, expected = score(scan, spacing_mm, protocol), flood_fill(scan, spacing_mm, protocol)
    assert found.agatston == pytest.approx(expected["agatston"])
    assert found.agatston_noncoronary == pytest.approx(expected["noncoronary"])
    assert found.calcium_volume_mm3 == pytest.approx(expected["volume"])
    assert found.calcium_mass_mg == pytest.approx(expected["mass"])
    assert found.n_lesions == expected["lesions"]


@given(scans(), SPACINGS, PROTOCOLS, st.sampled_from([(0,), (1,), (2,), (0, 1), (0, 1, 2)]))
@settings(max_examples=100, deadline=None)
def test_flips_do_not_change_the_score(
    scan: Scan, spacing_mm: Any, protocol: ScoringProtocol, axes: tuple[int, ...]
) -> None:
    hu, calcium, heart = scan
    flipped = (np.flip(hu, axes), np.flip(calcium, axes), np.flip(heart, axes))
    found, expected = score(flipped, spacing_mm, protocol), score(scan, spacing_mm, protocol)
    assert found.agatston == expected.agatston
    assert found.agatston_noncoronary == expected.agatston_noncoronary
    assert found.calcium_volume_mm3 == expected.calcium_volume_mm3
    assert found.calcium_mass_mg == pytest.approx(expected.calcium_mass_mg)


@given(scans(), SPACINGS, PROTOCOLS)
@settings(max_examples=100, deadline=None)
def test_exchanging_rows_and_columns_does_not_change_the_score(
    scan: Scan, spacing_mm: Any, protocol: ScoringProtocol
) -> None:
    hu, calcium, heart = scan
    turned = (hu.swapaxes(1, 2), calcium.swapaxes(1, 2), heart.swapaxes(1, 2))
    swapped = (spacing_mm[0], spacing_mm[2], spacing_mm[1])
    found, expected = score(turned, swapped, protocol), score(scan, spacing_mm, protocol)
    assert found.agatston == expected.agatston
    assert found.n_lesions == expected.n_lesions


@given(scans(), SPACINGS, st.sampled_from([0.5, 2.0, 3.0]))
@settings(max_examples=100, deadline=None)
def test_the_score_scales_with_pixel_area_and_slice_increment(
    scan: Scan, spacing_mm: Any, factor: float
) -> None:
    protocol = replace(DEFAULT, min_area_mm2=0.0)
    expected = score(scan, spacing_mm, protocol)
    for axis in range(3):
        stretched = tuple(
            step * factor if index == axis else step for index, step in enumerate(spacing_mm)
        )
        found = score(scan, stretched, protocol)
        assert found.agatston == pytest.approx(expected.agatston * factor)
        assert found.calcium_volume_mm3 == pytest.approx(expected.calcium_volume_mm3 * factor)


@given(scans(), SPACINGS, PROTOCOLS, st.data())
@settings(max_examples=150, deadline=None)
def test_more_coronary_calcium_never_lowers_the_score(
    scan: Scan, spacing_mm: Any, protocol: ScoringProtocol, data: st.DataObject
) -> None:
    hu, calcium, heart = scan
    free = np.argwhere((calcium != 2) & heart)
    if not len(free):
        return
    before = score(scan, spacing_mm, protocol)
    at = tuple(free[data.draw(st.integers(0, len(free) - 1))])
    hu, calcium = hu.copy(), calcium.copy()
    calcium[at] = 1
    hu[at] = max(int(hu[at]), data.draw(st.integers(130, 1000)))
    after = score((hu, calcium, heart), spacing_mm, protocol)
    assert after.agatston >= before.agatston
    assert after.calcium_volume_mm3 >= before.calcium_volume_mm3


@given(scans(), SPACINGS)
@settings(max_examples=100, deadline=None)
def test_lesion_contributions_add_up(scan: Scan, spacing_mm: Any) -> None:
    lesions = label_lesions(*scan, spacing_mm, DEFAULT)
    total = score_calcium(lesions, DEFAULT)
    assert lesions.agatston.sum() == pytest.approx(total.agatston + total.agatston_noncoronary)
    keys = list(zip(lesions.slice_index.tolist(), lesions.calcium_class.tolist(), strict=True))
    assert keys == sorted(keys)
