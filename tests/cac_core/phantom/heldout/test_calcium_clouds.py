"""Clouds of grains: mass, score, and the calcium of a person."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.categories import cac_category
from cac_core.phantom.annotated import Site
from cac_core.phantom.heldout.calcium_clouds import (
    Cloud,
    CloudImage,
    agatston,
    draw_target,
    lined,
    plaque,
    sheet,
)
from cac_core.phantom.truth import true_agatston, true_category
from schemas.codes import CAC_CATEGORIES

SPACING = np.array([5.0, 1.0, 1.0])
STILL = np.zeros((1, 3))
LINE = np.stack([np.linspace(20, 40, 41), np.full(41, 30.0), np.linspace(20, 50, 41)], 1)


def blank(beat: np.ndarray = STILL) -> CloudImage:
    return CloudImage(np.full((12, 64, 64), 40, np.float32), SPACING, lambda patch: patch, beat)


def test_mass_is_kept_by_counting_and_motion() -> None:
    cloud = plaque(LINE, 1.5, 200.0, np.random.default_rng(0))
    for beat in (STILL, np.array([[0, 3.0, 0], [0, -3.0, 0]])):
        image = blank(beat=beat)
        image.add(Site.LAD, cloud)
        assert image.coronary.sum() * SPACING.prod() == pytest.approx(
            cloud.hu.sum() * 0.125, rel=1e-3
        )


def test_the_score_agrees_with_the_other_oracle() -> None:
    rng = np.random.default_rng(1)
    hu = rng.integers(0, 600, (5, 40, 40)).astype(np.int16)
    wanted = rng.random(hu.shape) < 0.2
    assert agatston(hu, wanted, SPACING) == pytest.approx(
        true_agatston(hu, wanted, (5.0, 1.0, 1.0))
    )
    for value in (0, 0.9, 1, 100, 100.1, 400, 401):
        assert cac_category(value) == true_category(value)


def test_plaques_grow_to_the_target() -> None:
    for seed, target in ((1, 20.0), (2, 150.0), (3, 900.0)):
        rng = np.random.default_rng(seed)
        image = blank()

        def draw(rng=rng, target=target) -> tuple[Site, Cloud]:
            return Site.LAD, plaque(LINE, 1.5, target, rng)

        image.add_plaques(draw, target)
        hu = np.rint(image.noise_free()).astype(np.int16)
        score = agatston(hu, image.sites() == Site.LAD, SPACING)
        assert 0.6 * target <= score <= 1.35 * target


@pytest.mark.parametrize("seed", range(6))
def test_a_lined_artery_has_calcium_along_most_of_its_wall(seed: int) -> None:
    cloud = lined(LINE, 1.5, np.random.default_rng(seed))
    distance = np.linalg.norm(cloud.points[:, None] - LINE, axis=2)
    covered = np.unique(distance.argmin(axis=1))
    assert len(covered) > 0.7 * len(LINE)
    assert distance.min(axis=1).max() < 1.5 + 1.1 + 0.6  # wall, and half a step along the line
    assert np.diff(covered).max() <= 2  # without gaps


def test_rendered_calcium_keeps_its_sites() -> None:
    image = blank()
    hu, sites = np.zeros_like(image.tissue), np.zeros(image.tissue.shape, np.uint8)
    hu[3, 10:14, 10:14], sites[3, 10:14, 10:14] = 300, Site.RCA
    hu[5, 20:24, 20:24], sites[5, 20:24, 20:24] = 200, Site.AORTIC_VALVE
    image.add_rendered(sites, hu)
    np.testing.assert_array_equal(image.sites(), sites)
    np.testing.assert_array_equal(image.noise_free(), 40 + hu)


def test_sites_name_the_stronger_structure() -> None:
    image = blank()
    weak = Cloud(np.tile([[25.0, 30, 30]], (50, 1)), np.full(50, 100.0))
    strong = Cloud(weak.points, np.full(50, 2000.0))
    image.add(Site.LAD, weak)
    image.add(Site.AORTIC_VALVE, strong)
    assert set(np.unique(image.sites())) == {0, Site.AORTIC_VALVE}


def test_a_sheet_lies_on_its_tube() -> None:
    wall = sheet(
        np.array([30.0, 30, 30]), np.array([1.0, 0, 0]), 15.0, 6.0, np.random.default_rng(0)
    )
    radius = np.hypot(wall.points[:, 1] - 30, wall.points[:, 2] - 30)
    assert radius.mean() == pytest.approx(15, abs=0.3)
    assert radius.std() < 1


def test_targets_follow_the_cohort() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_target(rng) for _ in range(20_000)]
    share = np.array([np.mean([cac_category(t) == c for t in drawn]) for c in CAC_CATEGORIES])
    assert share == pytest.approx([0.400, 0.262, 0.156, 0.182], abs=0.015)
    assert np.quantile(drawn, 0.75) == pytest.approx(208, rel=0.1)
