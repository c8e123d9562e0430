"""Resamples with refits: reproducible, in any order, equal to the parts they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cac_core.stats.bootstrap import (
    FIXED,
    METRICS,
    OPTIMISM,
    MarkerData,
    bootstrap,
    corrected,
    measure,
    one_resample,
    percentile_interval,
    resampled,
)
from cac_core.stats.cox import fit_cox, time_order
from cac_core.stats.discrimination import auc, auc_at_estimate, harrell_c, uno_estimate
from cac_core.stats.reclassification import idi, moves, nri_count, nri_kaplan_meier, nri_weighted
from tests.builders.designs import BASE, Followed, absolute_risks, design
from tests.builders.golden import answer

HORIZON = 3 * 365.25
CUTS = (0.10, 0.20)
PINNED = [0, 1, 2, 3, 5, 6, 6, 7]


def _marker_data(base: Followed, full: dict[str, np.ndarray]) -> MarkerData:
    event = base.event.astype(bool)
    order = time_order(base.days, event)
    return MarkerData(
        np.ascontiguousarray(base.x[order]),
        {name: np.ascontiguousarray(x[order]) for name, x in full.items()},
        base.days[order],
        event[order],
        HORIZON,
        CUTS,
    )


@cache
def _nasty() -> MarkerData:
    """A level without events (dl), and two other markers of the same patients."""
    terms = ("cac_category", *BASE)
    whole = design("nasty", terms)
    base = design(whole.frame, BASE)
    age_only = np.column_stack([base.x, (base.x[:, 0] - 6) ** 2])
    above = np.column_stack([whole.frame["cac_above_100"].to_numpy(), base.x])
    return _marker_data(base, {"dl": whole.x, "above": above, "curve": age_only})


# -- the whole sample ----------------------------------------------------------------------------


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_measures_of_all_patients_equal_those_of_r(cohort: str) -> None:
    terms = ("cac_category", *BASE)
    whole = design(cohort, terms)
    data = _marker_data(design(whole.frame, BASE), {"dl": whole.x})
    _, values = measure(data)
    found = dict(zip(METRICS, values["dl"], strict=True))
    expected = answer(cohort, "added_value", "dl")
    assert found["lr_chi2_gain"] == pytest.approx(expected["lr"], rel=1e-8)
    for key, form in (("nri_km", ""), ("nri_ipw", "_ipw"), ("nri_km_categorical", "_categorical")):
        for part, name in (
            ("event", "nri_event"),
            ("nonevent", "nri_nonevent"),
            ("overall", "nri"),
        ):
            assert found[f"nri_{part}{form}"] == pytest.approx(expected[key][name], abs=1e-9)
    hmisc = expected["improve_prob"]
    assert found["nri_overall_count"] == pytest.approx(hmisc["nri"], abs=1e-9)
    assert found["idi"] == pytest.approx(hmisc["idi"], abs=1e-9)
    assert found["p_up_event"] == pytest.approx(expected["nri_km"]["p_up_event"], abs=1e-9)
    assert found["auc_gain"] == pytest.approx(expected["auc"]["gain"], abs=1e-9)
    for model in ("base", "full"):
        assert found[f"harrell_c_{model}"] == pytest.approx(expected[f"harrell_{model}"], abs=1e-9)
        assert found[f"uno_c_{model}"] == pytest.approx(expected[f"uno_{model}"], abs=1e-9)


def test_a_resample_is_the_analysis_of_its_patients_by_the_public_functions() -> None:
    data = _nasty()
    fits, _ = measure(data)
    smoking = data.base[:, BASE.index("smoking")]
    number = next(  # one that can be fitted: a smoker with, a smoker without the event
        number
        for number in range(99)
        if len({*data.event[(r := resampled(len(data.days), 7, number))][smoking[r] == 1]}) == 2
    )
    found = one_resample(data, fits, 7, number)[1]  # the marker `above`
    rows = resampled(len(data.days), 7, number)
    t, d = data.days[rows], data.event[rows]
    risks, logs = [], []
    for design_of in (data.base, data.full["above"]):
        x = design_of[rows]
        x = x[:, x.std(axis=0) > 0]
        risks.append(absolute_risks(x, t, d, HORIZON))
        logs.append(fit_cox(x, t, d).log_likelihood)
    old, new = risks
    values = dict(zip((*METRICS, *FIXED), found, strict=True))
    assert values["lr_chi2_gain"] == pytest.approx(2 * (logs[1] - logs[0]), rel=1e-6)
    moved = moves(old, new)
    km, ipw = (form(t, d, *moved, HORIZON) for form in (nri_kaplan_meier, nri_weighted))
    cut = nri_kaplan_meier(t, d, *moves(old, new, np.array(CUTS)), HORIZON)
    counted = nri_count(d, *moved)
    for form, want in (("", km), ("_ipw", ipw), ("_categorical", cut), ("_count", counted)):
        got = [values[f"nri_{part}{form}"] for part in ("event", "nonevent", "overall")]
        assert got == pytest.approx([want.event, want.nonevent, want.overall], abs=1e-9)
    assert values["idi"] == pytest.approx(idi(old, new, d), abs=1e-6)
    for name, of in (
        ("auc", lambda risk: auc(risk, d).value),
        ("auc_time", lambda risk: auc_at_estimate(risk, t, d, HORIZON)),
        ("harrell_c", lambda risk: harrell_c(risk, t, d).value),
        ("uno_c", lambda risk: uno_estimate(risk, t, d, HORIZON)),
    ):
        assert values[f"{name}_base"] == pytest.approx(of(old), abs=1e-9)
        assert values[f"{name}_gain"] == pytest.approx(of(new) - of(old), abs=1e-9)
    of_all = moves(fits.base_risk[rows], fits.full_risk["above"][rows])
    fixed = nri_kaplan_meier(t, d, *of_all, HORIZON)
    assert [values[name] for name in FIXED] == pytest.approx(
        [fixed.event, fixed.nonevent, fixed.overall], abs=1e-12
    )


def _small(optimism: bool) -> MarkerData:
    random = np.random.default_rng(12)
    age, marker = random.normal(size=(2, 240))
    latent = random.exponential(2000 / np.exp(0.6 * age + 0.7 * marker))
    end = random.uniform(300, 2500, 240)
    days, event = np.ceil(np.minimum(latent, end) / 10) * 10, latent <= end
    order = time_order(days, event)
    base = age[order, None]
    full = np.column_stack([age, marker])[order]
    return MarkerData(base, {"m": full}, days[order], event[order], HORIZON, CUTS, optimism)


def test_optimism_is_that_of_a_plain_loop_over_public_functions() -> None:
    data, resamples = _small(optimism=True), 25
    fits, values = measure(data)
    drawn = bootstrap(data, fits, resamples, 3)
    shown = dict(zip(METRICS, values["m"], strict=True))
    found: dict[str, list[float]] = {name: [] for name in ("auc_full", "harrell_c_gain", "nri")}
    for number in range(resamples):
        rows = resampled(len(data.days), 3, number)
        t, d = data.days[rows], data.event[rows]
        here, there = [], []
        for x in (data.base, data.full["m"]):
            here.append(absolute_risks(x[rows], t, d, HORIZON))
            there.append(absolute_risks(x[rows], t, d, HORIZON, x))
        every = (data.days, data.event)
        for name, of in (
            ("auc_full", lambda risks, _, event: auc(risks[1], event).value),
            (
                "harrell_c_gain",
                lambda risks, days, event: (
                    harrell_c(risks[1], days, event).value - harrell_c(risks[0], days, event).value
                ),
            ),
            (
                "nri",
                lambda risks, days, event: (
                    nri_kaplan_meier(days, event, *moves(*risks), HORIZON).overall
                ),
            ),
        ):
            found[name].append(of(here, t, d) - of(there, *every))
    for name, differences in found.items():
        metric = "nri_overall" if name == "nri" else name
        got = drawn.of("m", f"{metric}_optimism")
        assert got == pytest.approx(np.array(differences), abs=1e-7), name
        value, usable = corrected(shown[metric], got)
        assert usable == resamples
        assert value == pytest.approx(shown[metric] - np.mean(differences), abs=1e-7)


def test_optimism_changes_no_other_figure_and_is_there_only_where_it_is_asked_for() -> None:
    plain, more = _small(optimism=False), _small(optimism=True)
    without = bootstrap(plain, measure(plain)[0], 5, 3)
    with_it = bootstrap(more, measure(more)[0], 5, 3)
    assert set(with_it.metrics) - set(without.metrics) == set(OPTIMISM)
    assert np.array_equal(with_it.values[:, :, : without.values.shape[2]], without.values)
    assert np.isnan(corrected(0.7, np.array([0.1, np.nan]))[0])


def test_fixed_risks_in_all_patients_give_the_estimate_itself() -> None:
    data = _nasty()
    fits, values = measure(data)
    moved = moves(fits.base_risk, fits.full_risk["dl"])
    found = nri_kaplan_meier(data.days, data.event, *moved, HORIZON)
    assert values["dl"][METRICS.index("nri_overall")] == pytest.approx(found.overall, abs=1e-12)


# -- resamples -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**40), st.integers(0, 5000))
def test_a_resample_follows_from_seed_number_and_size_alone(n, seed, number) -> None:
    rows = resampled(n, seed, number)
    assert len(rows) == n and rows.min() >= 0 and rows.max() < n
    assert (np.diff(rows) >= 0).all()  # keeps the order of time
    np.random.default_rng(seed).random(10)  # no state of others matters
    assert np.array_equal(rows, resampled(n, seed, number))


def test_resamples_are_pinned_and_differ_by_seed_and_number() -> None:
    # Pinned: published intervals must come again from their seed in every later version.
    assert resampled(8, 2023, 0).tolist() == PINNED
    others = [resampled(50, seed, number).tolist() for seed in (1, 2) for number in range(3)]
    assert len({tuple(one) for one in others}) == 6


def test_every_patient_is_drawn_equally_often() -> None:
    counts = sum(np.bincount(resampled(20, 5, k), minlength=20) for k in range(2000))
    # Binomial(40000, 1/20): standard deviation 44.
    assert np.abs(counts - 2000).max() < 5 * 44


def _backwards(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    done = {item: function(item) for item in reversed(list(items))}
    return iter([done[item] for item in sorted(done)])


def test_same_bytes_for_any_number_of_threads_and_any_order_of_work() -> None:
    data = _nasty()
    fits, _ = measure(data)
    one = bootstrap(data, fits, 24, 11)
    assert one.values.shape == (24, 3, len(METRICS) + len(FIXED))
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            assert bootstrap(data, fits, 24, 11, pool.map).values.tobytes() == one.values.tobytes()
    assert bootstrap(data, fits, 24, 11, _backwards).values.tobytes() == one.values.tobytes()
    # The first ten of many are the ten of few; another seed gives others.
    assert np.array_equal(bootstrap(data, fits, 10, 11).values, one.values[:10], equal_nan=True)
    assert not np.array_equal(bootstrap(data, fits, 24, 12).values, one.values, equal_nan=True)


def test_markers_share_their_resamples() -> None:
    data = _nasty()
    fits, _ = measure(data)
    values = bootstrap(data, fits, 6, 3)
    base = [values.of(name, "harrell_c_base") for name in data.full]
    assert np.array_equal(base[0], base[1]) and np.array_equal(base[0], base[2])
    assert not np.array_equal(values.of("dl", "nri_event"), values.of("above", "nri_event"))


def test_resamples_that_lack_a_level_or_separate_still_give_values() -> None:
    data = _nasty()
    # Of five smokers one has an event: some resamples have no smoker, some none with an event.
    smoking = data.base[:, BASE.index("smoking")]
    lacking, without = [], []
    for number in range(60):
        rows = resampled(len(data.days), 4, number)
        smokers = smoking[rows] == 1
        lacking += [number] if not smokers.any() else []
        without += [number] if smokers.any() and not data.event[rows][smokers].any() else []
    assert lacking or without
    fits, _ = measure(data)
    values = bootstrap(data, fits, 60, 4)
    for name in ("nri_overall", "lr_chi2_gain", "harrell_c_gain", "idi", "nri_overall_fixed"):
        found = values.of("dl", name)
        assert np.isfinite(found[[*lacking, *without]]).all()
        assert np.isfinite(found).all()
    assert (values.of("dl", "lr_chi2_gain") > -1e-6).all()


def test_a_resample_without_events_gives_no_value() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 2))
    days, event = np.arange(1.0, 13.0), np.arange(12) == 3
    data = MarkerData(x[:, :1].copy(), {"m": x}, days, event, 6.0, (0.1,))
    rows = next(n for n in range(99) if not event[resampled(12, 1, n)].any())
    fits, _ = measure(data)
    assert np.isnan(one_resample(data, fits, 1, rows)).all()


# -- intervals -----------------------------------------------------------------------------------


def test_percentile_interval_is_that_of_the_order_statistics() -> None:
    values = np.random.default_rng(3).permutation(np.arange(1001.0))
    assert percentile_interval(values) == pytest.approx((25.0, 975.0, 1001))
    assert percentile_interval(values, 0.8)[:2] == pytest.approx((100.0, 900.0))


@pytest.mark.parametrize(("missing", "shown"), [(100, True), (101, False)])
def test_an_interval_needs_nine_in_ten_resamples(missing: int, shown: bool) -> None:
    values = np.arange(1000.0)
    values[:missing] = np.nan
    low, high, usable = percentile_interval(values)
    assert usable == 1000 - missing
    assert math.isfinite(low) is shown and math.isfinite(high) is shown


def test_no_resamples_have_no_interval() -> None:
    low, high, usable = percentile_interval(np.zeros(0))
    assert math.isnan(low) and math.isnan(high) and usable == 0


# -- wrong input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"base": [[0.1], [np.nan], [0.2]]}, "base: covariates that are missing or not finite"),
        ({"full": [[0.1], [np.inf], [0.2]]}, "m: covariates that are missing or not finite"),
        ({"full": [[0.1], [0.2]]}, r"m: a design \(2, 1\) for 3 patients"),
        ({"event": [1, 2, 0]}, "codes other than 0 and 1"),
        ({"days": [-1.0, 2.0, 3.0]}, "days is negative in 1 of 3"),
        ({"days": [1.0, 3.0, 2.0]}, "not in the order of time"),
        ({"days": [1.0, 2.0, 2.0], "event": [1, 0, 1]}, "events before censorings"),
    ],
)
def test_data_that_are_wrong_are_refused(change, reason: str) -> None:
    data = {"base": [[1.0], [2.0], [0.0]], "full": [[1.0], [2.0], [0.0]]}
    data |= {"days": [1.0, 2.0, 3.0], "event": [1, 1, 0]} | change
    base, full, days = (np.array(data[name], float) for name in ("base", "full", "days"))
    with pytest.raises(ValueError, match=reason):
        MarkerData(base, {"m": full}, days, np.array(data["event"]), 2.0, ())
