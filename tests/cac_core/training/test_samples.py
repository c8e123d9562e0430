"""Samples: what is cut out of a scan, and how it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cac_core.errors import TrainingDataError
from cac_core.training.samples import SampleFiles, make_sample, save_sample
from tests.builders.samples import SPACING, annotated


def test_samples_on_disk(tmp_path: Path) -> None:
    sample = annotated()
    save_sample(tmp_path / "a.safetensors", sample)
    files = SampleFiles([tmp_path / "a.safetensors"])
    assert files.names == ("a",)
    for name, value in vars(sample).items():
        np.testing.assert_array_equal(getattr(files[0], name), value)
    assert files[0].pixel_mm2 == 16.0
    assert not list(tmp_path.glob("*.part"))


def test_a_broken_sample_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    for content in (b"", b"nonsense" * 20):
        path.write_bytes(content)
        with pytest.raises(TrainingDataError, match=r"broken\.safetensors cannot be read"):
            SampleFiles([path])[0]


def test_the_tolerance_band_and_the_crop() -> None:
    """One voxel of heart: the band is a disc of 12 mm in its slice and in the two beside it."""
    shape, spacing, at = (9, 160, 200), (5.0, 1.0, 2.0), (4, 80, 100)
    heart = np.zeros(shape, bool)
    heart[at] = True
    calcium = np.zeros(shape, np.uint8)
    calcium[4, 80, 106] = 2  # at the edge of the band
    calcium[4, 80, 107] = 1  # beyond it
    sample = make_sample(np.zeros(shape, np.int16), heart, calcium, spacing)
    # Two slices on either side; 48 pixels around the 12 rows and 6 columns of the band.
    assert sample.inside.shape == sample.hu.shape == (5, 2 * 60 + 1, 2 * 54 + 1)
    row, column = np.ogrid[-60:61, -54:55]
    disc = np.hypot(1.0 * row, 2.0 * column) <= 12.0
    for k, plane in enumerate(sample.inside):
        assert ((plane > 0) == (disc if 1 <= k <= 3 else False)).all()
    assert np.argwhere(sample.inside == 2).tolist() == [[2, 60, 54]]
    assert sample.calcium[2, 60, 60:62].tolist() == [2, 1]  # the classes are the true ones


def test_coronary_calcium_on_the_grid_of_the_heart_network() -> None:
    """A voxel in a slice that the heart network skips is seen in the nearest slice it sees."""
    shape, spacing = (9, 448, 448), (1.25, 1.0, 1.0)  # slices 2 and 6 are seen
    heart = np.ones(shape, bool)
    heart[:, :, :50] = False
    calcium = np.zeros(shape, np.uint8)
    calcium[4, 202, 202] = 1
    calcium[2, 302, 302] = 2  # not coronary
    calcium[2, 102, 20] = 1  # not in the heart
    near = make_sample(np.zeros(shape, np.int16), heart, calcium, spacing).heart_coronary
    assert near.shape == (2, 112, 112)
    row, column = np.ogrid[:112, :112]
    apart = np.hypot(4 * row + 1.5 - 202, 4 * column + 1.5 - 202)
    for plane in near:
        assert (plane[apart < 6] >= 128).all() and (plane[apart > 11] < 128).all()


def test_samples_must_fit() -> None:
    hu = np.zeros((3, 8, 8), np.int16)
    with pytest.raises(ValueError, match="shapes differ"):
        make_sample(hu, np.ones((3, 8, 9), bool), np.zeros((3, 8, 8), np.uint8), SPACING)
    with pytest.raises(ValueError, match="empty"):
        make_sample(hu, np.zeros((3, 8, 8), bool), np.zeros((3, 8, 8), np.uint8), SPACING)
