"""Components within a slice, and areas that rounding puts below the minimum."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.components import (
    label_in_plane,
    largest_in_plane,
    reaches_area,
    remove_small_components,
)


@pytest.mark.parametrize(("connectivity", "sizes"), [(8, [0, 2, 1]), (4, [0, 1, 1, 1])])
def test_pixels_of_different_slices_never_join(connectivity: int, sizes: list[int]) -> None:
    mask = np.zeros((2, 2, 2), np.bool_)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 0, 0] = True
    labels, n_pixels = label_in_plane(mask, connectivity)
    assert n_pixels.tolist() == sizes
    assert labels.shape == mask.shape and ((labels > 0) == mask).all()


def test_a_single_slice_gives_the_same_as_a_volume_of_one() -> None:
    plane = np.random.default_rng(0).random((20, 20)) < 0.3
    for connectivity in (4, 8):
        labels, n_pixels = label_in_plane(plane, connectivity)
        in_volume, n_in_volume = label_in_plane(plane[None], connectivity)
        assert (in_volume[0] == labels).all() and (n_in_volume == n_pixels).all()


def test_an_area_that_equals_the_minimum_but_for_rounding_is_kept() -> None:
    step = (1 / 5) ** 0.5
    assert 5 * (step * step) < 1.0
    mask = np.ones((1, 1, 5), np.bool_)
    assert remove_small_components(mask, step * step, 1.0, 8).all()
    assert not remove_small_components(mask[..., :4], step * step, 1.0, 8).any()
    assert reaches_area(np.array([4, 5]), step * step, 1.0).tolist() == [False, True]


def test_an_empty_mask_stays_empty() -> None:
    assert not remove_small_components(np.zeros((2, 3, 4), np.bool_), 1.0, 1.0, 4).any()


def test_the_largest_component_of_each_slice_is_kept() -> None:
    mask = np.zeros((3, 6, 8), np.bool_)
    mask[0, 0:3, 0:3], mask[0, 4:6, 5:8] = True, True
    mask[2, 0, 0:2], mask[2, 3:6, 5:8] = True, True
    kept = largest_in_plane(mask)
    assert kept.sum(axis=(1, 2)).tolist() == [9, 0, 9]
    assert kept[0, 0:3, 0:3].all() and kept[2, 3:6, 5:8].all()
