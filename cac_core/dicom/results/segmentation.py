"""DICOM SEG of a scored study: heart, coronary and other calcification, BINARY.

Viewers know BINARY better than LABELMAP, and some hang on an empty segment: such are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from cac_core.dicom.binary_seg import binary_seg
from cac_core.dicom.results.codes import (
    ABNORMAL_STRUCTURE,
    ANATOMICAL_STRUCTURE,
    CALCIFICATION,
    CORONARY_ARTERY,
    HEART,
)
from cac_core.dicom.results.source import SourceSeries
from cac_core.dicom.results.stamp import ResultStamp


class SegmentKind(NamedTuple):
    """A segment: name, label, category, type, anatomic region, recommended colour (CIELab)."""

    name: str
    label: str
    category: Code
    type: Code
    region: Code | None


SEGMENTS = (
    SegmentKind("heart", "Heart", ANATOMICAL_STRUCTURE, HEART, None),
    SegmentKind(
        "coronary", "Coronary calcification", ABNORMAL_STRUCTURE, CALCIFICATION, CORONARY_ARTERY
    ),
    SegmentKind(
        "noncoronary", "Non-coronary calcification", ABNORMAL_STRUCTURE, CALCIFICATION, HEART
    ),
)


def segmentation(
    masks: dict[str, NDArray[np.bool_]], source: SourceSeries, stamp: ResultStamp
) -> Segmentation:
    """The SEG of a study.

    Parameters
    ----------
    masks : mask on the canonical grid by name of a segment (`SEGMENTS`); empty ones are left out.
    source : the scored images.
    stamp : the score and its maker.
    """
    kinds = [kind for kind in SEGMENTS if masks[kind.name].any()]
    descriptions = [_description(n, kind, stamp) for n, kind in enumerate(kinds, start=1)]
    drawn = [source.stored(masks[kind.name]) for kind in kinds]
    # Of a multi-frame image the frames may be in any order.
    framed = len(source.images) == 1 and len(drawn[0]) > 1
    made = binary_seg(
        source.images,
        drawn,
        descriptions,
        source.affine if framed else None,
        content_label="CORONARY_CALCIUM",
        content_description=stamp.described("Heart and calcification,"),
        **stamp.equipment("seg"),
    )
    stamp.finish(made, "seg", "Coronary calcium, segments,")
    return made


def _description(number: int, kind: SegmentKind, stamp: ResultStamp) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=kind.label,
        segmented_property_category=kind.category,
        segmented_property_type=kind.type,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=stamp.algorithm(),
        tracking_uid=stamp.uid(f"tracking-{kind.name}"),
        tracking_id=tracking_id(kind.name, stamp),
        anatomic_regions=None if kind.region is None else [kind.region],
    )


def tracking_id(name: str, stamp: ResultStamp) -> str:
    """Tracking identifier of a finding, the same in SEG and SR."""
    return f"{name} {stamp.score['study_key'][:12]}"
