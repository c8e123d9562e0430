"""DICOM SEG of masks, BINARY: the one writer, for results and for signed readings.

Needs highdicom, an optional package.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import Volume
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian


def binary_seg(
    images: Sequence[Dataset],
    masks: Sequence[NDArray[np.bool_]],
    descriptions: Sequence[SegmentDescription],
    affine: NDArray[np.float64] | None = None,
    **equipment: Any,
) -> Segmentation:
    """A SEG with a segment for each mask.

    Parameters
    ----------
    images : the slices that it refers to, in the order of the masks unless there is an affine.
    masks : (slice, row, column), none of them empty; one for each description.
    affine : 4 x 4, (slice, row, column, 1) of the masks to LPS millimetres; None where the masks
        lie on the slices.
    equipment : further arguments of `highdicom.seg.Segmentation`: UIDs, numbers, who made it.
    """
    voxels = np.stack(list(masks), axis=-1).astype(np.uint8)
    drawn: NDArray[np.uint8] | Volume = voxels
    if affine is not None:
        drawn = Volume(
            voxels,
            affine,
            "PATIENT",
            frame_of_reference_uid=images[0].FrameOfReferenceUID,
            channels={"SegmentNumber": [item.SegmentNumber for item in descriptions]},
        )
    with warnings.catch_warnings():
        # They quote values of the header; keys are longer than some of them may be.
        warnings.simplefilter("ignore")
        return Segmentation(
            source_images=list(images),
            pixel_array=drawn,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=list(descriptions),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **equipment,
        )
