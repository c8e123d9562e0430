"""One study, one row: scored, rejected or failed, and nothing raised."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from cac_core import study
from cac_core.dicom.pixel_digest import pixel_digest
from cac_core.dicom.volume import read_volume
from cac_core.errors import StudyError
from cac_core.model.cascade import Segmentation
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.contrast import BloodEstimates
from cac_core.study import FileStamp, ScoredContent, StudyResult, StudyWork, score_study
from schemas.codes import QualityFlag, StudyReason
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import CATEGORY_CHANCES, SCORES
from tests.builders.ct_series import write_ct_series
from tests.builders.networks import whole_segmentation
from tests.builders.rows import digest, key

PROTOCOL = ScoringProtocol()


class Oracle:
    """A cascade with a known result: a block as heart, and calcium at a given place."""

    confidence = None

    def __init__(self, calcium: np.ndarray | None = None, *, heart: bool = True) -> None:
        self.calcium, self.heart = calcium, heart

    def segment(self, hu: np.ndarray, spacing_mm: Any, **options: Any) -> Segmentation:
        """What was there to find."""
        mask = np.zeros(hu.shape, bool)
        if self.heart:
            mask[6:18, 20:44, 20:44] = True
        classes = np.zeros(hu.shape, np.uint8) if self.calcium is None else self.calcium
        return whole_segmentation(mask, classes)


def work_on(paths: list[Path], **changes: Any) -> StudyWork:
    stamps = tuple(FileStamp(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths)
    work = StudyWork(
        study_key=key(1),
        patient_key=key("patient"),
        study_date=dt.date(2024, 5, 17),
        files=stamps,
        instances_digest=digest(1),
        header={"Manufacturer": "ACME", "ctac_role": "rest"},
        flags=(QualityFlag.SEVERAL_CTAC_SERIES,),
    )
    return dataclasses.replace(work, **changes)


def run(work: StudyWork, cascade: Any) -> StudyResult:
    result = score_study(work, cascade, PROTOCOL)
    stamp = {
        "model_digest": digest("m"),
        "protocol_digest": PROTOCOL.digest,
        "core_version": "0",
        "run_id": "r",
        "scored_at": dt.datetime.now(dt.UTC),
    }
    SCORES.from_rows([result.score | stamp])  # every row fits its table
    LESIONS.from_rows(result.lesions)
    PREVIEWS.from_rows(result.previews)
    return result


def heart_volume(hu_of_lesion: int) -> tuple[np.ndarray, np.ndarray]:
    """A soft body with one lesion of 2 x 3 pixels (of 16 mm2) in one slice."""
    hu = np.full((24, 64, 64), 40, np.int16)
    hu[:, :4], hu[:, :, :4] = -1000, -1000
    classes = np.zeros(hu.shape, np.uint8)
    hu[10, 30:32, 30:33], classes[10, 30:32, 30:33] = hu_of_lesion, 1
    return hu, classes


def test_a_scored_study(tmp_path: Path) -> None:
    hu, classes = heart_volume(250)
    result = run(work_on(write_ct_series(tmp_path, hu=hu)), Oracle(classes))
    score = result.score
    assert score["status"] == "scored", score
    # 6 pixels of 4 x 4 mm, weight 2 (200 to 299 HU), slices 3 mm apart.
    assert score["agatston"] == pytest.approx(6 * 16 * 2)
    assert score["cac_category"] == "101-400"
    assert score["calcium_volume_mm3"] == pytest.approx(6 * 16 * 3)
    assert (score["n_lesions"], len(result.lesions)) == (1, 1)
    assert score["heart_volume_ml"] == pytest.approx(12 * 24 * 24 * 48 / 1000)
    assert "several_ctac_series" in str(score["quality_flags"])
    assert score["Manufacturer"] == "ACME"
    assert score["seconds_heart"] == 0.1


def test_a_score_says_how_sure_it_is(tmp_path: Path) -> None:
    hu, classes = heart_volume(250)
    score = run(work_on(write_ct_series(tmp_path, hu=hu)), Oracle(classes)).score
    chances = [float(str(score[name])) for name in CATEGORY_CHANCES]
    assert sum(chances) == pytest.approx(1)
    assert max(chances) == chances[2]  # of 192 in 101-400
    assert float(str(score["agatston_low"])) < 192 < float(str(score["agatston_high"]))
    # A block with flat ends is not a heart, whatever the networks are sure of.
    assert score["needs_review"] is True
    assert "heart_mask_odd" in str(score["review_reasons"]).split(";")


def test_a_zero_in_an_odd_heart_is_not_silent(tmp_path: Path) -> None:
    hu, _ = heart_volume(40)
    score = run(work_on(write_ct_series(tmp_path, hu=hu)), Oracle()).score
    assert (score["agatston"], score["needs_review"]) == (0.0, True)
    assert score["review_reasons"] == "heart_mask_odd"


def test_images_of_the_key_slice(tmp_path: Path) -> None:
    hu, classes = heart_volume(250)
    work = work_on(write_ct_series(tmp_path, hu=hu))
    result = run(work, Oracle(classes))
    (row,) = result.previews
    assert (row["study_key"], row["protocol_digest"]) == (key(1), PROTOCOL.digest)
    assert (row["slice_index"], row["shown_for"]) == (10, "coronary")
    assert row["agatston"] == pytest.approx(result.score["agatston"])
    # Position of the slice in the scanner, from its header.
    position = sorted(float(dcmread(p).ImagePositionPatient[2]) for p in tmp_path.rglob("*.dcm"))
    assert row["slice_position_mm"] == pytest.approx(position[10])
    assert float(str(result.score["seconds_preview"])) > 0
    without = score_study(work, Oracle(classes), PROTOCOL, previews=False)  # type: ignore[arg-type]
    assert without.previews == []
    assert without.score["seconds_preview"] is None
    assert without.score["agatston"] == result.score["agatston"]


def test_no_calcium_is_zero_and_not_null(tmp_path: Path) -> None:
    hu, _ = heart_volume(40)
    score = run(work_on(write_ct_series(tmp_path, hu=hu)), Oracle()).score
    assert (score["agatston"], score["cac_category"], score["n_lesions"]) == (0.0, "0", 0)


def test_no_heart(tmp_path: Path) -> None:
    hu, _ = heart_volume(40)
    score = run(work_on(write_ct_series(tmp_path, hu=hu)), Oracle(heart=False)).score
    assert (score["status"], score["reason"]) == ("rejected", "no_heart")


def test_contrast_in_the_blood(tmp_path: Path) -> None:
    hu, _ = heart_volume(40)
    hu[6:18, 20:44, 20:44] = 250
    score = run(work_on(write_ct_series(tmp_path, hu=hu)), Oracle()).score
    assert (score["status"], score["reason"]) == ("rejected", "contrast_enhanced")
    assert re.search(
        r"blood about \d+ HU in the heart mask .* the limit is 90", str(score["detail"])
    )


def test_bright_tissue_outside_the_heart_is_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hu, _ = heart_volume(40)
    monkeypatch.setattr(study, "blood_estimates", lambda *_: BloodEstimates(48.0, 152.0))
    score = run(work_on(write_ct_series(tmp_path, hu=hu)), Oracle()).score
    assert score["status"] == "scored"
    assert "contrast_uncertain" in str(score["quality_flags"]).split(";")


def test_a_changed_or_removed_file(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path)
    work = work_on(paths)
    paths[3].write_bytes(paths[3].read_bytes() + b"\0\0")
    assert run(work, Oracle()).score["reason"] == StudyReason.FILES_CHANGED.value
    paths[3].unlink()
    score = run(work, Oracle()).score
    assert (score["status"], score["reason"]) == ("failed", StudyReason.UNREADABLE_FILE.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("Meier^Anna"), "internal_error"),
        (StudyError(StudyReason.GANTRY_TILT, "14.0 degrees"), "gantry_tilt"),
        (type("PanicException", (BaseException,), {})(), "internal_error"),
    ],
)
def test_every_exception_becomes_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    work = work_on(write_ct_series(tmp_path))
    monkeypatch.setattr(study, "read_volume", fail)
    score = run(work, Oracle()).score
    assert score["reason"] == reason
    assert "Meier" not in str(score)


@pytest.mark.parametrize("leave", [KeyboardInterrupt, SystemExit])
def test_interrupts_are_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave: type[BaseException]
) -> None:
    def interrupted(*_: object) -> None:
        raise leave

    work = work_on(write_ct_series(tmp_path))
    monkeypatch.setattr(study, "read_volume", interrupted)
    with pytest.raises(leave):
        score_study(work, Oracle(), PROTOCOL)  # type: ignore[arg-type]


def test_an_implausibly_large_heart(tmp_path: Path) -> None:
    class Everything:
        def segment(self, hu: np.ndarray, spacing_mm: Any, **options: Any) -> Segmentation:
            whole = np.ones(hu.shape, bool)
            return whole_segmentation(whole, np.zeros(hu.shape, np.uint8))

    paths = write_ct_series(tmp_path, hu=heart_volume(40)[0], spacing_mm=5.0)
    score = run(work_on(paths), Everything()).score
    assert (score["reason"], score["detail"]) == (
        "no_heart",
        "heart mask of 7864 ml; limits are 100 and 4000 ml",
    )


def test_files_of_an_archive_that_is_away_are_no_fault_of_the_study(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    work = work_on(write_ct_series(archive / "study"), roots=(str(archive),))
    (archive / "study").rename(tmp_path / "elsewhere")  # a bare mount point
    score = run(work, Oracle()).score
    assert (score["status"], score["reason"]) == ("failed", "archive_unavailable")
    (archive / "another study").mkdir()
    assert run(work, Oracle()).score["reason"] == "unreadable_file"
    archive.rename(tmp_path / "gone")
    assert run(work, Oracle()).score["reason"] == "archive_unavailable"


def test_torch_out_of_memory(tmp_path: Path) -> None:
    class Greedy(Oracle):
        def segment(self, hu: np.ndarray, spacing_mm: Any, **options: Any) -> Segmentation:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")

    score = run(work_on(write_ct_series(tmp_path)), Greedy()).score
    assert (score["status"], score["reason"]) == ("failed", "out_of_memory")


@pytest.mark.parametrize(
    ("change", "unchanged"),
    [
        ({}, True),
        ({"PatientComments": "corrected"}, True),
        ({"RescaleIntercept": "-1000"}, False),
        ({"KVP": "100"}, False),
        ({"SliceThickness": "1.5"}, False),
        ({"PixelSpacing": ["3.9", "3.9"]}, False),
    ],
)
@pytest.mark.parametrize("earlier", [False, True])
def test_only_changed_content_is_scored_again(
    tmp_path: Path, change: dict[str, Any], unchanged: bool, earlier: bool
) -> None:
    """Also where the score has the digest of an earlier version."""
    paths = write_ct_series(tmp_path)
    first = run(work_on(paths), Oracle()).score
    volume = read_volume(paths)
    sha256 = pixel_digest(volume.hu, volume.spacing_mm, volume.affine, like="0" * 64)
    scored = ScoredContent(
        sha256 if earlier else str(first["pixel_digest"]),
        first["KVP"],  # type: ignore[arg-type]
        first["slice_thickness_mm"],  # type: ignore[arg-type]
        None,
    )
    for path in paths:
        dataset = dcmread(path)
        for keyword, value in change.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    result = score_study(work_on(paths, scored=scored), Oracle(), PROTOCOL)  # type: ignore[arg-type]
    assert result.unchanged == unchanged
    assert ("agatston" in result.score) != unchanged
