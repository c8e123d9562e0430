"""Writes large archives of small CT studies fast, from one template, and the settings for them.

Each file is a complete CT instance (48 x 48, 16 bit). Files of a study differ in their UIDs,
number, position and pixels, which are patched into the bytes of the template.
"""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
)

from bench.stub_cascade import BOMB, HEART

SECRET = "a secret of the benchmark"
#: Slices of a study; the settings of `write_settings` accept so few.
SLICES = 6
SIDE, PIXEL_MM, INCREMENT_MM = 48, 8.0, 20.0
_STUDY, _SLICE, _PLACE = "777777", "888888", "-99999.5"
_ROOT = "1.2.826.0.1.3680043.10.9998"
_STUDIES_PER_FOLDER = 500
_BOMB_BYTES = 2**30
_PIXEL_BYTES = SIDE * SIDE * 2


def write_studies(
    folder: Path, studies: int, *, slices: int = SLICES, codes: dict[int, int] | None = None
) -> None:
    """Write studies, one file per slice.

    Parameters
    ----------
    folder : made if absent.
    studies : number of studies.
    slices : files per study.
    codes : what the stub cascade shall do (`bench/stub_cascade.py`), by number of the study.
    """
    head = before_pixels(_header(), _PIXEL_BYTES)
    for study in range(studies):
        place = folder / f"{study // _STUDIES_PER_FOLDER:04d}"
        if study % _STUDIES_PER_FOLDER == 0:
            place.mkdir(parents=True, exist_ok=True)
        named = head.replace(_STUDY.encode(), f"{study + 100000}".encode())
        code = (codes or {}).get(study, 0)
        hu = _volume(study, slices, code)
        for number in range(slices):
            content = named.replace(_SLICE.encode(), f"{number + 100000}".encode())
            content = content.replace(_PLACE.encode(), f"{number * INCREMENT_MM:8.2f}".encode())
            pixels = (hu[number] + 1024).astype("<u2").tobytes()
            if code == BOMB and number == 1:
                content, pixels = _bomb(content), b""
            with open(place / f"{study:06d}-{number:02d}", "wb") as file:  # noqa: PTH123 - fast
                file.write(content + pixels)


def write_settings(folder: Path, **sections: dict[str, object]) -> Path:
    """Write rules that accept these studies, and a settings file whose workers load the stub.

    Parameters
    ----------
    folder : gets `rules.toml` and `cac.toml`.
    sections : further settings by section.
    """
    rules = folder / "rules.toml"
    rules.write_text(f"[required]\nmin_slices = {SLICES}\n", encoding="utf-8")
    stub = Path(__file__).with_name("stub_cascade.py").resolve()
    cluster = {"options": {"preload": [str(stub)]}} | sections.pop("cluster", {})
    lines = [f"rules = {json.dumps(str(rules))}"]
    for name, values in ({"cluster": cluster} | sections).items():
        lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    settings = folder / "cac.toml"
    settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return settings


def _bomb(content: bytes) -> bytes:
    """The same instance in the deflated transfer syntax, with a gigabyte of pixels in a megabyte.

    Parameters
    ----------
    content : the instance before its pixels; ends with their length.
    """
    meta = dcmread(io.BytesIO(content + bytes(_PIXEL_BYTES)), stop_before_pixels=True).file_meta
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = io.BytesIO()
    head.write(bytes(128) + b"DICM")
    write_file_meta_info(head, meta)
    begin = 144 + int.from_bytes(content[140:144], "little")
    deflate = zlib.compressobj(level=1, wbits=-15)
    data = deflate.compress(content[begin:-4] + _BOMB_BYTES.to_bytes(4, "little"))
    for _ in range(_BOMB_BYTES // 2**20):
        data += deflate.compress(bytes(2**20))
    return head.getvalue() + data + deflate.flush()


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def _volume(study: int, slices: int, code: int) -> NDArray[np.int16]:
    """A body with a heart and one calcification that differs from study to study; HU."""
    hu = np.full((slices, SIDE, SIDE), -1000, np.int16)
    hu[:, 9:39, 6:42] = 20
    hu[HEART] = 40
    if slices == SLICES:
        noise = np.random.default_rng(study).integers(-9, 10, hu[HEART].shape, np.int16)
        hu[HEART] += noise
        hu[2 : 3 + study % 2, 21 + study % 6, 22 : 23 + study % 5] = 150 + study % 613
    # The first pixel tells the stub what to do; it lies in air.
    hu[0, 0, 0] = -1000 + code
    return hu


def before_pixels(dataset: Dataset, pixel_bytes: int) -> bytes:
    """Bytes of the file of a slice up to its pixels, which go to the end of it."""
    dataset.PixelData = bytes(pixel_bytes)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()[:-pixel_bytes]


def _header() -> Dataset:
    dataset = Dataset()
    values = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{_ROOT}.{_STUDY}.{_SLICE}",
        "StudyInstanceUID": f"{_ROOT}.{_STUDY}",
        "SeriesInstanceUID": f"{_ROOT}.{_STUDY}.1",
        "FrameOfReferenceUID": f"{_ROOT}.{_STUDY}.2",
        "StudyDate": "20240517",
        "Modality": "CT",
        "Manufacturer": "GE MEDICAL SYSTEMS",
        "ManufacturerModelName": "Discovery NM/CT 670",
        "SeriesDescription": "CTAC",
        "PatientName": "Example^Patient",
        "PatientID": f"MRN{_STUDY}",
        "PatientPosition": "HFS",
        "KVP": "120",
        "XRayTubeCurrent": "20",
        "ConvolutionKernel": "STANDARD",
        "SliceThickness": INCREMENT_MM,
        "SeriesNumber": "3",
        "AcquisitionNumber": "1",
        "InstanceNumber": _SLICE,
        "ImagePositionPatient": ["-192.0", "-192.0", _PLACE],
        "ImageOrientationPatient": ["1.0", "0.0", "0.0", "0.0", "1.0", "0.0"],
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": SIDE,
        "Columns": SIDE,
        "PixelSpacing": [PIXEL_MM, PIXEL_MM],
        "ReconstructionDiameter": SIDE * PIXEL_MM,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset
