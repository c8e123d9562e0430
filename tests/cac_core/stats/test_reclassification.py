"""Net reclassification against R, by hand, against plain loops, and where it is not defined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cac_core.stats import reclassification
from cac_core.stats.cox import time_order
from cac_core.stats.reclassification import Reclassification, idi, moves
from cac_core.stats.survival import kaplan_meier
from tests.builders.designs import BASE, absolute_risks, design, prepared
from tests.builders.golden import answer, numbers, rows

COHORTS = ("paper", "nasty")
SOURCES = ("dl", "expert", "visual")
HORIZON = 3 * 365.25
SHARES = ("up_event", "down_event", "up_nonevent", "down_nonevent")


def _ordered(form, old, new, t, d, horizon: float, cuts=()) -> Reclassification:
    """A form of the NRI of patients in any order."""
    old, new, t, d = (np.asarray(part, float) for part in (old, new, t, d))
    order = time_order(t, d == 1)
    up, down = moves(old[order], new[order], np.asarray(cuts, float))
    return form(t[order], d[order] == 1, up, down, float(horizon))


def nri_kaplan_meier(*data) -> Reclassification:
    return _ordered(reclassification.nri_kaplan_meier, *data)


def nri_weighted(*data) -> Reclassification:
    return _ordered(reclassification.nri_weighted, *data)


def nri_count(old, new, d) -> Reclassification:
    up, down = moves(np.asarray(old), np.asarray(new))
    return reclassification.nri_count(np.asarray(d) == 1, up, down)


def _idi(old, new, d) -> float:
    return idi(np.asarray(old), np.asarray(new), np.asarray(d) == 1)


def _counts(old, new, cuts=()) -> tuple[int, int]:
    up, down = moves(np.asarray(old), np.asarray(new), np.asarray(cuts, float))
    return int(up.sum()), int(down.sum())


def _of_r(cohort: str, source: str):
    expected = answer(cohort, "added_value", source)
    frame = rows(cohort, expected["rows"])
    return (
        expected,
        numbers(expected["risk_base"]),
        numbers(expected["risk_full"]),
        frame["mace_days"].to_numpy(float),
        frame["mace_event"].to_numpy(),
    )


def _assert_equals(found: Reclassification, expected: dict, tolerance: float = 1e-9) -> None:
    assert [getattr(found, name) for name in SHARES] == pytest.approx(
        [expected[f"p_{name}"] for name in SHARES], abs=tolerance
    )
    want = [expected[name] for name in ("nri_event", "nri_nonevent", "nri")]
    assert [found.event, found.nonevent, found.overall] == pytest.approx(want, abs=tolerance)


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("source", SOURCES)
def test_all_forms_equal_r_for_the_risks_of_r(cohort: str, source: str) -> None:
    expected, old, new, t, d = _of_r(cohort, source)
    found = nri_kaplan_meier(old, new, t, d, HORIZON)
    _assert_equals(found, expected["nri_km"])
    assert _counts(old, new) == tuple(expected["nri_km"][n] for n in ("n_up", "n_down"))
    _assert_equals(nri_weighted(old, new, t, d, HORIZON), expected["nri_ipw"])
    cuts = expected["cuts"]
    found = nri_kaplan_meier(old, new, t, d, HORIZON, cuts)
    categorical = expected["nri_km_categorical"]
    _assert_equals(found, categorical)
    assert _counts(old, new, cuts) == (categorical["n_up"], categorical["n_down"])
    _assert_equals(nri_weighted(old, new, t, d, HORIZON, cuts), expected["nri_ipw_categorical"])


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("source", SOURCES)
def test_counts_and_idi_equal_hmisc(cohort: str, source: str) -> None:
    expected, old, new, _, d = _of_r(cohort, source)
    hmisc = expected["improve_prob"]
    found = nri_count(old, new, d)
    theirs = [hmisc[name] for name in ("pup.ev", "pdown.ev", "pup.ne", "pdown.ne")]
    assert [getattr(found, name) for name in SHARES] == pytest.approx(theirs, abs=1e-12)
    assert (found.event, found.nonevent) == pytest.approx((hmisc["nri.ev"], hmisc["nri.ne"]))
    assert found.overall == pytest.approx(hmisc["nri"])
    assert _idi(old, new, d) == pytest.approx(hmisc["idi"], abs=1e-12)


# Not `dl` in `nasty`, a level without events: the tests of the bootstrap fit its limit.
@pytest.mark.parametrize(
    ("cohort", "source", "column"),
    [
        ("paper", "dl", "cac_category"),
        ("paper", "expert", "expert_cac_category"),
        ("paper", "visual", "visual_level"),
        ("nasty", "expert", "expert_cac_category"),
        ("nasty", "visual", "visual_level"),
    ],
)
def test_from_our_own_fits_to_the_same_figures(cohort: str, source: str, column: str) -> None:
    expected = answer(cohort, "added_value", source)
    risks = []
    for terms in (BASE, (column, *BASE)):
        data = design(prepared(cohort).dropna(subset=[column]), terms)
        risks.append(absolute_risks(data.x, data.days, data.event, HORIZON))
    found = nri_kaplan_meier(*risks, data.days, data.event, HORIZON)
    _assert_equals(found, expected["nri_km"], 1e-9)
    weighted = nri_weighted(*risks, data.days, data.event, HORIZON)
    _assert_equals(weighted, expected["nri_ipw"], 1e-9)
    assert _idi(*risks, data.event) == pytest.approx(expected["improve_prob"]["idi"], abs=1e-9)


# -- by hand -------------------------------------------------------------------------------------

#: Eight patients; risks rise in the first four, fall in the next three, stay in the last.
OLD = [0.2, 0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.3]
NEW = [0.5, 0.3, 0.3, 0.25, 0.1, 0.3, 0.2, 0.3]
DAYS = [1, 2, 6, 3, 6, 4, 2, 6]
EVENT = [1, 1, 0, 0, 0, 1, 0, 1]


def test_eight_patients_worked_by_hand() -> None:
    # To day 5. All: event at 1 (8 at risk), 2 (7), then 5 at risk less the censored at 2 and 3:
    # event at 4 among 4. S = 7/8 * 6/7 * 3/4 = 9/16. Up (4): 3/4 * 2/3 = 1/2. Down (3; censored at
    # 2): event at 4 among 2: 1/2.
    found = nri_kaplan_meier(OLD, NEW, DAYS, EVENT, 5)
    assert _counts(OLD, NEW) == (4, 3)
    risk = 7 / 16
    assert found.up_event == pytest.approx(0.5 * (4 / 8) / risk)
    assert found.down_event == pytest.approx(0.5 * (3 / 8) / risk)
    assert found.event == pytest.approx((4 / 16 - 3 / 16) / risk)
    assert found.nonevent == pytest.approx((3 / 16 - 4 / 16) / (9 / 16))
    # Weights: events at 1 and 2 weigh 1; at 4, G(4-) = (1 - 1/6) (1 - 1/5) = 2/3 weighs 3/2. The
    # three beyond day 5 weigh 3/2 each: one up, one down, one neither.
    weighted = nri_weighted(OLD, NEW, DAYS, EVENT, 5)
    assert weighted.event == pytest.approx((2 - 1.5) / 3.5)
    assert weighted.nonevent == pytest.approx(0.0)
    assert weighted.up_nonevent == pytest.approx(1 / 3)
    # Counts: of four with the event two up, one down; of four without two up, two down.
    counted = nri_count(OLD, NEW, EVENT)
    assert (counted.event, counted.nonevent) == (0.25, 0.0)
    # Mean gain with the event (0.3 + 0.1 - 0.1 + 0) / 4, without (0.1 + 0.05 - 0.3 - 0.2) / 4.
    assert _idi(OLD, NEW, EVENT) == pytest.approx(0.3 / 4 + 0.35 / 4)
    # With categories below, from 0.25 to below 0.4, and from 0.4: four up (0.25 lies above its
    # limit), three down.
    old, new = np.array(OLD), np.array(NEW)
    up, down = moves(old, new, np.array([0.25, 0.4]))
    assert np.flatnonzero(up).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(down).tolist() == [4, 5, 6]
    up, down = moves(old, new, np.array([0.35]))
    assert np.flatnonzero(up).tolist() == [0] and np.flatnonzero(down).tolist() == [4, 5, 6]


# -- properties ----------------------------------------------------------------------------------


@st.composite
def samples(draw):
    """Two risks of few values, days with ties, and events; at least one by day 4, one beyond."""
    patient = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 7), st.integers(0, 1))
    drawn = draw(st.lists(patient, min_size=4, max_size=40))
    old, new, t, d = (np.array(part, float) for part in zip(*drawn, strict=True))
    assume(((t <= 4) & (d == 1)).any() and (t > 4).any())
    return old / 10, new / 10, t, d


@settings(deadline=None)
@given(samples(), st.booleans())
def test_swapping_the_models_flips_the_sign(sample, by_category: bool) -> None:
    old, new, t, d = sample
    cuts = (0.1, 0.25) if by_category else ()
    assert _counts(old, new, cuts) == _counts(new, old, cuts)[::-1]
    for form in (nri_kaplan_meier, nri_weighted):
        one, other = form(old, new, t, d, 4, cuts), form(new, old, t, d, 4, cuts)
        assert (one.event, one.nonevent) == pytest.approx((-other.event, -other.nonevent))
    if not d.all():
        assert nri_count(old, new, d).overall == pytest.approx(-nri_count(new, old, d).overall)
        assert _idi(old, new, d) == pytest.approx(-_idi(new, old, d))


@settings(deadline=None)
@given(samples())
def test_the_same_model_twice_reclassifies_nobody(sample) -> None:
    old, _, t, d = sample
    for found in (nri_kaplan_meier(old, old, t, d, 4), nri_weighted(old, old, t, d, 4)):
        assert (found.event, found.nonevent) == (0, 0)
    assert _counts(old, old) == (0, 0)
    if not d.all():
        assert nri_count(old, old, d).overall == 0


@settings(deadline=None)
@given(samples())
def test_only_the_order_of_each_patients_two_risks_counts(sample) -> None:
    old, new, t, d = sample
    one = nri_kaplan_meier(old, new, t, d, 4)
    order = np.random.default_rng(1).permutation(len(t))
    other = nri_kaplan_meier(
        np.sqrt(old)[order] + 5, np.sqrt(new)[order] + 5, t[order], d[order], 4
    )
    assert (other.event, other.nonevent) == pytest.approx((one.event, one.nonevent))


@settings(deadline=None)
@given(samples())
def test_the_kaplan_meier_form_is_that_of_three_curves(sample) -> None:
    old, new, t, d = sample

    def risk(keep: np.ndarray) -> float:
        if not keep.any():
            return 0.0
        curve = kaplan_meier(t[keep], d[keep])
        return float(1 - curve.survival[curve.index(4)])

    up, down = new > old, new < old
    every = risk(np.ones(len(t), bool))
    assume(0 < every < 1)
    found = nri_kaplan_meier(old, new, t, d, 4)
    event = (risk(up) * up.mean() - risk(down) * down.mean()) / every
    rest = ((1 - risk(down)) * down.mean() - (1 - risk(up)) * up.mean()) / (1 - every)
    assert (found.event, found.nonevent) == pytest.approx((event, rest), abs=1e-12)


@settings(deadline=None)
@given(samples())
def test_without_censoring_before_the_horizon_all_forms_are_one(sample) -> None:
    old, new, t, d = sample
    d = np.where(t <= 4, 1.0, 0.0)
    forms = [
        nri_kaplan_meier(old, new, t, d, 4),
        nri_weighted(old, new, t, d, 4),
        nri_count(old, new, d),
    ]
    for found in forms[1:]:
        assert (found.event, found.nonevent) == pytest.approx((forms[0].event, forms[0].nonevent))


# -- what cannot be estimated --------------------------------------------------------------------


@pytest.mark.parametrize("form", [nri_kaplan_meier, nri_weighted])
def test_without_events_by_the_horizon_or_anyone_beyond_it_there_is_none(form) -> None:
    t = np.array([1.0, 2.0, 3.0])
    for d, horizon in (([0, 0, 1], 2), ([1, 1, 1], 3), ([0, 0, 0], 2)):
        found = form([0.1, 0.2, 0.3], [0.3, 0.1, 0.2], t, d, horizon)
        assert np.isnan(found).all() and np.isnan(found.overall)


def test_idi_and_counts_need_both_kinds_of_patients() -> None:
    for event in ([1, 1], [0, 0]):
        assert np.isnan(_idi([0.1, 0.2], [0.2, 0.1], event))
        assert np.isnan(nri_count([0.1, 0.2], [0.2, 0.1], event)).all()
