"""Writes a synthetic SPECT/CT study as DICOM files, as exported by a scanner."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    NuclearMedicineImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
)

from cac_core.phantom.analytic.scan import SyntheticScan
from cac_core.phantom.archive.vendors import Vendor

_ROOT_UID = "2.25."


def synthetic_uid(*parts: object) -> str:
    """A UID `2.25.<128-bit integer>` determined by the parts."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return _ROOT_UID + str(int.from_bytes(digest[:16], "big"))


@dataclass(frozen=True)
class StudyHeader:
    """Identity of a synthetic study of an invented patient."""

    seed: int
    index: int
    patient_number: int
    study_date: str
    birth_date: str
    sex: str

    @property
    def accession_number(self) -> str:
        """Accession number from seed and index."""
        return f"ACC{self.seed:03d}{self.index:07d}"

    @property
    def patient_id(self) -> str:
        """Record number of the patient."""
        return f"SYN{self.patient_number:06d}"

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID."""
        return synthetic_uid("study", self.seed, self.index)

    def dataset(self) -> Dataset:
        """Patient and study modules shared by all objects of the study."""
        ds = Dataset()
        ds.PatientName = f"Synthetic^Patient{self.patient_number:06d}"
        ds.PatientID = self.patient_id
        ds.PatientBirthDate = self.birth_date
        ds.PatientSex = self.sex
        ds.StudyInstanceUID = self.study_uid
        ds.StudyDate = self.study_date
        ds.StudyTime = "101500"
        ds.StudyID = str(1000 + self.index)
        ds.AccessionNumber = self.accession_number
        ds.ReferringPhysicianName = "Referrer^Synthetic"
        ds.StudyDescription = "NM MYOCARDIAL PERFUSION SPECT/CT"
        ds.FrameOfReferenceUID = synthetic_uid("frame", self.seed, self.index)
        ds.PositionReferenceIndicator = ""
        return ds


class StudyWriter:
    """Writes the objects of one study below one folder."""

    def __init__(self, folder: Path, header: StudyHeader, vendor: Vendor) -> None:
        self.folder = folder
        self.header = header
        self.vendor = vendor

    def ctac(self, scan: SyntheticScan, *, tilt_deg: float = 0.0) -> list[Path]:
        """Write the CTAC series, one file per slice; returns the paths in order of position."""
        ds = self._series("CT", 4, self.vendor.series_description)
        ds.SOPClassUID = CTImageStorage
        ds.ImageType = list(self.vendor.image_type)
        self._acquisition(ds, scan)
        ds.GantryDetectorTilt = -tilt_deg
        n, rows, columns = scan.hu.shape
        ds.Rows, ds.Columns = rows, columns
        spacing = scan.spacing_mm[1]
        ds.PixelSpacing = [spacing, spacing]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        corner = -(rows - 1) / 2 * spacing
        outside = _outside_circle(rows) if self.vendor.padding is not None else None
        paths = []
        for k in range(n):
            number = n - k if self.vendor.descending else k + 1
            z = k * scan.spacing_mm[0] - 380.0
            drift = float(np.tan(np.deg2rad(tilt_deg)) * z)
            ds.ImagePositionPatient = [_ds(corner), _ds(corner + drift), _ds(z)]
            ds.SliceLocation = _ds(z)
            ds.InstanceNumber = number
            stored = self._stored(scan.hu[k], outside)
            paths.append(self._save(ds, 4, number, stored.tobytes(), rle=self.vendor.rle))
        return paths

    def localizer(self, scan: SyntheticScan) -> None:
        """Write a coronal localizer: the mean of the volume over depth."""
        ds = self._series("CT", 1, "Scout" if "GE" in self.vendor.manufacturer else "Topogram")
        ds.SOPClassUID = CTImageStorage
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        self._acquisition(ds, scan)
        image = scan.hu[::-1].mean(axis=1).astype(np.int16)
        ds.Rows, ds.Columns = image.shape
        ds.PixelSpacing = [scan.spacing_mm[0], scan.spacing_mm[2]]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        ds.ImagePositionPatient = [-250, 0, 0]
        ds.InstanceNumber = 1
        self._save(ds, 1, 1, self._stored(image, None).tobytes())

    def lung_reconstruction(self, scan: SyntheticScan) -> None:
        """Write a second CT reconstruction: lung kernel, small field of view, coarser matrix."""
        ds = self._series("CT", 5, "LUNG 1.0 B70s")
        ds.SOPClassUID = CTImageStorage
        ds.ImageType = list(self.vendor.image_type)
        self._acquisition(ds, scan)
        ds.ConvolutionKernel = "B70s"
        part = scan.hu[:24, 128:384:2, 128:384:2]
        ds.Rows, ds.Columns = part.shape[1:]
        spacing = 2 * scan.spacing_mm[1]
        ds.PixelSpacing = [spacing, spacing]
        ds.ReconstructionDiameter = round(128 * spacing, 1)
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        for k, plane in enumerate(part):
            ds.ImagePositionPatient = [-64 * spacing, -64 * spacing, k * scan.spacing_mm[0] - 380]
            ds.InstanceNumber = k + 1
            self._save(ds, 5, k + 1, self._stored(plane, None).tobytes())

    def perfusion(self, rng: np.random.Generator) -> None:
        """Write rest and stress attenuation-corrected SPECT volumes as multi-frame NM objects."""
        for series, description in zip((10, 11), self.vendor.nm_descriptions, strict=True):
            ds = self._series("NM", series, description)
            ds.SOPClassUID = NuclearMedicineImageStorage
            ds.ImageType = ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]
            ds.NumberOfFrames = 16
            frames = rng.poisson(40, (16, 64, 64)).astype(np.uint16)
            ds.Rows = ds.Columns = 64
            ds.PixelSpacing = [6.4, 6.4]
            ds.InstanceNumber = 1
            self._pixels(ds, signed=False)
            self._save(ds, series, 1, frames.tobytes())

    def screen_save(self, rng: np.random.Generator) -> None:
        """Write a secondary capture of the processing screen."""
        ds = self._series("OT", 90, "SCREEN SAVE Cardiac Results")
        ds.SOPClassUID = SecondaryCaptureImageStorage
        ds.ImageType = ["DERIVED", "SECONDARY"]
        ds.ConversionType = "WSD"
        ds.Rows = ds.Columns = 64
        ds.SamplesPerPixel = 3
        ds.PhotometricInterpretation = "RGB"
        ds.PlanarConfiguration = 0
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.PixelRepresentation = 7, 0
        ds.InstanceNumber = 1
        self._save(ds, 90, 1, rng.integers(0, 255, 64 * 64 * 3, dtype=np.uint8).tobytes())

    def dose_report(self) -> None:
        """Write a radiation dose structured report, without pixel data."""
        ds = self._series("SR", 99, "Dose Report")
        ds.SOPClassUID = XRayRadiationDoseSRStorage
        ds.InstanceNumber = 1
        ds.ContentDate, ds.ContentTime = self.header.study_date, "110000"
        ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
        ds.ValueType = "CONTAINER"
        self._save(ds, 99, 1, None)

    # -- parts -------------------------------------------------------------------------------

    def _series(self, modality: str, number: int, description: str) -> Dataset:
        ds = self.header.dataset()
        ds.Modality = modality
        ds.SeriesInstanceUID = synthetic_uid("series", self.header.seed, self.header.index, number)
        ds.SeriesNumber = number
        ds.SeriesDescription = description
        ds.SeriesDate = self.header.study_date
        ds.SeriesTime = f"10{20 + number % 40:02d}00"
        ds.Manufacturer = self.vendor.manufacturer
        ds.ManufacturerModelName = self.vendor.model
        ds.InstitutionName = "Synthetic Hospital"
        return ds

    def _acquisition(self, ds: Dataset, scan: SyntheticScan) -> None:
        settings = scan.settings
        ds.KVP = _ds(settings.kvp)
        ds.XRayTubeCurrent = round(settings.tube_current_ma)
        ds.ExposureTime = 1000
        ds.Exposure = max(1, round(settings.tube_current_ma))
        ds.SliceThickness = _ds(settings.slice_increment_mm)
        ds.ReconstructionDiameter = _ds(scan.hu.shape[1] * scan.spacing_mm[1])
        ds.DataCollectionDiameter = 500
        ds.ConvolutionKernel = self.vendor.kernel
        ds.PatientPosition = "HFS"
        ds.AcquisitionNumber = 1
        ds.RescaleIntercept, ds.RescaleSlope = self.vendor.intercept, 1
        ds.RescaleType = "HU"
        if self.vendor.padding is not None:
            ds.PixelPaddingValue = self.vendor.padding
        self._pixels(ds, signed=self.vendor.signed)

    def _pixels(self, ds: Dataset, *, signed: bool) -> None:
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit = 15
        ds.PixelRepresentation = int(signed)

    def _stored(
        self, hu: NDArray[np.int16], outside: NDArray[np.bool_] | None
    ) -> NDArray[np.int16] | NDArray[np.uint16]:
        values = hu.astype(np.int32) - self.vendor.intercept
        if outside is not None and self.vendor.padding is not None:
            values[outside] = self.vendor.padding
        if self.vendor.signed:
            return values.astype("<i2")
        return np.clip(values, 0, None).astype("<u2")

    def _save(
        self, ds: Dataset, series: int, number: int, pixels: bytes | None, *, rle: bool = False
    ) -> Path:
        ds.SOPInstanceUID = synthetic_uid(
            "instance", self.header.seed, self.header.index, series, number
        )
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = ds.SOPClassUID
        meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        implicit = self.vendor.implicit_vr
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        name = self.vendor.layout.format(
            series=series, number=series * 1000 + number, half=1 + number % 2
        )
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        out = FileDataset(str(path), ds, file_meta=meta, preamble=b"\0" * 128)
        if pixels is not None:
            out.PixelData = pixels
            out["PixelData"].VR = "OW"
            if rle:
                out.compress(RLELossless, generate_instance_uid=False)
        out.save_as(path, enforce_file_format=True)
        return path


def _ds(value: float) -> str:
    """A number as a DICOM decimal string of at most 16 characters."""
    return f"{value:.6g}"


def _outside_circle(rows: int) -> NDArray[np.bool_]:
    across = np.arange(rows) - (rows - 1) / 2
    return across[:, None] ** 2 + across**2 > (rows / 2) ** 2
