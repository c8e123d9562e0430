"""Grids there and back, and candidates that lose no lesion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from cac_core.model.preprocess import (
    HEART_PIXELS,
    candidates,
    heart_frame,
    heart_input,
    heart_labels,
    heart_mask,
    heart_position,
    heart_slices,
    normalise,
)


def ball(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], radius: float
) -> np.ndarray:
    grids = [(np.arange(n) - n / 2) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*grids, indexing="ij")
    return z**2 + y**2 + x**2 <= radius**2


@pytest.mark.parametrize(
    ("hu", "expected"), [(50, 0.0), (200, 1.0), (-1024, -2.0), (-100, -1.0), (3000, 4.0)]
)
def test_normalise(hu: int, expected: float) -> None:
    assert normalise(torch.tensor([hu])).item() == expected


@pytest.mark.parametrize(
    ("hu", "expected"), [(50, 0.0), (650, 4.0), (1250, 5.0), (2650, 4 + 10 / 3), (3000, 4 + 10 / 3)]
)
def test_the_bright_tail_rises_a_quarter_as_fast(hu: int, expected: float) -> None:
    assert normalise(torch.tensor([hu]), bright_tail=True).item() == pytest.approx(expected)


def test_position_runs_from_end_to_end_of_the_heart() -> None:
    mask = np.zeros((30, 60, 80), bool)
    mask[10:21, 20:41, 30:71] = True
    frame = heart_frame(mask)
    assert frame.centre == (15.0, 30.0, 50.0)
    assert frame.half == (5.0, 10.0, 20.0)
    position = heart_position(
        frame,
        torch.tensor([10.0, 15.0])[:, None, None],
        torch.tensor([0.0, 20.0, 35.0])[:, None],
        torch.tensor([30.0, 60.0]),
    )
    assert position.shape == (2, 3, 3, 2)
    assert position[0, :, 1, 0].tolist() == [-1.0, -1.0, -1.0]  # a corner of the heart
    assert position[1, :, 2, 1].tolist() == [0.0, 0.5, 0.5]
    assert position[1, 1, 0, 0] == -2.0  # clipped far outside


def test_a_few_stray_voxels_do_not_move_the_frame() -> None:
    mask = np.zeros((30, 60, 80), bool)
    mask[10:21, 20:41, 30:71] = True
    stray = mask.copy()
    stray[29, 59, 79] = stray[0, 0, 0] = True
    assert heart_frame(stray) == heart_frame(mask)


@pytest.mark.parametrize(
    ("increment", "expected"),
    [(5.0, [0, 1, 2, 3, 4, 5, 6, 7]), (2.5, [1, 3, 5, 7]), (1.0, [2, 7]), (10.0, list(range(8)))],
)
def test_heart_slices_are_about_five_millimetres_apart(
    increment: float, expected: list[int]
) -> None:
    assert heart_slices(8, increment).tolist() == expected


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((44, 512, 512), (5.0, 0.9766, 0.9766)),
        ((88, 512, 512), (2.5, 0.7, 0.7)),  # field of view below 448 mm
        ((40, 128, 128), (5.0, 4.4, 4.4)),  # and above
        ((60, 320, 400), (3.0, 1.2, 1.2)),
    ],
)
def test_mask_survives_the_coarse_grid(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    truth = ball(shape, spacing, 55.0)
    coarse = heart_labels(truth, spacing)
    assert coarse.shape[1:] == (HEART_PIXELS, HEART_PIXELS)
    back = heart_mask(torch.from_numpy(coarse), shape, spacing)
    dice = 2 * (truth & back).sum() / (truth.sum() + back.sum())
    # Outlines are a little wider where a pixel is larger than a pixel of the network.
    assert dice > (0.97 if max(spacing[1:]) <= 4 else 0.96)


def test_only_the_largest_body_is_kept_and_filled() -> None:
    probability = torch.zeros(6, HEART_PIXELS, HEART_PIXELS)
    probability[1:5, 30:60, 30:60] = 0.9
    probability[1:5, 40:50, 40:50] = 0.1  # a hole
    probability[2, 90:95, 90:95] = 0.9  # elsewhere
    mask = heart_mask(probability, (6, 448, 448), (5.0, 1.0, 1.0))
    assert ndimage.label(mask)[1] == 1
    assert mask[3, 180, 180]
    assert not mask[:, 350:, 350:].any()


def test_each_slice_of_the_heart_is_convex() -> None:
    probability = torch.zeros(6, HEART_PIXELS, HEART_PIXELS)
    probability[1:5, 30:60, 30:60] = 1.0
    probability[1:5, 30:45, 45:60] = 0.0  # a corner is missing: a triangle of it comes back
    mask = heart_mask(probability, (6, 448, 448), (5.0, 1.0, 1.0))
    assert mask[2, 4 * 42, 4 * 46]
    assert not mask[2, 4 * 31, 4 * 58]


def square(weak: float, n_weak: int) -> np.ndarray:
    """Mask of a heart of 9 slices, of which `n_weak` in the middle have a low probability."""
    probability = torch.zeros(13, HEART_PIXELS, HEART_PIXELS)
    probability[2:11, 30:60, 40:70] = 0.95
    probability[6 : 6 + n_weak, 30:60, 40:70] = weak
    return heart_mask(probability, (13, 448, 448), (5.0, 1.0, 1.0))


@pytest.mark.parametrize(("weak", "n_weak"), [(0.45, 1), (0.02, 1), (0.02, 2)])
def test_weak_slices_between_good_ones_are_the_heart(weak: float, n_weak: int) -> None:
    whole = square(0.95, 1)
    assert (square(weak, n_weak) == whole).mean() > 0.999
    assert np.flatnonzero(whole.any(axis=(1, 2))).tolist() == list(range(2, 11))
    assert np.argwhere(whole)[:, 1:].min(axis=0).tolist() == [120, 160]
    assert np.argwhere(whole)[:, 1:].max(axis=0).tolist() == [239, 279]


def test_three_empty_slices_separate_parts() -> None:
    assert np.flatnonzero(square(0.0, 3).any(axis=(1, 2))).tolist() == [2, 3, 4, 5]


def test_a_slice_smaller_than_both_neighbours_is_mended() -> None:
    """A heart that widens by two pixels per slice, with a slice that lost its left half."""
    probability = torch.zeros(10, HEART_PIXELS, HEART_PIXELS)
    for k in range(1, 9):
        probability[k, 30:60, 40 - 2 * k : 70] = 1.0
    probability[5, 30:60, 30:48] = 0.0
    mask = heart_mask(probability, (10, 448, 448), (8.0, 1.0, 1.0))
    left = [int(np.flatnonzero(plane.any(axis=0))[0]) for plane in mask[1:9]]
    assert left == pytest.approx([4 * (40 - 2 * k) for k in (1, 2, 3, 4, 4, 6, 7, 8)], abs=2)


def test_slices_between_are_interpolated() -> None:
    """Coarse slices of different position and size; the slice half way is half way."""
    probability = torch.zeros(4, HEART_PIXELS, HEART_PIXELS)
    probability[1, 20:40, 20:40] = 1.0
    probability[2, 30:60, 30:60] = 1.0
    mask = heart_mask(probability, (16, 448, 448), (1.25, 1.0, 1.0))  # every fourth slice, from 2
    rows = np.flatnonzero(mask[8].any(axis=1))
    assert [rows[0], rows[-1]] == pytest.approx([4 * 25, 4 * 50 - 1], abs=2)
    # The outermost outlines are held for half a step.
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == list(range(4, 13))


@pytest.mark.parametrize("seed", range(40))
def test_no_slice_is_in_pieces_and_none_is_missing(seed: int) -> None:
    """Random probabilities: blurred noise of any scale, from lace to blobs, and empty slices."""
    rng = np.random.default_rng(seed)
    increment, pixel = rng.choice([1.0, 2.5, 5.0, 8.0]), rng.choice([0.6, 0.98, 1.4, 2.7, 4.1])
    shape = (int(rng.integers(1, 40)), int(rng.integers(90, 300)), int(rng.integers(90, 300)))
    n = len(heart_slices(shape[0], increment))
    width = (rng.uniform(0, 2), *[rng.uniform(0, 5)] * 2)
    noise = ndimage.gaussian_filter(rng.normal(size=(n, HEART_PIXELS, HEART_PIXELS)), width)
    # The heart is in the middle of a field that is wider than the image.
    far = np.hypot(*(np.indices((HEART_PIXELS, HEART_PIXELS)) - 55.5))
    probability = np.clip(0.5 + noise / noise.std() * 0.4 - rng.uniform(0, 0.3), 0, 1)
    probability *= (far * 4 < 0.45 * pixel * min(shape[1:])) * (rng.random((n, 1, 1)) < 0.8)
    mask = heart_mask(
        torch.from_numpy(probability.astype(np.float32)), shape, (increment, pixel, pixel)
    )
    found = np.flatnonzero(mask.any(axis=(1, 2)))
    assert found.tolist() == list(range(found[0], found[-1] + 1)) if len(found) else True
    for plane in mask[found]:
        assert ndimage.label(plane)[1] == 1
        assert ndimage.label(~np.pad(plane, 1))[1] == 1  # no hole


def test_no_heart() -> None:
    nothing = torch.zeros(6, HEART_PIXELS, HEART_PIXELS)
    assert not heart_mask(nothing, (6, 448, 448), (5.0, 1.0, 1.0)).any()


def test_input_has_its_edges_repeated() -> None:
    hu = np.random.default_rng(0).integers(-1000, 500, (8, 64, 64), dtype=np.int16)
    stack = heart_input(hu, (5.0, 7.0, 7.0))
    assert stack.shape == (10, HEART_PIXELS, HEART_PIXELS)
    torch.testing.assert_close(stack[0], stack[1])
    torch.testing.assert_close(stack[-1], stack[-2])


@pytest.mark.parametrize("spacing", [0.7, 1.3, 7.0])
def test_input_is_antialiased_interpolation(spacing: float) -> None:
    hu = np.random.default_rng(0).integers(-1024, 1500, (3, 300, 260), dtype=np.int16)
    found = heart_input(hu, (5.0, spacing, spacing))[1:-1]
    size = round(448 / spacing)
    margin = [-((n - size) // 2) for n in hu.shape[1:]]
    rest = [size - n - before for n, before in zip(hu.shape[1:], margin, strict=True)]
    field = torch.nn.functional.pad(
        torch.from_numpy(hu.clip(-250, 650)).float(),
        (margin[1], rest[1], margin[0], rest[0]),
        value=-250.0,
    )
    expected = torch.nn.functional.interpolate(
        field[:, None], size=(112, 112), mode="bilinear", antialias=True
    )[:, 0]
    torch.testing.assert_close(found, (expected - 50) / 150, rtol=1e-5, atol=1e-5)


def test_candidates_by_hand() -> None:
    hu = np.zeros((1, 6, 9), np.int16)
    hu[0, 0, 0] = 500  # one pixel of 0.49 mm2
    hu[0, 3, 3] = hu[0, 4, 4] = hu[0, 3, 5] = 130  # three pixels that touch diagonally: 1.47 mm2
    hu[0, 1, 7] = hu[0, 1, 8] = 129  # below the threshold
    mask = np.ones(hu.shape, bool)
    options = {"threshold_hu": 130.0, "min_area_mm2": 1.0}
    eight = candidates(hu, mask, (3, 0.7, 0.7), connectivity=8, **options)
    assert np.argwhere(eight).tolist() == [[0, 3, 3], [0, 3, 5], [0, 4, 4]]
    assert not candidates(hu, mask, (3, 0.7, 0.7), connectivity=4, **options).any()
    mask[0, 4, 4] = False  # cut by the heart: 0.98 mm2 are left, apart
    assert not candidates(hu, mask, (3, 0.7, 0.7), connectivity=8, **options).any()
