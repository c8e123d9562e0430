"""The warp: its inverse, and that it folds nothing."""

from __future__ import annotations

import numpy as np

from cac_core.phantom.analytic.warp import draw_warp


def test_there_and_back() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        warp = draw_warp(rng, 6.0)
        points = rng.uniform(-120, 120, (50, 3))
        picture = warp.to_image(points)
        assert np.abs(picture - points)[:, :2].max() > 0.5
        for before, after in zip(points, picture, strict=True):
            x, y = (np.full((1, 1), value, np.float32) for value in after[:2])
            back = warp.to_anatomy(x, y, float(after[2]))
            assert np.allclose([back[0][0, 0], back[1][0, 0]], before[:2], atol=0.05)


def test_the_warp_is_invertible() -> None:
    axis = np.arange(-180, 180, 2, dtype=np.float32)
    for seed in range(20):
        warp = draw_warp(np.random.default_rng(seed), 6.0)
        x, y = warp.to_anatomy(axis[None, :], axis[:, None], 10.0)
        stretch = np.diff(x, axis=1)[1:] * np.diff(y, axis=0)[:, 1:] - (
            np.diff(x, axis=0)[:, 1:] * np.diff(y, axis=1)[1:]
        )
        assert stretch.min() > 0
