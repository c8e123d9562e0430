"""Header reading: agreement with pydicom, hostile files, odd values, privacy."""

from __future__ import annotations

import datetime as dt
import random
import struct
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from cac_core.dicom.descriptions import TextPolicy
from cac_core.dicom.header import HEADER_COLUMNS, read_header
from cac_core.dicom.limits import HeaderLimits
from cac_core.keys import Keyring
from schemas.codes import FileReason
from schemas.instance import INSTANCES
from tests.builders.dicom_files import (
    CAPTURE_CLASS,
    EMPTY_ITEM,
    IMPLICIT,
    ITEM,
    LITTLE,
    SEQUENCE_END,
    VENDORS,
    ct_dataset,
    element,
    open_sequence,
    part10,
    write_dicom,
)

KEYS = Keyring(b"a secret of the header tests")
LIMITS = HeaderLimits()
LISTED = TextPolicy()
#: SOP class and instance of a CT image, where bytes are put together by hand.
IDENTITY = element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.2") + element(
    0x00080018, b"UI", b"1.2.3.4.5.1"
)


def read(path: Path, limits: HeaderLimits = LIMITS, texts: TextPolicy = LISTED) -> dict[str, Any]:
    row = read_header(str(path), KEYS, limits, texts)
    padded = (*row, *(None,) * (len(HEADER_COLUMNS) - len(row)))
    return dict(zip(HEADER_COLUMNS, padded, strict=True))


def read_bytes(tmp_path: Path, content: bytes, limits: HeaderLimits = LIMITS) -> dict[str, Any]:
    path = tmp_path / "file"
    path.write_bytes(content)
    return read(path, limits)


def test_columns_are_those_of_the_table() -> None:
    of_the_index = {"path_key", "size_bytes", "mtime_ns", "content_digest", "text_policy"}
    assert set(HEADER_COLUMNS) | of_the_index == set(INSTANCES.arrow_schema.names)
    assert len(set(HEADER_COLUMNS)) == len(HEADER_COLUMNS)


def number(dataset: Dataset, keyword: str, index: int | None = None) -> float | None:
    value = dataset.get(keyword)
    try:
        return float(value if index is None else value[index])
    except (TypeError, ValueError, IndexError):
        return None


def expect_agreement(path: Path) -> bool:
    """Compare a row with what pydicom reads; False where pydicom cannot or it has no row."""
    row = read(path)
    if row["study_key"] is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        except Exception:  # noqa: BLE001 - pydicom gives up on some of its own test files
            return False
        assert row["study_key"] == KEYS.study_key(str(dataset.StudyInstanceUID))
        uids = {name: dataset.get(name) for name in ("SeriesInstanceUID", "SOPInstanceUID")}
        for name, uid in uids.items():
            assert row[name] == (KEYS.pseudonym_uid(str(uid)) if uid else None)
        if dataset.get("PatientID", "").strip():
            assert row["patient_key"] == KEYS.patient_key(dataset.PatientID)
        if dataset.get("AccessionNumber", "").strip():
            assert row["accession_key"] == KEYS.accession_key(dataset.AccessionNumber)
        for name in ("SeriesNumber", "InstanceNumber", "NumberOfFrames", "Rows", "Columns"):
            assert row[name] == number(dataset, name), name
        assert row["Modality"] == (dataset.get("Modality") or None)
        if dataset.get("Modality") != "CT":
            return True
        for name in ("KVP", "SliceThickness", "XRayTubeCurrent", "GantryDetectorTilt"):
            if dataset.get(name) is not None:
                assert row[name] == number(dataset, name), name
        for index, name in enumerate(("position_x_mm", "position_y_mm", "position_z_mm")):
            if "ImagePositionPatient" in dataset:
                assert row[name] == number(dataset, "ImagePositionPatient", index)
        if "PixelSpacing" in dataset:
            assert row["column_spacing_mm"] == number(dataset, "PixelSpacing", 1)
        return True


def test_agrees_with_pydicom_on_its_own_files() -> None:
    paths = [Path(name) for name in get_testdata_files() if Path(name).is_file()]
    assert sum(expect_agreement(path) for path in paths) > 100


def test_every_real_file_gives_a_row(shared_data: Path) -> None:
    files = [path for path in shared_data.rglob("*") if path.is_file()]
    assert sum(expect_agreement(path) for path in files[:: max(1, len(files) // 120)]) > 20
    rows = [read(path) for path in files]
    reasons = {row["reason"] for row in rows}
    assert reasons <= {None, *(reason.value for reason in FileReason)}
    assert sum(row["reason"] is None for row in rows) > 200


@pytest.mark.parametrize("syntax", [LITTLE, IMPLICIT, str(ExplicitVRBigEndian)])
def test_syntaxes_give_the_same_row(tmp_path: Path, syntax: str) -> None:
    dataset = ct_dataset(**VENDORS["siemens"])
    dataset.add_new(0x00081140, "SQ", [Dataset(), ct_dataset(PixelData=None)])
    path = write_dicom(tmp_path / "slice", dataset, syntax)
    row = read(path)
    assert row["reason"] is None
    assert row["TransferSyntaxUID"] == syntax
    assert (row["Rows"], row["Columns"], row["BitsAllocated"]) == (8, 8, 16)
    assert row["study_date"] == dt.date(2024, 5, 17)
    assert row["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI"
    assert row["KVP"] == 130.0
    assert (row["column_cosine_x"], row["column_cosine_y"]) == (0.0, 1.0)
    with path.open("rb") as file:
        file.seek(row["pixel_data_offset"])
        assert file.read() == bytes(128)


def test_deflated_has_no_pixel_offset(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "d", ct_dataset(), str(DeflatedExplicitVRLittleEndian))
    row = read(path)
    assert (row["reason"], row["KVP"], row["pixel_data_offset"]) == (None, 120.0, None)


def test_without_preamble(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "slice", ct_dataset())
    whole = path.read_bytes()
    start = whole.index(struct.pack("<HH2s", 8, 8, b"CS"))
    assert read_bytes(tmp_path, whole[start:])["KVP"] == 120.0
    assert read_bytes(tmp_path, whole[start:])["TransferSyntaxUID"] == LITTLE


def test_enhanced_takes_geometry_from_the_functional_groups(tmp_path: Path) -> None:
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.98, 0.97], 5
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    details = Dataset()
    details.KVP = 130
    shared.CTXRayDetailsSequence = [details]
    exposure = Dataset()
    exposure.XRayTubeCurrentInmA = 21.5
    shared.CTExposureSequence = [exposure]
    frames = []
    for z in (10.0, 0.0, 5.0, 20.0, 15.0):
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [1, 2, z]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset = ct_dataset(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        NumberOfFrames=5,
        PixelData=bytes(640),
        **dict.fromkeys(("KVP", "PixelSpacing", "ImagePositionPatient", "SliceThickness")),
        **dict.fromkeys(("ImageOrientationPatient", "XRayTubeCurrent")),
    )
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = frames
    for syntax in (LITTLE, IMPLICIT):
        row = read(write_dicom(tmp_path / "enhanced", dataset, syntax))
        assert row["reason"] is None
        assert (row["NumberOfFrames"], row["KVP"], row["XRayTubeCurrent"]) == (5, 130.0, 21.5)
        assert (row["row_spacing_mm"], row["column_spacing_mm"]) == (0.98, 0.97)
        assert (row["position_y_mm"], row["position_z_mm"]) == (2.0, 10.0)
        assert (row["frame_increment_mm"], row["frame_coverage_mm"]) == (5.0, 20.0)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("StudyInstanceUID", FileReason.MISSING_STUDY_UID),
        ("SeriesInstanceUID", FileReason.MISSING_SERIES_UID),
        ("SOPInstanceUID", FileReason.MISSING_SOP_UID),
        ("SOPClassUID", FileReason.MISSING_SOP_UID),
    ],
)
@pytest.mark.parametrize("value", [None, ""])
def test_missing_uids(tmp_path: Path, missing: str, reason: FileReason, value: str | None) -> None:
    row = read(write_dicom(tmp_path / "slice", ct_dataset(**{missing: value})))
    assert row["reason"] == reason.value
    assert (row["study_key"] is None) == (missing == "StudyInstanceUID")


def test_truncation_keeps_the_header(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "slice", ct_dataset()).read_bytes()
    assert read_bytes(tmp_path, whole)["reason"] is None
    cut = read_bytes(tmp_path, whole[:-1])
    assert (cut["reason"], cut["KVP"], cut["position_z_mm"]) == ("truncated", 120.0, 0.0)
    inside = read_bytes(tmp_path, whole[: whole.index(b"62.5") + 2])
    assert (inside["reason"], inside["study_key"]) == ("truncated", KEYS.study_key("1.2.3.4"))
    no_pixels = write_dicom(tmp_path / "none", ct_dataset(PixelData=None))
    assert read(no_pixels)["reason"] == "truncated"
    short = write_dicom(tmp_path / "short", ct_dataset(PixelData=bytes(126)))
    assert read(short)["reason"] == "truncated"


def test_a_huge_matrix_is_not_allocated(tmp_path: Path) -> None:
    row = read(write_dicom(tmp_path / "huge", ct_dataset(Rows=65535, Columns=65535)))
    assert (row["reason"], row["Rows"]) == ("truncated", 65535)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"\x00", "not_dicom"),
        (b"plain text that is no image at all", "not_dicom"),
        (b"\x08\x00\x05\x00CS" + b"\xff" * 40, "not_dicom"),
        (bytes(128) + b"DICM", "missing_study_uid"),
        (part10(IDENTITY + b"\x20\x00\x0d\x00\x00\x00" + b"\xff" * 64), "unreadable_header"),
    ],
)
def test_files_that_are_not_dicom(tmp_path: Path, content: bytes, reason: str) -> None:
    assert read_bytes(tmp_path, content)["reason"] == reason


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    assert read(tmp_path / "gone")["reason"] == "vanished"
    assert read(tmp_path)["reason"] == "not_dicom"


def test_malformed_elements_are_read_again_by_pydicom(tmp_path: Path) -> None:
    content = write_dicom(tmp_path / "slice", ct_dataset()).read_bytes()
    at = content.index(struct.pack("<HH", 0x0010, 0x0010))
    unknown = struct.pack("<HH2sH", 9, 0x1001, b"ZZ", 2) + b"??"
    row = read_bytes(tmp_path, content[:at] + unknown + content[at:])
    assert (row["reason"], row["KVP"], row["Rows"]) == (None, 120.0, 8)
    assert row["study_key"] == KEYS.study_key("1.2.3.4")


def test_dicomdir() -> None:
    (path,) = [name for name in get_testdata_files() if name.endswith("dicomdirtests/DICOMDIR")]
    assert read(Path(path))["reason"] == "dicomdir"


@pytest.fixture
def quickly() -> Any:
    """Hostile files cost general readers minutes and gigabytes; here they are refused at once."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 3.0


@pytest.mark.usefixtures("quickly")
def test_a_million_empty_items(tmp_path: Path) -> None:
    body = IDENTITY + open_sequence(0x00081140) + EMPTY_ITEM * 1_000_000 + SEQUENCE_END
    row = read_bytes(tmp_path, part10(body))
    assert row["reason"] == "header_limits"


@pytest.mark.usefixtures("quickly")
def test_deep_nesting(tmp_path: Path) -> None:
    body = IDENTITY + (open_sequence(0x00081140) + ITEM) * 300
    assert read_bytes(tmp_path, part10(body))["reason"] == "header_limits"


@pytest.mark.usefixtures("quickly")
def test_deflate_bomb(tmp_path: Path) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [deflater.compress(IDENTITY + struct.pack("<HH2sHI", 9, 1, b"OB", 0, 1 << 30))]
    parts += [deflater.compress(bytes(1 << 20)) for _ in range(200)]
    content = part10(b"".join(parts) + deflater.flush(), str(DeflatedExplicitVRLittleEndian))
    assert len(content) < 1_000_000
    assert read_bytes(tmp_path, content)["reason"] == "header_limits"


@pytest.mark.usefixtures("quickly")
def test_a_long_value_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "slice"
    content = write_dicom(path, ct_dataset()).read_bytes()
    at = content.index(struct.pack("<HH", 0x0010, 0x0010))
    private = struct.pack("<HH2sHI", 9, 0x1001, b"OB", 0, 200_000_000)
    with path.open("wb") as file:
        file.write(content[:at] + private)
        file.seek(200_000_000, 1)
        file.write(content[at:])
    assert read(path)["KVP"] == 120.0


@pytest.mark.usefixtures("quickly")
def test_limits_apply(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "slice", ct_dataset())
    assert read(path, HeaderLimits(elements=10))["reason"] == "header_limits"
    nested = element(0x00081140, b"SQ", EMPTY_ITEM)
    content = part10(IDENTITY + nested * 4000)
    assert read_bytes(tmp_path, content, HeaderLimits(header_bytes=20_000))["reason"] == (
        "header_limits"
    )


@pytest.mark.usefixtures("quickly")
def test_random_mutations_never_raise(tmp_path: Path) -> None:
    chance = random.Random(7)
    dataset = ct_dataset()
    dataset.add_new(0x00081140, "SQ", [ct_dataset(PixelData=None), Dataset()])
    seeds = [
        write_dicom(tmp_path / "seed", dataset, syntax).read_bytes()
        for syntax in (LITTLE, IMPLICIT, str(DeflatedExplicitVRLittleEndian))
    ]
    allowed = {None, *(reason.value for reason in FileReason)}
    for _ in range(600):
        content = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 6)):
            content[chance.randrange(128, len(content))] = chance.randrange(256)
        row = read_bytes(tmp_path, bytes(content[: chance.randint(140, len(content))]))
        assert row["reason"] in allowed


@pytest.mark.parametrize(
    ("keyword", "value", "column", "expected"),
    [
        ("KVP", b"abc ", "KVP", None),
        ("KVP", b"NaN ", "KVP", None),
        ("KVP", b"1e400 ", "KVP", None),
        ("KVP", b"80\\140", "KVP", None),
        ("KVP", b" 120 ", "KVP", 120.0),
        ("InstanceNumber", b"99999999999 ", "InstanceNumber", None),
        ("InstanceNumber", b"1.5 ", "InstanceNumber", None),
        ("ImagePositionPatient", b"1\\2 ", "position_x_mm", None),
        ("PixelSpacing", b"1\\x ", "row_spacing_mm", None),
        ("ConvolutionKernel", b"I30f\\2", "ConvolutionKernel", "I30f\\2"),
        ("StudyDate", b"20241345", "study_date", None),
        ("StudyDate", b"2024.05.17", "study_date", dt.date(2024, 5, 17)),
        ("Modality", b"CT\x01\x02", "Modality", None),
        ("ContrastBolusAgent", b"Omnipaque ", "has_contrast_agent", True),
        ("ContrastBolusAgent", b"NONE", "has_contrast_agent", False),
        ("ContrastBolusAgent", b"", "has_contrast_agent", False),
        ("TriggerTime", b"310.5 ", "has_gating", True),
        ("TriggerTime", b"0 ", "has_gating", False),
    ],
)
def test_odd_values(
    tmp_path: Path, keyword: str, value: bytes, column: str, expected: object
) -> None:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    vr = pydicom.datadict.dictionary_VR(tag).encode()
    fixed = {0x0020000D: b"1.2.3.4", 0x0020000E: b"1.2.3.4.5"}
    elements = {key: element(key, b"UI", uid) for key, uid in fixed.items()}
    elements[tag] = element(tag, vr, value)
    body = IDENTITY + b"".join(elements[key] for key in sorted(elements))
    assert read_bytes(tmp_path, part10(body))[column] == expected


def test_free_texts_are_deidentified(tmp_path: Path) -> None:
    dataset = ct_dataset(
        SeriesDescription="CTAC musterERIKA 12.03.1950 acc4711",
        StudyDescription="Perfusion, mrn 0012345 (1950-03-12)",
        ProtocolName="Cardiac 19500312 Maria",
        ManufacturerModelName="Mustermaker Maria",
        PatientID="mrn 0012345",
    )
    row = read(write_dicom(tmp_path / "slice", dataset))
    assert row["SeriesDescription"] == "CTAC ****** *** ***"
    assert row["StudyDescription"] == "Perfusion, *** (***)"
    assert row["ProtocolName"] == "Cardiac *** ***"
    # Device texts are masked by whole words: for Philip, Philips stays.
    assert row["ManufacturerModelName"] == "Mustermaker ***"


def test_names_in_other_character_sets_are_masked(tmp_path: Path) -> None:
    dataset = ct_dataset(
        SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg", SeriesDescription="MÜLLER AC"
    )
    row = read(write_dicom(tmp_path / "slice", dataset))
    assert row["SeriesDescription"] == "*** AC"
    dataset = ct_dataset(
        SpecificCharacterSet="ISO_IR 192", PatientName="山田^太郎", SeriesDescription="CTAC 山田"
    )
    assert read(write_dicom(tmp_path / "slice", dataset))["SeriesDescription"] == "CTAC ***"


def test_short_identifiers_do_not_mask_other_text(tmp_path: Path) -> None:
    dataset = ct_dataset(PatientID="12", PatientName="Ed", SeriesDescription="CTAC 120 kV 12 red")
    row = read(write_dicom(tmp_path / "slice", dataset), texts=TextPolicy(keep=True))
    assert row["SeriesDescription"] == "CTAC 120 kV *** red"


def test_other_objects_than_ct_need_no_pixels(tmp_path: Path) -> None:
    dataset = ct_dataset(Modality="OT", SOPClassUID=CAPTURE_CLASS, PixelData=None)
    assert read(write_dicom(tmp_path / "capture", dataset))["reason"] is None


@pytest.mark.parametrize(
    ("sex", "born", "expected"),
    [
        ("M ", "19500312", ("M", 1950)),
        ("o", "", ("O", None)),
        ("", "1950", (None, None)),
        ("Mustermann", "unknown", (None, None)),
    ],
)
def test_sex_and_year_of_birth_are_kept(
    sex: str, born: str, expected: tuple[str | None, int | None], tmp_path: Path
) -> None:
    content = IDENTITY + element(0x0020000D, b"UI", b"1.2.3.4.5")
    content += element(0x0020000E, b"UI", b"1.2.3.4.6")
    patient = element(0x00100030, b"DA", born.encode()) + element(0x00100040, b"CS", sex.encode())
    row = read_bytes(tmp_path, part10(IDENTITY + patient + content[len(IDENTITY) :]))
    assert (row["PatientSex"], row["patient_birth_year"]) == expected


def test_a_text_that_swallowed_the_next_element_is_not_kept(tmp_path: Path) -> None:
    name = element(0x00100010, b"PN", b"Quixzotl^Wbmvra ")
    content = IDENTITY + element(0x00080070, b"LO", b"GE MEDIC" + name)
    content += element(0x0020000D, b"UI", b"1.2.3.4.5") + element(0x0020000E, b"UI", b"1.2.3.4.6")
    row = read_bytes(tmp_path, part10(content))
    assert row["study_key"] is not None
    assert "Quixzotl" not in repr(row)
