"""Rescale and padding of single slices, against the formula in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from cac_core.dicom.hounsfield import Padding, declared_padding, is_plausible, to_hounsfield


@settings(max_examples=150, deadline=None)
@given(
    st.booleans(),
    st.sampled_from([1.0, 1.0, 0.5, 2.0, 1.00001, -1.0]),
    st.sampled_from([0.0, -1024.0, -1000.0, -8192.0, -32768.0, -40000.0, 40000.0, 0.25]),
    st.lists(st.integers(0, 65535), min_size=4, max_size=4),
)
def test_equals_the_formula(
    signed: bool, slope: float, intercept: float, values: list[int]
) -> None:
    stored = np.array(values, np.uint16).reshape(2, 2)
    stored = stored.view(np.int16) if signed else stored
    hu, _ = to_hounsfield(stored, slope, intercept, None)
    exact = [round(slope * int(value) + intercept) for value in stored.ravel()]
    assert hu.dtype == np.int16
    assert hu.ravel().tolist() == [min(max(value, -1024), 32767) for value in exact]


@pytest.mark.parametrize("padding_hu", [-2000, -2048, -3024])
def test_implausibly_low_values_become_air(padding_hu: int) -> None:
    stored = np.array([[padding_hu, 40], [-1010, 900]], np.int16)
    hu, replaced = to_hounsfield(stored, 1.0, 0.0, None)
    assert replaced
    assert hu.tolist() == [[-1024, 40], [-1010, 900]]


def test_noise_below_air_is_clipped_without_a_flag() -> None:
    hu, replaced = to_hounsfield(np.array([[-1100, 0]], np.int16), 1.0, 0.0, None)
    assert (hu.tolist(), replaced) == ([[-1024, 0]], False)


def test_declared_padding_below_tissue_becomes_air() -> None:
    stored = np.array([[5, 5, 5], [5, 1064, 7], [5, 5, 5]], np.uint16)
    hu, replaced = to_hounsfield(stored, 1.0, -1000.0, Padding(5, 7))
    assert replaced
    assert hu.tolist() == [[-1024] * 3, [-1024, 64, -1024], [-1024] * 3]


def test_declared_padding_of_zero_keeps_water_inside_the_body() -> None:
    stored = np.full((7, 7), 40, np.int16)
    stored[0] = 0
    stored[3, 3] = 0
    hu, replaced = to_hounsfield(stored, 1.0, 0.0, Padding(0, 0))
    assert replaced
    assert (hu[0] == -1024).all()
    assert hu[3, 3] == 0


def test_padding_already_air_changes_nothing() -> None:
    _, replaced = to_hounsfield(np.array([[0, 1064]], np.uint16), 1.0, -1024.0, Padding(0, 0))
    assert not replaced


@pytest.mark.parametrize(
    ("value", "limit", "signed", "expected"),
    [
        (63536, None, True, Padding(-2000, -2000)),
        (-2000, None, False, Padding(63536, 63536)),
        (10, 0, False, Padding(0, 10)),
        (-3024, -2000, True, Padding(-3024, -2000)),
        (None, None, True, None),
    ],
)
def test_padding_has_the_sign_of_the_pixels(
    value: int | None, limit: int | None, signed: bool, expected: Padding | None
) -> None:
    dataset = Dataset()
    for keyword, number in (("PixelPaddingValue", value), ("PixelPaddingRangeLimit", limit)):
        if number is not None:
            dataset.add_new(keyword, "SS" if number < 0 else "US", number)
    assert declared_padding(dataset, 16, signed) == expected


def test_plausibility() -> None:
    volume = np.full((4, 40, 40), -1000, np.int16)
    assert not is_plausible(volume)
    volume[:, 10:30, 10:30] = 40
    assert is_plausible(volume)
    assert not is_plausible(volume + 1024)
