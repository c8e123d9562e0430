"""The rule that chooses the background offset."""

from __future__ import annotations

import numpy as np

from cac_core.training.calibration import OFFSETS, _one_standard_error


def test_the_offset_nearest_to_zero_within_one_standard_error_is_chosen() -> None:
    losses = np.ones((len(OFFSETS), 10))
    at = OFFSETS.index
    losses[at(2.0), 1:] = 0  # the best, wrong on one of ten scans
    losses[at(0.4)] = [0, 1, 1, *[0] * 7]  # worse by 0.1 in the mean, with a standard error of 0.18
    losses[at(0.2)] = [1, 1, 1, 1, 1, *[0] * 5]  # by 0.4, with one of 0.16
    chosen, best = _one_standard_error(losses)
    assert (OFFSETS[chosen], OFFSETS[best]) == (0.4, 2.0)
    losses[at(0.4), 3:6] = 1  # by 0.4, with one of 0.22
    assert OFFSETS[_one_standard_error(losses)[0]] == 2.0


def test_one_scan_has_no_standard_error() -> None:
    losses = np.ones((len(OFFSETS), 1))
    losses[OFFSETS.index(0.6)] = 0
    assert OFFSETS[_one_standard_error(losses)[0]] == 0.6
