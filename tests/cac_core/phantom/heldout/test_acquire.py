"""From a scene to a scan: the truth follows the calcium, and what the scene has is kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cac_core.phantom.annotated import MIN_CONTRIBUTION_HU, AnnotatedScan, Site
from cac_core.phantom.heldout.acquire import acquire
from cac_core.phantom.heldout.look import CALCIUM_BY_KVP, TEST_LOOK, Look, draw_look
from cac_core.phantom.heldout.scene import Scene
from cac_core.phantom.heldout.ungated import Beating
from cac_core.phantom.truth import true_agatston

SPACING = np.array([5.0, 0.9, 0.9])
QUIET = Look(noise_hu=(5.0, 5.0), lined_share=0.0, noncoronary_times=0.0)
MOVING = Beating((7.0, 0.0), 0.0, (0.0, 0.0), 6.0, 1.0, 0.8)
ARTERY_AT = {"LM": (200, 250), "LAD": (180, 270), "LCX": (260, 280), "RCA": (200, 220)}


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A round heart in lung and muscle with four straight arteries along the body."""
    row, column = np.indices((512, 512))
    heart = np.hypot(row - 220, column - 250) < 75
    body = np.hypot(row - 256, column - 256) < 200
    plane = np.where(heart, 40, np.where(body, -850, -1000)).astype(np.float32)
    level = np.arange(2.0, 53.0)
    lines = {
        name: np.column_stack([level, np.full(51, r * 0.9), np.full(51, c * 0.9)])
        for name, (r, c) in ARTERY_AT.items()
    }
    return Scene(
        tissue=np.repeat(plane[None], 12, axis=0),
        heart=np.repeat(heart[None], 12, axis=0),
        lines=lines,
        valve=None,
        radii_mm={"ascending": 16.0, "descending": 12.0},
        spacing_mm=SPACING,
        name="round",
    )


def with_calcium(scene: Scene, look: Look) -> AnnotatedScan:
    """The first scan with coronary calcium; four of ten people have none."""
    for seed in range(20):
        scan = acquire(scene, np.random.default_rng(seed), look)
        if (scan.calcium_class == 1).sum() > 20:
            return scan
    raise AssertionError("no calcium in twenty people")


def test_equal_generators_give_equal_scans(scene: Scene) -> None:
    look = draw_look(np.random.default_rng(3))
    one, two = (acquire(scene, np.random.default_rng(4), look) for _ in range(2))
    for part in ("hu", "hu_noise_free", "heart_mask", "calcium_site"):
        np.testing.assert_array_equal(getattr(one, part), getattr(two, part))


@pytest.mark.parametrize("beating", [None, MOVING])
def test_the_truth_is_where_calcium_adds_to_the_tissue(
    scene: Scene, beating: Beating | None
) -> None:
    scan = with_calcium(scene, dataclasses.replace(QUIET, beating=beating))
    # The heart is uniform except for calcium, and within motion from its border for crescents.
    row, column = np.indices((512, 512))
    inner = np.hypot(row - 220, column - 250) < 50
    excess = scan.hu_noise_free[2:10, inner].astype(float) - 40
    marked = scan.calcium_site[2:10, inner] > 0
    assert marked.any()
    assert excess[marked].min() >= MIN_CONTRIBUTION_HU - 40
    assert excess[marked].mean() > MIN_CONTRIBUTION_HU
    assert not marked[excess < MIN_CONTRIBUTION_HU - 40].any()
    assert marked[excess > MIN_CONTRIBUTION_HU + 40].all()


def test_moved_calcium_keeps_the_site_of_its_artery(scene: Scene) -> None:
    scan = with_calcium(scene, dataclasses.replace(QUIET, beating=MOVING))
    for site in np.unique(scan.calcium_site[scan.calcium_site > 0]):
        assert Site(site).is_coronary
        _, rows, columns = np.nonzero(scan.calcium_site == site)
        centre = np.array(ARTERY_AT[Site(site).name])
        far = np.hypot(rows - centre[0], columns - centre[1]) * 0.9
        assert far.max() < 14  # motion, radius and blur


def test_real_calcium_of_the_scene_stays_in_the_truth(scene: Scene) -> None:
    tissue, sites = scene.tissue.copy(), np.zeros(scene.tissue.shape, np.uint8)
    tissue[5, 218:223, 248:253] = 400
    sites[5, 218:223, 248:253] = Site.MITRAL_VALVE
    own = dataclasses.replace(scene, tissue=tissue, own_sites=sites)
    look = dataclasses.replace(QUIET, artery_shares=(0, 0, 0, 1))
    scan = acquire(own, np.random.default_rng(1), look)
    assert (scan.calcium_site[5, 218:223, 248:253] == Site.MITRAL_VALVE).all()
    assert scan.heart_mask[5, 218:223, 248:253].all()
    np.testing.assert_allclose(scan.hu_noise_free[5, 218:223, 248:253], 400, atol=1)
    moving = acquire(own, np.random.default_rng(1), dataclasses.replace(look, beating=MOVING))
    # It moves along the body too, into neighbouring slices.
    assert (moving.calcium_site[4:7] == Site.MITRAL_VALVE).any()


def test_voltage_scales_calcium_not_tissue(scene: Scene) -> None:
    low, high = (
        with_calcium(scene, dataclasses.replace(QUIET, kvp=kvp)).hu_noise_free.astype(float)
        for kvp in (120, 140)
    )
    changed = low - high
    at = np.unravel_index(low.argmax(), low.shape)
    assert high[at] - 40 == pytest.approx(CALCIUM_BY_KVP[140] * (low[at] - 40), abs=3)
    assert np.abs(changed[low == 40]).max() <= 1


def test_overlapping_slices_share_calcium(scene: Scene) -> None:
    thin, thick = (
        with_calcium(scene, dataclasses.replace(QUIET, thickness_mm=mm)) for mm in (5.0, 10.0)
    )
    column = np.s_[:, 150:300, 180:320]
    one, two = (s.hu_noise_free[column].astype(float) - 40 for s in (thin, thick))
    assert np.abs(np.diff(two, axis=0)).sum() < np.abs(np.diff(one, axis=0)).sum()


def test_lined_people_have_calcium_along_their_arteries(scene: Scene) -> None:
    look = dataclasses.replace(QUIET, lined_share=1.0)
    for seed in (0, 1):
        scan = acquire(scene, np.random.default_rng(seed), look)
        coronary = (scan.calcium_class == 1) & scan.heart_mask
        assert true_agatston(scan.hu_noise_free, coronary, scan.spacing_mm) > 300
        assert coronary.any(axis=(1, 2)).sum() >= 7  # of 11 slices that the arteries cross


def test_a_scene_without_arteries_and_valves_is_a_scan(scene: Scene) -> None:
    bare = dataclasses.replace(scene, lines={"LAD": np.zeros((1, 3))}, radii_mm={})
    scan = acquire(bare, np.random.default_rng(0), dataclasses.replace(TEST_LOOK, device_share=1.0))
    assert not scan.calcium_class.any() or set(np.unique(scan.calcium_site)) <= {0, Site.DEVICE}
    assert scan.hu.shape == scene.tissue.shape


def test_training_looks_are_those_of_many_scanners() -> None:
    looks = [draw_look(np.random.default_rng(seed)) for seed in range(400)]
    increments = np.array([look.increment_mm for look in looks])
    assert increments.min() >= 1.9 and increments.max() <= 8  # at most 100 slices over 190 mm
    assert np.mean((increments >= 2.5) & (increments <= 5)) > 0.7
    assert all(look.thickness_mm >= look.increment_mm for look in looks)
    assert any(look.thickness_mm > look.increment_mm for look in looks)
    assert {look.kvp for look in looks} == set(CALCIUM_BY_KVP)
    assert all(len(set(look.artery_shares)) == 1 for look in looks)
