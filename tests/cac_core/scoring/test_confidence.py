"""The distribution of a score against enumeration, simulation and its own properties."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm

from cac_core.scoring.candidate_components import CandidateComponents
from cac_core.scoring.confidence import (
    ConfidenceModel,
    ScoreDistribution,
    confidence_of,
    coronary_chances,
    deciding_components,
)

#: Nothing but the classes of the components is uncertain.
CLASSES_ONLY = ConfidenceModel(shift_sd=0.0, spread_sd=0.0, unseen_chance=0.0)
CHANCES = st.lists(st.floats(0.0, 1.0), max_size=60)


def components(
    called: list[int], calcium: list[float], coronary: list[float], agatston: list[float]
) -> CandidateComponents:
    n = len(called)
    return CandidateComponents(
        np.array(called, np.uint8),
        np.array(calcium, float),
        np.array(coronary, float),
        np.array(agatston, float),
        np.ones(n, np.intp),
        np.arange(n),
    )


def test_two_components_by_hand() -> None:
    # Neither: 0.1 x 0.7. The second alone, 50: 0.1 x 0.3. The first, 90: 0.9 x 0.7. Both, 140.
    found = confidence_of([0.9, 0.3], [90, 50], 90.0, CLASSES_ONLY)
    assert found.p_category == pytest.approx((0.07, 0.03 + 0.63, 0.27, 0.0))
    assert (found.agatston_low, found.agatston_high) == pytest.approx((0.0, 140.0))


def test_nine_components_by_enumeration() -> None:
    rng = np.random.default_rng(1)
    chances, added = rng.uniform(0, 1, 9), rng.uniform(5, 120, 9)
    expected = np.zeros(4)
    for there in product((False, True), repeat=9):
        chance = np.prod(np.where(there, chances, 1 - chances))
        expected[np.searchsorted([1, 100, 400], added[list(there)].sum(), side="right")] += chance
    found = confidence_of(chances, added, 0.0, CLASSES_ONLY)
    np.testing.assert_allclose(found.p_category, expected, atol=1e-9)


def test_many_components_with_every_source_by_simulation() -> None:
    rng = np.random.default_rng(2)
    n, draws, model = 80, 60_000, ConfidenceModel(shift_sd=0.8, spread_sd=0.3)
    chances, added = rng.beta(0.3, 1.5, n), rng.exponential(12, n)
    wide = logit(chances) * np.sqrt(1 + (16 * np.sqrt(3) / (15 * np.pi)) ** 2 * 0.8**2)
    chance = expit(wide + 0.8 * rng.normal(size=(draws, 1)))
    scores = ((rng.random((draws, n)) < chance) @ added) * np.exp(0.3 * rng.normal(size=draws))
    found = confidence_of(chances, added, 200.0, model)
    shares = np.histogram(scores, [0, 1, 100, 400, np.inf])[0] / draws
    np.testing.assert_allclose(found.p_category, shares, atol=0.01)
    interval = np.quantile(scores, [0.05, 0.95])
    np.testing.assert_allclose([found.agatston_low, found.agatston_high], interval, rtol=0.04)


def test_a_component_alone_keeps_its_chance_whatever_the_shift() -> None:
    for chance in (0.05, 0.3, 0.9):
        model = ConfidenceModel(shift_sd=1.5, spread_sd=0.0, unseen_chance=0.0)
        found = confidence_of([chance], [50.0], 0.0, model)
        assert found.p_category[0] == pytest.approx(1 - chance, abs=0.012)


def test_a_shared_shift_makes_equal_calls_more_likely() -> None:
    alone, shared = (
        confidence_of([0.5] * 6, [60.0] * 6, 0.0, dataclasses.replace(CLASSES_ONLY, shift_sd=sd))
        for sd in (0.0, 2.0)
    )
    assert alone.p_category[0] == pytest.approx(0.5**6)
    assert shared.p_category[0] > 4 * alone.p_category[0]


def test_a_zero_without_candidates_has_the_chance_of_unseen_calcium() -> None:
    model = ConfidenceModel(unseen_chance=0.2, unseen_median=20.0)
    found = confidence_of([], [], 0.0, model)
    small = norm.cdf(np.log([1, 100, 400]) - np.log(20.0))
    assert found.p_category[0] == pytest.approx(0.8 + 0.2 * small[0])
    assert found.p_category[3] == pytest.approx(0.2 * (1 - small[2]))
    # 5 % lie above: a quarter of the 20 %.
    assert found.agatston_low == 0
    assert found.agatston_high == pytest.approx(20 * np.exp(norm.ppf(0.75)))


def test_the_factor_alone_gives_a_log_normal_interval() -> None:
    found = confidence_of([1.0], [80.0], 80.0, ConfidenceModel(shift_sd=0.0, spread_sd=0.4))
    limits = 80 * np.exp(np.array([-1, 1]) * 0.4 * norm.ppf(0.95))
    assert (found.agatston_low, found.agatston_high) == pytest.approx(tuple(limits))
    assert sum(found.p_category[2:]) == pytest.approx(1 - norm.cdf(np.log(100 / 80) / 0.4))


@settings(max_examples=60, deadline=None)
@given(chances=CHANCES, data=st.data())
def test_properties(chances: list[float], data: st.DataObject) -> None:
    n = len(chances)
    added = data.draw(st.lists(st.floats(0.1, 900.0), min_size=n, max_size=n))
    score = float(sum(a for a, chance in zip(added, chances, strict=True) if chance > 0.5))
    model = ConfidenceModel(shift_sd=0.7, spread_sd=0.3)
    found = confidence_of(chances, added, score, model)
    assert sum(found.p_category) == pytest.approx(1)
    assert all(0 <= chance <= 1 for chance in found.p_category)
    assert 0 <= found.agatston_low <= score <= found.agatston_high
    assert confidence_of(chances, added, score, model) == found
    known = ScoreDistribution.of(chances, added, model)
    assert known.weights.sum() == pytest.approx(1)
    assert (np.diff(known.cdf(np.geomspace(0.5, 5000, 50))) >= -1e-12).all()


@settings(max_examples=40, deadline=None)
@given(
    margins=st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=1, max_size=8),
    more=st.floats(0.1, 5.0),
    which=st.sampled_from(["calcium", "coronary"]),
)
def test_larger_margins_raise_chance_and_score(
    margins: list[tuple[float, float]], more: float, which: str
) -> None:
    calcium, coronary = map(list, zip(*margins, strict=True))
    added = [40.0] * len(margins)
    # Unseen calcium of a study without any would be more spread than what it gives way to.
    model = ConfidenceModel(unseen_chance=0.0)
    before = coronary_chances(components([1] * len(margins), calcium, coronary, added), model)
    (calcium if which == "calcium" else coronary)[0] += more
    after = coronary_chances(components([1] * len(margins), calcium, coronary, added), model)
    assert after[0] >= before[0]
    limits = np.array([1.0, 100.0, 400.0])
    below = [ScoreDistribution.of(each, added, model).cdf(limits) for each in (before, after)]
    assert (below[1] <= below[0] + 1e-9).all()


def test_chances_by_hand() -> None:
    model = ConfidenceModel(2.0, -1.0, 1.0, 0.5)
    found = coronary_chances(components([1], [1.5], [-0.5], [10.0]), model)
    assert found == pytest.approx([1 / (1 + np.exp(-2.0)) * 0.5])


def test_a_doubtful_component_decides_only_where_its_class_changes_the_category() -> None:
    three = components([1, 1, 2], [0] * 3, [0] * 3, [90.0, 30.0, 20.0])
    chances = np.array([0.9, 0.5, 0.5])
    # 120 without the second is 90, another category; with the third 140, the same.
    found = deciding_components(chances, three, 120.0, (0.2, 0.8))
    assert found.tolist() == [False, True, False]
    assert not deciding_components(chances, three, 120.0, (0.6, 0.8)).any()


def test_manifests() -> None:
    model = ConfidenceModel(calcium_slope=0.8, unseen_chance=0.02)
    assert ConfidenceModel.from_manifest(model.as_manifest()) == model
    assert ConfidenceModel.from_manifest(None) == ConfidenceModel()
    assert ConfidenceModel.from_manifest({"shift_sd": 0.3}).shift_sd == 0.3
