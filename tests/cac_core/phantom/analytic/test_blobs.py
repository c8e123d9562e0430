"""Rendered blobs: mass, boxes, motion."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.phantom.analytic.blobs import Blobs, Grid, PointSpread, chain, randomise_shape, render

AXIS = np.arange(-20, 20, 0.5, dtype=np.float32)
GRID = Grid(AXIS, AXIS, np.arange(-20, 20, 2.5))
BLOB = Blobs(np.array([[0.3, -0.2, 0.4]]), np.array([1.5]), np.array([500.0]))
MASS = 500 * (2 * np.pi) ** 1.5 * 1.5**3


@pytest.mark.parametrize("sigma", [0.1, 1.0, 2.0])
def test_blur_keeps_the_mass_of_a_blob(sigma: float) -> None:
    """Sum of HU x voxel volume equals the analytic integral of the Gaussian, whatever the blur."""
    patch = render(BLOB, PointSpread((sigma, sigma, sigma), 2.5), GRID)
    assert patch.hu.sum() * 0.5 * 0.5 * 2.5 == pytest.approx(MASS, rel=0.02)


def test_motion_keeps_the_mass_and_moves_it() -> None:
    spread = PointSpread((0.5, 0.5, 0.5), 2.5)
    still, moving = np.zeros(GRID.shape, np.float32), np.zeros(GRID.shape, np.float32)
    render(BLOB, spread, GRID).add_to(still)
    shifts = np.array([[4.0, 0, 0], [-4.0, 0, 0]])
    render(BLOB.smear(shifts), spread, GRID).add_to(moving)
    assert moving.sum() == pytest.approx(still.sum(), rel=0.01)
    assert moving.max() < 0.6 * still.max()


def test_what_lies_outside_gives_an_empty_patch() -> None:
    far = Blobs(np.array([[500.0, 0, 0]]), np.array([1.0]), np.array([100.0]))
    patch = render(far, PointSpread((1, 1, 1), 2.5), GRID)
    assert patch.hu.size == 0
    volume = np.zeros(GRID.shape, np.float32)
    patch.add_to(volume)
    assert not volume.any()


def test_density_of_a_chain_is_independent_of_its_spacing() -> None:
    for step in (0.25, 0.5, 1.0):
        points = np.zeros((int(30 / step), 3))
        points[:, 0] = np.arange(len(points)) * step - 15
        blobs = chain(points, np.full(len(points), 2.0), 400.0)
        patch = render(blobs, PointSpread((1e-3, 1e-3, 1e-3), 1e-3), GRID)
        volume = np.zeros(GRID.shape, np.float32)
        patch.add_to(volume)
        assert volume[8, 40, 30:50].mean() == pytest.approx(400, rel=0.02)


def test_randomise_shape_stays_where_it_was() -> None:
    rng = np.random.default_rng(1)
    line = np.stack([np.arange(12.0), np.zeros(12), np.full(12, 5.0)], axis=1)
    blobs = chain(line, np.full(12, 1.0), 500.0)
    forms = [randomise_shape(blobs, rng) for _ in range(200)]
    sizes = {len(form.peaks) for form in forms}
    assert min(sizes) >= 1 and max(sizes) <= 12 and len(sizes) > 5
    off = np.concatenate([form.centres[:, 1:] - (0, 5) for form in forms])
    assert np.abs(off).max() < 6 and off.std() == pytest.approx(0.69, abs=0.15)
    peaks = np.concatenate([form.peaks for form in forms])
    assert np.median(peaks) == pytest.approx(np.median(blobs.peaks), rel=0.25)
    assert peaks.std() > 0.4 * blobs.peaks.mean()
