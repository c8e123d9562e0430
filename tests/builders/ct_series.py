"""Writes small axial CT series with every defect that the volume reader must detect.

The content is given in the canonical orientation (slice to the head, row to posterior, column
to the patient's left) and stored in the requested orientation, so that a test knows the expected
volume.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

NATIVE_SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
#: Root of made-up UIDs (PS3.5 B.2 allows UUID-derived ones under 2.25).
_UID_ROOT = "2.25.1203"


def thorax(n_slices: int = 24, rows: int = 64, columns: int = 64) -> NDArray[np.int16]:
    """Return a body of soft tissue in air with two lungs, different from its mirror images.

    Returns
    -------
    HU (slice, row, column): air -1000, soft tissue +40, lungs -800, and a bright ramp along each
    axis at one side, so that any flip or transpose changes the volume.
    """
    z, y, x = np.meshgrid(
        np.arange(n_slices), np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij"
    )
    hu = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 40, -1000)
    for side, reach in ((-0.45, 0.28), (0.45, 0.2)):
        hu[((x - side) / reach) ** 2 + (y / 0.45) ** 2 < 1] = -800
    marker = (np.abs(x - 0.1) < 0.12) & (np.abs(y + 0.4) < 0.15)
    hu[marker] = (100 + 3 * z + 20 * x + 30 * y)[marker]
    return hu.astype(np.int16)


@dataclass(frozen=True)
class SeriesOptions:
    """Options of `write_ct_series`."""

    hu: NDArray[np.int16] | None = None
    n_slices: int = 24
    rows: int = 64
    columns: int = 64
    spacing_mm: float = 3.0
    pixel_spacing_mm: tuple[float, float] = (4.0, 4.0)
    origin_mm: tuple[float, float, float] = (-128.0, -120.0, -300.0)
    row_direction: tuple[float, float, float] = (1.0, 0.0, 0.0)
    column_direction: tuple[float, float, float] = (0.0, 1.0, 0.0)
    drift_mm: tuple[float, float] = (0.0, 0.0)
    z_mm: Sequence[float] | None = None
    skip: Sequence[int] = ()
    duplicate: Sequence[int] = ()
    slope: float = 1.0
    intercept: float = -1024.0
    signed: bool = False
    bits_stored: int = 16
    syntax: UID = ExplicitVRLittleEndian
    encode: Mapping[str, object] = field(default_factory=dict)
    header: Mapping[str, object] = field(default_factory=dict)
    changes: Mapping[int, Mapping[str, object]] = field(default_factory=dict)
    series: int = 1
    shuffle: int | None = None


def write_ct_series(folder: Path, **knobs: object) -> list[Path]:
    """Write one file per slice and return the paths, in slice order unless shuffled.

    Parameters
    ----------
    folder : made if absent.
    hu : canonical volume, default `thorax(n_slices, rows, columns)`.
    spacing_mm, pixel_spacing_mm, origin_mm : slice increment; row, column spacing; LPS of the
        first canonical pixel.
    row_direction, column_direction : stored ImageOrientationPatient; axis-aligned ones store
        the pixels flipped and transposed to fit, others only change the header.
    drift_mm : x and y shift of the position per slice (tilt).
    z_mm : slice positions instead of the regular ones.
    skip, duplicate : indices of slices left out, or written twice.
    slope, intercept, signed, bits_stored : of the stored pixels.
    syntax, encode : transfer syntax and arguments of pydicom's `compress`.
    header : attributes by keyword for all slices; None removes one.
    changes : the same for single slices, by slice index; wins over `header`.
    series : number that makes the UIDs.
    shuffle : seed; file names and the returned order are then random.
    """
    options = SeriesOptions(**knobs)  # type: ignore[arg-type]
    datasets = ct_datasets(options)
    folder.mkdir(parents=True, exist_ok=True)
    order = list(range(len(datasets)))
    if options.shuffle is not None:
        random.Random(options.shuffle).shuffle(order)
    paths = [folder / f"{name:04d}.dcm" for name in order]
    for path, dataset in zip(paths, datasets, strict=True):
        save(dataset, path, options.syntax, **options.encode)
    return sorted(paths) if options.shuffle is not None else paths


def ct_datasets(options: SeriesOptions) -> list[Dataset]:
    """Return the data sets of the slices, duplicates after their originals, not compressed yet."""
    hu = options.hu
    if hu is None:
        hu = thorax(options.n_slices, options.rows, options.columns)
    datasets: list[Dataset] = []
    for index in range(hu.shape[0]):
        if index in options.skip:
            continue
        for _ in range(2 if index in options.duplicate else 1):
            datasets.append(_slice_dataset(options, hu[index], index, len(datasets)))
    return datasets


def save(dataset: Dataset, path: Path, syntax: UID, **encode: object) -> Path:
    """Write a data set in the transfer syntax, compressed where that is asked for."""
    if syntax in NATIVE_SYNTAXES:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    else:
        dataset.compress(syntax, generate_instance_uid=False, **encode)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_enhanced_ct(path: Path, **knobs: object) -> Path:
    """Write the series of `write_ct_series` as one Legacy Converted Enhanced CT file."""
    options = SeriesOptions(**knobs)  # type: ignore[arg-type]
    datasets = ct_datasets(options)
    image = Dataset()
    image.update({element.tag: element for element in datasets[0]})
    image.SOPClassUID = LegacyConvertedEnhancedCTImageStorage
    image.file_meta = _file_meta(LegacyConvertedEnhancedCTImageStorage, image.SOPInstanceUID)
    image.NumberOfFrames = len(datasets)
    image.PixelData = b"".join(dataset.PixelData for dataset in datasets)
    shared = Dataset()
    shared.PlaneOrientationSequence = _group(datasets[0], "ImageOrientationPatient")
    shared.PixelMeasuresSequence = _group(
        datasets[0], "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"
    )
    shared.UnassignedSharedConvertedAttributesSequence = _group(
        datasets[0], "KVP", "ConvolutionKernel", "XRayTubeCurrent", "GantryDetectorTilt"
    )
    image.SharedFunctionalGroupsSequence = DicomSequence([shared])
    image.PerFrameFunctionalGroupsSequence = DicomSequence(
        [_per_frame_groups(dataset) for dataset in datasets]
    )
    for keyword in _MOVED_TO_GROUPS:
        if keyword in image:
            delattr(image, keyword)
    return save(image, path, options.syntax, **options.encode)


_MOVED_TO_GROUPS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "KVP",
    "ConvolutionKernel",
    "XRayTubeCurrent",
)


def _per_frame_groups(dataset: Dataset) -> Dataset:
    groups = Dataset()
    groups.PlanePositionSequence = _group(dataset, "ImagePositionPatient")
    groups.PixelValueTransformationSequence = _group(
        dataset, "RescaleSlope", "RescaleIntercept", "RescaleType"
    )
    content = Dataset()
    content.FrameAcquisitionNumber = int(dataset.get("AcquisitionNumber", 1))
    groups.FrameContentSequence = DicomSequence([content])
    return groups


def _group(dataset: Dataset, *keywords: str) -> DicomSequence:
    item = Dataset()
    for keyword in keywords:
        if keyword in dataset:
            setattr(item, keyword, dataset[keyword].value)
    return DicomSequence([item])


def _file_meta(sop_class: UID, instance: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _slice_dataset(
    options: SeriesOptions, plane: NDArray[np.int16], index: int, number: int
) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{_UID_ROOT}.{options.series}.{number + 1}"
    dataset.StudyInstanceUID = f"{_UID_ROOT}.{options.series}"
    dataset.SeriesInstanceUID = f"{_UID_ROOT}.{options.series}.0"
    dataset.FrameOfReferenceUID = f"{_UID_ROOT}.{options.series}.0.0"
    dataset.PatientName = "Secret^Patient"
    dataset.PatientID = "SECRET-4711"
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Manufacturer = "Example"
    dataset.ManufacturerModelName = "Scanner 1"
    dataset.PatientPosition = "HFS"
    dataset.KVP = 120
    dataset.XRayTubeCurrent = 30
    dataset.ConvolutionKernel = "B31s"
    dataset.SliceThickness = options.spacing_mm
    dataset.AcquisitionNumber = 1
    dataset.InstanceNumber = index + 1
    pixels, corner = _stored_plane(options, plane)
    z = options.z_mm[index] if options.z_mm is not None else index * options.spacing_mm
    shift = (index * options.drift_mm[0], index * options.drift_mm[1], z)
    position = np.asarray(options.origin_mm) + corner + shift
    dataset.ImagePositionPatient = [f"{value:.6f}".rstrip("0") for value in position]
    directions = [*options.row_direction, *options.column_direction]
    dataset.ImageOrientationPatient = [f"{value:.9f}" for value in directions]
    dataset.RescaleSlope = options.slope
    dataset.RescaleIntercept = options.intercept
    dataset.RescaleType = "HU"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    row_spacing, column_spacing = options.pixel_spacing_mm
    is_transposed = abs(options.row_direction[1]) > abs(options.row_direction[0])
    dataset.PixelSpacing = (
        [column_spacing, row_spacing] if is_transposed else [row_spacing, column_spacing]
    )
    dataset.BitsAllocated = 16
    dataset.BitsStored = options.bits_stored
    dataset.HighBit = options.bits_stored - 1
    dataset.PixelRepresentation = int(options.signed)
    stored = np.rint((pixels.astype(np.float64) - options.intercept) / options.slope)
    dataset.PixelData = stored.astype("<i2" if options.signed else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = _file_meta(CTImageStorage, dataset.SOPInstanceUID)
    for keyword, value in {**options.header, **options.changes.get(index, {})}.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def _stored_plane(
    options: SeriesOptions, plane: NDArray[np.int16]
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return the slice as stored, and how far its first pixel is from the canonical first.

    Walks from the first stored pixel along the stored directions and looks up, for each
    stored pixel, the canonical one that lies there.
    """
    steps = np.rint([options.row_direction[:2], options.column_direction[:2]]).astype(int)
    x_steps, y_steps = steps[:, 0], steps[:, 1]
    n_y, n_x = plane.shape
    n_c, n_r = (n_y, n_x) if y_steps[0] else (n_x, n_y)
    start_x = n_x - 1 if x_steps.sum() < 0 else 0
    start_y = n_y - 1 if y_steps.sum() < 0 else 0
    c, r = np.meshgrid(np.arange(n_c), np.arange(n_r))
    pixels = plane[
        start_y + c * y_steps[0] + r * y_steps[1], start_x + c * x_steps[0] + r * x_steps[1]
    ]
    row_spacing, column_spacing = options.pixel_spacing_mm
    return pixels, np.array([start_x * column_spacing, start_y * row_spacing, 0.0])
