"""Training from annotated DICOM: what reaches the networks, and what is refused by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.csv as pc
import pytest
import torch
from safetensors.torch import load_file

from cac_core.dicom.annotation import read_mapping
from cac_core.dicom.volume import read_volume
from cac_core.errors import TrainingDataError, UsageError
from cac_core.model.weights import SHIPPED_WEIGHTS, save_weights, verify_weights
from cac_core.training import run as module
from cac_core.training.comparison_networks import build_network
from cac_core.training.loop import TrainingSettings
from cac_core.training.offset import OFFSETS, _one_standard_error
from cac_core.training.run import prepare_samples, ship, train
from cac_core.training.samples import make_sample
from cac_core.training.table import read_training_table, rows_of
from flows.cli.options import console
from flows.runtime.progress import RunProgress
from schemas.training import TRAINING_SET
from tests.builders.ct_series import thorax, write_ct_series
from tests.builders.segmentations import nifti_labels, write_seg

LABELS = """
heart = ["Heart", 51]
[coronary]
LAD = ["LAD", 1]
[noncoronary]
mitral_valve = ["MV", 2]
"""
QUIET = RunProgress(console, quiet=True)


def drawn(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A heart and, in it, calcium of both classes; nothing symmetric."""
    heart, calcium = np.zeros(shape, bool), np.zeros(shape, np.uint8)
    heart[2:10, 16:48, 12:52] = True
    calcium[3:5, 20:24, 18:21], calcium[7, 40:42, 24:32] = 1, 2
    return heart, calcium


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes take seconds to start; `cac train` in test_cli.py uses them."""
    monkeypatch.setattr(module, "worker_pool", lambda tasks: ThreadPoolExecutor(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two studies: a SEG of the heart with a NIfTI of the calcium, and all in one NIfTI."""
    rows = []
    for name, part in (("one", "training"), ("two", "validation")):
        hu = thorax(12)
        _, calcium = drawn(hu.shape)
        hu[calcium > 0] = 400
        paths = write_ct_series(tmp_path / name, hu=hu)
        volume = read_volume(paths)
        heart, calcium = drawn(volume.hu.shape)
        labels = calcium.copy()
        if name == "one":
            write_seg(tmp_path / "heart.dcm", paths, volume, {"Heart": heart})
        else:
            labels[heart & (calcium == 0)] = 51
        nibabel.save(nifti_labels(labels, volume.affine, "RAS"), tmp_path / f"{name}.nii.gz")
        rows.append(
            {
                "study": name,
                "annotation": "heart.dcm;one.nii.gz" if name == "one" else "two.nii.gz",
                "reader": "A",
                "patient": name,
                "site": "S",
                "cac_category": "1-100",
                "split": part,
            }
        )
    pc.write_csv(TRAINING_SET.from_rows(rows), tmp_path / "table.csv")
    (tmp_path / "labels.toml").write_text(LABELS, encoding="utf-8")
    return tmp_path


def prepare(folder: Path, part: str):
    rows = rows_of(read_training_table(folder / "table.csv"), part, ())
    mapping = read_mapping(folder / "labels.toml")
    return prepare_samples(rows, folder / "samples", folder, mapping, QUIET)


@pytest.mark.parametrize(("study", "part"), [("one", "training"), ("two", "validation")])
def test_samples_hold_what_was_drawn(folder: Path, study: str, part: str) -> None:
    sample = prepare(folder, part)[0]
    volume = read_volume(sorted((folder / study).iterdir()))
    expected = make_sample(volume.hu, *drawn(volume.hu.shape), volume.spacing_mm)
    for name in ("hu", "inside", "calcium", "heart_stack", "heart_label", "spacing_mm"):
        np.testing.assert_array_equal(getattr(sample, name), getattr(expected, name))


def test_a_changed_annotation_makes_a_new_sample(folder: Path) -> None:
    first = prepare(folder, "validation").paths
    assert prepare(folder, "validation").paths == first
    image = nibabel.load(folder / "two.nii.gz")
    labels = np.asarray(image.dataobj).astype(np.int16)
    labels[labels == 2] = 51
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), folder / "two.nii.gz")
    changed = prepare(folder, "validation")
    assert changed.paths != first
    assert not (changed[0].calcium == 2).any()


def test_both_networks_learn_from_annotated_series(folder: Path) -> None:
    settings = TrainingSettings(
        steps=2, batch=2, patch_px=32, validate_every=1, validation_batches=1
    )
    for kind in ("heart", "calcium"):
        record = train(
            kind,  # type: ignore[arg-type]
            folder / "table.csv",
            folder / kind,
            QUIET,
            mapping_path=folder / "labels.toml",
            settings=settings,
        )
        assert (record["steps_done"], record["training_samples"]) == (2, 1)
        assert record["data"]["readers"] == ["A"]
        assert {p.name for p in (folder / kind).iterdir()} == {
            "checkpoint.pt",
            "network.pt",
            "curves.csv",
            "record.json",
        }


def test_the_mean_of_a_network_and_the_one_it_began_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_network("convlstm", "calcium", 5)
    shipped = save_weights(
        folder / "before",
        {"heart": build_network("convlstm", "heart", 5), "calcium": network},
        name="convlstm",
        version="before",
        training={},
    )
    given = {"mapping_path": folder / "labels.toml"}
    settings = TrainingSettings(
        steps=1, batch=2, patch_px=32, validate_every=1, validation_batches=1
    )
    for kind, begin in (("heart", None), ("calcium", shipped.folder)):
        train(
            kind,  # type: ignore[arg-type]
            folder / "table.csv",
            folder / kind,
            QUIET,
            settings=settings,
            begin=begin,
            **given,
        )
    offset = {"background_offset": 0.0}
    monkeypatch.setattr(module, "calibrate", lambda *_: dict(offset))
    # Who calibrates with scans from a chest learns from it too.
    monkeypatch.setattr(module, "host_of", {"one": None, "two": "crop"}.get)
    runs = ([folder / "heart"], folder / "calcium", folder / "table.csv")
    result = ship(*runs, folder / "w", QUIET, mean_with=shipped.folder, **given)
    assert result["training"]["calcium"]["mean_with"] == shipped.model_id
    assert result["training"]["calibration"]["data"] == {"hosts": ["crop"]}
    assert verify_weights(folder / "w").hosts == ("crop",)
    after = torch.load(folder / "calcium" / "network.pt")
    found = load_file(folder / "w" / "calcium.safetensors")
    for name, before in network.state_dict().items():
        if before.is_floating_point():
            torch.testing.assert_close(found[name], (before + after[name]) / 2)
    assert any((after[name] != before).any() for name, before in network.state_dict().items())
    with pytest.raises(UsageError, match="trained further"):
        ship(*runs, folder / "w2", QUIET, mean_with=SHIPPED_WEIGHTS, **given)


@pytest.mark.parametrize("number", [1, 2])
def test_any_heart_of_the_weights_is_trained_further(folder: Path, number: int) -> None:
    hearts = [build_network("convlstm", "heart", seed) for seed in (5, 6)]
    earlier = save_weights(
        folder / "before",
        {
            "heart": hearts[0],
            "heart-2": hearts[1],
            "calcium": build_network("convlstm", "calcium", 5),
        },
        name="convlstm",
        version="before",
        training={},
    )
    # At no learning rate and no decay a network ends as it began.
    settings = TrainingSettings(
        steps=1, batch=2, learning_rate=0.0, weight_decay=0.0, validate_every=1
    )
    given = {"mapping_path": folder / "labels.toml", "settings": settings}
    record = train(
        "heart",
        folder / "table.csv",
        folder / "run",
        QUIET,
        begin=earlier.folder,
        begin_heart=number,
        **given,
    )
    name = ("heart", "heart-2")[number - 1]
    assert record["data"]["begun_from_network"] == name
    after = torch.load(folder / "run" / "network.pt")
    for key, value in hearts[number - 1].named_parameters():
        torch.testing.assert_close(after[key], value.detach())
    with pytest.raises(UsageError, match="has 2 heart networks, none of number 3"):
        train(
            "heart",
            folder / "table.csv",
            folder / "run-3",
            QUIET,
            begin=earlier.folder,
            begin_heart=3,
            **given,
        )
    for kind, begin in (("heart", None), ("calcium", earlier.folder)):
        with pytest.raises(UsageError, match="which of several hearts"):
            train(
                kind,  # type: ignore[arg-type]
                folder / "table.csv",
                folder / "run-4",
                QUIET,
                begin=begin,
                begin_heart=2,
                **given,
            )


def test_an_annotation_of_another_series_names_the_study(folder: Path) -> None:
    image = nibabel.load(folder / "two.nii.gz")
    affine = image.affine.copy()
    affine[2, 3] += 7
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), folder / "two.nii.gz")
    with pytest.raises(TrainingDataError, match=r"Study two: .*two\.nii\.gz"):
        prepare(folder, "validation")
    assert not list((folder / "samples").iterdir())


def test_a_study_without_a_heart_names_the_file(folder: Path) -> None:
    text = (folder / "table.csv").read_text().replace("heart.dcm;", "")
    (folder / "table.csv").write_text(text)
    with pytest.raises(TrainingDataError, match=r"Study one: .*one\.nii\.gz.* holds no heart"):
        prepare(folder, "training")


def test_the_offset_nearest_to_zero_within_one_standard_error_is_chosen() -> None:
    losses = np.ones((len(OFFSETS), 10))
    at = OFFSETS.index
    losses[at(2.0), 1:] = 0  # the best, wrong on one of ten scans
    losses[at(0.4)] = [0, 1, 1, *[0] * 7]  # worse by 0.1 in the mean, with a standard error of 0.18
    losses[at(0.2)] = [1, 1, 1, 1, 1, *[0] * 5]  # by 0.4, with one of 0.16
    chosen, best = _one_standard_error(losses)
    assert (OFFSETS[chosen], OFFSETS[best]) == (0.4, 2.0)
    losses[at(0.4), 3:6] = 1  # by 0.4, with one of 0.22
    assert OFFSETS[_one_standard_error(losses)[0]] == 2.0


def test_one_scan_has_no_standard_error() -> None:
    losses = np.ones((len(OFFSETS), 1))
    losses[OFFSETS.index(0.6)] = 0
    assert OFFSETS[_one_standard_error(losses)[0]] == 0.6
