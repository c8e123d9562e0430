"""Discrimination against R, against counting every pair, by hand, and where it is not defined."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cac_core.errors import NotEstimableError
from cac_core.stats import discrimination
from cac_core.stats.censoring import censoring_survival, in_time_order
from cac_core.stats.discrimination import (
    auc,
    auc_difference,
    auc_estimate,
    delong,
    harrell_c,
    harrell_estimate,
)
from tests.builders.followed import HORIZON, csv_text, followed

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
COHORTS = ("plain", "tied")


def _golden(cohort: str) -> dict:
    return json.loads((GOLDEN / "discrimination.json").read_text())[cohort]


def auc_at(risk, time, event, horizon) -> float:
    """AUC at a horizon of patients in any order."""
    return discrimination.auc_at_estimate(*in_time_order(risk, time, event), float(horizon))


def uno_c(risk, time, event, tau) -> float:
    """Uno's concordance of patients in any order."""
    return discrimination.uno_estimate(*in_time_order(risk, time, event), float(tau))


def _g(time, event, at, *, before=False) -> np.ndarray:
    """G at or just before some times."""
    data = in_time_order(np.zeros(len(time)), time, event)
    steps = np.append(1.0, censoring_survival(data.days, data.event)[1])
    return steps[np.searchsorted(data.days, at, "left" if before else "right")]


@st.composite
def cohorts(draw):
    """Risk, time and event of up to 25 patients with many ties."""
    patient = st.tuples(st.integers(0, 5), st.integers(1, 6), st.booleans())
    risk, time, event = zip(*draw(st.lists(patient, min_size=2, max_size=25)), strict=True)
    return np.array(risk, float), np.array(time, float), np.array(event)


def _share(pairs) -> float:
    """Weighted share of pairs (weight, first risk, second risk) with the first greater."""
    total = sum(weight for weight, _, _ in pairs)
    if not total:
        return math.nan
    return sum(w * ((a > b) + 0.5 * (a == b)) for w, a, b in pairs) / total


def _g_before(time, event, at) -> float:
    """G(t-), one patient at a time: censorings after the events of their time."""
    g = 1.0
    for u in sorted({t for t, e in zip(time, event, strict=True) if not e and t < at}):
        censored = sum((time == u) & ~event)
        g *= 1 - censored / sum((time > u) | ((time == u) & ~event))
    return g


def test_the_data_of_the_golden_file_are_those_of_the_builder() -> None:
    assert (GOLDEN / "discrimination.csv").read_text() == csv_text()


@pytest.mark.parametrize("cohort", COHORTS)
def test_auc_and_delong_equal_proc(cohort) -> None:
    data, expected = followed(cohort), _golden(cohort)
    one = auc(data.risk, data.event)
    assert (one.value, one.ci_low, one.ci_high) == pytest.approx(
        (expected["auc"], expected["auc_low"], expected["auc_high"]), abs=1e-10
    )
    both = delong([data.risk, data.second], data.event)
    assert both.auc == pytest.approx([expected["auc"], expected["second_auc"]], abs=1e-12)
    assert both.covariance.ravel() == pytest.approx(
        [
            expected["variance"],
            expected["covariance"],
            expected["covariance"],
            expected["second_variance"],
        ],
        abs=1e-12,
    )
    gain = auc_difference(data.risk, data.second, data.event)
    assert gain.value == pytest.approx(expected["auc"] - expected["second_auc"], abs=1e-12)
    assert (gain.ci_low, gain.ci_high, gain.p_value) == pytest.approx(
        (expected["difference_low"], expected["difference_high"], expected["p_difference"]),
        abs=1e-10,
    )


@pytest.mark.parametrize("cohort", COHORTS)
def test_concordance_equals_survival(cohort) -> None:
    data, expected = followed(cohort), _golden(cohort)
    harrell = harrell_c(data.risk, data.days, data.event)
    assert harrell.value == pytest.approx(expected["harrell"], abs=1e-12)
    assert harrell.standard_error**2 == pytest.approx(expected["harrell_variance"], abs=1e-12)
    uno = uno_c(data.risk, data.days, data.event, HORIZON)
    assert uno == pytest.approx(expected["uno"], abs=1e-12)


@pytest.mark.parametrize("cohort", COHORTS)
def test_auc_at_equals_riskregression(cohort) -> None:
    data, expected = followed(cohort), _golden(cohort)
    found = auc_at(data.risk, data.days, data.event, HORIZON)
    assert found == pytest.approx(expected["auc_at"], abs=1e-12)


@pytest.mark.parametrize("cohort", COHORTS)
def test_censoring_survival_equals_prodlim(cohort) -> None:
    data, expected = followed(cohort), _golden(cohort)
    found = _g(data.days, data.event, expected["g_at"])
    assert found == pytest.approx(expected["g"], abs=1e-12)
    if cohort == "tied":
        before = _g(data.days, data.event, [350, 700], before=True)
        assert before == pytest.approx([expected["g"][0], expected["g"][2]], abs=1e-12)
        assert before[0] != found[1]


@given(cohorts())
@settings(deadline=None)
def test_auc_counts_pairs(cohort) -> None:
    risk, _, event = cohort
    pairs = [(1.0, a, b) for a in risk[event] for b in risk[~event]]
    assert auc_estimate(risk, event) == pytest.approx(_share(pairs), abs=1e-12, nan_ok=True)
    if pairs:
        assert auc(risk, event).value == pytest.approx(_share(pairs), abs=1e-12)


@given(cohorts(), st.sampled_from([2.0, 3.0, 5.0, math.inf]))
@settings(deadline=None)
def test_concordance_counts_pairs(cohort, tau) -> None:
    risk, time, event = cohort
    later = [
        (i, j)
        for i in range(len(risk))
        for j in range(len(risk))
        if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j]))
    ]
    harrell = _share([(1.0, risk[i], risk[j]) for i, j in later])
    g = [_g_before(time, event, at) for at in time]
    uno = _share([(g[i] ** -2, risk[i], risk[j]) for i, j in later if time[i] <= tau])
    found = harrell_estimate(*in_time_order(risk, time, event))
    assert found == pytest.approx(harrell, abs=1e-12, nan_ok=True)
    if later:
        assert harrell_c(risk, time, event).value == pytest.approx(harrell, abs=1e-12)
    assert uno_c(risk, time, event, tau) == pytest.approx(uno, abs=1e-12, nan_ok=True)


@given(cohorts(), st.sampled_from([1.0, 2.5, 4.0]))
@settings(deadline=None)
def test_auc_at_counts_weighted_pairs(cohort, horizon) -> None:
    risk, time, event = cohort
    cases, controls = np.flatnonzero(event & (time <= horizon)), np.flatnonzero(time > horizon)
    pairs = [
        (1 / _g_before(time, event, time[i]), risk[i], risk[j]) for i in cases for j in controls
    ]
    found = auc_at(risk, time, event, horizon)
    assert found == pytest.approx(_share(pairs), abs=1e-12, nan_ok=True)


@given(cohorts(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_patients_does_not_matter(cohort, random) -> None:
    order = list(range(len(cohort[0])))
    random.shuffle(order)
    shuffled = [column[order] for column in cohort]
    for call in (lambda *data: auc_at(*data, 3.0), lambda *data: uno_c(*data, 4.0)):
        assert call(*cohort) == pytest.approx(call(*shuffled), nan_ok=True)
    if math.isnan(harrell_estimate(*in_time_order(*cohort))):
        return
    one, two = harrell_c(*cohort), harrell_c(*shuffled)
    assert (one.value, one.ci_low) == pytest.approx((two.value, two.ci_low), nan_ok=True)


def test_by_hand() -> None:
    # Events at 1 (risk 3) and 3 (risk 1); censored at 1 (risk 3) and 4 (risk 2).
    risk, time, event = [3, 1, 3, 2], [1, 3, 1, 4], [1, 1, 0, 0]
    # Pairs: 1 against the others: tied, agreeing, agreeing; 3 against 4: not agreeing.
    assert harrell_c(risk, time, event).value == 2.5 / 4
    # G falls to 2/3 after the censoring at 1, so the pair of time 3 weighs 9/4.
    assert uno_c(risk, time, event, 10) == pytest.approx(2.5 / (3 + 9 / 4))
    assert _g(time, event, [0, 1, 4], before=True) == pytest.approx([1, 1, 2 / 3])
    assert _g(time, event, [0, 1, 4]) == pytest.approx([1, 2 / 3, 0])
    # By 3: events of risk 3 (weight 1) and 1 (weight 3/2) against risk 2.
    assert auc_at(risk, time, event, 3) == pytest.approx(1 / 2.5)
    assert auc([1, 2, 2, 3], [0, 0, 1, 1]).value == 3.5 / 4


def test_without_censoring_all_three_are_one_auc() -> None:
    random = np.random.default_rng(1)
    risk, event = random.normal(size=60), random.random(60) < 0.4
    time = np.where(event, 1.0, 2.0)
    expected = auc(risk, event).value
    assert harrell_c(risk, time, event).value == pytest.approx(expected)
    assert uno_c(risk, time, event, 1) == pytest.approx(expected)
    assert auc_at(risk, time, event, 1) == pytest.approx(expected)


def test_reversed_risk_mirrors() -> None:
    data = followed("tied")
    assert auc_at(data.risk, data.days, data.event, HORIZON) == pytest.approx(
        1 - auc_at(-data.risk, data.days, data.event, HORIZON)
    )
    for call in (harrell_c, lambda r, t, e: auc(r, e)):
        forth = call(data.risk, data.days, data.event)
        back = call(-data.risk, data.days, data.event)
        assert forth.value + back.value == pytest.approx(1)
        assert forth.standard_error == pytest.approx(back.standard_error)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (lambda: auc([1, 2, 3], [0, 0, 0]), "no events"),
        (lambda: auc([1, 2, 3], [1, 1, 1]), "no patients without event"),
        (lambda: auc([], []), "no patients"),
        (lambda: auc_difference([1, 2], [2, 1], [0, 0]), "no events"),
        (lambda: harrell_c([1, 2], [1, 2], [0, 0]), "no events"),
        (lambda: harrell_c([1, 2], [1, 1], [1, 1]), "no comparable pair"),
    ],
)
def test_what_cannot_be_estimated_has_a_reason(result, reason) -> None:
    with pytest.raises(NotEstimableError, match=f"^{reason}$"):
        result()


def test_estimates_without_pairs_are_nan() -> None:
    for found in (
        auc_estimate(np.array([1.0, 2, 3]), np.zeros(3, bool)),
        harrell_estimate(*in_time_order([1, 2], [1, 1], [1, 1])),
        uno_c([1, 2], [5, 6], [1, 0], 4),
        auc_at([1, 2, 3], [5, 6, 7], [1, 0, 0], 4),
        auc_at([1, 2], [1, 2], [1, 0], 2),
        auc_at([], [], [], 2),
    ):
        assert math.isnan(found)


def test_an_interval_alone_may_be_missing() -> None:
    single = auc([1, 3, 2, 0], [0, 1, 0, 0])
    assert single.value == 1
    assert math.isnan(single.ci_low)
    assert single.reason.startswith("no interval: a single")
    perfect = auc([1, 2, 3, 4], [0, 0, 1, 1])
    assert perfect.value == 1
    assert math.isnan(perfect.ci_high)
    assert "standard error is 0" in perfect.reason
    alike = auc_difference([1, 2, 4, 3, 2], [1, 20, 400, 300, 20], [0, 0, 1, 0, 1])
    assert alike.value == 0
    assert math.isnan(alike.p_value)
    assert "standard error is 0" in alike.reason


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auc([1, math.nan, 3], [0, 1, 1]), "marker is missing or infinite in 1 of 3"),
        (lambda: auc([1, 2], [0, 1, 1]), "event has 3 values where 2"),
        (lambda: auc([1, 2], [1, 2]), "codes other than 0 and 1 in 1 of 2"),
        (lambda: auc([1, 2], [math.nan, 1]), "event is missing"),
        (lambda: auc_difference([1, 2], [1], [0, 1]), "2 and 1 values"),
        (lambda: delong(np.zeros((2, 2, 2)), [0, 1]), "two dimensions"),
        (lambda: harrell_c([1, 2], [1], [0, 1]), "risk has 2 values and days 1"),
        (lambda: harrell_c([1, 2], [-1, -2], [0, 1]), "days is negative in 2 of 2"),
        (lambda: harrell_c([[1, 2]], [1, 2], [0, 1]), "one-dimensional"),
        (lambda: harrell_c([1, 2], [1, math.inf], [0, 1]), "days is missing or infinite"),
    ],
)
def test_wrong_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
