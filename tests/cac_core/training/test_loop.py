"""The training loop: loss, reproducibility, resume, and errors."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cac_core.errors import TrainingDataError, TrainingError
from cac_core.model.convlstm import ConvLSTMSegmenter, NetworkConfig
from cac_core.training import loop
from cac_core.training.loop import focal_loss, load_trained, train_network
from cac_core.training.samples import SampleFiles, save_sample
from cac_core.training.settings import TrainingSettings
from tests.builders.networks import SMALL
from tests.builders.samples import annotated

QUICK = TrainingSettings(
    steps=40, batch=4, patch_px=32, validate_every=10, validation_batches=2, precision="float32"
)
TWO = replace(SMALL, n_classes=2)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[SampleFiles, SampleFiles]:
    """Three samples to train on and one to validate with."""
    folder = tmp_path_factory.mktemp("samples")
    paths = [folder / f"study-{n}.safetensors" for n in range(4)]
    for n, path in enumerate(paths):
        save_sample(path, annotated(n))
    return SampleFiles(paths[:3]), SampleFiles(paths[3:])


def fresh(config: NetworkConfig = SMALL) -> ConvLSTMSegmenter:
    torch.manual_seed(7)
    return ConvLSTMSegmenter(config)


@pytest.mark.parametrize(("kind", "config"), [("heart", TWO), ("calcium", SMALL)])
def test_the_loss_falls(kind, config, samples, tmp_path: Path) -> None:
    steps: list[int] = []
    network = fresh(config)
    record = train_network(
        kind, network, *samples, QUICK, tmp_path, progress=lambda step, *_: steps.append(step)
    )
    curve = np.genfromtxt(tmp_path / "curves.csv", delimiter=",", names=True)
    assert curve["training_loss"][-1] < 0.5 * curve["training_loss"][0]
    assert steps == [10, 20, 30, 40] == curve["step"].tolist()
    assert not network.training
    assert record["best_validation_loss"] == pytest.approx(curve["validation_loss"].min())
    assert record == json.loads((tmp_path / "record.json").read_text())
    again = ConvLSTMSegmenter(config)
    load_trained(tmp_path, again)
    for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_keep_last_keeps_the_last_weights(samples, tmp_path: Path, monkeypatch) -> None:
    short = replace(QUICK, steps=6, validate_every=2)
    ends = {}
    for keep in ("best", "last"):
        held = iter([1.0, 2.0, 3.0])
        monkeypatch.setattr(loop, "_validate", lambda *_, held=held: next(held))
        network, folder = fresh(), tmp_path / keep
        record = train_network("calcium", network, *samples, replace(short, keep=keep), folder)
        assert (record["best_step"], record["steps_done"]) == (2, 6)
        ends[keep] = network.state_dict()
        stored = torch.load(folder / "checkpoint.pt", weights_only=True)
        kept = torch.load(folder / "network.pt", weights_only=True)
        for name, value in stored["best" if keep == "best" else "network"].items():
            torch.testing.assert_close(ends[keep][name], value, rtol=0, atol=0)
            torch.testing.assert_close(kept[name], value, rtol=0, atol=0)
    assert any(not torch.equal(ends["best"][name], ends["last"][name]) for name in ends["best"])


def test_a_resumed_run_equals_an_uninterrupted_one(samples, tmp_path: Path, monkeypatch) -> None:
    whole = fresh()
    record = train_network("calcium", whole, *samples, QUICK, tmp_path / "whole")

    real, calls = loop._step, 0

    def dies(*args):
        nonlocal calls
        calls += 1
        if calls in (13, 30):  # after a checkpoint, and between two
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(loop, "_step", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_network("calcium", fresh(), *samples, QUICK, tmp_path / "killed")
    resumed = fresh()
    second = train_network("calcium", resumed, *samples, QUICK, tmp_path / "killed")
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    curves = [(tmp_path / name / "curves.csv").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]
    assert {**record, "seconds": 0} == {**second, "seconds": 0}


def test_a_finished_run_is_not_trained_again(samples, tmp_path: Path, monkeypatch) -> None:
    record = train_network("calcium", fresh(), *samples, QUICK, tmp_path)
    monkeypatch.setattr(loop, "_step", lambda *_: pytest.fail("a step was made"))
    assert train_network("calcium", fresh(), *samples, QUICK, tmp_path) == record


def test_sigkill_in_mid_run(samples, tmp_path: Path) -> None:
    """A killed process leaves a checkpoint to resume from."""
    code = f"""
import torch
from pathlib import Path
from tests.cac_core.training.test_loop import QUICK, fresh
from cac_core.training.loop import train_network
from cac_core.training.samples import SampleFiles
from dataclasses import replace
torch.set_num_threads(1)
a, b = {[str(p) for p in samples[0].paths]!r}, {[str(p) for p in samples[1].paths]!r}
parts = (SampleFiles([Path(p) for p in x]) for x in (a, b))
settings = replace(QUICK, steps=4000, validate_every=2)
train_network("calcium", fresh(), *parts, settings, Path({str(tmp_path)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "checkpoint.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
    finally:
        process.kill()
        process.wait()
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert stored["step"] >= 2
    assert not (tmp_path / "record.json").exists()


def test_early_stopping(samples, tmp_path: Path) -> None:
    settings = replace(QUICK, steps=400, validate_every=2, patience=2, learning_rate=1e-8)
    record = train_network("calcium", fresh(), *samples, settings, tmp_path)
    assert record["stopped_early"]
    assert record["steps_done"] < 400
    assert record["best_step"] == record["steps_done"] - 4


def test_same_seed_same_weights_other_seed_others(samples, tmp_path: Path) -> None:
    settings = replace(QUICK, steps=4, validate_every=4)
    networks = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        network = fresh()
        train_network("calcium", network, *samples, replace(settings, seed=seed), tmp_path / name)
        networks.append(torch.cat([p.flatten() for p in network.parameters()]))
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


def test_another_run_in_the_folder_is_rejected(samples, tmp_path: Path) -> None:
    settings = replace(QUICK, steps=4, validate_every=4)
    train_network("calcium", fresh(), *samples, settings, tmp_path)
    with pytest.raises(TrainingError, match="other data, settings or network"):
        train_network("calcium", fresh(), *samples, replace(settings, seed=9), tmp_path)


def test_nan_loss_names_the_studies(samples, tmp_path: Path, monkeypatch) -> None:
    settings = replace(QUICK, steps=20, validate_every=5)
    real, calls = loop._loss, 0

    def breaks(*args):
        nonlocal calls
        calls += 1
        return real(*args) * (float("nan") if calls == 12 else 1.0)

    monkeypatch.setattr(loop, "_loss", breaks)
    with pytest.raises(TrainingError, match=r"loss is nan at step \d+.*study-\d"):
        train_network("calcium", fresh(), *samples, settings, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 5


def test_a_full_disk_keeps_the_last_checkpoint(samples, tmp_path: Path, monkeypatch) -> None:
    settings = replace(QUICK, steps=20, validate_every=5)
    real, calls = loop.os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(loop.os, "fsync", full)
    with pytest.raises(TrainingError, match=r"cannot be written \(No space left"):
        train_network("calcium", fresh(), *samples, settings, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 5
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_checkpoint_is_reported(samples, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK broken")
    with pytest.raises(TrainingError, match="cannot be read"):
        train_network("calcium", fresh(), *samples, QUICK, tmp_path)


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


def test_training_without_samples_or_classes(samples, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="holds no study"):
        train_network("heart", fresh(TWO), SampleFiles([]), samples[1], QUICK, tmp_path)
    bare = replace(annotated(), calcium=np.zeros_like(annotated().calcium))
    save_sample(tmp_path / "bare.safetensors", bare)
    only = SampleFiles([tmp_path / "bare.safetensors"])
    with pytest.raises(TrainingDataError, match="training part holds coronary"):
        train_network("calcium", fresh(), only, samples[1], QUICK, tmp_path)
