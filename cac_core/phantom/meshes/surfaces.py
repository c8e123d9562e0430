"""Reading of the heart meshes: surfaces of the named parts in the frame of a patient.

Three hearts: female and male of the Human Reference Atlas (HuBMAP, CC BY 4.0; glTF binary in
metres), with coronary arteries, and one of the cohort of Rodero et al. (PLoS Comput Biol
2021;17:e1008851; CC BY 4.0; tetrahedra in mm), with chambers only. docs/evaluation.md says where
they come from.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cac_core.errors import UsageError

Points = NDArray[np.float64]

#: Folder of the meshes of each heart inside the folder of real data.
_FILES = {
    "female": (
        "heart_meshes/hra/VH_F_Heart.glb",
        "heart_meshes/hra/VH_F_Blood_Vasculature_Heart.glb",
    ),
    "male": (
        "heart_meshes/hra/VH_M_Heart.glb",
        "heart_meshes/hra/VH_M_Blood_Vasculature_Heart.glb",
    ),
    "rodero": ("heart_meshes/rodero/rodero_01_fullheart_2.0mm.vtu.gz",),
}
#: Parts that make up the heart, by words of the names of their meshes.
_PARTS = {
    "left_ventricle": "left_ventricle",
    "right_ventricle": "right_ventricle",
    "left_cardiac_atrium": "left_atrium",
    "right_cardiac_atrium": "right_atrium",
    "interventricular_septum": "septum",
    "ascending_aorta": "aorta",
    "pulmonary_trunk": "trunk",
    "aortic_valve": "aortic_valve",
    "mitral_valve": "mitral_valve",
    "tricuspid_valve": "tricuspid_valve",
    "left_coronary_artery": "LM",
    "left_anterior_descending_artery": "LAD",
    "left_circumflex_artery": "LCX",
    "right_coronary_artery": "RCA",
}
#: Vessels without a name of their own: blood beside and inside the sac.
_VESSELS = (
    "pulmonary_artery",
    "pulmonary_vein",
    "vena_cava",
    "coronary_sinus",
    "cardiac_vein",
    "marginal",
    "diagonal",
    "descending_branch",
    "posterior_descending",
    "ventricular_branch",
)
#: Parts of the volume mesh by the number of their zone, and rings of its valves.
_ZONES = {
    1: "left_ventricle",
    2: "right_ventricle",
    3: "left_atrium",
    4: "right_atrium",
    5: "aorta",
    6: "trunk",
    7: "septum",
}
_RINGS = {393381: "aortic_valve", 393382: "mitral_valve", 393373: "tricuspid_valve"}
#: Distance of the points on a surface, mm: below half a voxel of the reference grid.
_SPACING_MM = 0.45


def mesh_names() -> tuple[str, ...]:
    """Names of the hearts, in order."""
    return tuple(_FILES)


def surface_points(name: str, data: Path) -> dict[str, Points]:
    """Points on the surfaces of the parts of a heart, (n, 3) each, in mm.

    Coordinates are those of a patient who lies on the back: to the head, to the back, to the left.
    Surfaces of walls include the inner one. `vessel:...` are vessels in and beside the heart.

    Parameters
    ----------
    data : folder that contains `heart_meshes`.

    Raises
    ------
    UsageError
        If the name is unknown, or the meshes or the libraries that read them are missing.
    """
    if name not in _FILES:
        raise UsageError(f"Unknown mesh heart {name!r}.", f"Choose from {', '.join(_FILES)}.")
    paths = [data / part for part in _FILES[name]]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UsageError(
            f"The heart meshes are incomplete: {missing[0]} is missing.",
            "docs/evaluation.md lists the files and where to get them.",
        )
    try:
        return _read_volume_mesh(paths[0]) if name == "rodero" else _read_scenes(paths)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Heart meshes need the package {error.name}.", "Install cac-cohort[train]."
        ) from None


def _read_scenes(paths: list[Path]) -> dict[str, Points]:
    import trimesh

    found: dict[str, list[Points]] = {}
    for path in paths:
        scene = trimesh.load_scene(path)
        for node in sorted(scene.graph.nodes_geometry):
            transform, geometry = scene.graph[node]
            part = _part_of(node.removeprefix("VH_F_").removeprefix("VH_M_"))
            if part is None:
                continue
            mesh = scene.geometry[geometry].copy()
            mesh.apply_transform(transform)
            # glTF: x to the left, y up, z to the front, in metres.
            corners = 1000 * np.asarray(mesh.vertices, float)[:, [1, 2, 0]] * [1, -1, 1]
            found.setdefault(part, []).append(_sampled(corners, np.asarray(mesh.faces)))
    return {part: np.concatenate(pieces) for part, pieces in found.items()}


def _part_of(node: str) -> str | None:
    for word, part in _PARTS.items():
        if node.removeprefix("heart_") == word:
            return part
    return f"vessel:{node}" if any(word in node for word in _VESSELS) else None


def _read_volume_mesh(path: Path) -> dict[str, Points]:
    import meshio

    with tempfile.NamedTemporaryFile(suffix=".vtu") as plain:
        with gzip.open(path) as packed:
            plain.write(packed.read())
        plain.flush()
        mesh = meshio.read(plain.name)
    # x to the left, y to the back, z to the head.
    corners = np.asarray(mesh.points, float)[:, [2, 1, 0]]
    tetrahedra, triangles = (block.data for block in mesh.cells)
    zones, rings = mesh.cell_data["_volume-id"][0], mesh.cell_data["_surface-id"][1]
    parts = {
        part: _sampled(corners, _boundary(tetrahedra[zones == zone]))
        for zone, part in _ZONES.items()
    }
    return parts | {
        part: _sampled(corners, triangles[rings == ring]) for ring, part in _RINGS.items()
    }


def _boundary(tetrahedra: NDArray[np.integer]) -> NDArray[np.integer]:
    """Triangles (n, 3) that belong to one tetrahedron only."""
    sides = np.concatenate([tetrahedra[:, [0, 1, 2]], tetrahedra[:, [0, 1, 3]]])
    sides = np.concatenate([sides, tetrahedra[:, [0, 2, 3]], tetrahedra[:, [1, 2, 3]]])
    _, first, count = np.unique(
        np.sort(sides, axis=1), axis=0, return_index=True, return_counts=True
    )
    return np.asarray(sides[first[count == 1]])


def _sampled(corners: Points, faces: NDArray[np.integer]) -> Points:
    """Points on triangles, on a regular grid in each, at most `_SPACING_MM` apart."""
    a, b, c = (corners[faces[:, k]] for k in range(3))
    longest = np.max([np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
    steps = np.maximum(1, np.ceil(longest / _SPACING_MM)).astype(int)
    parts = []
    for n in np.unique(steps):
        u, v = (grid.ravel() / n for grid in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
        u, v = u[u + v <= 1 + 1e-9], v[u + v <= 1 + 1e-9]
        of = steps == n
        first, one, other = a[of][:, None], (b - a)[of][:, None], (c - a)[of][:, None]
        parts.append((first + u[:, None] * one + v[:, None] * other).reshape(-1, 3))
    return np.concatenate(parts) if parts else np.zeros((0, 3))


def vessels_of(surfaces: Mapping[str, Points]) -> list[Points]:
    """Surfaces of the vessels in and beside the heart."""
    return [points for part, points in surfaces.items() if part.startswith("vessel:")]
