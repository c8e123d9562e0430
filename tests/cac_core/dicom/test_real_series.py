"""Files of real scanners and test suites of other projects: always a volume or a reason."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_files

from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.volume import CtVolume, read_volume
from cac_core.errors import StudyError
from schemas.codes import QualityFlag, StudyReason
from tests.builders.ct_series import write_ct_series, write_enhanced_ct

ANY_NUMBER = ReadLimits(min_slices=2)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def slices_of(path: Path, folder: Path, names: int = 3) -> list[Path]:
    """Make a series of copies of one slice, each 2 mm further: single files become volumes."""
    copies = []
    for index in range(names):
        dataset = dcmread(path)
        dataset.ImagePositionPatient = [0, 0, 2 * index]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [1, 1]
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.RescaleType = "HU"
        dataset.Modality = "CT"
        copy = folder / f"{path.name}-{index}.dcm"
        dataset.save_as(copy, enforce_file_format=False)
        copies.append(copy)
    return copies


def outcome(paths: list[Path]) -> CtVolume | StudyError:
    try:
        return read_volume(paths, limits=ANY_NUMBER)
    except StudyError as error:
        assert error.reason != StudyReason.INTERNAL_ERROR, error.detail
        return error


def test_phantom_scanned_feet_first(shared_data: Path) -> None:
    paths = files_in(shared_data / "qrm_calcium_phantom" / "dicom")
    volume = read_volume(paths)
    assert volume.hu.shape == (47, 512, 512)
    assert volume.spacing_mm == (3.0, 0.488, 0.488)
    assert volume.acquisition.patient_position == "FFS"
    assert QualityFlag.PADDING_REPLACED in volume.flags
    # Each slice is at the position of its header.
    for path in paths[::9]:
        dataset = dcmread(path)
        z = float(dataset.ImagePositionPatient[2])
        index = round((z - volume.affine[2, 3]) / 3.0)
        expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(
            dataset.RescaleIntercept
        )
        if dataset.ImageOrientationPatient[0] < 0:
            expected = expected[:, ::-1]
        np.testing.assert_array_equal(volume.hu[index], np.maximum(expected, -1024))


def test_chest(shared_data: Path) -> None:
    volume = read_volume(files_in(shared_data / "chest_contrast_siemens" / "ct"))
    assert volume.hu.shape == (102, 512, 512)
    assert volume.spacing_mm[0] == 3.0
    assert volume.flags == (QualityFlag.MISSING_RESCALE_TYPE,)


def test_series_with_empty_uids(shared_data: Path) -> None:
    folder = shared_data / "heart_contrast_crops" / "example_ct_dicom_jpeg2000"
    volume = read_volume(files_in(folder))
    assert volume.spacing_mm[0] == 2.0
    assert QualityFlag.OVERLAPPING_SLICES in volume.flags
    assert volume.acquisition.kernel == "Br38f\\3"


def test_tilted_gantry(shared_data: Path) -> None:
    folder = shared_data / "gantry_tilt" / "S21610" / "S2010"
    paths = [path for path in files_in(folder) if path.name != "DIRFILE"]
    with pytest.raises(StudyError) as caught:
        read_volume(paths)
    assert caught.value.reason == StudyReason.GANTRY_TILT


def test_tilt_is_detected_from_the_positions(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "gantry_tilt" / "S21610" / "S2010"
    paths = []
    for path in files_in(folder):
        dataset = dcmread(path, force=True)
        if "GantryDetectorTilt" in dataset:
            del dataset.GantryDetectorTilt
            dataset.save_as(tmp_path / path.name)
            paths.append(tmp_path / path.name)
    assert len(paths) == 54
    with pytest.raises(StudyError) as caught:
        read_volume(paths)
    assert caught.value.reason == StudyReason.GANTRY_TILT


def test_multi_frame_equals_single_frames(shared_data: Path, tmp_path: Path) -> None:
    """The same series as single frames and as a Legacy Converted Enhanced CT.

    Both say RescaleType US, so both are refused; with HU written over it both are read.
    """
    folder = shared_data / "multiframe"
    single = files_in(folder / "24x38x3_image")
    multi = files_in(folder / "24x38x3_multiframe")
    for paths in (single, multi):
        with pytest.raises(StudyError) as caught:
            read_volume(paths)
        assert caught.value.reason == StudyReason.NOT_HOUNSFIELD
    volumes = []
    for paths in (single, multi):
        copies = []
        for path in paths:
            dataset = dcmread(path)
            for holder in dataset.get("SharedFunctionalGroupsSequence", [dataset]):
                for item in holder.get("PixelValueTransformationSequence", [holder]):
                    item.RescaleType = "HU"
            dataset.save_as(tmp_path / path.name)
            copies.append(tmp_path / path.name)
        volumes.append(read_volume(copies))
    np.testing.assert_array_equal(volumes[0].hu, volumes[1].hu)
    assert volumes[0].pixel_digest == volumes[1].pixel_digest


@pytest.mark.parametrize("image", ["CT1", "CT2"])
def test_transfer_syntaxes_of_wg04(shared_data: Path, tmp_path: Path, image: str) -> None:
    folder = shared_data / "transfer_syntaxes"
    reference = read_volume(slices_of(folder / f"{image}_UNC", tmp_path))
    for kind in ("J2KR", "JLSL", "JPLL", "RLE"):
        path = folder / f"{image}_{kind}"
        if not path.exists():
            continue
        volume = read_volume(slices_of(path, tmp_path))
        np.testing.assert_array_equal(volume.hu, reference.hu, err_msg=kind)
        assert QualityFlag.LOSSY_COMPRESSION not in volume.flags
    for kind in ("J2KI", "JLSN"):
        volume = read_volume(slices_of(folder / f"{image}_{kind}", tmp_path))
        assert QualityFlag.LOSSY_COMPRESSION in volume.flags


def odd_files(shared_data: Path) -> Iterator[Path]:
    for name in ("odd_enhanced", "odd_files", "transfer_syntaxes"):
        yield from files_in(shared_data / name)
    for folder in (shared_data / "gantry_tilt" / "S21610").iterdir():
        yield from files_in(folder)[:4]


def test_every_irregular_file_gives_a_reason(shared_data: Path) -> None:
    for path in odd_files(shared_data):
        outcome([path])
        outcome([path, path])


def test_every_file_of_pydicom_gives_a_reason(tmp_path: Path) -> None:
    reasons: list[StudyReason] = []
    for name in get_testdata_files():
        path = Path(name)
        if path.stat().st_size > 2_000_000:
            continue
        found = outcome([path])
        if isinstance(found, StudyError):
            reasons.append(found.reason)
    assert len(reasons) > 60
    assert len(set(reasons)) >= 6


def test_ct_of_pydicom_equals_its_own_reading(tmp_path: Path) -> None:
    path = Path(next(name for name in get_testdata_files("CT_small.dcm")))
    volume = read_volume(slices_of(path, tmp_path))
    np.testing.assert_array_equal(volume.hu[1], dcmread(path).pixel_array)


def test_lossy_jpeg_of_twelve_bits_is_unsupported(tmp_path: Path) -> None:
    path = Path(get_testdata_files("JPEG-lossy.dcm")[0])
    found = outcome(slices_of(path, tmp_path))
    assert isinstance(found, StudyError)
    assert found.reason == StudyReason.UNSUPPORTED_TRANSFER_SYNTAX


@pytest.mark.parametrize("seed", range(6))
def test_mutated_files_give_a_volume_or_a_reason(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes changed, cut out or repeated anywhere, in single-frame and multi-frame files."""
    dice = random.Random(seed)
    folder = tmp_path / "a"
    knobs: dict[str, object] = {"n_slices": 3, "rows": 16, "columns": 16}
    if seed % 2:
        paths = write_ct_series(folder, **knobs)
    else:
        folder.mkdir()
        paths = [write_enhanced_ct(folder / "enhanced.dcm", **knobs)]
    sound = paths[0].read_bytes()
    for _ in range(60):
        content = bytearray(sound)
        for _ in range(dice.randint(1, 6)):
            at = dice.randrange(132, len(content))
            match dice.randrange(3):
                case 0:
                    content[at] = dice.randrange(256)
                case 1:
                    del content[at : at + dice.randint(1, 9)]
                case _:
                    content[at:at] = content[at : at + dice.randint(1, 30)]
        paths[0].write_bytes(bytes(content))
        outcome(paths)
    assert not caplog.records  # pydicom's messages would hold names and identifiers
