"""Batches: reproducibility, content of patches, and loss weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cac_core.model.preprocess import heart_frame
from cac_core.training.batches import (
    BatchSettings,
    CalciumBatches,
    HeartBatches,
    _candidate_weight,
    _heart_weight,
)
from cac_core.training.samples import Sample, SampleFiles, save_sample
from tests.builders.networks import SMALL_CALCIUM
from tests.builders.samples import annotated

SETTINGS = BatchSettings(size=6, patch_px=32, background_share=0.05, seed=3)


class OneSample:
    """A sample that was never on disk."""

    names = ("only",)

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def __getitem__(self, number: int) -> Sample:
        return self.sample


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> SampleFiles:
    """Two samples on disk."""
    folder: Path = tmp_path_factory.mktemp("samples")
    paths = [folder / f"{n}.safetensors" for n in range(2)]
    for n, path in enumerate(paths):
        save_sample(path, annotated(n))
    return SampleFiles(paths)


@pytest.mark.parametrize("source", [HeartBatches, CalciumBatches])
def test_a_batch_depends_on_seed_and_step_only(source, samples) -> None:
    first = source(samples, SMALL_CALCIUM, SETTINGS)
    second = source(samples, SMALL_CALCIUM, SETTINGS)
    second.draw(1)
    one, other = first.draw(5), second.draw(5)
    for name in ("stacks", "target", "weight", *(["position"] if source is CalciumBatches else [])):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert not torch.equal(one.stacks, first.draw(6).stacks)


def test_patches_hold_what_they_are_centred_on(samples) -> None:
    batches = CalciumBatches(samples, SMALL_CALCIUM, replace(SETTINGS, vary=False))
    for step in range(8):
        batch = batches.draw(step)
        side = 32 + 2 * batches.margin
        assert batch.stacks.shape == (6, 3, side, side)
        assert batch.target.shape == batch.weight.shape == (6, 32, 32)
        assert (batch.target[[0, 3]] == 1).flatten(1).any(dim=1).all()
        assert (batch.target[[1, 4]] == 2).flatten(1).any(dim=1).all()
        # Pixels with a high weight are bright in the stack.
        middle = batch.stacks[
            :, 1, batches.margin : -batches.margin, batches.margin : -batches.margin
        ]
        assert (middle[batch.weight > 0.5] >= (130 - 50) / 150 - 1e-3).all()


def test_position_channels_follow_the_patch(samples) -> None:
    """HU equal the column index, so each pixel of a patch shows its origin."""
    sample = samples[0]
    hu = np.broadcast_to(np.arange(sample.hu.shape[2], dtype=np.int16), sample.hu.shape)
    shown = OneSample(replace(sample, hu=hu.copy()))
    frame = heart_frame(sample.inside == 2)
    for vary, tolerance in ((False, 1e-4), (True, 0.35)):
        batch = CalciumBatches(shown, SMALL_CALCIUM, replace(SETTINGS, vary=vary)).draw(3)
        assert batch.position is not None
        assert batch.position.shape == (6, 3, *batch.stacks.shape[2:])
        core = np.s_[:, batch.margin : -batch.margin, batch.margin : -batch.margin]
        column = batch.stacks[:, 1][core] * 150 + 50
        expected = (column - frame.centre[2]) / frame.half[2]
        off = (batch.position[:, 2][core] - expected).abs().flatten()
        assert off.quantile(0.5 if vary else 1.0) < tolerance  # noise and another frame, if varied


def test_position_dropout_in_training_only(samples) -> None:
    for vary, low, high in ((False, 0, 0), (True, 0.18, 0.42)):
        batches = CalciumBatches(samples, SMALL_CALCIUM, replace(SETTINGS, vary=vary))
        positions = torch.cat([batches.draw(step).position for step in range(20)])
        assert low <= (positions == 0).all(dim=(1, 2, 3)).double().mean() <= high


def test_no_position_without_position_channels(samples) -> None:
    assert (
        CalciumBatches(samples, replace(SMALL_CALCIUM, position_channels=False), SETTINGS)
        .draw(0)
        .position
        is None
    )


def test_small_components_count_as_much_as_large_ones_nearly() -> None:
    bright = np.zeros((20, 20), bool)
    bright[2:4, 2:3] = True  # 2 pixels
    bright[8:18, 8:18] = True  # 100 pixels
    bright[0, 19] = True  # below 1 mm2
    target = np.zeros((20, 20), np.int64)
    target[8:18, 8:18] = 1
    weight = _candidate_weight(bright, target, 0.8)
    small, large = weight[2:4, 2:3].sum(), weight[8:18, 8:18].sum()
    assert small == pytest.approx(2 * np.sqrt(2))
    assert large == pytest.approx(2 * 10)
    assert weight[0, 19] == 0
    assert weight[~bright].sum() == 0


def test_validation_is_not_varied(samples) -> None:
    still = HeartBatches(samples, SMALL_CALCIUM, replace(SETTINGS, vary=False)).draw(0)
    known = {n: torch.from_numpy(samples[n].heart_stack.astype(np.float32)) for n in range(2)}
    for stack, name in zip(still.stacks, still.names, strict=True):
        whole = known[int(name)]
        assert any(torch.equal(stack, whole[k : k + 3]) for k in range(len(whole) - 2))


def test_missing_a_pixel_of_the_heart_costs_more_than_a_spare_one() -> None:
    """A straight border between columns 49 and 50; pixels of 4 mm."""
    heart = np.zeros((112, 112), bool)
    heart[:, 50:] = True
    coronary = np.zeros_like(heart)
    coronary[10, 45:90] = True
    weight = _heart_weight(heart, coronary)
    # Centres lie 2, 6 and 10 mm from the border on either side.
    assert weight[60, 45:56].tolist() == [1, 1, 0.5, 0.5, 0.5, 2, 2, 2, 1, 1, 1]
    assert weight[10, 44:53].tolist() == [1, 1, 1, 0.5, 0.5, 0.5, 4, 4, 4]
    assert weight[10, 88:92].tolist() == [4, 4, 1, 1]
    assert (_heart_weight(np.zeros_like(heart), coronary) == 1).all()


@pytest.mark.parametrize("vary", [False, True])
def test_heart_batches_weigh_the_heart_beside_coronary_calcium_most(vary: bool) -> None:
    sample = annotated()
    assert sample.heart_coronary.any()
    batch = HeartBatches(
        OneSample(sample), SMALL_CALCIUM, replace(SETTINGS, size=24, vary=vary)
    ).draw(1)
    assert set(batch.weight.unique().tolist()) == {0.5, 1.0, 2.0, 4.0}
    assert (batch.target[batch.weight >= 2] == 1).all()
    assert (batch.target[batch.weight == 0.5] == 0).all()
    empty = (batch.target == 0).all(dim=(1, 2))
    assert (batch.weight[empty] == 1).all()
