"""Calibration and decision curves against R, by hand, and where they are not defined."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cac_core.errors import NotEstimableError
from cac_core.stats.calibration import (
    brier_score,
    calibration_groups,
    net_benefit,
    observed_expected,
)
from tests.builders.followed import HORIZON, followed

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "discrimination.json"
COHORTS = ("plain", "tied")


def _golden(cohort: str) -> dict:
    return json.loads(GOLDEN.read_text())[cohort]


@pytest.mark.parametrize("cohort", COHORTS)
def test_groups_equal_survfit(cohort) -> None:
    data, expected = followed(cohort), _golden(cohort)["groups"]
    found = calibration_groups(data.risk, data.days, data.event, HORIZON, groups=5)
    assert [group.n for group in found] == [group["n"] for group in expected.values()]
    for group, row in zip(found, expected.values(), strict=True):
        assert (group.predicted, group.observed, group.ci_low, group.ci_high) == pytest.approx(
            (row["predicted"], row["risk"], row["low"], row["high"]), abs=1e-12
        )


@pytest.mark.parametrize("cohort", COHORTS)
def test_observed_over_expected(cohort) -> None:
    data, expected = followed(cohort), _golden(cohort)
    found = observed_expected(data.risk, data.days, data.event, HORIZON)
    everyone, mean = expected["everyone"], expected["mean_risk"]
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx(
        (everyone["risk"] / mean, everyone["low"] / mean, everyone["high"] / mean), abs=1e-12
    )


@pytest.mark.parametrize(("cohort", "tolerance"), [("plain", 2e-4), ("tied", 2e-2)])
def test_brier_score_equals_riskregression(cohort, tolerance) -> None:
    data, expected = followed(cohort), _golden(cohort)
    found = brier_score(data.risk, data.days, data.event, HORIZON)
    assert found.value == pytest.approx(expected["brier"], abs=1e-12)
    assert found.reference == pytest.approx(expected["brier_reference"], abs=1e-12)
    assert found.scaled == pytest.approx(1 - expected["brier"] / expected["brier_reference"])
    # riskRegression's standard error is not exact with ties; ours is, see below.
    assert found.standard_error == pytest.approx(expected["brier_error"], rel=tolerance)


def test_standard_error_of_brier_is_the_derivative_in_the_patients_weights() -> None:
    # A patient of weight 1 + 1/m is m + 1 copies beside m of each other patient.
    data = followed("tied")
    columns = [column[:30] for column in (data.risk, data.days, data.event)]
    found = brier_score(*columns, HORIZON)
    copies, slopes = 2000, []
    for patient in range(30):
        times = np.full(30, copies) + (np.arange(30) == patient)
        more = brier_score(*(np.repeat(column, times) for column in columns), HORIZON)
        slopes.append((more.value - found.value) * copies)
    exact = np.sqrt(np.sum(np.square(slopes)) * 30 / 29)
    assert found.standard_error == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("cohort", COHORTS)
def test_net_benefit_equals_survfit(cohort) -> None:
    data, expected = followed(cohort), _golden(cohort)
    found = net_benefit(data.risk, data.days, data.event, HORIZON, expected["thresholds"])
    assert found.model == pytest.approx(expected["net_benefit"], abs=1e-12)
    risk = expected["everyone"]["risk"]
    odds = np.divide(found.thresholds, 1 - found.thresholds)
    assert found.treat_all == pytest.approx(risk - (1 - risk) * odds, abs=1e-12)
    assert found.treat_none.tolist() == [0, 0, 0]
    assert found.n_flagged.tolist() == [(data.risk >= p).sum() for p in expected["thresholds"]]


def test_by_hand_without_censoring() -> None:
    risk, time, event = [0.1, 0.2, 0.6, 0.9], [9, 9, 9, 1], [0, 0, 0, 1]
    brier = brier_score(risk, time, event, 5)
    assert brier.value == pytest.approx((0.01 + 0.04 + 0.36 + 0.01) / 4)
    assert brier.reference == pytest.approx(0.25 * 0.75)
    assert observed_expected(risk, time, event, 5).value == pytest.approx(0.25 / 0.45)
    low, high = calibration_groups(risk, time, event, 5, groups=2)
    assert (low.n, low.predicted, low.observed, low.n_events) == (2, pytest.approx(0.15), 0, 0)
    assert (high.n, high.predicted, high.observed, high.n_events) == (2, 0.75, 0.5, 1)
    curve = net_benefit(risk, time, event, 5, [0, 0.5, 0.6, 0.95])
    # 2 flagged, 1 with the event: 1/4 - 1/4 x odds of the threshold; a risk at it is flagged.
    assert curve.model == pytest.approx([0.25, 0.25 - 0.25, 0.25 - 0.25 * 1.5, 0])
    assert curve.n_flagged.tolist() == [4, 2, 2, 0]
    assert curve.treat_all[0] == pytest.approx(0.25)


def test_equal_risks_share_a_group() -> None:
    (one,) = calibration_groups([0.2] * 6, [1, 2, 3, 4, 5, 6], [1, 0, 1, 0, 1, 0], 4)
    assert one.n == 6
    assert one.n_events == 2
    assert calibration_groups([], [], [], 4) == ()


def test_follow_up_that_ends_too_early() -> None:
    risk, time, event = [0.1, 0.2, 0.8, 0.9], [9, 9, 3, 2], [0, 0, 0, 1]
    low, high = calibration_groups(risk, time, event, 5, groups=2)
    assert low.reason == "no interval: no event by the horizon"
    assert (low.observed, math.isnan(low.ci_low)) == (0, True)
    assert high.reason == "follow-up ends before the horizon"
    assert math.isnan(high.observed)
    curve = net_benefit(risk, time, event, 5, [0.05, 0.5])
    assert curve.reasons == ("", "follow-up ends before the horizon")
    assert np.isnan(curve.model).tolist() == [False, True]
    assert observed_expected(risk, time, event, 50).reason == "follow-up ends before the horizon"
    with pytest.raises(NotEstimableError, match="no patient followed past the horizon"):
        brier_score(risk, time, event, 9)


def test_all_had_the_event() -> None:
    risk, time, event = [0.5, 0.5, 0.9], [1, 2, 3], [1, 1, 1]
    score = brier_score(risk, time, event, 5)
    assert score.value == pytest.approx((0.25 + 0.25 + 0.01) / 3)
    assert math.isnan(score.scaled)
    assert "everyone or no one" in score.reason
    (group,) = calibration_groups(risk, time, event, 5, groups=1)
    assert (group.observed, group.reason) == (1, "no interval: no survivor")


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: observed_expected([], [], [], 1), "no patients"),
        (lambda: observed_expected([0, 0], [5, 6], [0, 1], 1), "every predicted risk is 0"),
        (lambda: brier_score([0.5], [5], [0], 1), "fewer than two patients"),
        (lambda: net_benefit([], [], [], 1, [0.1, 0.2]), "no patients"),
    ],
)
def test_no_patients_and_no_risk(call, reason: str) -> None:
    with pytest.raises(NotEstimableError, match=f"^{reason}$"):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: brier_score([0.5, 1.5], [1, 2], [0, 1], 1), "outside 0 to 1 in 1 of 2"),
        (lambda: brier_score([0.5, 0.5], [1, 2], [0, 1], -1), "horizon_days must be greater"),
        (lambda: brier_score([0.5, 0.5], [1, 2], [0, 1], math.nan), "must be greater than 0"),
        (lambda: calibration_groups([0.5], [1], [0], 1, groups=0), "at least one group"),
        (lambda: calibration_groups([0.5], [1], [3], 1), "codes other than 0 and 1 in 1 of 1"),
        (lambda: net_benefit([0.5], [1], [0], 1, [1.0]), "thresholds"),
        (lambda: net_benefit([0.5], [1], [0], 1, [math.nan]), "thresholds"),
    ],
)
def test_wrong_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
