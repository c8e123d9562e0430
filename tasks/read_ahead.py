"""Reading of the next studies by the operating system while the workers score."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue

from cac_core.storage import is_url
from cac_core.study import StudyWork


def reading_ahead(works: Iterable[StudyWork]) -> Iterator[StudyWork]:
    """Yield the studies; the files of each are being read into memory when it is yielded.

    A study is taken while those before it are scored, so that its worker finds its files in the
    page cache. A thread asks for them: an archive that hangs delays nothing else. Only for workers
    on this machine; files of stores are left out.
    """
    queue: SimpleQueue[StudyWork | None] = SimpleQueue()
    threading.Thread(target=_ask, args=(queue,), name="cac-read-ahead", daemon=True).start()
    try:
        for work in works:
            queue.put(work)
            yield work
    finally:
        queue.put(None)


def _ask(queue: SimpleQueue[StudyWork | None]) -> None:
    while (work := queue.get()) is not None:
        for stamp in work.files:
            if not is_url(stamp.path):
                with contextlib.suppress(OSError):  # the worker finds the fault, and its reason
                    _ask_for(stamp.path)


def _ask_for(path: str) -> None:
    # O_NONBLOCK: a pipe that has replaced the file must not block.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)
