"""Series assembled into volumes: canonical orientation, HU, reasons and flags."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.volume import CtVolume, read_volume
from cac_core.errors import StudyError
from schemas.codes import QualityFlag, StudyReason
from tests.builders.ct_series import thorax, write_ct_series, write_enhanced_ct

R, Q = StudyReason, QualityFlag

#: Row and column directions of every axis-aligned axial storage.
DIRECTIONS = [
    ((x, 0.0, 0.0), (0.0, y, 0.0)) if not swap else ((0.0, x, 0.0), (y, 0.0, 0.0))
    for swap in (False, True)
    for x in (1.0, -1.0)
    for y in (1.0, -1.0)
]


def error_of(paths: list[Path], **kwargs: Any) -> StudyError:
    with pytest.raises(StudyError) as caught:
        read_volume(paths, **kwargs)
    text = str(caught.value)
    assert "SECRET" not in text.upper()
    assert "/" not in text and "2.25." not in text
    return caught.value


def test_plain_series(tmp_path: Path) -> None:
    volume = read_volume(write_ct_series(tmp_path, pixel_spacing_mm=(4.0, 3.5)))
    np.testing.assert_array_equal(volume.hu, thorax())
    assert volume.hu.dtype == np.int16
    assert volume.spacing_mm == (3.0, 4.0, 3.5)
    assert volume.flags == ()
    np.testing.assert_array_equal(
        volume.affine, [[0, 0, 3.5, -128], [0, 4, 0, -120], [3, 0, 0, -300], [0, 0, 0, 1]]
    )
    acquisition = volume.acquisition
    assert (acquisition.manufacturer, acquisition.model) == ("Example", "Scanner 1")
    assert (acquisition.kvp, acquisition.tube_current_ma, acquisition.exposure_mas) == (
        120,
        30,
        None,
    )
    assert (acquisition.kernel, acquisition.slice_thickness_mm) == ("B31s", 3.0)
    assert (acquisition.patient_position, acquisition.n_slices) == ("HFS", 24)
    assert acquisition.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    pickle.loads(pickle.dumps(volume))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    directions=st.sampled_from(DIRECTIONS),
    order=st.integers(0, 10_000),
    position=st.sampled_from(["HFS", "FFS", "HFP", "FFDR"]),
    enhanced=st.booleans(),
    rows=st.integers(8, 20),
    stored=st.sampled_from([(1.0, -1024.0, False), (1.0, 0.0, True), (0.5, -1024.0, False)]),
)
def test_any_storage_gives_the_same_canonical_volume(
    tmp_path: Path,
    directions: tuple[Any, Any],
    order: int,
    position: str,
    enhanced: bool,
    rows: int,
    stored: tuple[float, float, bool],
) -> None:
    slope, intercept, signed = stored
    knobs: dict[str, Any] = {
        "n_slices": 5,
        "rows": rows,
        "columns": 13,
        "pixel_spacing_mm": (4.0, 3.0),
        "row_direction": directions[0],
        "column_direction": directions[1],
        "slope": slope,
        "intercept": intercept,
        "signed": signed,
        "header": {"PatientPosition": position},
    }
    for old in tmp_path.glob("*.dcm"):
        old.unlink()
    if enhanced:
        paths = [write_enhanced_ct(tmp_path / "enhanced.dcm", **knobs)]
    else:
        paths = write_ct_series(tmp_path, shuffle=order, **knobs)
    volume = read_volume(paths)
    plain = read_volume(
        write_ct_series(
            tmp_path / "plain", n_slices=5, rows=rows, columns=13, pixel_spacing_mm=(4.0, 3.0)
        )
    )
    np.testing.assert_array_equal(volume.hu, thorax(5, rows, 13))
    np.testing.assert_allclose(volume.affine, plain.affine, atol=1e-6)
    assert volume.spacing_mm == plain.spacing_mm
    assert volume.pixel_digest == plain.pixel_digest


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"skip": [11]}, R.MISSING_SLICES),
        ({"skip": [3, 4, 15]}, R.MISSING_SLICES),
        ({"z_mm": [*np.arange(12) * 3.0, *(36 + np.arange(12) * 4.0)]}, R.UNEVEN_SPACING),
        ({"drift_mm": (0.0, 1.0)}, R.GANTRY_TILT),
        ({"header": {"GantryDetectorTilt": "-18.5"}}, R.GANTRY_TILT),
        ({"header": {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}}, R.NOT_AXIAL_ORIENTATION),
        ({"header": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}}, R.NOT_AXIAL_ORIENTATION),
        (
            {"changes": {4: {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}}},
            R.MIXED_ORIENTATION,
        ),
        ({"changes": {5: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}}}, R.MIXED_ORIENTATION),
        ({"changes": {5: {"PixelSpacing": [4.0, 4.1]}}}, R.MIXED_MATRIX),
        ({"changes": {5: {"Rows": 32, "Columns": 128}}}, R.MIXED_MATRIX),
        ({"changes": {5: {"FrameOfReferenceUID": "2.25.9"}}}, R.MIXED_ACQUISITIONS),
        ({"changes": {k: {"AcquisitionNumber": 2} for k in range(0, 24, 2)}}, R.MIXED_ACQUISITIONS),
        ({"header": {"ImagePositionPatient": None}}, R.MISSING_POSITION),
        ({"changes": {7: {"ImagePositionPatient": None}}}, R.MISSING_POSITION),
        ({"changes": {7: {"ImagePositionPatient": ""}}}, R.MISSING_POSITION),
        ({"changes": {7: {"ImagePositionPatient": [1, 2]}}}, R.INVALID_GEOMETRY),
        ({"header": {"ImageOrientationPatient": None}}, R.MISSING_ORIENTATION),
        ({"header": {"ImageOrientationPatient": [0] * 6}}, R.INVALID_GEOMETRY),
        ({"header": {"PixelSpacing": None}}, R.MISSING_PIXEL_SPACING),
        ({"header": {"PixelSpacing": [0, 0]}}, R.MISSING_PIXEL_SPACING),
        ({"header": {"PixelSpacing": [-1, 1]}}, R.MISSING_PIXEL_SPACING),
        ({"header": {"PixelSpacing": [500, 500]}}, R.IMPLAUSIBLE_GEOMETRY),
        ({"changes": {3: {"RescaleSlope": None}}}, R.MISSING_RESCALE),
        ({"changes": {3: {"RescaleIntercept": None}}}, R.MISSING_RESCALE),
        ({"header": {"RescaleSlope": 0}}, R.MISSING_RESCALE),
        ({"header": {"RescaleType": "US", "RescaleIntercept": 0}}, R.NOT_HOUNSFIELD),
        ({"header": {"RescaleType": "Z_EFF"}}, R.NOT_HOUNSFIELD),
        ({"header": {"PhotometricInterpretation": "MONOCHROME1"}}, R.NOT_HOUNSFIELD),
        ({"header": {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}}, R.NOT_HOUNSFIELD),
        ({"header": {"Modality": "MR"}}, R.NOT_HOUNSFIELD),
        ({"n_slices": 2}, R.TOO_FEW_SLICES),
        ({"header": {"Rows": 65535, "Columns": 65535}}, R.TOO_LARGE),
        ({"header": {"NumberOfFrames": 2_000_000_000}}, R.TOO_LARGE),
        ({"header": {"Rows": 0}}, R.PIXEL_HEADER_MISMATCH),
        ({"header": {"Rows": 32}}, R.PIXEL_HEADER_MISMATCH),
        ({"header": {"BitsAllocated": 12}}, R.PIXEL_HEADER_MISMATCH),
        ({"header": {"PixelRepresentation": 7}}, R.PIXEL_HEADER_MISMATCH),
        ({"header": {"Rows": None}}, R.UNREADABLE_FILE),
        ({"changes": {9: {"Rows": 65}}}, R.MIXED_MATRIX),
        ({"header": {"Rows": 65}}, R.TRUNCATED_PIXEL_DATA),
        ({"changes": {9: {"PixelData": None}}}, R.TRUNCATED_PIXEL_DATA),
    ],
)
def test_reasons(tmp_path: Path, knobs: dict[str, Any], reason: StudyReason) -> None:
    error = error_of(write_ct_series(tmp_path, **knobs))
    assert error.reason == reason
    assert error.rejected


@pytest.mark.parametrize(
    ("knobs", "flags"),
    [
        ({"duplicate": [4, 9]}, {Q.DUPLICATE_SLICES_DROPPED}),
        ({"spacing_mm": 6.0}, {Q.THICK_SLICES}),
        ({"spacing_mm": 5.0}, set()),
        ({"header": {"SliceThickness": 5}}, {Q.OVERLAPPING_SLICES}),
        ({"header": {"SliceThickness": 1}}, {Q.GAPPED_SLICES}),
        ({"header": {"SliceThickness": None}}, set()),
        ({"header": {"SpacingBetweenSlices": 2.5}}, {Q.SPACING_ATTRIBUTE_MISMATCH}),
        ({"header": {"SpacingBetweenSlices": -3}}, set()),
        ({"header": {"RescaleType": None}}, {Q.MISSING_RESCALE_TYPE}),
        ({"header": {"RescaleType": "hu "}}, set()),
        ({"header": {"ConvolutionKernel": None}}, {Q.MISSING_KERNEL}),
        ({"header": {"LossyImageCompression": "01"}}, {Q.LOSSY_COMPRESSION}),
        ({"header": {"LossyImageCompression": "00"}}, set()),
        ({"skip": [0, 1]}, {Q.INSTANCE_NUMBER_GAP}),
        ({"header": {"InstanceNumber": None}}, set()),
        ({"changes": {k: {"AcquisitionNumber": 2} for k in range(12)}}, set()),
        ({"header": {"GantryDetectorTilt": "360"}}, set()),
        ({"header": {"FrameOfReferenceUID": None}}, set()),
        ({"header": {"RescaleIntercept": 3000}}, {Q.IMPLAUSIBLE_HU}),
    ],
)
def test_flags(tmp_path: Path, knobs: dict[str, Any], flags: set[QualityFlag]) -> None:
    assert set(read_volume(write_ct_series(tmp_path, **knobs)).flags) == flags


def test_spacing_is_never_the_thickness(tmp_path: Path) -> None:
    header = {"SliceThickness": 5, "SpacingBetweenSlices": 5}
    volume = read_volume(write_ct_series(tmp_path, spacing_mm=2.5, header=header))
    assert volume.spacing_mm[0] == 2.5


def test_two_different_slices_at_one_position(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, duplicate=[6])
    original = paths[7].read_bytes()
    paths[7].write_bytes(original[:-40] + b"\0" * 40)
    assert error_of(paths).reason == R.DUPLICATE_POSITIONS


def test_signed_and_unsigned_slices_may_mix(tmp_path: Path) -> None:
    unsigned = write_ct_series(tmp_path / "a")
    signed = write_ct_series(tmp_path / "b", signed=True, intercept=-17.0, slope=0.5)
    mixed = [*unsigned[::2], *signed[1::2]]
    volume = read_volume(mixed)
    np.testing.assert_array_equal(volume.hu, thorax())
    assert volume.flags == (Q.MIXED_PIXEL_REPRESENTATION,)


def test_rescale_is_per_slice(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, changes={2: {"RescaleIntercept": -1000}})
    hu = read_volume(paths).hu
    np.testing.assert_array_equal(hu[2], thorax()[2] + 24)
    np.testing.assert_array_equal(hu[3], thorax()[3])


def test_padding_is_flagged(tmp_path: Path) -> None:
    hu = thorax()
    hu[:, :3] = -2000
    volume = read_volume(write_ct_series(tmp_path, hu=hu, signed=True, intercept=0.0))
    assert volume.flags == (Q.PADDING_REPLACED,)
    assert (volume.hu[:, :3] == -1024).all()
    np.testing.assert_array_equal(volume.hu[:, 3:], thorax()[:, 3:])


def test_digest_depends_on_pixels_and_geometry(tmp_path: Path) -> None:
    hu = thorax()
    hu[3, 30, 30] += 1
    digests = {
        read_volume(write_ct_series(tmp_path / "a")).pixel_digest,
        read_volume(write_ct_series(tmp_path / "b", hu=hu)).pixel_digest,
        read_volume(write_ct_series(tmp_path / "c", spacing_mm=3.01)).pixel_digest,
        read_volume(write_ct_series(tmp_path / "d", pixel_spacing_mm=(4.0, 4.01))).pixel_digest,
    }
    assert len(digests) == 4
    assert all(re.fullmatch("blake3:[0-9a-f]{64}", digest) for digest in digests)


def test_digest_of_an_earlier_version_is_known(tmp_path: Path) -> None:
    volume = read_volume(write_ct_series(tmp_path))
    earlier = hashlib.sha256(repr((volume.hu.shape, volume.spacing_mm)).encode())
    earlier.update(volume.affine.astype("<f8").tobytes())
    earlier.update(volume.hu.astype("<i2").tobytes())
    assert volume.has_pixels(earlier.hexdigest())
    assert volume.has_pixels(volume.pixel_digest)
    assert not volume.has_pixels("0" * 64)
    assert not volume.has_pixels(volume.pixel_digest.removeprefix("blake3:"))


def test_limits(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, n_slices=10)
    for limits in (
        ReadLimits(max_rows=63),
        ReadLimits(max_columns=63),
        ReadLimits(max_slices=9),
        ReadLimits(max_pixels=64 * 64 * 10 - 1),
        ReadLimits(max_bytes=10_000),
    ):
        assert error_of(paths, limits=limits).reason == R.TOO_LARGE
    read_volume(paths, limits=ReadLimits(max_pixels=64 * 64 * 10, max_slices=10))


def test_removed_files_are_a_failure(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path)
    paths[3].unlink()
    error = error_of(paths)
    assert (error.reason, error.rejected) == (R.UNREADABLE_FILE, False)


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", b"\0" * 132, b"\0" * 128 + b"DICM"])
def test_files_that_are_not_images(tmp_path: Path, content: bytes) -> None:
    paths = write_ct_series(tmp_path)
    paths[3].write_bytes(content)
    error = error_of(paths)
    assert (error.reason, error.rejected) == (R.UNREADABLE_FILE, True)


def test_no_files() -> None:
    assert error_of([]).reason == R.TOO_FEW_SLICES


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_file_truncated_in_its_pixels(tmp_path: Path, kept: float) -> None:
    paths = write_ct_series(tmp_path)
    content = paths[3].read_bytes()
    paths[3].write_bytes(content[: int(kept * len(content))])
    assert error_of(paths).reason == R.TRUNCATED_PIXEL_DATA


def test_a_programming_fault_is_an_internal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> CtVolume:
        raise ValueError("Secret^Patient")

    monkeypatch.setattr("cac_core.dicom.volume.body_axes", broken)
    error = error_of(write_ct_series(tmp_path))
    assert (error.reason, error.detail) == (R.INTERNAL_ERROR, "builtins.ValueError")
    assert not error.rejected


def test_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> CtVolume:
        raise MemoryError

    monkeypatch.setattr("cac_core.dicom.volume._read_pixels", broken)
    assert error_of(write_ct_series(tmp_path)).reason == R.OUT_OF_MEMORY


def test_no_needed_element_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An element missing from READ_KEYWORDS counts as absent: compare with reading all."""
    header = {
        "Exposure": 12,
        "PixelPaddingValue": 24,
        "SpacingBetweenSlices": 2,
        "LossyImageCompression": "01",
        "InstanceNumber": None,
    }
    paths = write_ct_series(tmp_path / "single", header=header)
    enhanced = [write_enhanced_ct(tmp_path / "enhanced.dcm", header=header)]
    read = [read_volume(paths), read_volume(enhanced)]
    monkeypatch.setattr(datafile, "_READ_TAGS", None)
    for few, everything in zip(read, [read_volume(paths), read_volume(enhanced)], strict=True):
        assert few.acquisition == everything.acquisition
        assert few.flags == everything.flags
        assert few.pixel_digest == everything.pixel_digest
    assert read[0].acquisition.exposure_mas == 12


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"skip": [11]}, R.MISSING_SLICES),
        ({"drift_mm": (0.0, 1.0)}, R.GANTRY_TILT),
        ({"header": {"GantryDetectorTilt": 10}}, R.GANTRY_TILT),
        ({"header": {"RescaleType": "OD"}}, R.NOT_HOUNSFIELD),
        ({"header": {"RescaleSlope": None}}, R.MISSING_RESCALE),
        ({"header": {"ImagePositionPatient": None}}, R.MISSING_POSITION),
        ({"header": {"ImageOrientationPatient": None}}, R.MISSING_ORIENTATION),
        ({"header": {"PixelSpacing": None}}, R.MISSING_PIXEL_SPACING),
        ({"changes": {k: {"AcquisitionNumber": 2} for k in range(0, 24, 2)}}, R.MIXED_ACQUISITIONS),
        ({"duplicate": [3]}, None),
    ],
)
def test_multi_frame_files_have_the_same_reasons(
    tmp_path: Path, knobs: dict[str, Any], reason: StudyReason | None
) -> None:
    paths = [write_enhanced_ct(tmp_path / "enhanced.dcm", **knobs)]
    if reason is None:
        assert read_volume(paths).flags == (Q.DUPLICATE_SLICES_DROPPED,)
    else:
        assert error_of(paths).reason == reason


def test_multi_frame_without_functional_groups(tmp_path: Path) -> None:
    header = {"NumberOfFrames": 2, "Rows": 32}
    assert error_of(write_ct_series(tmp_path, header=header)).reason == R.MISSING_POSITION


def test_deeply_nested_items_in_place_of_a_number_end_at_once(tmp_path: Path) -> None:
    # pydicom describes such items with a trace per level, which doubles at each.
    paths = write_ct_series(tmp_path / "series", n_slices=4, rows=16, columns=16)
    dataset = pydicom.dcmread(paths[1])
    inner = Dataset()
    inner.add_new(0x00081140, "SQ", [])
    for _ in range(25):
        outer = Dataset()
        outer.add_new(0x00081140, "SQ", [inner])
        inner = outer
    del dataset.PixelSpacing
    dataset.add_new(0x00280030, "SQ", [inner])
    dataset.save_as(paths[1])
    start = perf_counter()
    with pytest.raises(StudyError):
        read_volume(paths)
    assert perf_counter() - start < 2.0
