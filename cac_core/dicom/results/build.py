"""All objects of one scored study, written as files and validated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.annotation import (
    CORONARY,
    HEART,
    NONCORONARY,
    Label,
    LabelMapping,
    read_annotation,
)
from cac_core.dicom.results.document import encapsulated_pdf
from cac_core.dicom.results.report import structured_report
from cac_core.dicom.results.segmentation import SEGMENTS, segmentation
from cac_core.dicom.results.source import NotExportableError, SourceSeries, source_series
from cac_core.dicom.results.stamp import ResultStamp
from cac_core.dicom.results.validate import faults
from cac_core.dicom.volume import CtVolume
from cac_core.errors import TrainingDataError
from cac_core.storage import ArchiveFile

#: Values of `cac_core.model.classes` in `calcium_class`.
_CORONARY, _NONCORONARY = 1, 2


@dataclass(frozen=True)
class ScoredVolume:
    """What a score was computed from: the volume, and masks on its grid."""

    files: Sequence[ArchiveFile]
    volume: CtVolume
    heart: NDArray[np.bool_]
    calcium_class: NDArray[np.uint8]

    @property
    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Masks by name of the segment."""
        calcium = np.where(self.heart, self.calcium_class, 0)
        return {
            "heart": self.heart,
            "coronary": calcium == _CORONARY,
            "noncoronary": calcium == _NONCORONARY,
        }


def write_objects(
    scored: ScoredVolume,
    stamp_of: Callable[[str], ResultStamp],
    pdf: bytes | None,
    kinds: Sequence[str],
    folder: Path,
) -> list[Path]:
    """Write the objects of a study into a folder: `seg.dcm`, `sr.dcm`, `page.dcm`.

    Parameters
    ----------
    stamp_of : the stamp for a SeriesInstanceUID.
    pdf : the page of the study; needed for the kind `page`.
    kinds : which objects; the report refers to the SEG, which is made in any case.

    Raises
    ------
    NotExportableError
        If the images cannot be referred to, or an object is not valid.
    """
    try:
        with datafile.quiet_pydicom():
            source = source_series(scored.files, scored.volume, stamp_of("").keyring)
            stamp = stamp_of(str(source.images[0].SeriesInstanceUID))
            paths = _written(_made(scored, source, stamp, pdf, kinds), folder)
    except datafile.PARSE_ERRORS as error:
        # Only the class: the message can hold a value of the header.
        raise NotExportableError(
            f"The headers of the series do not allow an object ({type(error).__name__}).",
            "Repair the headers in the archive.",
        ) from None
    for path in paths:
        _require_valid(path)
        if path.stem == "seg":
            _require_same_masks(path, scored)
    return paths


def _written(made: Mapping[str, Dataset], folder: Path) -> list[Path]:
    paths = []
    for kind, dataset in made.items():
        path = folder / f"{kind}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _made(
    scored: ScoredVolume,
    source: SourceSeries,
    stamp: ResultStamp,
    pdf: bytes | None,
    kinds: Sequence[str],
) -> dict[str, Dataset]:
    made: dict[str, Dataset] = {}
    segments = segmentation(scored.masks, source, stamp)
    if "seg" in kinds:
        made["seg"] = segments
    if "sr" in kinds:
        made["sr"] = structured_report(source, segments, stamp)
    if "page" in kinds and pdf is not None:
        made["page"] = encapsulated_pdf(pdf, source, stamp)
    return made


def _require_valid(path: Path) -> None:
    kind = path.stem
    found = faults(path, is_report=kind == "sr")
    if found:
        raise NotExportableError(
            f"The object {kind} is not valid: {found[0]}"
            + (f" and {len(found) - 1} more." if len(found) > 1 else "."),
            "Repair the headers of the series, or leave the object out ([results] kinds).",
        )


def _require_same_masks(path: Path, scored: ScoredVolume) -> None:
    """Read the SEG back as an annotation and compare every voxel."""
    groups = {"heart": HEART, "coronary": CORONARY, "noncoronary": NONCORONARY}
    meaning: dict[Label, str] = {kind.label.casefold(): groups[kind.name] for kind in SEGMENTS}
    volume = scored.volume
    try:
        read = read_annotation(path, LabelMapping(meaning, path), volume.affine, volume.hu.shape)
    except TrainingDataError as error:
        raise NotExportableError(f"The segments do not read back: {error.what}") from None
    masks = scored.masks
    if not (
        np.array_equal(read.heart, masks["heart"])
        and np.array_equal(read.calcium == 1, masks["coronary"])
        and np.array_equal(read.calcium == 2, masks["noncoronary"])
    ):
        raise NotExportableError("The segments read back as other masks.", "Please report this.")
