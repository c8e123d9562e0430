"""Motion during a rotation: a still heart stays as it is, a moving one keeps its mass."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cac_core.phantom.heldout.ungated import Beating, draw_beating, move, wedges

SPACING = np.array([3.0, 0.9, 0.9])
STILL = Beating((0, 0), 0, (0, 0), 0, 0.6, 0.9)
MOVING = dataclasses.replace(STILL, shift_mm=(6.0, 0.0))


@pytest.fixture
def chest() -> tuple[np.ndarray, np.ndarray]:
    """A round heart of 40 HU in lung, and its mask, off the middle of the picture."""
    row, column = np.indices((300, 300))
    disc = np.hypot(row - 140, column - 165) < 50
    heart = np.repeat(disc[None], 5, axis=0)
    return np.where(heart, 40, -850).astype(np.float32), heart


@pytest.mark.parametrize("sectors", [6, 10])
def test_wedges_share_every_frequency(sectors: int) -> None:
    parts = wedges(64, sectors, 0.7)
    assert parts.sum(axis=0) == pytest.approx(1.0, abs=1e-6)
    assert (parts >= 0).all()
    # Each angle sees two neighbouring times, and only the origin sees them all.
    assert ((parts > 0).sum(axis=0) > 2).sum() == 1


def test_a_still_heart_is_unchanged(chest) -> None:
    tissue, heart = chest
    noisy = tissue + np.random.default_rng(0).normal(0, 30, tissue.shape).astype(np.float32)
    moved = noisy.copy()
    move([moved], heart, None, SPACING, STILL, np.random.default_rng(1))
    assert np.abs(moved - noisy).max() < 0.5


def test_motion_makes_bright_crescents_at_the_border_only(chest) -> None:
    tissue, heart = chest
    moved = tissue.copy()
    move([moved], heart, None, SPACING, MOVING, np.random.default_rng(1))
    assert moved[heart].max() > 130  # scored as calcium, where nothing exceeds 40 HU at rest
    row, column = np.indices(heart.shape[1:])
    far = np.hypot(row - 140, column - 165) > 50 + 120 / 0.9
    assert np.array_equal(moved[:, far], tissue[:, far])


def test_calcium_in_the_heart_keeps_its_mass_and_moves_with_it(chest) -> None:
    tissue, heart = chest
    calcium = np.zeros_like(tissue)
    calcium[2, 138:143, 163:168] = 500
    moved = calcium.copy()
    beating = dataclasses.replace(MOVING, shift_mm=(8.0, 0.0))
    move([tissue.copy(), moved], heart, None, SPACING, beating, np.random.default_rng(3))
    assert moved.sum() == pytest.approx(calcium.sum(), rel=0.02)
    assert np.abs(moved - calcium).max() > 100
    profile = np.maximum(moved[2], 0)
    rows = (profile.sum(axis=1) > 0.05 * profile.sum(axis=1).max()).sum()
    assert rows > 5  # wider along the motion than the calcium at rest
    assert not moved[[0, 4]].any()


def test_the_operator_is_linear(chest) -> None:
    tissue, heart = chest
    calcium = np.zeros_like(tissue)
    calcium[2, 150:160, 180:190] = 300
    parts = [tissue.copy(), calcium.copy()]
    beating = draw_beating(np.random.default_rng(5))
    move(parts, heart, None, SPACING, beating, np.random.default_rng(2))
    whole = tissue + calcium
    # Bones are at rest; where they are is decided by the first image, so the order is kept.
    both = [tissue.copy(), whole]
    move(both, heart, None, SPACING, beating, np.random.default_rng(2))
    np.testing.assert_allclose(both[1], parts[0] + parts[1], atol=0.1)


def test_the_groove_moves_more_than_the_rest(chest) -> None:
    tissue, heart = chest
    line = np.array([[z, 140 * 0.9, 125 * 0.9] for z in np.arange(0.0, 13.0)])
    near, far = np.zeros_like(tissue), np.zeros_like(tissue)
    near[2, 139:142, 124:127], far[2, 139:142, 195:198] = 500, 500
    images = [tissue.copy(), near.copy(), far.copy()]
    beating = dataclasses.replace(STILL, groove_mm=(9.0, 0.0))
    move(images, heart, line, SPACING, beating, np.random.default_rng(4))
    assert np.abs(images[1] - near).max() > 10 * np.abs(images[2] - far).max()


def test_a_scan_without_a_heart_is_unchanged() -> None:
    tissue = np.full((3, 256, 256), 40, np.float32)
    moved = tissue.copy()
    move([moved], tissue > 100, None, SPACING, MOVING, np.random.default_rng(0))
    assert np.array_equal(moved, tissue)
