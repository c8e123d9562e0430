"""Annotations of a test series as readers' software writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from pydicom.sr.codedict import codes

from cac_core.dicom.volume import CtVolume

#: From left-posterior-superior to nibabel's right-anterior-superior.
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nifti_labels(values: np.ndarray, affine: np.ndarray, axes: str) -> nibabel.Nifti1Image:
    """A label map (slice, row, column) with an LPS affine, stored with the given axes."""
    image = nibabel.Nifti1Image(values.astype(np.int16), _TO_RAS @ affine)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(axes)))
    return image.as_reoriented(turn)


def write_seg(
    path: Path, series: Sequence[Path], volume: CtVolume, masks: Mapping[str, np.ndarray]
) -> None:
    """A binary DICOM SEG of masks (slice, row, column) in canonical orientation."""
    sources = [pydicom.dcmread(item) for item in series]
    for source in sources:
        # Type 2 attributes that a test series leaves out, and the SEG wants to repeat.
        for name in (
            "PatientBirthDate",
            "StudyDate",
            "PatientSex",
            "StudyTime",
            "AccessionNumber",
            "ReferringPhysicianName",
            "StudyID",
            "PatientName",
        ):
            source.setdefault(name, "")
    descriptions = [
        SegmentDescription(
            number,
            label,
            codes.SCT.Tissue,
            codes.SCT.Tissue,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, start=1)
    ]
    drawn = highdicom.Volume(
        np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        volume.affine,
        "PATIENT",
        frame_of_reference_uid=sources[0].FrameOfReferenceUID,
        channels={"SegmentNumber": list(range(1, len(masks) + 1))},
    )
    Segmentation(
        sources,
        drawn,
        "BINARY",
        descriptions,
        highdicom.UID(),
        100,
        highdicom.UID(),
        1,
        "Maker",
        "Model",
        "1",
        "0",
    ).save_as(path)
