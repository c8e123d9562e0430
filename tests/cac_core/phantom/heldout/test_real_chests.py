"""Hosts of implanted calcium: one sac around arteries and valves, no contrast medium in it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

from cac_core.phantom.annotated import Site
from cac_core.phantom.heldout.real_chests import (
    Host,
    calcium_at,
    host_names,
    load_host,
    pericardial_sac,
)

ENCLOSED = ("LM", "LAD", "LCX", "RCA", "mitral_annulus")


@pytest.fixture(scope="module", params=host_names())
def host(request: pytest.FixtureRequest, shared_data: Path) -> Host:
    try:
        return load_host(request.param, shared_data)
    except FileNotFoundError as error:
        pytest.skip(f"not in the folder of real data: {error}")


def dense(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """A polyline (n, 3) with many points on every part."""
    steps = np.linspace(0, 1, 20)[:, None]
    return np.concatenate([a + steps * (b - a) for a, b in pairwise(line)])


def test_sac_is_one_piece_and_encloses_arteries_and_valves(host: Host) -> None:
    volume = host.heart.sum() * np.prod(host.spacing_mm) / 1000
    assert 400 < volume < 1300
    levels = np.flatnonzero(host.heart.any(axis=(1, 2)))
    assert (np.diff(levels) == 1).all()
    depth = np.zeros(host.heart.shape, np.float32)
    for k in levels:
        assert label(host.heart[k])[1] == 1, f"slice {k} is in pieces"
        edged = np.pad(host.heart[k], 1)
        depth[k] = distance_transform_edt(edged, sampling=host.spacing_mm[1:])[1:-1, 1:-1]
    ascending = dense(host.lines["ascending_aorta"])
    inside = {name: dense(host.lines[name]) for name in ENCLOSED} | {
        "aortic_valve": host.valve[None],
        "ascending_aorta": ascending[np.rint(ascending[:, 0]) <= levels[-1]],
    }
    for name, points in inside.items():
        k, row, column = np.rint(points).astype(int).T
        at = depth[k, row, column]
        worst = points[at.argmin()].round(1)
        # `acquire` adds the surroundings of the arteries to the mask of each scan.
        assert at.min() > 0, f"{name}: {at.min():.1f} mm from the border at {worst}"
        assert np.median(at) >= 4, name


def test_no_contrast_medium_is_left_in_the_sac(host: Host) -> None:
    # Unenhanced hosts have single bright voxels by noise.
    own = np.zeros_like(host.heart) if host.own_calcium is None else host.own_calcium > 0
    assert (host.hu[own] >= 130).all()
    assert (host.hu[host.heart & ~own] >= 130).mean() < 2e-3
    assert np.median(host.hu[host.heart & (host.hu > 10)]) < 62


def test_a_sac_excludes_lung_and_fragments() -> None:
    square = [[10, 10], [10, 25], [10, 40], [25, 40], [40, 40], [40, 25], [40, 10], [25, 10]]
    tissue = np.full((6, 50, 50), 40, np.float32)
    tissue[:, :, 28:34] = -850  # a strip of lung, which leaves a fragment at the right
    mask = pericardial_sac({"1": square, "4": square}, tissue, np.array([3.0, 1.0, 1.0]))
    assert list(np.flatnonzero(mask.any(axis=(1, 2)))) == [1, 2, 3, 4]
    assert mask[2, 25, 15] and mask[2, 13, 20]
    assert not mask[:, :, 29:].any()
    assert not mask[:, :8].any() and not mask[:, 42:].any()
    # Between levels, an outline that moves is half-way.
    moved = [[row, column + 6] for row, column in square]
    tissue[:] = 40
    mask = pericardial_sac({"1": square, "3": moved}, tissue, np.array([3.0, 1.0, 1.0]))
    columns = [np.nonzero(mask[k])[1].mean() for k in (1, 2, 3)]
    assert columns[1] - columns[0] == pytest.approx(3, abs=0.3)
    assert columns[2] - columns[0] == pytest.approx(6, abs=0.3)


def test_own_calcium_is_what_connects_to_its_points() -> None:
    hu = np.full((5, 40, 40), 40, np.float32)
    hu[2:4, 10:13, 10:13] = 400  # marked
    hu[2, 8:11, 15:17] = 400  # near, but not connected
    hu[2, 13, 13:30] = 200  # connected by a corner; its far part is beyond 8 mm
    found = calcium_at(hu, np.array([[2.0, 9.0, 11.0]]), Site.LAD, np.array([3.0, 1.0, 1.0]))
    expected = np.zeros(hu.shape, np.uint8)
    expected[2:4, 10:13, 10:13] = Site.LAD
    for column in range(13, 30):
        if np.hypot(13 - 9, column - 11) <= 8:
            expected[2, 13, column] = Site.LAD
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="no calcium at"):
        calcium_at(hu, np.array([[0.0, 30.0, 30.0]]), Site.LM, np.array([3.0, 1.0, 1.0]))
