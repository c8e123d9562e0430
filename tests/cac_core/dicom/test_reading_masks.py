"""Masks of readings as DICOM SEG: read back as they were, and without identifiers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from cac_core.dicom.annotation import read_annotation, read_mapping
from cac_core.dicom.reading_masks import masks_as_seg, masks_of_seg
from cac_core.scoring.sites import SITE_NUMBERS
from flows.reading.training_export import labels_toml
from schemas.codes import CalciumSite
from tests.builders.readings import some_masks
from tests.builders.rows import key

pytest.importorskip("highdicom", reason="the extra `pacs` is not installed")
AFFINE = np.array([[0, 0, 0.9, -100], [0, 0.9, 0, -120], [3, 0, 0, -300], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    masks = some_masks()
    masks.sites[2, 20:22, 20:22] = SITE_NUMBERS[CalciumSite.MITRAL_VALVE]
    masks.sites[4, 6, 6] = SITE_NUMBERS[CalciumSite.LAD]
    data = masks_as_seg(
        masks.heart, masks.sites, AFFINE, key(1), key("patient 1"), key("reading 1")
    )
    path = tmp_path_factory.mktemp("seg") / "masks.dcm"
    path.write_bytes(data)
    return path, masks.heart, masks.sites


def test_the_masks_come_back(written: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, heart, sites = written
    found = masks_of_seg(path, AFFINE, heart.shape)
    assert np.array_equal(found[0], heart) and np.array_equal(found[1], sites)


def test_training_reads_them_with_the_exported_labels(
    written: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    path, heart, sites = written
    (tmp_path / "labels.toml").write_text(labels_toml(), encoding="utf-8")
    mapping = read_mapping(tmp_path / "labels.toml")
    found = read_annotation(path, mapping, AFFINE, heart.shape)
    assert np.array_equal(found.heart, heart)
    assert np.array_equal(found.calcium == 1, np.isin(sites, [1, 2, 3, 4, 5]))
    assert np.array_equal(found.calcium == 2, sites > 5)


def test_the_file_names_nobody(written: tuple[Path, np.ndarray, np.ndarray]) -> None:
    dataset = pydicom.dcmread(written[0])
    assert dataset.PatientID == key("patient 1") and not dataset.PatientName
    for name in ("PatientBirthDate", "StudyDate", "AccessionNumber", "StudyID", "PatientSex"):
        assert not dataset.get(name)
