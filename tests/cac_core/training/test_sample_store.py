"""Samples of annotated DICOM series: their content, and what is rejected by name."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from cac_core.dicom.volume import read_volume
from cac_core.errors import TrainingDataError
from cac_core.training.sample_store import TrainingData, prepare_samples
from cac_core.training.samples import SampleFiles, make_sample
from cac_core.training.table import read_training_table, rows_of
from flows.cli.options import console
from flows.runtime.progress import RunProgress
from tests.builders.annotated_studies import heart_and_calcium

QUIET = RunProgress(console, quiet=True)


def prepare(folder: Path, part: str) -> SampleFiles:
    rows = rows_of(read_training_table(folder / "table.csv"), part, ())
    data = TrainingData(folder / "table.csv", folder / "labels.toml")
    return prepare_samples(rows, data, QUIET)


@pytest.mark.parametrize(("study", "part"), [("one", "training"), ("two", "validation")])
def test_samples_hold_what_was_drawn(folder: Path, study: str, part: str) -> None:
    sample = prepare(folder, part)[0]
    volume = read_volume(sorted((folder / study).iterdir()))
    expected = make_sample(volume.hu, *heart_and_calcium(volume.hu.shape), volume.spacing_mm)
    for name in ("hu", "inside", "calcium", "heart_stack", "heart_label", "heart_coronary"):
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


def test_samples_with_another_band_are_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(folder, "training").paths
    monkeypatch.setattr("cac_core.training.samples.MASK_TOLERANCE_MM", 1.0)
    assert prepare(folder, "training").paths != first


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
