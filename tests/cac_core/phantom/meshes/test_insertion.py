"""A mesh heart in a chest: in the place of the old heart, with its own arteries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, label

from cac_core.phantom.heldout.scene import Scene
from cac_core.phantom.meshes.insertion import with_mesh_heart
from cac_core.phantom.meshes.reference import ReferenceHeart

LUNG, BODY, BONE = -850.0, 45.0, 400.0
SPACING = np.array([5.0, 1.6, 1.6])


def ball(shape, centre, radius, spacing) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    square = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, centre, spacing, strict=True))
    return square <= radius**2


@pytest.fixture
def chest() -> Scene:
    """Lung around a heart of 45 mm radius with a bar on its left, and a spine behind it."""
    shape = (40, 200, 200)
    heart = ball(shape, (20, 90, 110), 45, SPACING)
    heart[19:22, 86:94, 110:152] = True
    tissue = np.full(shape, LUNG, np.float32)
    tissue[heart] = BODY
    tissue[:, 150:170, 90:110] = BONE
    aorta = np.stack([np.arange(0, 195.0), np.full(195, 210.0), np.full(195, 190.0)], 1)
    return Scene(
        tissue,
        heart,
        {"LAD": np.zeros((5, 3)), "descending_aorta": aorta},
        None,
        {"ascending": 15.0, "descending": 12.0},
        SPACING,
        "chest",
    )


@pytest.fixture
def heart() -> ReferenceHeart:
    """A ball of blood of 40 mm radius in a bare sac of the same size."""
    shape = (141, 141, 141)
    solid = ball(shape, (70, 70, 70), 40, (1, 1, 1))
    depth = distance_transform_edt(~solid) - distance_transform_edt(solid)
    along = np.linspace(-30, 30, 61)
    line = np.stack([along, np.full(61, -20.0), np.full(61, 10.0)], 1)
    return ReferenceHeart(
        name="ball",
        blood=(255 * solid).astype(np.uint8),
        muscle=np.zeros(shape, np.uint8),
        depth=depth.astype(np.float16),
        origin=np.full(3, -70.0),
        top=40.0,
        lines={"LM": line[:8], "LAD": line[8:], "LCX": line, "RCA": line},
        valve=np.zeros(3),
        aorta_radius_mm=14.0,
        chambers={
            "left_ventricle": np.array([-10.0, 0, 20]),
            "left_atrium": np.array([20.0, 0, 0]),
        },
        axis=np.array([0.0, 0.0, 1.0]),
    )


def test_the_heart_takes_the_place_and_about_the_size_of_the_old_one(
    chest: Scene, heart: ReferenceHeart
) -> None:
    scene = with_mesh_heart(chest, heart, 5.0, np.random.default_rng(3))
    overlap = 2 * (scene.heart & chest.heart).sum() / (scene.heart.sum() + chest.heart.sum())
    assert overlap > 0.75
    blood = scene.tissue[scene.heart]
    assert 25 < np.median(blood) < 75
    assert all(label(plane)[1] <= 1 for plane in scene.heart)


def test_the_old_heart_is_gone_and_bone_and_far_tissue_are_not_touched(
    chest: Scene, heart: ReferenceHeart
) -> None:
    scene = with_mesh_heart(chest, heart, 5.0, np.random.default_rng(4))
    bar = np.s_[20, 88:92, 148:152]
    assert (chest.tissue[bar] == BODY).all()
    assert scene.tissue[bar] == pytest.approx(LUNG, abs=40)
    assert (scene.tissue[chest.tissue == BONE] == BONE).all()
    assert not (scene.heart & (chest.tissue == BONE)).any()
    far = distance_transform_edt(~(scene.heart | chest.heart), sampling=SPACING) > 40
    assert np.array_equal(scene.tissue[far], chest.tissue[far])


def test_its_arteries_move_with_it_and_the_descending_aorta_stays(
    chest: Scene, heart: ReferenceHeart
) -> None:
    scene = with_mesh_heart(chest, heart, 5.0, np.random.default_rng(5))
    for site in ("LM", "LAD", "LCX", "RCA"):
        index = np.rint(scene.lines[site] / SPACING).astype(int)
        assert scene.heart[tuple(index.T)].all(), site
    assert len(scene.lines["LM"]) + len(scene.lines["LAD"]) == 61
    assert np.array_equal(scene.lines["descending_aorta"], chest.lines["descending_aorta"])
    assert scene.radii_mm["descending"] == 12.0
    # A heart that grows has a wider aorta.
    scale = np.cbrt(scene.heart.sum() * SPACING.prod() / (4 / 3 * np.pi * 43.0**3))
    assert scene.radii_mm["ascending"] == pytest.approx(14 * scale, rel=0.15)


def test_equal_seeds_give_equal_scenes(chest: Scene, heart: ReferenceHeart) -> None:
    one, other, third = (
        with_mesh_heart(chest, heart, 5.0, np.random.default_rng(seed)) for seed in (6, 6, 7)
    )
    assert np.array_equal(one.tissue, other.tissue)
    assert not np.array_equal(one.tissue, third.tissue)
