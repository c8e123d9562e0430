"""The digest depends on the rules, not on how they are written."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from cac_core.protocol import ScoringProtocol


def test_digest_is_stable() -> None:
    assert len(ScoringProtocol().digest) == 16
    assert ScoringProtocol().digest == pickle.loads(pickle.dumps(ScoringProtocol())).digest


def test_integers_and_floats_have_the_same_digest() -> None:
    assert ScoringProtocol(threshold_hu=130).digest == ScoringProtocol(threshold_hu=130.0).digest


@pytest.mark.parametrize(
    "change",
    [
        {"threshold_hu": 131.0},
        {"connectivity": 4},
        {"min_area_mm2": 0.0},
        {"weight_edges_hu": (200.0, 300.0, 401.0)},
        {"reference_increment_mm": 2.5},
        {"kvp_rule": "table"},
        {"kvp_thresholds_hu": ((80.0, 177.0),)},
        {"mass_calibration_mg_per_ml_hu": 0.8},
    ],
)
def test_every_rule_enters_the_digest(change: dict[str, object]) -> None:
    assert dataclasses.replace(ScoringProtocol(), **change).digest != ScoringProtocol().digest


def test_every_field_is_tested_above() -> None:
    assert len(dataclasses.fields(ScoringProtocol)) == 8
