"""The synthetic archive on disk: vendors, companions, defects, truth, determinism."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest

from cac_core.errors import UsageError
from cac_core.phantom.archive.write import planted_defect, scan_seed, write_archive, write_study
from schemas.codes import StudyReason


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    truth = write_archive(folder / "a", studies=3, seed=4, truth_path=folder / "truth.parquet")
    return folder, truth


def _headers(folder):
    return [
        pydicom.dcmread(path, stop_before_pixels=True)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def test_every_study_has_one_ctac_series_and_companions(archive) -> None:
    folder, truth = archive
    headers = _headers(folder / "a")
    for uid in truth["study_instance_uid"].to_pylist():
        mine = [ds for ds in headers if ds.StudyInstanceUID == uid]
        modalities = Counter(ds.Modality for ds in mine)
        assert modalities["NM"] == 2
        axial = [ds for ds in mine if ds.Modality == "CT" and ds.Rows == ds.Columns == 512]
        assert len({ds.SeriesInstanceUID for ds in axial}) == 1
        assert len(axial) >= 44


def test_truth_is_beside_the_archive_and_typed(archive) -> None:
    folder, truth = archive
    assert pq.read_table(folder / "truth.parquet").equals(truth)
    assert truth.num_rows == 3
    assert len(set(truth["study_instance_uid"].to_pylist())) == 3


def test_series_uids_do_not_contain_the_study_uid(archive) -> None:
    for ds in _headers(archive[0] / "a"):
        assert ds.StudyInstanceUID not in ds.SeriesInstanceUID
        assert ds.StudyInstanceUID not in ds.SOPInstanceUID


def test_pixels_on_disk_are_the_scan(archive) -> None:
    """HU read back by pydicom's own rescale equal the synthesised volume inside the circle."""
    from cac_core.phantom.analytic.acquisition import draw_settings
    from cac_core.phantom.analytic.scan import synthesise_scan

    folder, truth = archive
    row = truth.to_pylist()[0]
    files = [pydicom.dcmread(path) for path in (folder / "a").rglob("*") if path.is_file()]
    axial = sorted(
        (
            ds
            for ds in files
            if ds.StudyInstanceUID == row["study_instance_uid"]
            and ds.Modality == "CT"
            and ds.Rows == ds.Columns == 512
        ),
        key=lambda ds: float(ds.ImagePositionPatient[2]),
    )
    hu = np.stack([ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept for ds in axial])
    scan = synthesise_scan(scan_seed(4, 0), draw_settings(np.random.default_rng([4, 0, 1])))
    centre = np.s_[:, 128:384, 128:384]
    assert np.array_equal(hu[centre], scan.hu[centre])


def test_defects_come_in_turn() -> None:
    assert [planted_defect(n) for n in (4, 5, 13, 21, 29, 37)] == [
        None,
        StudyReason.MISSING_SLICES,
        StudyReason.CONTRAST_ENHANCED,
        StudyReason.TRUNCATED_PIXEL_DATA,
        StudyReason.NO_CT_SERIES,
        StudyReason.GANTRY_TILT,
    ]


def test_a_study_depends_on_seed_and_number_only(tmp_path) -> None:
    digests = []
    for name in ("one", "two"):
        folder = tmp_path / name
        write_study(folder, 4, 29)  # no CT: small and quick
        digest = hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]


def test_demo_seeds_never_meet_training_seeds() -> None:
    assert max(scan_seed(seed, n) for seed in (1, 99, 12345) for n in range(2000)) < 100_000


def test_a_folder_in_use_is_refused(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write_archive(tmp_path / "a", studies=1, seed=1)
    assert (tmp_path / "a" / "file").read_text() == "mine"
