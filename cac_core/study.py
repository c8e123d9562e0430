"""One study from files to rows: read, segment, check, score. Runs inside a worker.

Raises only interrupts: every fault of a study becomes its score row, so that other studies are not
affected. This module holds the only broad `except` of the scoring path.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cac_core.certainty import certainty_columns
from cac_core.dicom.archive_io import answered, is_there, unreadable
from cac_core.dicom.duplicates import resolve_duplicates
from cac_core.dicom.files import modification_ns
from cac_core.dicom.volume import CtVolume, read_volume
from cac_core.errors import StudyError
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import score_calcium, threshold_for_kvp
from cac_core.scoring.contrast import blood_estimates
from cac_core.scoring.lesions import Lesions, label_lesions
from cac_core.scoring.orientation import orientation_flags
from cac_core.scoring.preview import preview_rows
from cac_core.scoring.quality import heart_volume_ml, noise_hu, quality_flags
from cac_core.storage import RemoteFile, archive_file, is_url, versions
from schemas.codes import QualityFlag, Status, StudyReason

if TYPE_CHECKING:  # planning a run needs this module, and not torch
    from cac_core.model.cascade import Cascade, Segmentation

Row = dict[str, object]
#: Gets the volume of a scored study, and what the networks found in it.
Keep = Callable[[CtVolume, "Segmentation"], None]

#: How torch says that an allocation failed.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|bad_alloc")
#: A smaller heart mask is not a heart: the smallest adult hearts have more than 250 ml.
MIN_HEART_VOLUME_ML = 100.0
#: A larger heart mask is not a heart: the largest failing hearts have about 2,500 ml.
MAX_HEART_VOLUME_ML = 4000.0


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file of the selected series as indexed: path, size and modification time.

    Files with the same number in `copy_of` hold the same instance in different bytes.
    """

    path: str = field(repr=False)  # paths can hold names, which must not reach logs
    size_bytes: int
    mtime_ns: int
    copy_of: int | None = None


@dataclass(frozen=True, slots=True)
class ScoredContent:
    """What an earlier score of a study rests on: pixels with geometry, and what interprets them."""

    pixel_digest: str
    kvp: float | None
    slice_thickness_mm: float | None
    kernel: str | None


@dataclass(frozen=True, slots=True)
class StudyWork:
    """Input of a worker for one study: paths and keys, no pixels and no identifiers.

    `roots` are the folders of the archive that hold the files. A study with `scored` is scored
    again only if its content differs from that.
    """

    study_key: str
    patient_key: str | None
    study_date: dt.date | None
    files: tuple[FileStamp, ...]
    instances_digest: str
    header: Mapping[str, object] = field(default_factory=dict)
    flags: tuple[QualityFlag, ...] = ()
    roots: tuple[str, ...] = field(default=(), repr=False)
    files_digest: str | None = None
    scored: ScoredContent | None = None


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Rows of one study: one for `scores`, any number for `lesions`, up to four for `previews`.

    With `unchanged`, its earlier rows still hold, and `score` has only the keys.
    """

    score: Row
    lesions: list[Row] = field(default_factory=list)
    previews: list[Row] = field(default_factory=list)
    unchanged: bool = False


def score_study(
    work: StudyWork,
    cascade: Cascade,
    protocol: ScoringProtocol,
    *,
    previews: bool = True,
    keep: Keep = lambda volume, segmentation: None,
) -> StudyResult:
    """Score one study; a fault of the study or of this program becomes its row.

    Parameters
    ----------
    work : files and keys of the study.
    cascade : the networks.
    protocol : rules of the score.
    previews : also return images of the key slices.
    keep : gets what the rows of a scored study were computed from.

    Returns
    -------
    The score row has status `scored`, or `rejected` or `failed` with a reason.
    """
    try:
        return _score(work, cascade, protocol, previews, keep)
    except StudyError as error:
        return unscored(work, _blame(work, error))
    except MemoryError:
        return unscored(work, StudyError(StudyReason.OUT_OF_MEMORY, rejected=False))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of a decoder is not an Exception
        # Only the class: the message may hold a path or a header value.
        if isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)):
            return unscored(work, StudyError(StudyReason.OUT_OF_MEMORY, rejected=False))
        detail = f"{type(error).__module__}.{type(error).__qualname__}"
        return unscored(work, StudyError(StudyReason.INTERNAL_ERROR, detail, rejected=False))


def unscored(work: StudyWork, error: StudyError) -> StudyResult:
    """Return the row of a study without a score, with the reason."""
    row = _identity(work)
    row.update(
        status=Status.REJECTED.value if error.rejected else Status.FAILED.value,
        reason=error.reason.value,
        detail=error.detail or None,
        quality_flags=_join(work.flags),
    )
    return StudyResult(row)


def _score(
    work: StudyWork, cascade: Cascade, protocol: ScoringProtocol, previews: bool, keep: Keep
) -> StudyResult:
    start = perf_counter()
    volume = read_study(work)
    if work.scored is not None and _is_content(work.scored, work, volume):
        return StudyResult(_identity(work), unchanged=True)
    read_done = perf_counter()
    threshold, kvp_flags = threshold_for_kvp(volume.acquisition.kvp, protocol)
    segmentation = segment_study(volume, cascade, protocol, threshold)
    model_done = perf_counter()
    heart_flags = _check_heart(volume, segmentation)
    calcium_class, heart = segmentation.calcium_class, segmentation.heart_mask
    lesions = label_lesions(
        volume.hu, calcium_class, heart, volume.spacing_mm, protocol, threshold_hu=threshold
    )
    row = _identity(work) | _geometry(volume) | _results(lesions, protocol, threshold)
    row |= _quality(volume, heart, {*work.flags, *volume.flags, *kvp_flags, *heart_flags})
    row |= _certainty(volume, segmentation, cascade, protocol, row)
    score_done = perf_counter()
    keep(volume, segmentation)
    images = _previews(work, volume, segmentation, lesions, protocol) if previews else []
    row |= {
        "seconds_read": read_done - start,
        "seconds_heart": segmentation.seconds_heart,
        "seconds_calcium": segmentation.seconds_calcium,
        "seconds_model": model_done - read_done,
        "seconds_score": score_done - model_done,
        "seconds_preview": perf_counter() - score_done if previews else None,
    }
    return StudyResult(row, lesions.rows(work.study_key, protocol.digest), images)


def read_study(work: StudyWork) -> CtVolume:
    """Read the volume of a study.

    Raises
    ------
    StudyError
        If a file changed since the index, cannot be read, or the files give no volume.
    """
    _check_unchanged(work)
    files = [(archive_file(stamp.path, stamp.size_bytes), stamp.copy_of) for stamp in work.files]
    return read_volume(resolve_duplicates(files))


def segment_study(
    volume: CtVolume, cascade: Cascade, protocol: ScoringProtocol, threshold_hu: float
) -> Segmentation:
    """Heart and calcium of a volume, with the threshold for its tube voltage."""
    return cascade.segment(
        volume.hu,
        volume.spacing_mm,
        threshold_hu=threshold_hu,
        min_area_mm2=protocol.min_area_mm2,
        connectivity=protocol.connectivity,
    )


def _is_content(scored: ScoredContent, work: StudyWork, volume: CtVolume) -> bool:
    now = ScoredContent(
        scored.pixel_digest,
        volume.acquisition.kvp,
        volume.acquisition.slice_thickness_mm,
        work.header.get("ConvolutionKernel"),  # type: ignore[arg-type]
    )
    return scored == now and volume.has_pixels(scored.pixel_digest)


def _results(lesions: Lesions, protocol: ScoringProtocol, threshold_hu: float) -> Row:
    score = score_calcium(lesions, protocol)
    return {
        "status": Status.SCORED.value,
        "agatston": score.agatston,
        "agatston_noncoronary": score.agatston_noncoronary,
        "cac_category": score.cac_category,
        "calcium_volume_mm3": score.calcium_volume_mm3,
        "calcium_mass_mg": score.calcium_mass_mg,
        "n_lesions": score.n_lesions,
        "threshold_hu": threshold_hu,
    }


def _certainty(
    volume: CtVolume,
    segmentation: Segmentation,
    cascade: Cascade,
    protocol: ScoringProtocol,
    row: Row,
) -> Row:
    """How sure the score is, and whether a person should look at it; `row` has score and flags."""
    return certainty_columns(
        volume.hu,
        segmentation,
        volume.spacing_mm,
        float(str(row["agatston"])),
        [QualityFlag(name) for name in str(row["quality_flags"]).split(";") if name],
        cascade.confidence,
        protocol,
        float(str(row["threshold_hu"])),
    )


def _quality(volume: CtVolume, heart: NDArray[np.bool_], flags: set[QualityFlag]) -> Row:
    """Measures of the volume, and their flags beside the given ones."""
    noise = noise_hu(volume.hu, heart, volume.spacing_mm)
    found = {
        *flags,
        *quality_flags(heart, volume.spacing_mm, noise),
        *orientation_flags(volume.hu, heart, volume.spacing_mm),
    }
    return {
        "heart_volume_ml": heart_volume_ml(heart, volume.spacing_mm),
        "noise_hu": noise,
        "quality_flags": _join(found),
        "pixel_digest": volume.pixel_digest,
    }


def _previews(
    work: StudyWork,
    volume: CtVolume,
    segmentation: Segmentation,
    lesions: Lesions,
    protocol: ScoringProtocol,
) -> list[Row]:
    """Return the rows of the table `previews`."""
    # The third axis of LPS coordinates points to the head.
    positions = volume.affine[2, 3] + volume.affine[2, 0] * np.arange(len(volume.hu))
    rows = preview_rows(
        volume.hu,
        segmentation.calcium_class,
        segmentation.heart_mask,
        volume.spacing_mm,
        positions,
        lesions,
    )
    identity = {"study_key": work.study_key, "protocol_digest": protocol.digest}
    return [identity | row for row in rows]


def _check_unchanged(work: StudyWork) -> None:
    """Refuse files that changed since they were indexed: the digest would not match the pixels."""
    try:
        found = answered(_versions, work.files)
    except OSError as error:
        raise unreadable(error) from None
    for stamp, now in zip(work.files, found, strict=True):
        if now != (stamp.size_bytes, stamp.mtime_ns):
            raise StudyError(StudyReason.FILES_CHANGED, rejected=False)


def _versions(files: Sequence[FileStamp]) -> list[tuple[int, int]]:
    """Size and modification time of each file now."""
    remote = versions([RemoteFile(stamp.path) for stamp in files if is_url(stamp.path)])
    return [next(remote) if is_url(stamp.path) else _version(stamp.path) for stamp in files]


def _version(path: str) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - a Path per file costs as much as the stat
    return status.st_size, modification_ns(status)


def _blame(work: StudyWork, error: StudyError) -> StudyError:
    """Turn an unreadable file into the reason for it, where its archive is away."""
    unread = error.reason is StudyReason.UNREADABLE_FILE and not error.rejected
    if unread and not all(map(is_there, work.roots)):
        return StudyError(StudyReason.ARCHIVE_UNAVAILABLE, error.detail, rejected=False)
    return error


def _check_heart(volume: CtVolume, segmentation: Segmentation) -> set[QualityFlag]:
    """Reject volumes without a heart, and contrast-enhanced hearts; flag a doubtful blood pool."""
    size = heart_volume_ml(segmentation.heart_mask, volume.spacing_mm)
    blood = blood_estimates(volume.hu, segmentation.heart_mask, volume.spacing_mm)
    if blood.enhanced:
        raise StudyError(StudyReason.CONTRAST_ENHANCED, str(blood))
    if not MIN_HEART_VOLUME_ML <= size <= MAX_HEART_VOLUME_ML:
        limits = f"limits are {MIN_HEART_VOLUME_ML:.0f} and {MAX_HEART_VOLUME_ML:.0f} ml"
        raise StudyError(StudyReason.NO_HEART, f"heart mask of {size:.0f} ml; {limits}")
    return {QualityFlag.CONTRAST_UNCERTAIN} if blood.contradictory else set()


def _identity(work: StudyWork) -> Row:
    return {
        "study_key": work.study_key,
        "patient_key": work.patient_key,
        "study_date": work.study_date,
        "instances_digest": work.instances_digest,
        "files_digest": work.files_digest,
        **work.header,
    }


def _geometry(volume: CtVolume) -> Row:
    increment, row_spacing, column_spacing = volume.spacing_mm
    acquisition = volume.acquisition
    # Texts of the header come from the index, where they are de-identified.
    return {
        "n_slices": volume.hu.shape[0],
        "slice_increment_mm": increment,
        "row_spacing_mm": row_spacing,
        "column_spacing_mm": column_spacing,
        "slice_thickness_mm": acquisition.slice_thickness_mm,
        "KVP": acquisition.kvp,
        "XRayTubeCurrent": acquisition.tube_current_ma,
        "TransferSyntaxUID": acquisition.transfer_syntax_uid,
    }


def _join(flags: Iterable[QualityFlag]) -> str:
    return ";".join(sorted({flag.value for flag in flags}))
