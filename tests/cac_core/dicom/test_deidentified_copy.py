"""De-identified copies: nothing of what is planted survives, and the pixels are the same."""

from __future__ import annotations

import datetime as dt
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from cac_core.dicom import kept_elements as kept
from cac_core.dicom.deidentified_copy import CopyRules, NotCopiedError, deidentified
from cac_core.dicom.index import index_archive
from cac_core.dicom.volume import read_volume
from cac_core.keys import Keyring
from tests.builders.ct_series import write_ct_series
from tests.builders.dicom_files import NM_CLASS, ct_dataset, write_dicom

WORD, NUMBER, UID_PART, DAY = "QUIXZOTL", "8675309", "867530", "18670530"
PLANTED = [part.encode() for part in (WORD, NUMBER, UID_PART, DAY)]
#: The same number as the binary VRs hold it.
BINARY = {
    **dict.fromkeys(("UL", "SL"), struct.pack("<I", int(NUMBER))),
    **dict.fromkeys(("UV", "SV"), struct.pack("<Q", int(NUMBER))),
    **{"FL": struct.pack("<f", int(NUMBER)), "FD": struct.pack("<d", int(NUMBER))},
}
KEYRING = Keyring(b"a secret of the tests")
RULES = CopyRules(KEYRING)
SHIFT = dt.timedelta(days=17)
_ALL_VRS = {vr for entry in DicomDictionary.values() for vr in entry[0].split(" or ")} - {
    *("NONE", "US", "SS")  # 16 bits hold no identifier
}
_TEXT_VRS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
#: Elements that make the file what it is; what is planted there would make another file of it.
_NEEDED = {
    *("SOPClassUID", "Modality", "PhotometricInterpretation", "ImageType", "BurnedInAnnotation"),
    *("RecognizableVisualFeatures", "SpecificCharacterSet", "PatientPosition", "RescaleType"),
}


def planted(vr: str, keyword: str) -> Any:
    """What is planted in an element of this VR; None for what cannot hold an identifier."""
    if keyword in kept.NUMBERS:
        return None
    if vr in _TEXT_VRS:
        return WORD
    values = {"UI": f"1.2.{UID_PART}9.{UID_PART}", "DA": DAY, "DT": DAY + "101500.0", "AS": "867Y"}
    values |= {"IS": NUMBER, "DS": NUMBER, "TM": "867530"}
    if vr.split(" or ")[0] in ("OB", "OD", "OF", "OL", "OV", "OW", "UN"):
        return (WORD * 2).encode()
    if vr == "AT":  # the letters of the word, two by two
        return _as_tags(WORD.encode())
    if vr in BINARY:
        return int(NUMBER)
    return values.get(vr)


def _as_tags(text: bytes) -> list[int]:
    parts = struct.unpack(f"<{len(text) // 2}H", text)
    return [(one << 16) + other for one, other in zip(parts[::2], parts[1::2], strict=True)]


def plant(dataset: Dataset) -> None:
    """Plant in every standard element of the dictionary that the data set does not need.

    Items of sequences are planted with one element of each VR.
    """
    item = Dataset()
    with disable_value_validation():
        sequences = []
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
            group = tag >> 16
            if group in (0x0000, 0x0002, 0x7FE0, 0xFFFC, 0xFFFE) or (
                tag in dataset and keyword not in kept.TEXTS
            ):
                continue
            if vr == "SQ":
                sequences.append(tag)
            value = planted(vr, keyword)
            if value is None or keyword in _NEEDED:
                continue
            dataset.add_new(tag, vr.split(" or ")[0], value)
            if vr not in {element.VR for element in item}:
                item.add_new(tag, vr.split(" or ")[0], value)
        for tag in sequences:
            dataset.add_new(tag, "SQ", [item])


def everything(path: Path, *, sequences: bool = True) -> Path:
    """A CT slice in which identifiers stand wherever they can."""
    dataset = ct_dataset(
        PatientName=f"{WORD}^Anna", PatientID=NUMBER, PatientBirthDate=DAY,
        StudyInstanceUID=f"1.2.{UID_PART}9.1", SeriesInstanceUID=f"1.2.{UID_PART}9.2",
        SOPInstanceUID=f"1.2.{UID_PART}9.3", FrameOfReferenceUID=f"1.2.{UID_PART}9.4",
        AccessionNumber=NUMBER, StudyDescription=f"NM {WORD}", SeriesDescription=f"CTAC {WORD}",
        StudyDate=DAY, StationName=WORD, BitsStored=12, HighBit=11, PixelRepresentation=0,
        ReferringPhysicianName=WORD,
    )  # fmt: skip
    if sequences:
        plant(dataset)
    block = dataset.private_block(0x0009, f"{WORD} MAKER", create=True)
    block.add_new(0x01, "LO", WORD)
    block.add_new(0x02, "OB", WORD.encode())
    inner = Dataset()
    inner.PatientName = WORD
    block.add_new(0x03, "SQ", [inner])
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60000011, "US", 8)
    dataset.add_new(0x60000022, "LO", f"{WORD} overlay")
    dataset.add_new(0x60001500, "LO", WORD)
    dataset.add_new(0x60003000, "OW", WORD.encode())
    dataset.add_new(0x00091010, "UN", WORD.encode())
    dataset.PixelData = np.arange(64, dtype="<u2").tobytes() + WORD.encode()
    dataset["PixelData"].VR = "OW"
    write_dicom(path, dataset)
    read = pydicom.dcmread(path)
    read.preamble = (WORD.encode() * 20)[:128]
    read.file_meta.SourceApplicationEntityTitle = WORD
    read.file_meta.PrivateInformationCreatorUID = f"1.2.{UID_PART}9.5"
    read.file_meta.PrivateInformation = WORD.encode()
    read.file_meta.ImplementationVersionName = WORD
    read.file_meta.SendingApplicationEntityTitle = WORD
    read.file_meta.ReceivingApplicationEntityTitle = WORD
    read.file_meta.SourcePresentationAddress = WORD
    read.save_as(path)
    with path.open("ab") as stream:  # trailing padding, and bytes that belong to nothing
        stream.write(struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 8) + WORD.encode())
        stream.write(WORD.encode())
    return path


def copy_of(path: Path, tmp_path: Path, rules: CopyRules = RULES) -> tuple[Path, Dataset]:
    """The copy of a file, as bytes in a file and as read from there."""
    rows = index_archive([path], KEYRING, workers=1).instances.to_pylist()
    copy = deidentified(path.read_bytes(), rows[0], SHIFT, rules)
    place = tmp_path / "copy.dcm"
    copy.save_as(place, enforce_file_format=True)
    return place, pydicom.dcmread(place)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("sequences", [True, False])
def test_nothing_that_is_planted_survives(sequences: bool, tmp_path: Path) -> None:
    path = everything(tmp_path / f"{WORD}.dcm", sequences=sequences)
    before = path.read_bytes()
    assert before.count(PLANTED[0]) > 5
    if sequences:
        assert all(before.count(part) > 5 for part in (*PLANTED, *BINARY.values()))
        vrs = {element.VR for element in pydicom.dcmread(path).values()}
        assert vrs >= _ALL_VRS, _ALL_VRS - vrs
    place, copy = copy_of(path, tmp_path)
    after = place.read_bytes().upper()
    for part in (*PLANTED, *(BINARY.values() if sequences else ())):
        assert part not in after
    for part in PLANTED:
        assert part.decode().encode("utf-16-le") not in after
    pixels = np.frombuffer(copy.PixelData, "<u2")
    assert np.array_equal(pixels, np.arange(64))


def test_bits_above_those_stored_hold_no_overlay(tmp_path: Path) -> None:
    dataset = ct_dataset(BitsStored=12, HighBit=11, PixelRepresentation=0)
    dataset.add_new(0x60000102, "US", 12)
    pixels = (np.arange(64, dtype="<u2") | (np.arange(64, dtype="<u2") << 12)).astype("<u2")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    _, copy = copy_of(write_dicom(tmp_path / "overlay", dataset), tmp_path)
    assert np.frombuffer(copy.PixelData, "<u2").max() < 2**12


def test_a_comment_in_a_code_stream_does_not_survive(tmp_path: Path) -> None:
    (path, *_) = write_ct_series(tmp_path / "s", n_slices=1, syntax=JPEG2000Lossless)
    dataset = pydicom.dcmread(path)
    (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    comment = b"\xff\x64" + (4 + len(WORD)).to_bytes(2, "big") + b"\0\1" + WORD.encode()
    at = frame.index(b"\xff\x90")  # before the first tile-part
    dataset.PixelData = pydicom.encaps.encapsulate([frame[:at] + comment + frame[at:]])
    dataset.save_as(path)
    assert WORD.encode() in path.read_bytes()
    place, copy = copy_of(path, tmp_path)
    assert WORD.encode() not in place.read_bytes()
    assert copy.file_meta.TransferSyntaxUID.is_implicit_VR is False


def test_what_follows_the_frames_of_compressed_pixels_does_not_survive(tmp_path: Path) -> None:
    (path, *_) = write_ct_series(tmp_path / "s", n_slices=1, syntax=JPEG2000Lossless)
    dataset = pydicom.dcmread(path)
    (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    pixels = dataset.pixel_array
    dataset.PixelData = pydicom.encaps.encapsulate([frame + WORD.encode()])
    dataset.save_as(path)
    place, copy = copy_of(path, tmp_path)
    assert WORD.encode() not in place.read_bytes()
    assert np.array_equal(copy.pixel_array, pixels)


SYNTAXES = ("UNC", "RLE", "JPLL", "JLSL", "JLSN", "J2KR", "J2KI")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_nuclear_images_keep_frames_and_numbers_only(
    syntax: str, shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "transfer_syntaxes" / f"NM1_{syntax}"
    original = pydicom.dcmread(source)
    with pytest.raises(NotCopiedError, match="not an image"):
        copy_of(source, tmp_path)  # whoever compressed it stored it as a secondary capture
    original.SOPClassUID = original.file_meta.MediaStorageSOPClassUID = NM_CLASS
    original.ImageType = ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    original.save_as(path := tmp_path / "nm")
    names = ("PatientName", "PatientID", "InstitutionName", "StationName", "StudyInstanceUID")
    place, copy = copy_of(path, tmp_path)
    content = place.read_bytes()
    for name in (*names, "ReferringPhysicianName", "OperatorsName", "DeviceSerialNumber"):
        value = str(original.get(name, ""))
        assert len(value) < 4 or value.encode() not in content, name
    assert copy.Modality == "NM" and copy.SOPClassUID == original.SOPClassUID
    assert copy.get("NumberOfFrames", 1) == original.get("NumberOfFrames", 1)
    assert np.array_equal(copy.pixel_array, original.pixel_array)
    for name in ("FrameIncrementPointer", "NumberOfDetectors", "DetectorVector", "PixelSpacing"):
        assert copy[name].value == original[name].value


def test_positron_images_keep_the_units_and_no_drug(tmp_path: Path) -> None:
    drug = Dataset()
    drug.RadiopharmaceuticalStartTime, drug.Radiopharmaceutical = "101500", WORD
    drug.RadionuclideTotalDose = NUMBER
    dataset = ct_dataset(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.128", Modality="PT", Units="BQML",
        DecayCorrection="START", FrameReferenceTime="1500.5", DecayFactor="1.25",
        SeriesType=["WHOLE BODY", "IMAGE"], CorrectedImage=["DECY", "ATTN"], PatientWeight="71.5",
        RadiopharmaceuticalInformationSequence=[drug], SeriesDescription=f"PET {WORD}",
    )  # fmt: skip
    place, copy = copy_of(write_dicom(tmp_path / "pet", dataset), tmp_path)
    assert WORD.encode() not in place.read_bytes() and NUMBER.encode() not in place.read_bytes()
    assert (copy.Units, copy.DecayCorrection, copy.DecayFactor) == ("BQML", "START", 1.25)
    assert (copy.SeriesType, copy.CorrectedImage) == (["WHOLE BODY", "IMAGE"], ["DECY", "ATTN"])
    assert "RadiopharmaceuticalInformationSequence" not in copy and "PatientWeight" not in copy
    assert np.array_equal(copy.pixel_array, pydicom.dcmread(tmp_path / "pet").pixel_array)


def test_a_series_is_the_same_volume_and_agrees_between_nights(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "series", header={"StudyDate": "20240517"})
    copies = []
    for number, path in enumerate(paths):
        place, copy = copy_of(path, tmp_path)
        copies.append(place.rename(tmp_path / f"copy-{number}.dcm"))
        assert copy.StudyDate == "20240603"
        assert KEYRING.pseudonym_uid(pydicom.dcmread(path).SOPInstanceUID) == copy.SOPInstanceUID
    one, other = read_volume(paths), read_volume(copies)
    assert np.array_equal(one.hu, other.hu) and np.allclose(one.affine, other.affine)
    again, _ = copy_of(paths[0], tmp_path)
    assert again.read_bytes() == copies[0].read_bytes()


def test_stamps_say_what_was_done(tmp_path: Path) -> None:
    _, copy = copy_of(write_dicom(tmp_path / "ct", ct_dataset()), tmp_path)
    assert copy.PatientIdentityRemoved == "YES"
    assert copy.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = [item.CodeValue for item in copy.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113105", "113107"]
    assert copy.PatientID == KEYRING.patient_key("MRN 0012345")
    assert copy.SeriesDescription == "CTAC"


def test_listed_private_elements_are_kept_and_said_so(tmp_path: Path) -> None:
    dataset = ct_dataset()
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x27, "SH", "/1.0:1")
    path = write_dicom(tmp_path / "ct", dataset)
    assert 0x00431027 not in copy_of(path, tmp_path)[1]
    rules = CopyRules(KEYRING, frozenset((0x00430010, 0x00431027)))
    _, copy = copy_of(path, tmp_path, rules)
    assert copy[0x00431027].value == "/1.0:1"
    assert copy.DeidentificationMethodCodeSequence[-1].CodeValue == "113111"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation"),
        ({"RecognizableVisualFeatures": "YES"}, "RecognizableVisualFeatures"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "not an image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "not an image"),  # a document
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen"),
    ],
)
def test_pictures_with_text_in_them_are_refused(
    attributes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = write_dicom(tmp_path / "ct", ct_dataset(**attributes))
    with pytest.raises(NotCopiedError, match=reason):
        copy_of(path, tmp_path)


def test_no_element_of_the_basic_profile_is_kept_as_it_is() -> None:
    database = pytest.importorskip(
        "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
    )
    names = ("D", "Z", "X", "U", "Z_D", "X_Z", "X_D", "X_Z_D", "X_Z_U_STAR")
    tags = [tag for name in names for tag in getattr(database, f"{name}_TAGS")]
    listed = {keyword_for_tag((tag[0] << 16) + tag[1]) for tag in tags if len(tag) == 2}
    untouched = kept.NUMBERS | set(kept.CODES) | kept.STANDARD_UIDS | kept.TAGS | kept.SEQUENCES
    assert not untouched & listed
    remapped = {keyword_for_tag((tag[0] << 16) + tag[1]) for tag in database.U_TAGS}
    assert not kept.UIDS - remapped - {"DimensionOrganizationUID"}
