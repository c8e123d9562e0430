"""An allocation beyond the limit fails; the process goes on."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cac_core.memory import bounded_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux does")
MIB = 2**20


def allocate(size: int) -> int:
    return np.ones(size, np.uint8).size


def test_a_larger_allocation_fails_and_a_later_one_does_not() -> None:
    with bounded_memory(200 * MIB):
        assert allocate(50 * MIB)
        with pytest.raises(MemoryError):
            allocate(300 * MIB)
        assert allocate(50 * MIB)
    assert allocate(300 * MIB)


def test_the_limit_holds_until_the_last_one_leaves() -> None:
    with bounded_memory(200 * MIB):
        with bounded_memory(1000 * MIB):
            pass
        with pytest.raises(MemoryError):
            allocate(300 * MIB)
    assert allocate(300 * MIB)
