"""Loops over patients compiled to machine code at first call, by numba."""

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
    """Compile at the first call, and keep the machine code for the next process.

    The result is called as the function itself, from Python or from other compiled functions, and
    lets other threads run. Machine code is kept in `__pycache__` beside the source, or in
    numba's folder of the user where that is read-only (`NUMBA_CACHE_DIR` names another); where
    none of them is writable every process compiles anew, which takes seconds.

    Call a kernel with one set of types, contiguous writable float64, int64 and bool arrays:
    processes that compile the same kernel for different types at the same moment may write over
    each other's code.
    """
    try:
        kernel: Any = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba: "no locator available", nowhere to keep the machine code
        return cast(_Function, numba.njit(nogil=True)(function))
    # numba asks only whether the file of the function itself has changed, but the code of every
    # function that it calls is kept with it. An upgrade must not run kernels of the old version.
    kernel._cache._cache_file._source_stamp = _SOURCES
    return cast(_Function, kernel)
