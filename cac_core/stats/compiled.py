"""Loops over patients compiled to machine code at first call, by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile at the first call, and keep the machine code for the next process.

    The result is called as the function itself, from Python or from other compiled functions, and
    lets other threads run. Machine code is kept in `__pycache__` beside the source, or in
    numba's folder of the user where that is read-only (`NUMBA_CACHE_DIR` names another); where
    none of them is writable every process compiles anew, which takes a second or two.

    Two rules come with the kept code. A change to a file makes anew what stands in this file only,
    not what calls it from another file: kernels shared between files are called from Python, or
    their callers are touched with them. And a kernel is called with one set of types, contiguous
    float64, int64 and bool arrays, since processes that compile the same kernel at the same time
    for different types may write over each other's code.
    """
    try:
        return cast(_Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba: "no locator available", nowhere to keep the machine code
        return cast(_Function, numba.njit(nogil=True)(function))
