"""Deformed hosts: the grid of the look, and no tissue beyond the end of the host."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.phantom.heldout.implanted import make_variant
from cac_core.phantom.heldout.look import draw_look
from cac_core.phantom.heldout.real_chests import Host


def host(slices: int, heart_from: int) -> Host:
    """A chest of 4 mm slices and 3 mm pixels; its heart has 24 slices, or is cut by the end."""
    row, column = np.indices((110, 130))
    heart = np.zeros((slices, 110, 130), np.bool_)
    begin = max(heart_from, 0)
    heart[begin : heart_from + 24] = np.hypot(row - 48, column - 62) < 22
    body = np.where(np.hypot((row - 55) / 0.8, column - 65) < 60, -850, -1000)
    hu = np.where(heart, 40, body).astype(np.float32)
    return Host(
        "box", hu, heart, np.array([4.0, 3.0, 3.0]), {}, {}, np.array([begin + 2.0, 50, 60]), None
    )


@pytest.mark.slow
def test_slices_beyond_the_end_of_the_host_are_left_out() -> None:
    whole = make_variant(host(70, 23), 3)
    assert len(whole.hu) == 38  # 190 mm at 5 mm
    cut = make_variant(host(70, -8), 3)
    # The lower third of the heart is missing: so are the slices below the middle of what is left.
    assert 20 <= len(cut.hu) <= 30
    assert cut.heart_mask[1].any()
    assert not whole.heart_mask[0].any()


@pytest.mark.slow
def test_varied_scans_have_the_slices_of_their_look() -> None:
    chest, seed = host(70, 23), 2
    look = draw_look(np.random.default_rng([seed, sum(map(ord, chest.name))]))
    scan = make_variant(chest, seed, varied=True)
    assert scan.spacing_mm[0] == pytest.approx(look.increment_mm)
    assert len(scan.hu) == pytest.approx(190 / look.increment_mm, abs=1)
    assert scan.spacing_mm[0] != 5.0
