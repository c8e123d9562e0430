"""Irregular headers: scored with a flag, or refused with a reason."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config, dcmread, uid
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from cac_core.dicom.header_values import decimal_string, decimal_strings, plain_decimals
from cac_core.dicom.index import index_archive
from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.dicom.studies import chosen_files, decide_studies
from cac_core.dicom.volume import CtVolume, read_volume
from cac_core.errors import StudyError
from cac_core.keys import Keyring
from schemas.codes import QualityFlag, StudyReason
from tests.builders.ct_series import SeriesOptions, ct_datasets, thorax, write_ct_series

R, Q = StudyReason, QualityFlag
CORONAL = [1, 0, 0, 0, 0, -1]
LOCALIZER = {
    "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
    "ImageOrientationPatient": CORONAL,
    "SOPInstanceUID": "2.25.77.1",
    "InstanceNumber": 99,
}


def error_of(paths: list[Path], **kwargs: Any) -> StudyError:
    with pytest.raises(StudyError) as caught:
        read_volume(paths, **kwargs)
    return caught.value


def put(dataset: Dataset, keyword: str, text: str) -> None:
    """Set an element to bytes that pydicom would not let pass."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    content = text.encode() + b" " * (len(text.encode()) % 2)
    dataset._dict[tag] = RawDataElement(
        tag, dictionary_VR(tag), len(content), content, 0, False, True
    )


def rewrite(paths: list[Path], which: slice | None = None, **texts: str) -> list[Path]:
    """Give files the texts of elements as they stand."""
    for path in paths if which is None else paths[which]:
        dataset = dcmread(path)
        for keyword, text in texts.items():
            put(dataset, keyword, text)
        dataset.save_as(path, enforce_file_format=True)
    return paths


def add(paths: list[Path], source: int, **changes: Any) -> list[Path]:
    """Add an image to a series: a changed copy of one of its slices."""
    dataset = dcmread(paths[source])
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    path = paths[0].with_name(f"a{len(paths)}.dcm")
    dataset.save_as(path, enforce_file_format=True)
    return [*paths, path]


# Sizes


@pytest.mark.parametrize("spacing", [0.06, 20.5, 400.0, 3000.0])
def test_implausible_slice_increments(tmp_path: Path, spacing: float) -> None:
    error = error_of(write_ct_series(tmp_path, n_slices=4, spacing_mm=spacing))
    assert (error.reason, error.rejected) == (R.IMPLAUSIBLE_GEOMETRY, True)
    assert "slice increment" in error.detail


@pytest.mark.parametrize("spacing", [0.2, 10.0, 20.0])
def test_plausible_slice_increments(tmp_path: Path, spacing: float) -> None:
    paths = write_ct_series(tmp_path, n_slices=4, spacing_mm=spacing)
    assert read_volume(paths).spacing_mm[0] == spacing


@pytest.mark.parametrize("pixels", [(1e-6, 1e-6), (0.05, 4.0), (4.0, 9.0), (500.0, 500.0)])
def test_implausible_pixel_spacings(tmp_path: Path, pixels: tuple[float, float]) -> None:
    paths = write_ct_series(tmp_path, n_slices=4, pixel_spacing_mm=pixels)
    assert error_of(paths).reason == R.IMPLAUSIBLE_GEOMETRY


def test_an_implausible_field_of_view(tmp_path: Path) -> None:
    knobs: dict[str, Any] = {"n_slices": 4, "rows": 260, "columns": 260}
    error = error_of(write_ct_series(tmp_path, pixel_spacing_mm=(4.0, 4.0), **knobs))
    assert (error.reason, error.detail[:13]) == (R.IMPLAUSIBLE_GEOMETRY, "field of view")


@pytest.mark.parametrize("text", ["nan\\nan", "inf\\inf", "1_0\\1_0", "abc\\1"])
def test_invalid_pixel_spacings(tmp_path: Path, text: str) -> None:
    paths = rewrite(write_ct_series(tmp_path, n_slices=4), PixelSpacing=text)
    assert error_of(paths).reason in (R.INVALID_GEOMETRY, R.MISSING_PIXEL_SPACING)


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [("1e30", "0"), ("1e-30", "0"), ("1", "1e30"), ("inf", "0"), ("0", "0"), ("1", "-1e6")],
)
def test_rescales_that_cannot_give_hounsfield_units(
    tmp_path: Path, slope: str, intercept: str
) -> None:
    paths = write_ct_series(tmp_path, n_slices=4)
    rewrite(paths, slice(2, 3), RescaleSlope=slope, RescaleIntercept=intercept)
    assert error_of(paths).reason == R.MISSING_RESCALE


def test_inflated_bytes_count_over_the_series(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, n_slices=12, syntax=uid.DeflatedExplicitVRLittleEndian)
    for path in paths:
        content = path.read_bytes()
        end = 132 + 12 + struct.unpack("<I", content[140:144])[0]
        inflated = zlib.decompress(content[end:], -zlib.MAX_WBITS)
        private = struct.pack("<HH2sHI", 0x7FE1, 0x1001, b"OB", 0, 2**18) + bytes(2**18)
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        path.write_bytes(content[:end] + packer.compress(inflated + private) + packer.flush())
    n_bytes = 12 * (2**18 + 64 * 64 * 2)
    assert error_of(paths, limits=ReadLimits(max_inflated_bytes=n_bytes // 2)).reason == R.TOO_LARGE
    np.testing.assert_array_equal(
        read_volume(paths, limits=ReadLimits(max_inflated_bytes=n_bytes * 2)).hu, thorax(12)
    )


_DECIMALS = (
    *("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope"),
    *("RescaleIntercept", "SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt", "KVP"),
)
_WHOLE = ("InstanceNumber", "AcquisitionNumber", "NumberOfFrames")
_SHORT = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    "SamplesPerPixel",
)
_TEXTS = (
    *("0", "-0", "1", "-1", "0.5", "1e30", "1e308", "1e-320", "inf", "-inf", "nan", "", "abc"),
    *("0,5", "1,024", "99999999", "2147483648", "9223372036854775808", "1e400", "1_0", " 3 "),
    *("1\\2\\3", "400", "0x10", "Ä"),
)
_SIZES = {"PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}


def damage(datasets: list[Dataset], dice: random.Random) -> None:
    """Change, or take away, one element in one slice or in all."""
    keyword = dice.choice((*_DECIMALS, *_DECIMALS, *_WHOLE, *_SHORT))
    some = datasets if dice.random() < 0.5 else [dice.choice(datasets)]
    removed = dice.random() < 0.1
    parts = [dice.choice((*_TEXTS, "0", "1")) for _ in range(_SIZES.get(keyword, 1))]
    short = dice.choice((0, 1, 2, 7, 8, 12, 15, 17, 31, 32, 64, 255, 512, 2049, 65535))
    whole = dice.choice(("0", "-1", "2", "", "2147483648", "99999999", "007", " 3 "))
    for dataset in some:
        if removed and keyword in dataset:
            del dataset[keyword]
        elif keyword in _SHORT:
            setattr(dataset, keyword, short)
        elif keyword in _WHOLE:
            put(dataset, keyword, whole)
        else:
            put(dataset, keyword, "\\".join(parts))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_any_header_value_gives_a_volume_or_a_reason(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    datasets = ct_datasets(SeriesOptions(n_slices=4, rows=12, columns=12))
    paths = [tmp_path / f"{index}.dcm" for index in range(4)]
    with disable_value_validation():
        for _ in range(dice.choice((1, 1, 2, 3))):
            damage(datasets, dice)
        for path, dataset in zip(paths, datasets, strict=True):
            dataset.save_as(path, enforce_file_format=True)
    try:
        volume = read_volume(paths)
    except StudyError as error:
        assert error.reason not in (R.INTERNAL_ERROR, R.OUT_OF_MEMORY), error.detail
        assert error.rejected
    else:
        assert np.isfinite(volume.affine).all()
        assert 0.1 <= min(volume.spacing_mm) <= max(volume.spacing_mm) <= 20.0


# Decimal commas


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0,976562", 0.976562),
        ("-250,0", -250.0),
        ("-1024,000", -1024.0),
        ("-128,500", -128.5),
        ("1,5e1", 15.0),
        ("1,024", None),  # may be a thousand and more
        ("1,234,567", None),
        ("1.024,5", None),
        (",5", None),
        ("1_0", None),
    ],
)
def test_unambiguous_decimal_commas(text: str, value: float | None) -> None:
    assert decimal_string(text.encode()) == value


def test_one_unambiguous_comma_decides_for_the_element() -> None:
    assert decimal_strings(b"1,024\\0,5", 2) == (1.024, 0.5)
    assert decimal_strings(b"1,024\\0.5", 2) is None
    assert plain_decimals(["1,000"], largest=100.0) == ["1.000"]


@pytest.mark.parametrize("digits", [1, 3, 6])
def test_a_series_with_decimal_commas(tmp_path: Path, digits: int) -> None:
    paths = write_ct_series(tmp_path / "a", pixel_spacing_mm=(3.5, 3.5))
    for path in paths:
        dataset = dcmread(path)
        for keyword in _DECIMALS:
            if keyword in dataset:
                element = dataset[keyword].value
                values = [element] if keyword not in _SIZES else element
                text = "\\".join(f"{float(value):.{digits}f}" for value in values)
                put(dataset, keyword, text.replace(".", ","))
        dataset.save_as(path, enforce_file_format=True)
    volume = read_volume(paths)
    plain = read_volume(write_ct_series(tmp_path / "b", pixel_spacing_mm=(3.5, 3.5)))
    assert volume.flags == (Q.DECIMAL_COMMA,)
    assert volume.pixel_digest == plain.pixel_digest
    assert volume.acquisition.kvp == 120


def test_an_ambiguous_intercept_is_refused(tmp_path: Path) -> None:
    paths = rewrite(write_ct_series(tmp_path), RescaleIntercept="-1,024")
    assert error_of(paths).reason == R.MISSING_RESCALE


# Strays and repeats


@pytest.mark.parametrize(
    "changes",
    [
        LOCALIZER,
        LOCALIZER | {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "RescaleSlope": None},
        LOCALIZER | {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        LOCALIZER | {"Rows": 32, "Columns": 128, "PhotometricInterpretation": "MONOCHROME1"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImagePositionPatient": None},
    ],
)
def test_a_stray_image_is_excluded(tmp_path: Path, changes: dict[str, Any]) -> None:
    paths = write_ct_series(tmp_path)
    plain = read_volume(paths)
    volume = read_volume(add(paths, 3, **changes)[::-1])
    assert volume.flags == (Q.STRAY_IMAGES_SET_ASIDE,)
    assert volume.pixel_digest == plain.pixel_digest


def test_strays_are_not_excluded_where_slices_are_missing(tmp_path: Path) -> None:
    error = error_of(write_ct_series(tmp_path, changes={9: {"ImageOrientationPatient": CORONAL}}))
    assert error.reason == R.MIXED_ORIENTATION
    assert "missing" in error.detail


def test_a_mixture_is_refused(tmp_path: Path) -> None:
    changes = {k: {"ImageOrientationPatient": CORONAL} for k in range(16, 24)}
    assert error_of(write_ct_series(tmp_path, changes=changes)).reason == R.MIXED_ORIENTATION


def other_pixels(path: Path) -> bytes:
    stored = np.frombuffer(dcmread(path).PixelData, "<u2")
    return (stored + 7).astype("<u2").tobytes()


def test_a_slice_repeated_by_another_acquisition(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path)
    plain = read_volume(paths)
    repeat = {"SOPInstanceUID": "2.25.5", "AcquisitionNumber": 2, "InstanceNumber": 90}
    paths = add(paths, 7, PixelData=other_pixels(paths[7]), **repeat)
    for order in (paths, paths[::-1]):
        volume = read_volume(order)
        assert volume.pixel_digest == plain.pixel_digest
        assert volume.flags == (Q.STRAY_IMAGES_SET_ASIDE,)


def test_an_ambiguous_repeat_is_refused(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path)
    paths = add(paths, 7, SOPInstanceUID="2.25.5", PixelData=other_pixels(paths[7]))
    assert error_of(paths).reason == R.DUPLICATE_POSITIONS


def test_two_complete_acquisitions_are_refused(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, n_slices=6)
    for index in range(6):
        again = {"SOPInstanceUID": f"2.25.5.{index}", "AcquisitionNumber": 2}
        paths = add(paths, index, PixelData=other_pixels(paths[index]), **again)
    assert error_of(paths).reason == R.MIXED_ACQUISITIONS


@pytest.mark.parametrize(
    "changes", [{"KVP": 80}, {"ConvolutionKernel": "B70f"}], ids=["voltage", "kernel"]
)
def test_the_first_slice_does_not_decide_for_the_others(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    paths = write_ct_series(tmp_path, changes={k: changes for k in range(12, 24)})
    assert error_of(paths).reason == R.MIXED_ACQUISITIONS


def test_values_missing_in_the_first_slice_come_from_the_next(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, changes={0: {"KVP": None, "ConvolutionKernel": None}})
    volume = read_volume(paths)
    assert (volume.acquisition.kvp, volume.acquisition.kernel) == (120, "B31s")
    assert volume.flags == ()


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    """Values that differ by rounding, in every order of the files."""
    changes = {
        k: {
            "PixelSpacing": [4.0 + 1e-5 * (k % 7), 4.0],
            "ImageOrientationPatient": [1, 1e-4 * (k % 5), 0, -1e-4 * (k % 5), 1, 0],
        }
        for k in range(24)
    }
    paths = write_ct_series(tmp_path, changes=changes)
    digests = set()
    for seed in range(5):
        random.Random(seed).shuffle(paths)
        digests.add(read_volume(paths).pixel_digest)
    assert len(digests) == 1


# UIDs


def index_and_choose(folder: Path) -> list[Path]:
    index = index_archive([folder], Keyring(b"a secret used by the tests only"), workers=1)
    chosen = select_series(series_table(index.instances), load_rules())
    studies = decide_studies(index.instances, chosen, load_rules().digest)
    keys = chosen_files(index.instances, studies)["path_key"].to_pylist()
    return [index.paths[key] for key in keys]


def test_one_sop_instance_uid_for_all_slices(tmp_path: Path) -> None:
    header = {"SOPInstanceUID": "2.25.9", "SeriesDescription": "CTAC"}
    knobs: dict[str, Any] = {"n_slices": 40, "pixel_spacing_mm": (6.0, 6.0)}
    write_ct_series(tmp_path, header=header | {"ReconstructionDiameter": 400}, n_slices=40)
    paths = index_and_choose(tmp_path)
    assert len(paths) == knobs["n_slices"]
    assert read_volume(paths).flags == (Q.REPEATED_SOP_INSTANCE_UID,)


def test_copies_of_a_file_share_its_uid(tmp_path: Path) -> None:
    assert read_volume(write_ct_series(tmp_path, duplicate=[3])).flags == (
        Q.DUPLICATE_SLICES_DROPPED,
    )
    paths = sorted(tmp_path.glob("*.dcm"))
    assert Q.REPEATED_SOP_INSTANCE_UID not in read_volume([*paths, paths[0]]).flags


def test_a_frame_of_reference_for_every_slice(tmp_path: Path) -> None:
    changes = {k: {"FrameOfReferenceUID": f"2.25.8.{k}"} for k in range(24)}
    paths = write_ct_series(tmp_path / "a", changes=changes)
    volume = read_volume(paths)
    assert volume.flags == (Q.SEVERAL_FRAMES_OF_REFERENCE,)
    assert volume.pixel_digest == read_volume(write_ct_series(tmp_path / "b")).pixel_digest


@pytest.mark.parametrize("kind", ["interleaved", "halves", "one", "missing"])
def test_other_mixtures_of_frames_of_reference_are_refused(tmp_path: Path, kind: str) -> None:
    number = {
        "interleaved": lambda k: k % 2,
        "halves": lambda k: k // 12,
        "one": lambda k: k == 5,
        "missing": lambda k: None if k == 5 else k,
    }[kind]
    changes = {
        k: {"FrameOfReferenceUID": None if number(k) is None else f"2.25.8.{int(number(k))}"}
        for k in range(24)
    }
    error = error_of(write_ct_series(tmp_path, changes=changes))
    assert error.reason == R.MIXED_ACQUISITIONS


# RescaleType US


def test_an_unspecified_rescale_type_with_the_values_of_hu(tmp_path: Path) -> None:
    volume = read_volume(write_ct_series(tmp_path, header={"RescaleType": "US"}))
    assert volume.flags == (Q.UNSPECIFIED_RESCALE_TYPE,)


@pytest.mark.parametrize(
    "header",
    [
        {"RescaleIntercept": 0},
        {"RescaleIntercept": -824},
        {"RescaleIntercept": -1224},
        {"RescaleSlope": 0.5},
        {"RescaleSlope": 2},
    ],
)
def test_an_unspecified_rescale_type_with_other_values(
    tmp_path: Path, header: dict[str, Any]
) -> None:
    error = error_of(write_ct_series(tmp_path, header={"RescaleType": "US", **header}))
    assert error.reason == R.NOT_HOUNSFIELD


def test_the_settings_of_pydicom_are_restored(tmp_path: Path) -> None:
    before = config.settings.reading_validation_mode
    paths = rewrite(write_ct_series(tmp_path, n_slices=4), PixelSpacing="4,0\\4,0")
    assert isinstance(read_volume(paths), CtVolume)
    assert config.settings.reading_validation_mode == before
