"""A limit on the memory that a piece of work may add to its process."""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

_STATM = Path("/proc/self/statm")
_DATA_PAGES = 5

_lock = threading.Lock()
_inside = 0


@contextlib.contextmanager
def bounded_memory(limit_bytes: int) -> Iterator[None]:
    """Let allocations fail that add more than `limit_bytes` to the data of this process.

    Uses RLIMIT_DATA, which counts private writable memory (Linux 4.7 and later), not mapped files
    such as weights; elsewhere there is no limit. Threads that are inside at the same time share the
    limit of the first.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _set_limit(limit_bytes)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _set_limit(None)


def _set_limit(limit_bytes: int | None) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard
    if limit_bytes is not None:
        try:
            pages = int(_STATM.read_text(encoding="ascii").split()[_DATA_PAGES])
        except OSError:
            return
        soft = pages * resource.getpagesize() + limit_bytes
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
