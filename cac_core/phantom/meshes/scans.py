"""Scans of mesh hearts in real chests, by the names of heart, chest and seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cac_core.phantom.annotated import AnnotatedScan
from cac_core.phantom.heldout.acquire import acquire
from cac_core.phantom.heldout.implanted import deformed_scene, named_host
from cac_core.phantom.heldout.look import TEST_LOOK, draw_look
from cac_core.phantom.meshes.insertion import with_mesh_heart
from cac_core.phantom.meshes.reference import reference_heart


def mesh_source(heart: str) -> str:
    """Name of a mesh beside the names of real chests, in what weights state of their training."""
    return f"mesh-{heart}"


def meshed_scan(
    heart: str, host: str, seed: int, data: Path | None, *, varied: bool = False
) -> AnnotatedScan:
    """A scan of a varied mesh heart in a deformed chest; equal arguments give equal bytes.

    Parameters
    ----------
    heart : name of a mesh, see `surfaces.mesh_names`.
    host : name of a real chest with a whole heart.
    data : folder of the real chests and meshes; docs/evaluation.md lists its contents.
    varied : the look of training scans, see `draw_look`; `TEST_LOOK` otherwise.

    Raises
    ------
    UsageError
        If a name is unknown, or files or libraries are missing.
    """
    chest = named_host(host, data)
    rng = np.random.default_rng([seed, sum(map(ord, heart + host))])
    look = draw_look(rng) if varied else TEST_LOOK
    name = f"{heart}-{host}-{seed}"
    scene = deformed_scene(chest, name, look, rng)
    reference = reference_heart(heart, Path(data or "."))
    return acquire(with_mesh_heart(scene, reference, look.thickness_mm, rng), rng, look)
