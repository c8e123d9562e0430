"""Training learns, repeats itself under a seed, and says clearly what it lacks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cac_core.model.convlstm import NetworkConfig
from cac_core.model.training.loop import TrainingSettings, focal_loss, train_network
from cac_core.model.training.samples import Sample, load_samples, make_sample, save_sample
from tests.builders.networks import SMALL

SPACING = (5.0, 4.0, 4.0)


def annotated(seed: int = 0) -> Sample:
    """A ball for a heart in a fatty box, with bright blocks: left coronary, right non-coronary."""
    rng = np.random.default_rng(seed)
    shape = (12, 112, 112)
    z, y, x = np.ogrid[:12, :112, :112]
    heart = ((z - 6) / 5) ** 2 + ((y - 56) / 22) ** 2 + ((x - 56) / 22) ** 2 <= 1
    hu = np.where(heart, 45, -100) + rng.normal(0, 12, shape)
    calcium = np.zeros(shape, np.uint8)
    for k in range(4, 9):
        calcium[k, 50:53, 44:47] = 1
        calcium[k, 60:66, 66:72] = 2
    hu[calcium > 0] += 400
    return make_sample(hu.astype(np.int16), heart, calcium, SPACING)


SAMPLES = [annotated(seed) for seed in range(3)]
QUICK = TrainingSettings(steps=40, batch=4, patch_px=32, report_every=10)
TWO = NetworkConfig(
    n_classes=2, stem_channels=8, growth=4, dense_dilations=((1, 2),), trunk_head=8, sequence_head=4
)


@pytest.mark.parametrize(("kind", "config"), [("heart", TWO), ("calcium", SMALL)])
def test_the_loss_falls(kind: str, config: NetworkConfig) -> None:
    told: list[tuple[int, int]] = []
    network, record = train_network(
        kind, SAMPLES, config, QUICK, lambda step, steps, loss: told.append((step, steps))
    )
    curve = [loss for _, loss in record["loss"]]
    assert curve[-1] < 0.5 * curve[0]
    assert told == [(10, 40), (20, 40), (30, 40), (40, 40)]
    assert not network.training
    assert record["samples"] == 3


def test_same_seed_same_weights() -> None:
    settings = TrainingSettings(steps=5, batch=2, patch_px=32, report_every=5)
    one, two = (train_network("calcium", SAMPLES, SMALL, settings)[0] for _ in range(2))
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_focal_loss_by_hand() -> None:
    scores = torch.tensor([[[[2.0, 0.0]], [[0.0, 0.0]]]])  # (1, 2 classes, 1, 2)
    target, weight = torch.tensor([[[0, 1]]]), torch.tensor([[[1.0, 3.0]]])
    p = 1 / (1 + math.exp(-2.0))
    first, second = (1 - p) ** 2 * -math.log(p), 0.25 * math.log(2)
    expected = (first + 3 * second) / 4
    assert focal_loss(scores, target, weight, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_of_nothing_is_zero() -> None:
    nothing = torch.zeros(1, 1, 1)
    assert focal_loss(torch.zeros(1, 2, 1, 1), nothing.long(), nothing, 2.0).item() == 0


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="no training samples"):
        train_network("heart", [], TWO, QUICK)
    bare = Sample(**{**vars(SAMPLES[0]), "calcium": np.zeros_like(SAMPLES[0].calcium)})
    with pytest.raises(ValueError, match="coronary calcium"):
        train_network("calcium", [bare], SMALL, QUICK)


def test_samples_on_disk(tmp_path: Path) -> None:
    save_sample(tmp_path / "a.npz", SAMPLES[0])
    (back,) = load_samples(tmp_path)
    for name, value in vars(SAMPLES[0]).items():
        np.testing.assert_array_equal(getattr(back, name), value)
    with pytest.raises(FileNotFoundError, match="no training samples"):
        load_samples(tmp_path / "empty")


def test_a_sample_marks_the_tolerance_band() -> None:
    inside = SAMPLES[0].inside
    assert set(np.unique(inside)) == {0, 1, 2}
    # The band lies around the heart, and calcium in the heart's middle is well inside.
    assert (inside[SAMPLES[0].calcium == 2] == 2).all()


def test_samples_must_fit() -> None:
    hu = np.zeros((3, 8, 8), np.int16)
    with pytest.raises(ValueError, match="shapes differ"):
        make_sample(hu, np.ones((3, 8, 9), bool), np.zeros((3, 8, 8), np.uint8), SPACING)
    with pytest.raises(ValueError, match="empty"):
        make_sample(hu, np.zeros((3, 8, 8), bool), np.zeros((3, 8, 8), np.uint8), SPACING)
