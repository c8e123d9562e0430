"""Reading of heart meshes: axes, units, parts, and points on their surfaces."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from cac_core.errors import UsageError
from cac_core.phantom.meshes.surfaces import mesh_names, surface_points

meshio = pytest.importorskip("meshio")
trimesh = pytest.importorskip("trimesh")


def box(low: tuple[float, float, float], size: float):
    """A box in metres: x to the left, y up, z to the front."""
    middle = np.add(low, size / 2)
    return trimesh.creation.box(
        (size, size, size), trimesh.transformations.translation_matrix(middle)
    )


def write_heart(folder: Path, sex: str, parts: dict[str, object]) -> None:
    hra = folder / "heart_meshes/hra"
    hra.mkdir(parents=True, exist_ok=True)
    for file in ("Heart", "Blood_Vasculature_Heart"):
        scene = trimesh.Scene()
        for name, mesh in parts.items():
            scene.add_geometry(mesh, node_name=f"VH_{sex}_{name}", geom_name=f"{file}-{name}")
        (hra / f"VH_{sex}_{file}.glb").write_bytes(scene.export(file_type="glb"))


def test_parts_are_in_mm_to_the_head_to_the_back_and_to_the_left(tmp_path: Path) -> None:
    write_heart(
        tmp_path,
        "F",
        {
            "left_ventricle": box((0.01, 0.40, -0.02), 0.05),
            "pulmonary_vein_L_sup": box((0, 0, 0), 0.01),
            "brachiocephalic_artery_a": box((0, 0, 0), 0.01),
        },
    )
    found = surface_points("female", tmp_path)
    assert set(found) == {"left_ventricle", "vessel:pulmonary_vein_L_sup"}
    points = found["left_ventricle"]
    # y up becomes the first axis, z to the front turns into minus the second, x the third.
    assert points.min(axis=0) == pytest.approx([400, -30, 10], abs=1e-3)
    assert points.max(axis=0) == pytest.approx([450, 20, 60], abs=1e-3)


def test_surfaces_are_covered_without_gaps(tmp_path: Path) -> None:
    write_heart(tmp_path, "M", {"heart_left_ventricle": box((0, 0, 0), 0.02)})
    points = surface_points("male", tmp_path)["left_ventricle"]
    on_side = points[np.isclose(points[:, 0], 20)]
    holes = np.histogram2d(on_side[:, 1], on_side[:, 2], bins=20)[0] == 0
    assert len(on_side)
    assert not holes.any()


def test_a_volume_mesh_gives_the_borders_of_its_zones(tmp_path: Path) -> None:
    folder = tmp_path / "heart_meshes/rodero"
    folder.mkdir(parents=True)
    corners = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10], [10, 10, 10]], float)
    tetrahedra, triangles = np.array([[0, 1, 2, 3], [1, 2, 3, 4]]), np.array([[0, 1, 2]])
    zones, rings = np.array([1, 1]), np.array([393381.0])
    mesh = meshio.Mesh(
        corners,
        [("tetra", tetrahedra), ("triangle", triangles)],
        cell_data={
            "_volume-id": [zones, np.array([0])],
            "_surface-id": [np.full(2, np.nan), rings],
        },
    )
    plain = tmp_path / "plain.vtu"
    mesh.write(plain)
    packed = gzip.compress(plain.read_bytes())
    (folder / "rodero_01_fullheart_2.0mm.vtu.gz").write_bytes(packed)
    found = surface_points("rodero", tmp_path)
    # The shared side x + y + z = 10 of both tetrahedra is not a border, but for its own edges.
    inner = found["left_ventricle"]
    inner = inner[np.isclose(inner.sum(axis=1), 10)]
    assert np.isclose(inner, 0).any(axis=1).all()
    # The ring of the aortic valve is the triangle z = 0, which is the first axis.
    assert found["aortic_valve"][:, 0] == pytest.approx(0)
    assert found["aortic_valve"].max(axis=0) == pytest.approx([0, 10, 10])


@pytest.mark.parametrize("name", mesh_names())
def test_missing_meshes_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"heart_meshes.*missing"):
        surface_points(name, tmp_path)


def test_an_unknown_heart_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown mesh heart 'horse'"):
        surface_points("horse", tmp_path)
