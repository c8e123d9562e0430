"""Scans of studies that readers open: found in the archive, read, segmented again, and packed."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cac_core.cohort.forgotten import Forgotten
from cac_core.cohort.worklist import Identity, wanted_studies, work_orders
from cac_core.dicom.index import ArchiveIndex, index_archive, withheld
from cac_core.dicom.selection import select_series
from cac_core.dicom.series import series_table
from cac_core.dicom.volume import CtVolume
from cac_core.errors import CacError, StudyError
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import threshold_for_kvp
from cac_core.scoring.sites import sites_of_classes
from cac_core.study import StudyWork, read_study, segment_study
from flows.request import PreparedIndexing
from schemas.codes import StudyReason
from schemas.instance import INSTANCES

if TYPE_CHECKING:  # torch is imported in the background
    from cac_core.model.cascade import Cascade

#: Slices of one answer of pixels.
CHUNK = 10
#: Scans in memory, each about 70 MB for 60 slices.
_KEEP = 4


@dataclass(frozen=True)
class ModelMasks:
    """What the model marks on a scan; arrays (slice, row, column)."""

    heart: NDArray[np.bool_]
    sites: NDArray[np.uint8]
    threshold_hu: float


@dataclass(eq=False)
class Scan:
    """A study that is being opened: its volume first, then the masks of the model."""

    study_key: str
    volume: Future[CtVolume] = field(default_factory=Future)
    model: Future[ModelMasks] = field(default_factory=Future)
    _packed: dict[tuple[int, int], Future[bytes]] = field(default_factory=dict)
    _choosing: threading.Lock = field(default_factory=threading.Lock)

    def pack(self, step: Literal[1, -1] = 1) -> None:
        """Pack all slices as the page asks for them, the middle one first, then in chunks.

        Two threads that begin at either end share the work.
        """
        try:
            n = len(self.volume.result().hu)
        except CacError:  # shown to whoever opens the study
            return
        self.packed(n // 2, n // 2 + 1)
        for begin in range(0, n, CHUNK)[::step]:
            self.packed(begin, min(begin + CHUNK, n))

    def packed(self, begin: int, end: int) -> bytes:
        """Slices as int16, little-endian, in reading order, compressed with gzip."""
        hu = self.volume.result().hu
        with self._choosing:  # what another thread packs is not packed a second time
            found = self._packed.get((begin, end))
            chosen = self._packed[begin, end] = found or Future()
        if found is None:
            _into(chosen, lambda: _gzip(hu[begin:end]))
        return chosen.result()


def _gzip(hu: NDArray[np.int16]) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(np.ascontiguousarray(hu, "<i2").data) + packer.flush()


class ArchiveFiles:
    """The files of an archive, listed in the background, by study.

    Parameters
    ----------
    prepared : archive, warehouse and rules.
    identity : of the scores that are read.
    """

    def __init__(self, prepared: PreparedIndexing, identity: Identity) -> None:
        self._prepared, self._identity = prepared, identity
        self._pool = ThreadPoolExecutor(1, "archive")
        self._listed = self._pool.submit(self._list)
        self._pool.shutdown(wait=False)

    @property
    def is_listed(self) -> bool:
        """Whether the archive has been listed."""
        return self._listed.done()

    def work(self, study_key: str) -> StudyWork:
        """What is needed to read a study; waits for the archive to be listed.

        Raises
        ------
        CacError
            If the archive does not hold it, or cannot be read.
        """
        index, wanted = self._listed.result()
        mine = wanted.filter(pc.equal(wanted["study_key"], study_key))
        if not mine.num_rows or mine["reason"][0].as_py() is not None:
            raise CacError(
                "The archive does not hold this study with a CTAC series.",
                "Name the archive that was scored; `cac status --explain` says what is known.",
            )
        return work_orders(mine, index.instances, index.paths, self._prepared.roots)[0]

    def _list(self) -> tuple[ArchiveIndex, pa.Table]:
        prepared, store = self._prepared, self._prepared.warehouse
        index = index_archive(
            prepared.roots,
            prepared.keyring,
            previous=store.read(INSTANCES),
            workers=prepared.index_workers,
            texts=prepared.texts,
        )
        index = withheld(index, Forgotten.read(store, prepared.keyring).mask)
        series = select_series(series_table(index.instances), prepared.rules)
        return index, wanted_studies(index.instances, series, self._identity)


class Scans:
    """Opened scans, the least recently used ones given up.

    Parameters
    ----------
    archive : where studies are found.
    cascade : loads the networks when the first scan is opened.
    protocol : rules of the score.
    """

    def __init__(
        self, archive: ArchiveFiles, cascade: Callable[[], Cascade], protocol: ScoringProtocol
    ) -> None:
        self.archive, self._protocol = archive, protocol
        self._lock = threading.Lock()
        self._scans: OrderedDict[str, Scan] = OrderedDict()
        self._reader = ThreadPoolExecutor(1, "read")
        self._segmenter = ThreadPoolExecutor(1, "segment")
        self._cascade = self._segmenter.submit(cascade)

    def open(self, study_key: str) -> Scan:
        """The scan of a study; reading and segmenting begin if they have not."""
        with self._lock:
            scan = self._scans.get(study_key)
            if scan is None or _failed(scan.volume) or _failed(scan.model):
                scan = self._scans[study_key] = Scan(study_key)
                self._reader.submit(_into, scan.volume, lambda: self._read(study_key))
                self._reader.submit(scan.pack)
                self._segmenter.submit(_into, scan.model, lambda: self._segmented(scan))
            self._scans.move_to_end(study_key)
            while len(self._scans) > _KEEP:
                self._scans.popitem(last=False)
            return scan

    def wait_loaded(self) -> None:
        """Wait for the networks: while they load, the first slices would come a second later."""
        self._cascade.result()

    def close(self) -> None:
        """Give up what has not begun."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._segmenter.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for scan in self._scans.values():  # nobody waits for what never begins
                scan.volume.cancel()

    def _read(self, study_key: str) -> CtVolume:
        return read_study(self.archive.work(study_key))

    def _segmented(self, scan: Scan) -> ModelMasks:
        volume = scan.volume.result()
        scan.pack(-1)  # readers look at the slices before the marks are there
        threshold, _ = threshold_for_kvp(volume.acquisition.kvp, self._protocol)
        found = segment_study(volume, self._cascade.result(), self._protocol, threshold)
        return ModelMasks(found.heart_mask, sites_of_classes(found.calcium_class), threshold)


def _failed(future: Future[Any]) -> bool:
    return future.done() and future.exception() is not None


def _into(future: Future[Any], make: Callable[[], Any]) -> None:
    """Fulfil a future; a fault of a study becomes an error of one line."""
    try:
        future.set_result(make())
    except StudyError as error:
        reason = StudyReason(error.reason)
        future.set_exception(CacError(f"The study cannot be opened: {reason.description}."))
    except BaseException as error:  # noqa: BLE001 - shown to whoever waits for the future
        future.set_exception(error)
