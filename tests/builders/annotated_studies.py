"""Two annotated CT series with a training table, for tests of training."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pyarrow.csv as pc

from cac_core.dicom.volume import read_volume
from schemas.training import TRAINING_SET
from tests.builders.ct_series import thorax, write_ct_series
from tests.builders.segmentations import nifti_labels, write_seg

LABELS = """
heart = ["Heart", 51]
[coronary]
LAD = ["LAD", 1]
[noncoronary]
mitral_valve = ["MV", 2]
"""


def heart_and_calcium(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Masks of a heart and of calcium of both classes inside it, without symmetry."""
    heart, calcium = np.zeros(shape, bool), np.zeros(shape, np.uint8)
    heart[2:10, 16:48, 12:52] = True
    calcium[3:5, 20:24, 18:21], calcium[7, 40:42, 24:32] = 1, 2
    return heart, calcium


def write_annotated_studies(folder: Path) -> None:
    """Studies `one` (SEG of the heart, NIfTI of the calcium) and `two` (one NIfTI), and a table."""
    rows = []
    for name, part in (("one", "training"), ("two", "validation")):
        hu = thorax(12)
        _, calcium = heart_and_calcium(hu.shape)
        hu[calcium > 0] = 400
        paths = write_ct_series(folder / name, hu=hu)
        volume = read_volume(paths)
        heart, calcium = heart_and_calcium(volume.hu.shape)
        labels = calcium.copy()
        if name == "one":
            write_seg(folder / "heart.dcm", paths, volume, {"Heart": heart})
        else:
            labels[heart & (calcium == 0)] = 51
        nibabel.save(nifti_labels(labels, volume.affine, "RAS"), folder / f"{name}.nii.gz")
        rows.append(
            {
                "study": name,
                "annotation": "heart.dcm;one.nii.gz" if name == "one" else "two.nii.gz",
                "reader": "A",
                "patient": name,
                "site": "S",
                "cac_category": "1-100",
                "split": part,
            }
        )
    pc.write_csv(TRAINING_SET.from_rows(rows), folder / "table.csv")
    (folder / "labels.toml").write_text(LABELS, encoding="utf-8")
