"""The DICOM objects of one study, made in a process of their own from the study scored again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cac_core.dicom.results.build import ScoredVolume, write_objects
from cac_core.dicom.results.stamp import ResultStamp
from cac_core.dicom.volume import CtVolume
from cac_core.errors import CacError
from cac_core.keys import Keyring
from cac_core.protocol import ScoringProtocol
from cac_core.results_settings import ResultsSettings
from cac_core.storage import archive_file
from cac_core.study import StudyWork, score_study
from schemas.codes import Status

if TYPE_CHECKING:
    from cac_core.model.cascade import Cascade

#: Columns that must be the same when a study is scored again; numbers to the last digits.
_SAME = ("cac_category", "n_lesions")
_CLOSE = ("agatston", "agatston_noncoronary", "calcium_volume_mm3", "heart_volume_ml")
#: The networks of this process.
_loaded: dict[str, Cascade] = {}


@dataclass(frozen=True)
class ObjectsOrder:
    """A scored study whose objects are wanted.

    Parameters
    ----------
    work, row : its work order and its row of `scores`.
    pdf : its page; None where it is not wanted.
    folder : empty folder for the objects.
    """

    work: StudyWork
    row: Mapping[str, Any]
    protocol: ScoringProtocol
    keyring: Keyring
    model_id: str
    settings: ResultsSettings
    pdf: bytes | None
    folder: Path


def load_networks(folder: Path, threads: int) -> None:
    """Load the networks into this process."""
    from cac_core.model.cascade import Cascade

    _loaded["cascade"] = Cascade.load(folder, threads=threads)


def made_objects(order: ObjectsOrder) -> list[Path]:
    """Score the study again and write its objects.

    Raises
    ------
    CacError
        If the score is now another one, or an object cannot be made or is not valid.
    """
    kept: list[Any] = []
    result = score_study(
        order.work,
        _loaded["cascade"],
        order.protocol,
        previews=False,
        keep=lambda volume, marks: kept.extend((volume, marks.heart_mask, marks.calcium_class)),
    )
    _require_same(result.score, order.row, kept[0] if kept else None)
    settings = order.settings
    files = [archive_file(stamp.path, stamp.size_bytes) for stamp in order.work.files]

    def stamp_of(series_uid: str) -> ResultStamp:
        return ResultStamp(
            order.keyring, series_uid, order.row, order.model_id,
            settings.manufacturer, settings.institution, settings.research,
        )  # fmt: skip

    scored = ScoredVolume(files, *kept)
    return write_objects(scored, stamp_of, order.pdf, settings.kinds, order.folder)


def _require_same(
    again: Mapping[str, Any], row: Mapping[str, Any], volume: CtVolume | None
) -> None:
    """Refuse objects of a study whose pixels or score are now others."""
    if again["status"] != Status.SCORED.value or volume is None:
        raise CacError(f"The study is not scored any more: {again['reason']}.")
    differs = [] if volume.has_pixels(row["pixel_digest"]) else ["pixel_digest"]
    differs += [name for name in _SAME if again[name] != row[name]]
    differs += [name for name in _CLOSE if not math.isclose(again[name], row[name], rel_tol=1e-9)]
    if differs:
        raise CacError(
            f"Scored again, the study differs from its row in {', '.join(differs)}.",
            "Run `cac score`; `cac doctor` checks the installation.",
        )
