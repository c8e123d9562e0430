"""Masks of a signed reading as DICOM SEG, without any identifier of the patient.

The file names the study and the patient by their keys. It lies on the grid of the scan that was
read, so that `cac_core.dicom.annotation` reads it back as an annotation for training.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from cac_core.dicom.annotation import read_segments
from cac_core.errors import CacError
from cac_core.scoring.sites import SITE_NUMBERS
from cac_core.version import __version__
from schemas.codes import CalciumSite

if TYPE_CHECKING:  # an optional package
    from highdicom.seg import SegmentDescription

#: Label of the heart; a site has its code as label.
HEART_LABEL = "heart"
_NO_HIGHDICOM = CacError(
    "Signed readings are kept as DICOM SEG, which needs the optional package highdicom.",
    "Install it: pip install 'cac-cohort[pacs]'.",
)


def require_seg_writer() -> None:
    """Check that masks can be written.

    Raises
    ------
    CacError
        If highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise _NO_HIGHDICOM from None


def masks_as_seg(
    heart: NDArray[np.bool_],
    sites: NDArray[np.uint8],
    affine: NDArray[np.float64],
    study_key: str,
    patient_key: str | None,
    reading_id: str,
) -> bytes:
    """A binary DICOM SEG with a segment for the heart and one for each site that occurs.

    The same masks and keys give the same segments; the file has the time of its making.

    Parameters
    ----------
    heart, sites : (slice, row, column); number of the site of each voxel.
    affine : 4 x 4, (slice, row, column, 1) to LPS millimetres.
    reading_id : 32 hexadecimal digits.

    Raises
    ------
    CacError
        If highdicom is not installed.
    """
    require_seg_writer()
    masks = {HEART_LABEL: heart} | {
        site.value: sites == number for site, number in SITE_NUMBERS.items()
    }
    drawn = {label: mask for label, mask in masks.items() if mask.any()}
    if not drawn:
        raise CacError("The reading has neither a heart nor calcium.", "Draw the heart first.")
    frame = _uid(study_key, "frame")
    sources = _sources(affine, heart.shape, study_key, patient_key, frame)
    return _written(drawn, affine, sources, reading_id)


def masks_of_seg(
    path: Path, affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Heart mask and sites of a file that `masks_as_seg` wrote, (slice, row, column).

    Raises
    ------
    TrainingDataError
        If the file cannot be read or lies on another grid.
    """
    heart, sites = np.zeros(shape, np.bool_), np.zeros(shape, np.uint8)
    for label, box, mask in read_segments(path, affine, shape):
        if label == HEART_LABEL:
            heart[box] |= mask
        else:
            sites[box][mask] = SITE_NUMBERS[CalciumSite(str(label))]
    return heart, sites


def _written(
    drawn: dict[str, NDArray[np.bool_]],
    affine: NDArray[np.float64],
    sources: list[Dataset],
    reading_id: str,
) -> bytes:
    from cac_core.dicom.binary_seg import binary_seg

    out = io.BytesIO()
    binary_seg(
        sources,
        list(drawn.values()),
        _descriptions(list(drawn)),
        affine,
        series_instance_uid=_uid(reading_id, "series"),
        series_number=100,
        sop_instance_uid=_uid(reading_id, "instance"),
        instance_number=1,
        manufacturer="cac-cohort",
        manufacturer_model_name="cac review",
        software_versions=__version__,
        device_serial_number="0",
    ).save_as(out)
    return out.getvalue()


def _descriptions(labels: list[str]) -> list[SegmentDescription]:
    from highdicom.seg import SegmentAlgorithmTypeValues
    from highdicom.seg import SegmentDescription as Description
    from pydicom.sr.codedict import codes

    valves = [site for site in CalciumSite if "valve" in site]
    found = []
    for number, label in enumerate(labels, start=1):
        if label == HEART_LABEL:
            category, kind = codes.SCT.Organ, codes.SCT.Heart
        else:
            category = codes.SCT.MorphologicallyAbnormalStructure
            kind = codes.SCT.CalcifiedHeartValve if label in valves else codes.SCT.Calcified
        manual = SegmentAlgorithmTypeValues.MANUAL
        found.append(Description(number, label, category, kind, manual))
    return found


def _sources(
    affine: NDArray[np.float64],
    shape: tuple[int, ...],
    study_key: str,
    patient_key: str | None,
    frame: UID,
) -> list[Dataset]:
    """The slices of the scan as a SEG refers to them: keys, and no identifier."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    rows, columns = affine[:3, 1] / spacing[1], affine[:3, 2] / spacing[2]
    found = []
    for k in range(shape[0]):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, _uid(study_key, f"slice {k}")
        one.StudyInstanceUID, one.SeriesInstanceUID = _uid(study_key, ""), _uid(study_key, "series")
        one.FrameOfReferenceUID, one.Modality = frame, "CT"
        one.PatientID, one.PatientName = patient_key or study_key, ""
        for name in (
            "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
            "ReferringPhysicianName", "StudyID",
        ):  # fmt: skip
            setattr(one, name, "")
        one.Rows, one.Columns = shape[1], shape[2]
        one.PixelSpacing = [float(spacing[1]), float(spacing[2])]
        one.SliceThickness = float(spacing[0])
        one.ImageOrientationPatient = [*map(float, columns), *map(float, rows)]
        one.ImagePositionPatient = [*map(float, affine[:3, 3] + k * affine[:3, 0])]
        found.append(one)
    return found


def _uid(key: str, part: str) -> UID:
    """A UID that depends on a key and what it is for."""
    number = int(hashlib.sha256(f"{key}:{part}".encode()).hexdigest()[:32], 16)
    return UID(f"2.25.{number}")
