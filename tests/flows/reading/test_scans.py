"""Scans that are being opened: packed once by two threads, and given up when the server ends."""

from __future__ import annotations

import gzip
import threading
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from cac_core.protocol import ScoringProtocol
from cac_core.study import StudyWork
from flows.reading.scans import CHUNK, Scan, Scans


def test_two_threads_pack_each_slice_once() -> None:
    hu = np.random.default_rng(1).integers(-1024, 3071, (2 * CHUNK + 3, 16, 16)).astype(np.int16)
    scan = Scan("a")
    scan.volume.set_result(cast(Any, SimpleNamespace(hu=hu)))
    threads = [threading.Thread(target=scan.pack, args=(step,)) for step in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = scan.packed(0, CHUNK)
    assert first is scan.packed(0, CHUNK)
    parts = [scan.packed(begin, min(begin + CHUNK, len(hu))) for begin in range(0, len(hu), CHUNK)]
    data = b"".join(gzip.decompress(part) for part in parts)
    assert np.array_equal(np.frombuffer(data, "<i2").reshape(hu.shape), hu)


class _Stuck:
    """An archive that does not answer."""

    def __init__(self) -> None:
        self.asked, self.answer = threading.Event(), threading.Event()

    def work(self, study_key: str) -> StudyWork:
        """Wait for ever."""
        self.asked.set()
        self.answer.wait(30)
        raise AssertionError


def test_nobody_waits_for_a_scan_that_a_closed_server_does_not_read() -> None:
    archive = _Stuck()
    scans = Scans(cast(Any, archive), cast(Any, lambda: None), ScoringProtocol())
    scans.open("a")
    waiting = scans.open("b")
    assert archive.asked.wait(10)
    scans.close()
    archive.answer.set()
    assert waiting.volume.cancelled()
