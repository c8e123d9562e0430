"""Digest of the pixels of a volume with their geometry: says later whether they are the same.

A digest names its function, since a warehouse keeps digests for years: `blake3:` and 64 hexadecimal
digits; 64 digits alone are SHA-256, which earlier versions used.
"""

from __future__ import annotations

import hashlib

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

_BLAKE3 = "blake3:"


def pixel_digest(
    hu: NDArray[np.int16],
    spacing_mm: tuple[float, float, float],
    affine: NDArray[np.float64],
    like: str = _BLAKE3,
) -> str:
    """The digest over shape, spacing, affine and HU, as little-endian bytes.

    Parameters
    ----------
    like : a digest, whose function is used.
    """
    digest = blake3() if like.startswith(_BLAKE3) else hashlib.sha256()
    digest.update(repr((hu.shape, spacing_mm)).encode())
    digest.update(affine.astype("<f8").tobytes())
    digest.update(np.ascontiguousarray(hu, "<i2").view(np.uint8).data)
    return (_BLAKE3 if like.startswith(_BLAKE3) else "") + digest.hexdigest()


def comparable(one: str, other: str) -> bool:
    """Whether two digests are of the same function, so that they differ only if the pixels do."""
    return one.startswith(_BLAKE3) == other.startswith(_BLAKE3)
