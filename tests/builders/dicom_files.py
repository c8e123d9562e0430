"""Small DICOM files for index and selection tests: headers as scanners write them, tiny pixels."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
NM_CLASS = "1.2.840.10008.5.1.4.1.1.20"
CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
LITTLE = str(ExplicitVRLittleEndian)
IMPLICIT = str(ImplicitVRLittleEndian)

#: Header attributes of the attenuation scans of each vendor.
VENDORS: dict[str, dict[str, Any]] = {
    "ge": {
        "Manufacturer": "GE MEDICAL SYSTEMS",
        "ManufacturerModelName": "Discovery NM/CT 670",
        "SeriesDescription": "CTAC",
        "ConvolutionKernel": "STANDARD",
        "XRayTubeCurrent": "20",
    },
    "ge_hawkeye": {
        "Manufacturer": "GE MEDICAL SYSTEMS",
        "ManufacturerModelName": "Infinia Hawkeye 4",
        "SeriesDescription": "CT For Attenuation Corr",
        "KVP": "140",
        "XRayTubeCurrent": "2.5",
        "ConvolutionKernel": None,
    },
    "siemens": {
        "Manufacturer": "SIEMENS",
        "ManufacturerModelName": "Symbia T6",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
        "SeriesDescription": "AC_CT_HeartOnly  5.0  B08s",
        "KVP": "130",
        "ConvolutionKernel": "B08s",
    },
    "philips": {
        "Manufacturer": "Philips",
        "ManufacturerModelName": "BrightView XCT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"],
        "SeriesDescription": "XCT AC Low-Dose",
        "ConvolutionKernel": "B",
    },
}


def ct_dataset(**attributes: Any) -> Dataset:
    """Make a CT slice of a low-dose chest scan; an attribute given as None is left out."""
    dataset = Dataset()
    values: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CT_CLASS,
        "SOPInstanceUID": generate_uid(),
        "StudyDate": "20240517",
        "AccessionNumber": "ACC4711",
        "Modality": "CT",
        "Manufacturer": "GE MEDICAL SYSTEMS",
        "StudyDescription": "NM MYOCARDIAL PERFUSION",
        "SeriesDescription": "CTAC",
        "ManufacturerModelName": "Discovery NM/CT 670",
        "PatientName": "Muster^Erika Maria",
        "PatientID": "MRN 0012345",
        "PatientBirthDate": "19500312",
        "SliceThickness": "5",
        "KVP": "120",
        "ReconstructionDiameter": "500",
        "XRayTubeCurrent": "20",
        "ConvolutionKernel": "STANDARD",
        "StudyInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3.4.5",
        "SeriesNumber": "3",
        "InstanceNumber": "1",
        "ImagePositionPatient": ["-250", "-250", "0"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "FrameOfReferenceUID": "1.2.3.4.9",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 8,
        "Columns": 8,
        "PixelSpacing": ["62.5", "62.5"],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "PixelData": bytes(128),
    }
    with disable_value_validation():  # archives hold values that the standard forbids
        for keyword, value in (values | attributes).items():
            if value is not None:
                setattr(dataset, keyword, value)
    return dataset


def write_dicom(path: Path, dataset: Dataset, syntax: str = LITTLE) -> Path:
    """Write a data set as a Part 10 file."""
    meta = dataset.file_meta = FileMetaDataset()
    path.parent.mkdir(parents=True, exist_ok=True)
    with disable_value_validation():
        meta.TransferSyntaxUID = syntax
        meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID") or CT_CLASS
        meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or "1.2"
        dataset.save_as(path, enforce_file_format=True)
    return path


def write_slices(
    folder: Path, n_slices: int = 24, increment_mm: float = 5.0, **attributes: Any
) -> list[Path]:
    """Write an axial series; SOPInstanceUIDs follow from SeriesInstanceUID and slice."""
    series = attributes.get("SeriesInstanceUID", "1.2.3.4.5")
    paths = []
    for index in range(n_slices):
        own = {
            "SOPInstanceUID": f"{series}.{index + 1}",
            "InstanceNumber": str(index + 1),
            "ImagePositionPatient": ["-250", "-250", str(index * increment_mm)],
        }
        dataset = ct_dataset(**(own | attributes))
        paths.append(write_dicom(folder / f"{series}-{index:03d}", dataset))
    return paths


def part10(body: bytes, syntax: str = LITTLE) -> bytes:
    """Make a Part 10 file from the bytes of its data set."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + length + meta + body


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """Make one explicit little-endian element."""
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def open_sequence(tag: int) -> bytes:
    """Make the head of an explicit sequence of undefined length."""
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, 0xFFFFFFFF)


ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
