"""Synthetic scans: determinism, tissue values, truth, and hardness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cac_core.phantom.analytic.acquisition import (
    ScanSettings,
    draw_external_settings,
    draw_settings,
)
from cac_core.phantom.analytic.anatomy import draw_thorax
from cac_core.phantom.analytic.coronaries import draw_arteries
from cac_core.phantom.analytic.noise import (
    NoiseSpectrum,
    correlated_noise,
    heart_noise_hu,
    metal_streaks,
)
from cac_core.phantom.analytic.noncoronary import draw_noncoronary
from cac_core.phantom.analytic.plaques import draw_balanced_plaque, draw_burden, draw_plaque
from cac_core.phantom.analytic.scan import CATEGORY_SHARE, synthesise_scan
from cac_core.phantom.annotated import Site
from cac_core.phantom.truth import true_agatston, true_category
from schemas.codes import CAC_CATEGORIES

SETTINGS = ScanSettings(slice_increment_mm=5.0, pixel_spacing_mm=0.9766, tube_current_ma=20.0)


@pytest.fixture(scope="module")
def scan():
    # Seed 900 aims at a score above 400 (see the assertion below).
    return synthesise_scan(900, SETTINGS)


def test_same_seed_same_bytes(scan) -> None:
    again = synthesise_scan(900, SETTINGS)
    assert again.hu.tobytes() == scan.hu.tobytes()
    assert again.calcium_class.tobytes() == scan.calcium_class.tobytes()
    assert synthesise_scan(901, SETTINGS).hu.tobytes() != scan.hu.tobytes()


def test_shapes_and_types(scan) -> None:
    assert scan.hu.shape == scan.heart_mask.shape == scan.calcium_class.shape == (44, 512, 512)
    assert scan.hu.dtype == np.int16
    assert scan.spacing_mm == (5.0, 0.9766, 0.9766)


def test_tissue_looks_like_a_thorax(scan) -> None:
    clean = scan.hu_noise_free
    heart = clean[scan.heart_mask & (scan.calcium_class == 0)]
    assert 30 < np.median(heart[heart > 0]) < 65  # blood and muscle
    assert -110 < np.median(heart[heart < -60]) < -60  # fat of the grooves
    assert np.median(clean[:, :20, :20]) == pytest.approx(-1000)
    lung = clean[(clean > -930) & (clean < -600)]
    assert lung.size > 0.05 * clean.size
    assert (clean > 300).sum() > 1000  # bone


def test_heart_has_a_plausible_size(scan) -> None:
    for seed in (901, 902):
        other = synthesise_scan(seed, SETTINGS)
        assert 350 < other.heart_mask.sum() * np.prod(other.spacing_mm) / 1000 < 1400
    assert 350 < scan.heart_mask.sum() * np.prod(scan.spacing_mm) / 1000 < 1300


def test_noise_is_that_of_the_dose() -> None:
    for spectrum in (
        NoiseSpectrum(rise=0.0, cutoff=0.2),
        NoiseSpectrum(rise=1.0),
        NoiseSpectrum(streaks=0.3),
    ):
        noise = correlated_noise((8, 128, 128), 24.0, spectrum, np.random.default_rng(0))
        assert noise[:, 48:80, 48:80].std() == pytest.approx(24 * 1.05, rel=0.1)
        neighbours = np.corrcoef(noise[:, :, :-1].ravel(), noise[:, :, 1:].ravel())[0, 1]
        assert neighbours > 0.3
    # Four times the dose, half the noise; half the thickness, the root of two more.
    base = heart_noise_hu(20, 5, 120, 1)
    assert heart_noise_hu(80, 5, 120, 1) == pytest.approx(base / 2)
    assert heart_noise_hu(20, 2.5, 120, 1) == pytest.approx(base * np.sqrt(2))


def test_truth_follows_the_target(scan) -> None:
    assert scan.target_category == ">400"
    coronary = (scan.calcium_class == 1) & scan.heart_mask
    clean = true_agatston(scan.hu_noise_free, coronary, scan.spacing_mm)
    noisy = true_agatston(scan.hu, coronary, scan.spacing_mm)
    assert clean > 400
    assert noisy == pytest.approx(clean, rel=0.25)


def test_threshold_alone_overcalls() -> None:
    """Without a classifier, noise and valves would score: the phantom is not trivial."""
    empty = synthesise_scan(908, ScanSettings(2.5, 0.9766, 30.0))
    coronary = (empty.calcium_class == 1) & empty.heart_mask
    truth = true_agatston(empty.hu, coronary, empty.spacing_mm)
    everything = true_agatston(empty.hu, empty.heart_mask, empty.spacing_mm)
    assert everything > truth + 100


def test_sites_and_classes_agree(scan) -> None:
    coronary = np.isin(scan.calcium_site, [s for s in Site if s.is_coronary])
    np.testing.assert_array_equal(scan.calcium_class == 1, coronary)
    np.testing.assert_array_equal(scan.calcium_class == 2, (scan.calcium_site > 0) & ~coronary)
    inside = (scan.calcium_class == 1)[scan.heart_mask].sum()
    assert inside >= 0.93 * (scan.calcium_class == 1).sum()


def test_every_site_of_the_paper_occurs() -> None:
    """Over many people every site is drawn, devices and nodes included."""
    seen: set[Site] = set()
    for seed in range(260):
        rng = np.random.default_rng(seed)
        thorax = draw_thorax(rng)
        arteries = draw_arteries(thorax, rng)
        seen |= {site for site, _ in draw_noncoronary(thorax, arteries, ">400", rng)}
        seen.add(draw_plaque(arteries, 300.0, rng)[0])
    assert seen == set(Site) - {Site.NONE}


def test_target_scores_follow_the_external_cohort() -> None:
    """Median 15 and upper quartile 208 over all categories (the paper's external cohort)."""
    rng = np.random.default_rng(0)
    categories = rng.choice(CAC_CATEGORIES, p=CATEGORY_SHARE, size=20_000)
    burden = [draw_burden(str(category), rng) for category in categories]
    assert np.quantile(burden, 0.5) == pytest.approx(15, abs=3)
    assert np.quantile(burden, 0.75) == pytest.approx(208, rel=0.12)


def test_streaks_of_metal_decrease_with_distance() -> None:
    metal = np.zeros((128, 128), np.float32)
    assert not metal_streaks(metal, 60.0, np.random.default_rng(0)).any()
    metal[64, 64] = 4000
    streaks = metal_streaks(metal, 60.0, np.random.default_rng(0))
    near, far = streaks[58:71, 58:71].std(), streaks[:20].std()
    assert near > 5 * far > 0


def test_air_outside_the_field_of_view() -> None:
    cut = synthesise_scan(900, replace(SETTINGS, field_radius_mm=150.0))
    assert (cut.hu[:, 256, :90] == -1000).all()
    assert cut.hu[20, 256, 256] > -1000


def test_settings_are_those_of_the_paper() -> None:
    drawn = [draw_settings(np.random.default_rng(n)) for n in range(200)]
    assert {item.slice_increment_mm for item in drawn} == {2.5, 3.0, 5.0}
    assert min(item.tube_current_ma for item in drawn) == 20
    assert 0.9 < np.mean([item.kvp == 120 for item in drawn]) < 1


def test_external_settings_differ_from_training() -> None:
    drawn = [draw_external_settings(np.random.default_rng(n)) for n in range(50)]
    assert {(item.slice_increment_mm, item.tube_current_ma) for item in drawn} == {(5.0, 20.0)}


def test_true_agatston_by_hand() -> None:
    hu = np.full((2, 6, 6), 0, np.int16)
    hu[0, 1:3, 1:3] = 250  # 4 mm2, weight 2
    hu[1, 4, 4] = 420  # 1 mm2, weight 4
    calcium = np.ones(hu.shape, bool)
    assert true_agatston(hu, calcium, (3.0, 1.0, 1.0)) == pytest.approx(4 * 2 + 1 * 4)
    assert true_agatston(hu, calcium, (1.5, 1.0, 1.0)) == pytest.approx(6)
    assert true_agatston(hu, calcium, (3.0, 0.9, 0.9)) == pytest.approx(4 * 0.81 * 2)
    assert [true_category(v) for v in (0, 0.99, 1, 100, 100.1, 400, 400.1)] == [
        "0",
        "0",
        "1-100",
        "1-100",
        "101-400",
        "101-400",
        ">400",
    ]


def test_balanced_plaques_are_equally_frequent_in_all_arteries() -> None:
    thorax = draw_thorax(np.random.default_rng(3))
    arteries = draw_arteries(thorax, np.random.default_rng(4))
    rng = np.random.default_rng(5)
    sites = [draw_balanced_plaque(arteries, rng)[0] for _ in range(800)]
    shares = [sites.count(site) / 800 for site in (Site.LM, Site.LAD, Site.LCX, Site.RCA)]
    # A tenth is ostial, of the left main and the right artery only.
    assert shares == pytest.approx([0.28, 0.23, 0.23, 0.27], abs=0.05)
    people = [draw_plaque(arteries, 100, rng)[0] for _ in range(800)]
    assert people.count(Site.LAD) > 1.7 * sites.count(Site.LAD)


@pytest.mark.slow
def test_a_balanced_scan_keeps_acquisition_and_category_but_not_the_anatomy() -> None:
    usual, balanced = synthesise_scan(11), synthesise_scan(11, balanced=True)
    assert balanced.settings == usual.settings and balanced.target_category == usual.target_category
    assert not np.array_equal(balanced.heart_mask, usual.heart_mask)
    assert (balanced.calcium_class == 1).any()
    again = synthesise_scan(11, balanced=True)
    assert np.array_equal(balanced.hu, again.hu)


def test_hearts_of_balanced_scans_vary_twice_as_widely() -> None:
    def drawn(spread: float) -> dict[str, Any]:
        people = [draw_thorax(np.random.default_rng(seed), spread) for seed in range(150)]
        axes = np.array([person.frame.axes for person in people])
        # Turned about the long axis: the lateral axis leaves the plane that held it.
        right = np.cross(axes[:, 2], [1.0, 0.0, 0.0])
        turned = np.einsum("ni,ni->n", axes[:, 0], right / np.linalg.norm(right, axis=1)[:, None])
        walls = [[wall.radii[0] for wall, _ in person.chambers[:4]] for person in people]
        scales = np.array([person.frame.scale for person in people])
        bent = [person.warp.shifts.std() for person in people]
        return {
            "apex": float(axes[:, 2].std(axis=0).mean()),
            "turn": float(np.abs(turned).mean()),
            "chambers": (np.array(walls) / scales[:, None]).std(axis=0),
            "bent": float(np.mean(bent)),
        }

    usual, wide = drawn(1.0), drawn(2.0)
    assert usual["turn"] == pytest.approx(0, abs=1e-9)
    # The mean of |x| for a normal turn of 0.2 radians is 0.16.
    assert wide["turn"] == pytest.approx(0.16, abs=0.03)
    assert 1.4 < wide["apex"] / usual["apex"] < 2.2
    np.testing.assert_allclose(wide["chambers"] / usual["chambers"], 2.0, rtol=0.2)
    assert wide["bent"] / usual["bent"] == pytest.approx(np.sqrt(2), rel=0.15)


def test_arteries_that_stray_still_run_just_outside_the_muscle() -> None:
    for seed in range(5):
        thorax = draw_thorax(np.random.default_rng(seed), 2.0)
        arteries = draw_arteries(thorax, np.random.default_rng(seed), 2.0)
        usual = draw_arteries(thorax, np.random.default_rng(seed))
        for artery, other in zip(arteries, usual, strict=True):
            assert artery.site is other.site
            if artery.site is Site.LM:
                continue
            anatomy = artery.line.copy()
            for row, (x, y, z) in enumerate(artery.line):
                at = thorax.warp.to_anatomy(np.float32([x]), np.float32([y]), float(z))
                anatomy[row, :2] = at[0][0], at[1][0]
            outside = thorax.muscle_depth(anatomy) < 0
            assert outside.mean() > 0.8
        assert not np.array_equal(arteries[1].line, usual[1].line)


@pytest.mark.parametrize(("balanced", "times", "spread"), [(False, 1, 1.0), (True, 2, 2.0)])
def test_what_a_scan_to_learn_from_draws_more_of_and_more_widely(
    monkeypatch: pytest.MonkeyPatch, balanced: bool, times: int, spread: float
) -> None:
    """Twice as much other calcium; anatomy and courses that vary twice as widely."""
    passed: dict[str, list[Any]] = {}
    for draw in (draw_noncoronary, draw_thorax, draw_arteries):
        monkeypatch.setattr(
            f"cac_core.phantom.analytic.scan.{draw.__name__}",
            lambda *given, draw=draw: (
                passed.setdefault(draw.__name__, []).append(given[-1]) or draw(*given)
            ),
        )
    synthesise_scan(11, balanced=balanced)
    assert len(passed["draw_noncoronary"]) == times
    assert passed["draw_thorax"] == passed["draw_arteries"] == [spread]
