"""Loops over patients, compiled by numba at the first call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])


def _digest_of_sources() -> bytes:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.digest()


_SOURCES = _digest_of_sources()


def compiled(function: _Function) -> _Function:
    """Compile at the first call, and cache the machine code for later processes.

    The result can be called from Python and from other compiled functions, and releases the
    interpreter lock. The cache is `__pycache__` beside the source, or numba's folder of the user if
    that is read-only (`NUMBA_CACHE_DIR` names another); if neither is writable, every process
    compiles again, which takes seconds.

    Call a kernel with one set of types, contiguous writable float64, int64 and bool arrays:
    processes that compile it for different types at the same time may overwrite each other's code.
    """
    try:
        kernel: Any = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba: "no locator available", no writable cache
        return cast(_Function, numba.njit(nogil=True)(function))
    # numba checks only whether the file of the function itself has changed, but caches the code of
    # every function it calls. An upgrade must not run kernels of the old version.
    kernel._cache._cache_file._source_stamp = _SOURCES
    return cast(_Function, kernel)
