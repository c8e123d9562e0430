"""Reference hearts: filled chambers, a sac around all arteries, arteries where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label, map_coordinates

from cac_core.phantom.meshes.reference import ReferenceHeart, reference_heart
from cac_core.phantom.meshes.surfaces import mesh_names

pytest.importorskip("meshio")
pytest.importorskip("trimesh")

ARTERIES = ("LM", "LAD", "LCX", "RCA")
#: Building the three hearts takes a minute.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=mesh_names())
def heart(request: pytest.FixtureRequest) -> ReferenceHeart:
    data = Path(__file__).parents[5] / "shared" / "data"
    if not (data / "heart_meshes").is_dir():
        pytest.skip("the heart meshes (../shared/data/heart_meshes) are not here")
    return reference_heart(request.param, data)


def depth_at(heart: ReferenceHeart, points) -> np.ndarray:
    at = (points - heart.origin).T
    return map_coordinates(heart.depth.astype(np.float32), at, order=1)


def test_the_sac_has_the_volume_of_an_adult_heart_in_one_piece(heart: ReferenceHeart) -> None:
    sac = heart.depth < 3
    assert 500 < sac.sum() / 1000 < 1200  # ml
    assert label(heart.depth < 0)[1] == 1


def test_arteries_and_annuli_are_inside_the_sac(heart: ReferenceHeart) -> None:
    for name in (*ARTERIES, "mitral_annulus", "tricuspid_annulus"):
        inside = depth_at(heart, heart.lines[name]) < 0
        assert inside.mean() > 0.97, name
        steps = np.linalg.norm(np.diff(heart.lines[name], axis=0), axis=1)
        assert np.quantile(steps, 0.9) < 2.0, name


def test_arteries_are_where_they_belong(heart: ReferenceHeart) -> None:
    up, back, left = range(3)
    lines = heart.lines
    base = heart.lines["mitral_annulus"].mean(axis=0)
    apex = base + 80 * heart.axis
    assert np.linalg.norm(lines["LAD"][-1] - apex) < np.linalg.norm(lines["LAD"][0] - apex)
    assert lines["LAD"][:, back].mean() < lines["LCX"][:, back].mean()
    assert lines["RCA"][:, left].min() < lines["LCX"][:, left].min()
    for branch in ("LAD", "LCX"):
        assert np.linalg.norm(lines[branch][0] - lines["LM"][-1]) < 4
    assert lines["LM"][0][up] > heart.valve[up] - 10
    assert heart.top > lines["LM"][:, up].max()
    # The apex points down, to the front and to the left.
    assert heart.axis[up] < 0
    assert heart.axis[back] < 0
    assert heart.axis[left] > 0


def test_chambers_are_filled(heart: ReferenceHeart) -> None:
    filled = (heart.blood.astype(float) + heart.muscle) / 255
    deep = heart.depth < -15
    assert filled[deep].mean() > 0.93
    assert filled[heart.depth > 30].max() < 0.1 or (filled[heart.depth > 30] > 0.5).mean() < 0.02
    ventricle = map_coordinates(
        filled, (heart.chambers["left_ventricle"] - heart.origin)[:, None], order=1
    )
    assert ventricle[0] > 0.9
