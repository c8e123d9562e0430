"""The reading desk: what readers open, correct and sign; without anything of the web."""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cac_core.cohort.forgotten import Forgotten
from cac_core.cohort.warehouse import Warehouse
from cac_core.dicom.reading_masks import masks_as_seg, masks_of_seg
from cac_core.errors import UsageError
from cac_core.keys import Keyring
from cac_core.protocol import ScoringProtocol
from cac_core.reading.masks import ReadingMasks
from cac_core.reading.readings import ReadingLog, assign, new_id, read_masks, sign
from cac_core.reading.work_list import WorkList
from cac_core.scoring.quality import heart_volume_ml
from cac_core.scoring.sites import SITE_NUMBERS, SiteScore, site_named
from cac_core.scratch import scratch_folder
from cac_core.version import __version__
from flows.reading.scans import Scan, Scans
from schemas.codes import CalciumSite, DiscrepancyCause, ReadingKind
from schemas.reading import READER_PATTERN, VESSEL_SCORES
from schemas.table import KEY_PATTERN

Row = dict[str, Any]
#: Longest reason that a reader can give, and most studies that one request assigns.
_MOST_REASON, _MOST_ASSIGNED = 500, 10_000
#: Drafts of one server; beyond, the oldest without corrections are given up.
_MOST_DRAFTS = 8


@dataclass(eq=False)
class Draft:
    """A reading that is not signed yet.

    Parameters
    ----------
    masks : as corrected so far.
    kind : of the reading to be signed.
    amends : reading that it corrects.
    model_score : score of the model's masks when the study was opened.
    opened_at : when the reader opened the study.
    """

    masks: ReadingMasks
    kind: ReadingKind
    amends: str | None
    model_score: float
    opened_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    lock: threading.Lock = field(default_factory=threading.Lock)


class Desk:
    """State of the application: work list, drafts by reader and study, and signed readings.

    Parameters
    ----------
    store : the warehouse.
    keyring : to refuse withdrawn patients.
    work_list, log : as read from it.
    scans : opens studies.
    protocol, model : rules and model of the scores.
    """

    def __init__(
        self,
        store: Warehouse,
        keyring: Keyring,
        log: ReadingLog,
        work_list: WorkList,
        scans: Scans,
        protocol: ScoringProtocol,
        model: str,
    ) -> None:
        self.store, self.log, self.work_list, self.scans = store, log, work_list, scans
        self.model = model
        self.keyring, self._protocol = keyring, protocol
        self._drafts: dict[tuple[str, str], Draft] = {}
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Take in what other processes signed."""
        if self.log.refresh():
            self.work_list.readings = self.log.readings

    def study(self, study_key: str) -> Row:
        """The row of a study on the work list.

        Raises
        ------
        UsageError
            If it is not on the list.
        """
        row = self.work_list.row(study_key)
        if row is None:
            raise UsageError("No study on the work list has this key.")
        return row

    def scan(self, study_key: str) -> Scan:
        """The scan of a study on the list, being opened."""
        self.study(study_key)
        return self.scans.open(study_key)

    def kinds(self, reader: str, study_key: str) -> list[ReadingKind]:
        """Kinds of reading that a reader can make of a study now, the usual one first."""
        found = self.log.readings.of(study_key)
        own = self._own(reader, study_key)
        if found.adjudication is not None and found.adjudication["reader"] == reader:
            return [ReadingKind.CORRECTION]
        if own:
            return [ReadingKind.CORRECTION, ReadingKind.REPEAT]
        if found.differs:
            return [ReadingKind.ADJUDICATION]
        return [ReadingKind.READING]

    def visible(self, reader: str, study_key: str) -> list[Row]:
        """Readings that a reader may see: all once the own is signed, or for adjudication."""
        found = self.log.readings.of(study_key)
        if self.kinds(reader, study_key) == [ReadingKind.READING]:
            return []
        rows = [*found.by_reader, *([found.adjudication] if found.adjudication else [])]
        return rows

    def start(
        self, reader: str, study_key: str, kind: str | None = None, begin: str | None = None
    ) -> Draft:
        """Begin a reading, or begin it again.

        Parameters
        ----------
        kind : of the reading; None takes the usual one.
        begin : id of the reading to begin from; None begins from the model.

        Raises
        ------
        UsageError
            If the reader cannot make such a reading now, or may not see the other.
        CacError
            If the study or the masks cannot be read.
        """
        self.study(study_key)
        allowed = self.kinds(reader, study_key)
        chosen = allowed[0] if kind is None else ReadingKind(kind)
        if chosen not in allowed:
            raise UsageError(f"A reading of this kind ({chosen}) is not possible now.")
        amends = None
        if chosen is ReadingKind.CORRECTION:
            own = [row for row in self.visible(reader, study_key) if row["reader"] == reader]
            amends = own[-1]["reading_id"]
            begin = begin or amends
        scan = self.scans.open(study_key)
        masks, score = self._masks(scan, reader, begin)
        draft = Draft(masks, chosen, amends, score)
        with self._lock:
            self._drafts[reader, study_key] = draft
            self._give_up()
        return draft

    def draft(self, reader: str, study_key: str) -> Draft:
        """The draft of a reader, begun if there is none."""
        with self._lock:
            found = self._drafts.get((reader, study_key))
        return found or self.start(reader, study_key)

    def signed_masks(self, reader: str, study_key: str, reading_id: str) -> ReadingMasks:
        """The masks of a signed reading, for comparison.

        Raises
        ------
        UsageError
            If the reader may not see it.
        """
        if reading_id not in [row["reading_id"] for row in self.visible(reader, study_key)]:
            raise UsageError("This reading is not shown.")
        return self._masks(self.scans.open(study_key), reader, reading_id)[0]

    def sign(self, reader: str, study_key: str, given: Row) -> Row:
        """Sign the draft of a reader; the reading is on disk when this returns.

        Parameters
        ----------
        given : `reading_id` (random, so that a repeated request signs once), `reason`, `cause`,
            `seconds_active`.

        Raises
        ------
        UsageError
            If a value is none of the allowed ones.
        CacError
            If the reading cannot be written.
        """
        values = _checked(given)
        known = self.log.row(values["reading_id"])
        if known is not None:
            return known
        if Forgotten.read(self.store, self.keyring).holds(study_key):
            raise UsageError("The patient was withdrawn; this study can no longer be read.")
        draft = self.draft(reader, study_key)
        with draft.lock:
            self.refresh()
            if draft.kind is ReadingKind.READING and self._own(reader, study_key):
                draft.kind = ReadingKind.REPEAT  # signed meanwhile, in another window
            row = self._row(reader, study_key, draft, values)
            volume = self.scans.open(study_key).volume.result()
            masks = masks_as_seg(
                draft.masks.heart,
                draft.masks.sites,
                volume.affine,
                study_key,
                row["patient_key"],
                row["reading_id"],
            )
            sign(self.store, row, masks)
        with self._lock:
            self._drafts.pop((reader, study_key), None)
        self.refresh()
        return row

    def assign(self, reader: str, studies: list[str], to: str) -> int:
        """Assign studies of the list to a reader; their number.

        Raises
        ------
        UsageError
            If the name is none, or there are too many studies.
        """
        if not re.fullmatch(READER_PATTERN, to):
            raise UsageError("That is not a name of a reader.")
        if len(studies) > _MOST_ASSIGNED:
            raise UsageError(f"At most {_MOST_ASSIGNED} studies can be assigned at once.")
        mine = self.work_list.assigned.setdefault(to, set())
        new = [key for key in studies if self.work_list.row(key) and key not in mine]
        now = dt.datetime.now(dt.UTC)
        assign(
            self.store,
            [
                {"assignment_id": new_id(), "study_key": key, "reader": to, "assigned_by": reader,
                 "assigned_at": now}
                for key in new
            ],
        )  # fmt: skip
        mine.update(new)
        return len(new)

    def _masks(self, scan: Scan, reader: str, begin: str | None) -> tuple[ReadingMasks, float]:
        """Masks to begin from, and the score of the model's masks."""
        volume, found = scan.volume.result(), scan.model.result()

        def masks(heart: Any, sites: Any) -> ReadingMasks:
            return ReadingMasks(
                volume.hu, heart, sites, volume.spacing_mm, self._protocol, found.threshold_hu
            )

        own = masks(found.heart.copy(), found.sites.copy())
        score = own.score().score.agatston
        if begin is None:
            return own, score
        row = self.log.row(begin)
        shown = self.visible(reader, scan.study_key)
        if row is None or begin not in [one["reading_id"] for one in shown]:
            raise UsageError("This reading is not shown.")
        with scratch_folder("cac-reading-") as folder:
            path = folder / "masks.dcm"
            path.write_bytes(read_masks(self.store, row))
            return masks(*masks_of_seg(path, volume.affine, volume.hu.shape)), score

    def _own(self, reader: str, study_key: str) -> bool:
        """Whether a reader has read a study."""
        rows = self.log.readings.of(study_key).by_reader
        return any(row["reader"] == reader for row in rows)

    def _give_up(self) -> None:
        """Keep the number of drafts bounded; none with corrections is given up."""
        idle = [key for key, draft in self._drafts.items() if not draft.masks.corrections]
        for key in idle[: max(0, len(self._drafts) - _MOST_DRAFTS)]:
            del self._drafts[key]

    def _row(self, reader: str, study_key: str, draft: Draft, values: Row) -> Row:
        study, found, masks = self.study(study_key), draft.masks.score(), draft.masks
        volume = self.scans.open(study_key).volume.result()
        vessels = (CalciumSite.LM, CalciumSite.LAD, CalciumSite.LCX, CalciumSite.RCA)
        score = found.score
        return values | {
            "study_key": study_key,
            "patient_key": study["patient_key"],
            "reader": reader,
            "kind": draft.kind.value,
            "amends": draft.amends,
            "opened_at": draft.opened_at,
            "signed_at": dt.datetime.now(dt.UTC),
            "agatston": score.agatston,
            "cac_category": score.cac_category,
            **{n: found.agatston(v) for n, v in zip(VESSEL_SCORES, vessels, strict=True)},
            "agatston_unassigned": found.agatston(CalciumSite.CORONARY),
            "agatston_noncoronary": score.agatston_noncoronary,
            "calcium_volume_mm3": score.calcium_volume_mm3,
            "n_lesions": score.n_lesions,
            "heart_volume_ml": heart_volume_ml(masks.heart, masks.spacing_mm),
            "n_corrections": len(masks.corrections),
            "changed": score.agatston != draft.model_score,
            "corrections": json.dumps(masks.corrections),
            "model_id": self.model,
            "model_agatston": study["agatston"],
            "model_category": study["cac_category"],
            "rescored_agatston": draft.model_score,
            "threshold_hu": masks.threshold_hu,
            "protocol_digest": self._protocol.digest,
            "pixel_digest": volume.pixel_digest,
            "core_version": __version__,
        }


def _checked(given: Row) -> Row:
    """What a reader gave when signing, checked."""
    reading_id, reason = str(given.get("reading_id", "")), str(given.get("reason") or "").strip()
    cause, seconds = given.get("cause") or None, given.get("seconds_active")
    if not re.fullmatch(KEY_PATTERN, reading_id):
        raise UsageError("The request to sign has no id.")
    if len(reason) > _MOST_REASON:
        raise UsageError(f"The reason has more than {_MOST_REASON} characters.")
    if cause is not None and cause not in list(DiscrepancyCause):
        raise UsageError("That is not a cause of a discrepancy.")
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e6:
        raise UsageError("The time of the reading is not a number of seconds.")
    return {
        "reading_id": reading_id,
        "reason": reason or None,
        "cause": cause,
        "seconds_active": float(seconds),
    }


def score_view(masks: ReadingMasks, found: SiteScore | None = None) -> Row:
    """The score of masks with its lesions, as the page shows it."""
    found = found or masks.score()
    lesions = found.lesions
    return {
        "agatston": found.score.agatston,
        "category": found.score.cac_category,
        "noncoronary": found.score.agatston_noncoronary,
        "volume_mm3": found.score.calcium_volume_mm3,
        "sites": {site.value: found.agatston(site) for site in CalciumSite},
        "lesions": [
            {
                "slice": int(lesions.slice_index[i]),
                "row": round(float(lesions.centroid_row[i]), 1),
                "column": round(float(lesions.centroid_column[i]), 1),
                "site": str(site_named(int(found.sites[i]))),
                "area_mm2": round(float(lesions.area_mm2[i]), 2),
                "peak_hu": int(lesions.peak_hu[i]),
                "agatston": round(float(lesions.agatston[i]), 3),
            }
            for i in range(len(lesions))
        ],
        "corrections": len(masks.corrections),
        "can_redo": masks.can_redo,
    }


def runs_view(masks: ReadingMasks, slices: list[int] | None = None) -> dict[int, list[int]]:
    """Slices with anything marked as runs: first pixel, length, site + 128 in the heart."""
    found: dict[int, list[int]] = {}
    for k in range(len(masks.hu)) if slices is None else slices:
        flat = (masks.sites[k] | (masks.heart[k].view(np.uint8) << 7)).ravel()
        starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
        lengths = np.diff([*starts, flat.size])
        kept = flat[starts] > 0
        runs = np.stack([starts[kept], lengths[kept], flat[starts][kept]], axis=1)
        if slices is not None or len(runs):
            found[int(k)] = [int(value) for value in runs.ravel()]
    return found


#: Sites in the order of their numbers, for the page.
SITE_LIST = [(site.value, number, site.description) for site, number in SITE_NUMBERS.items()]
