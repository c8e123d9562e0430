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


def test_a_sample_marks_the_tolerance_band() -> None:
    sample = annotated()
    assert set(np.unique(sample.inside)) == {0, 1, 2}
    # The band lies around the heart, and calcium in the heart's middle is well inside.
    assert (sample.inside[sample.calcium == 2] == 2).all()


def test_samples_must_fit() -> None:
    hu = np.zeros((3, 8, 8), np.int16)
    with pytest.raises(ValueError, match="shapes differ"):
        make_sample(hu, np.ones((3, 8, 9), bool), np.zeros((3, 8, 8), np.uint8), SPACING)
    with pytest.raises(ValueError, match="empty"):
        make_sample(hu, np.zeros((3, 8, 8), bool), np.zeros((3, 8, 8), np.uint8), SPACING)
