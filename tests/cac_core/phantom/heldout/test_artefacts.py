"""Kernels, bands of hardening, and rays of metal."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.phantom.heldout.artefacts import apply_gain, bands, kernel_gain, rays_of_metal


def edge() -> np.ndarray:
    """A bar of 100 HU in 0, one slice, and an empty slice."""
    image = np.zeros((2, 128, 128), np.float32)
    image[0, :, 40:90] = 100
    return image


@pytest.mark.parametrize(("sharpness", "overshoots"), [(-0.8, False), (0.8, True)])
def test_only_sharp_kernels_overshoot_at_an_edge(sharpness: float, overshoots: bool) -> None:
    image = edge()
    apply_gain(image, kernel_gain(128, 0.9, sharpness))
    assert image.sum() == pytest.approx(edge().sum(), rel=1e-4)
    if overshoots:
        assert image.max() > 110 and image.min() < -10
    else:
        # The bar is narrower than the kernel is long nowhere: its middle keeps its value.
        assert image.max() < 101 and image[0, 64, 64] == pytest.approx(100, abs=1)
        assert 20 < image[0, 64, 39] < 60
    assert not image[1].any()


def test_the_standard_kernel_changes_nothing() -> None:
    assert (kernel_gain(64, 0.8, 0.0) == 1).all()


def two_bones() -> np.ndarray:
    """Two dense discs left and right of the middle of a body of water."""
    row, column = np.indices((512, 512)) - 255.5
    slice_ = np.where(np.hypot(row, column) < 190, 0, -1000).astype(np.float32)
    for side in (-70, 70):
        slice_[np.hypot(row, column - side) < 22] = 1500
    return slice_[None]


def test_a_dark_band_joins_dense_things() -> None:
    out = bands(two_bones(), 0.9, 1.0, 0.0, False, np.random.default_rng(0))[0]
    between = out[246:266, 236:276].mean()
    aside = out[120:160, 236:276].mean()
    assert between < -5
    assert between < aside - 5
    nothing = bands(
        np.full((1, 512, 512), -1000, np.float32), 0.9, 1.0, 0.0, False, np.random.default_rng(0)
    )
    assert np.abs(nothing).max() < 1e-3


def test_arms_make_horizontal_streaks() -> None:
    row, column = np.indices((512, 512)) - 255.5
    body = np.where(np.hypot(row / 0.7, column) < 200, 0, -1000).astype(np.float32)[None]
    plain, armed = (
        bands(body, 0.9, 0.0, 8.0, arms, np.random.default_rng(1))[0, 200:312, 200:312]
        for arms in (False, True)
    )

    def alignment(image: np.ndarray) -> float:
        """Variance of the means of rows relative to that of columns."""
        return float(image.mean(axis=1).var() / image.mean(axis=0).var())

    assert alignment(armed) > 2 * alignment(plain)


def test_rays_start_at_metal_only() -> None:
    metal = np.zeros((3, 200, 200), np.float32)
    metal[1, 100:103, 100:103] = 5000
    metal[2, 100:103, 100:103] = 700  # calcium
    out = rays_of_metal(metal, np.random.default_rng(0))
    assert not out[[0, 2]].any()
    assert np.abs(out[1, 95:108, 95:108]).max() > 20
