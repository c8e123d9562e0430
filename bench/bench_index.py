"""Speed of the archive index, compared with plain pydicom in the same run.

    python -m bench.bench_index [--files 5000] [--workers 2]

Writes a temporary archive of CT slices (512 x 512, 16 bit; headers of about 120 elements with
private groups and sequences; pixels are holes of a sparse file, since no header reader reads them).
Prints headers per second of a complete first index (scan, reader processes, keys, scrubbing,
validated table), its ratio to pydicom's `dcmread` in one process, and the ratio of a second index
of the unchanged archive to the first. The page cache is warm.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import pydicom
from pydicom.dataset import Dataset

from bench.measure import from_pairs, record
from bench.small_archive import before_pixels
from cac_core.dicom.index import index_archive
from cac_core.dicom.series import series_table
from cac_core.keys import Keyring

_PIXEL_BYTES = 512 * 512 * 2
_SLICES = 50
_SERIES_MARK, _SLICE_MARK, _PLACE_MARK = "777777", "888888", "-99999.5"
_ROOT = "1.2.826.0.1.3680043.10.9999"
_VALUES = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "SOPInstanceUID": f"{_ROOT}.{_SERIES_MARK}.{_SLICE_MARK}",
    **dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), "20240517"),
    **dict.fromkeys(("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"), "101530.5"),
    "AccessionNumber": "A20240517",
    "Modality": "CT",
    "Manufacturer": "GE MEDICAL SYSTEMS",
    "InstitutionName": "A Hospital",
    "ReferringPhysicianName": "Doctor^A",
    "StationName": "nmct670",
    "StudyDescription": "NM MYOCARDIAL PERFUSION",
    "SeriesDescription": "CTAC",
    "OperatorsName": "Tech^B",
    "ManufacturerModelName": "Discovery NM/CT 670",
    "PatientName": "Example^Patient",
    "PatientID": f"MRN{_SERIES_MARK}",
    "PatientBirthDate": "19500312",
    "PatientSex": "F",
    "PatientAge": "074Y",
    "PatientWeight": "70",
    "ScanOptions": "HELICAL MODE",
    "SliceThickness": "5.000000",
    "KVP": "120",
    "DataCollectionDiameter": "500.000000",
    "DeviceSerialNumber": "0000000000",
    "SoftwareVersions": "gmp_vct.26",
    "ProtocolName": "6.4 CARDIAC SPECT CT",
    "ReconstructionDiameter": "500.000000",
    "DistanceSourceToDetector": "949.147000",
    "DistanceSourceToPatient": "541.000000",
    "GantryDetectorTilt": "0.000000",
    "TableHeight": "151.000000",
    "RotationDirection": "CW",
    "ExposureTime": "1000",
    "XRayTubeCurrent": "20",
    "Exposure": "20",
    "FilterType": "BODY FILTER",
    "GeneratorPower": "2400",
    "FocalSpots": "0.700000",
    "ConvolutionKernel": "STANDARD",
    "PatientPosition": "FFS",
    "StudyInstanceUID": f"{_ROOT}.{_SERIES_MARK}",
    "SeriesInstanceUID": f"{_ROOT}.{_SERIES_MARK}.1",
    "StudyID": "1",
    "SeriesNumber": "3",
    "AcquisitionNumber": "1",
    "InstanceNumber": _SLICE_MARK,
    "ImagePositionPatient": ["-250.000", "-250.000", _PLACE_MARK],
    "ImageOrientationPatient": ["1.000000", "0.0", "0.0", "0.0", "1.000000", "0.0"],
    "FrameOfReferenceUID": f"{_ROOT}.{_SERIES_MARK}.2",
    "PositionReferenceIndicator": "SN",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "Rows": 512,
    "Columns": 512,
    "PixelSpacing": ["0.976562", "0.976562"],
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "PixelPaddingValue": -2000,
    "WindowCenter": "40",
    "WindowWidth": "400",
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "RescaleType": "HU",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write_archive(Path(folder), options.files)
        compare(Path(folder), files, options.workers)


def compare(folder: Path, files: list[Path], workers: int) -> None:
    """Index twice and read a sample with pydicom, three times in turn; keep the best of each."""
    keyring = Keyring(b"a secret of the benchmark")
    index_archive([folder], keyring, workers=workers)
    sample = files[:: max(1, len(files) // 1000)]
    first, second, plain = [], [], []
    for _ in range(3):
        found = index_archive([folder], keyring, workers=workers)
        again = index_archive([folder], keyring, workers=workers, previous=found.instances)
        assert found.n_opened == len(files) and again.n_opened == 0 and not found.reasons
        first.append(found.seconds)
        second.append(again.seconds)
        start = perf_counter()
        for path in sample:
            pydicom.dcmread(path, stop_before_pixels=True)
        plain.append((perf_counter() - start) / len(sample))
    start = perf_counter()
    series = series_table(found.instances)
    gathering = perf_counter() - start
    rate = len(files) / min(first)
    one = [seconds / len(files) for seconds in first]
    record(
        "index",
        [
            from_pairs("header by pydicom / index", "index", "pydicom",
                       list(zip(one, plain, strict=True))),
            from_pairs("first index / second", "second", "first",
                       list(zip(second, first, strict=True))),
        ],
        {"headers_per_s": rate, "series_table_s": gathering, "workers": workers},
    )  # fmt: skip
    print(f"files                       {len(files)} ({files[0].stat().st_size} bytes each)")
    print(f"first index                 {rate:,.0f} headers/s with {workers} reader processes")
    print(f"pydicom, one process        {1 / min(plain):,.0f} headers/s (decodes no value)")
    print(f"ratio index / pydicom       {rate * min(plain):.1f}")
    print(f"second index                {min(second) * 1e3:.1f} ms, no file opened")
    print(f"ratio first / second        {min(first) / min(second):.1f}")
    print(f"series table                {gathering * 1e3:.0f} ms for {series.num_rows} series")


def write_archive(folder: Path, n_files: int) -> list[Path]:
    """Write `n_files` slices, `_SLICES` per series and one series per folder."""
    head = before_pixels(_header(), _PIXEL_BYTES)
    paths = []
    for number in range(n_files):
        series, index = divmod(number, _SLICES)
        content = head.replace(_SERIES_MARK.encode(), f"{series + 100000}".encode())
        content = content.replace(_SLICE_MARK.encode(), f"{index + 100000}".encode())
        content = content.replace(_PLACE_MARK.encode(), f"{index * 5.0:8.2f}".encode())
        path = folder / f"study{series:05d}" / f"IM{index:04d}"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
            file.truncate(len(content) + _PIXEL_BYTES)
        paths.append(path)
    return paths


def _header() -> Dataset:
    dataset = Dataset()
    for keyword, value in _VALUES.items():
        setattr(dataset, keyword, value)
    for group, count in ((0x0009, 10), (0x0019, 25), (0x0027, 15), (0x0043, 25)):
        block = dataset.private_block(group, "BENCH PRIVATE", create=True)
        for element in range(count):
            block.add_new(element, "DS", f"{element}.500000")
    block.add_new(0x40, "OB", bytes(2048))
    reference = Dataset()
    reference.ReferencedSOPClassUID = _VALUES["SOPClassUID"]
    reference.ReferencedSOPInstanceUID = f"{_ROOT}.3"
    dataset.ReferencedImageSequence = [reference, reference]
    return dataset


if __name__ == "__main__":
    main()
