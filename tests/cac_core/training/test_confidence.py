"""The fit of the confidence: known parameters are found again, and truth is that of the sample."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from cac_core.model.cascade import Cascade
from cac_core.scoring.candidate_components import CandidateComponents
from cac_core.scoring.confidence import ConfidenceModel
from cac_core.training import confidence as module
from cac_core.training.confidence import ConfidenceCase, fit_confidence, log_score
from cac_core.training.samples import make_sample, save_sample
from tests.builders.networks import write_random_weights
from tests.builders.samples import SPACING, annotated

TRUE = ConfidenceModel(2.0, -0.5, 0.8, 0.3, 0.5, 0.15, 0.02, 20.0)


def case(rng: np.random.Generator, n: int = 12) -> ConfidenceCase:
    """A scan drawn from the model with the parameters `TRUE`."""
    calcium, coronary = rng.normal(0, 2.0, n), rng.normal(0, 4.0, n)
    added = rng.exponential(40.0, n)
    is_calcium = rng.random(n) < expit(TRUE.calcium_offset + TRUE.calcium_slope * calcium)
    is_coronary = is_calcium & (
        rng.random(n) < expit(TRUE.coronary_offset + TRUE.coronary_slope * coronary)
    )
    truth = float(added[is_coronary].sum() * np.exp(TRUE.spread_sd * rng.normal()))
    ones = np.ones(n, np.intp)
    parts = CandidateComponents(np.zeros(n, np.uint8), calcium, coronary, added, ones, np.arange(n))
    return ConfidenceCase(parts, is_calcium, is_coronary, truth)


def test_known_parameters_are_found_again() -> None:
    rng = np.random.default_rng(5)
    cases = [case(rng) for _ in range(150)]
    found, record = fit_confidence(cases)
    assert found.calcium_slope == pytest.approx(TRUE.calcium_slope, rel=0.2)
    assert found.calcium_offset == pytest.approx(TRUE.calcium_offset, abs=0.25)
    assert found.coronary_slope == pytest.approx(TRUE.coronary_slope, rel=0.2)
    assert found.coronary_offset == pytest.approx(TRUE.coronary_offset, abs=0.3)
    assert found.spread_sd == pytest.approx(TRUE.spread_sd, abs=0.08)
    assert (record["scans"], record["components"]) == (150, 1800)
    assert record["log_score"] > record["log_score_default"]
    assert record["log_score"] == pytest.approx(log_score(cases, found), abs=1e-4)
    # Other parameters have a lower score on scans that the fit did not see.
    fresh = [case(rng) for _ in range(100)]
    for worse in (
        dataclasses.replace(found, spread_sd=1.0),
        dataclasses.replace(found, coronary_slope=0.1),
        dataclasses.replace(found, calcium_offset=2.0),
    ):
        assert log_score(fresh, found) > log_score(fresh, worse)


def test_the_log_score_by_hand() -> None:
    parts = CandidateComponents(
        *(np.array([value]) for value in (1, 0.0, 0.0, 50.0)),  # type: ignore[arg-type]
        np.ones(1, np.intp),
        np.zeros(1, np.intp),
    )
    one = ConfidenceCase(parts, np.array([True]), np.array([True]), 55.0)
    model = ConfidenceModel(0.0, 100.0, 0.0, 0.0, 0.0, 1e-6, 0.0, 20.0)
    # Calcium for sure, coronary with a chance of a half; 55 and 50 are both from 30 to 100.
    assert log_score([one], model) == pytest.approx(math.log(0.5))
    assert log_score([dataclasses.replace(one, truth=0.0)], model) == pytest.approx(math.log(0.5))
    far = dataclasses.replace(one, truth=900.0)
    assert log_score([far], model) == pytest.approx(math.log(1e-6))


def test_no_scan_leaves_the_defaults() -> None:
    empty = CandidateComponents(
        np.zeros(0, np.uint8), *[np.zeros(0)] * 3, *[np.zeros(0, np.intp)] * 2
    )
    nothing = ConfidenceCase(empty, np.zeros(0, bool), np.zeros(0, bool), 0.0)
    found, _ = fit_confidence([nothing])
    start = ConfidenceModel()
    assert found.calcium_slope == pytest.approx(start.calcium_slope)
    assert found.coronary_slope == pytest.approx(start.coronary_slope)
    # One study without calcium makes unseen calcium a little less likely.
    assert 0.0 < found.unseen_chance < start.unseen_chance


def test_the_heart_of_a_sample_is_that_of_its_scan(tmp_path: Path) -> None:
    write_random_weights(tmp_path / "weights")
    cascade = Cascade.load(tmp_path / "weights")
    rng = np.random.default_rng(3)
    z, y, x = np.ogrid[:14, :200, :180]
    heart = ((z - 8) / 3) ** 2 + ((y - 120) / 22) ** 2 + ((x - 90) / 22) ** 2 <= 1
    hu = (np.where(heart, 45, -100) + rng.normal(0, 12, heart.shape)).astype(np.int16)
    sample = make_sample(hu, heart, np.zeros(hu.shape, np.uint8), SPACING)
    start, size = sample.crop_start, sample.hu.shape
    box = tuple(slice(int(a), int(a) + n) for a, n in zip(start, size, strict=True))
    np.testing.assert_array_equal(hu[box], sample.hu)
    assert tuple(sample.scan_shape) == hu.shape
    whole = cascade.segment_heart(hu, SPACING)[box]
    found = module._predicted_heart(cascade, sample)
    assert found.any()
    assert (found == whole).mean() > 0.995  # the stack of a sample has half precision


def test_the_annotated_class_of_components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_random_weights(tmp_path / "weights")
    sample = annotated()
    save_sample(tmp_path / "a.safetensors", sample)
    monkeypatch.setattr(module, "_predicted_heart", lambda *_: sample.inside > 0)
    found = module._case(tmp_path / "a.safetensors", tmp_path / "weights", 0.0)
    # The blocks are 3 x 3 and 6 x 6 pixels of 16 mm2 in five slices, of weight 4, 5 mm apart.
    assert found.truth == pytest.approx(5 * 9 * 16 * 4 * 5 / 3)
    coronary = found.components.agatston[found.is_coronary].sum()
    assert coronary == pytest.approx(found.truth)
    assert not (found.is_coronary & ~found.is_calcium).any()
