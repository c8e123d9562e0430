"""Semi-synthetic scans: known calcium implanted in deformed real chests, at low dose.

The most realistic test set: anatomy, fat, lungs and bones are those of patients, and calcium is
placed on arteries, valves and aortic walls that were marked on their enhanced scans. Plaque, blur
and noise of `TEST_LOOK` are independent of the training generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.sparse import csr_array

from cac_core.errors import UsageError
from cac_core.phantom.annotated import AnnotatedScan
from cac_core.phantom.heldout.acquire import acquire
from cac_core.phantom.heldout.devices import even_line
from cac_core.phantom.heldout.look import TEST_LOOK, Look, draw_look
from cac_core.phantom.heldout.real_chests import Host, host_names, load_host
from cac_core.phantom.heldout.scene import Scene

Points = NDArray[np.float64]
Floats = NDArray[np.float32]

_SIZE = 512
#: Range in z about the centre of the heart, mm.
_RANGE_MM = (-95.0, 95.0)
#: Square around the heart that must lie within the slices of the host, mm from its centre.
_NEEDED_MM = 80.0


@dataclass(frozen=True)
class _Deformation:
    """Map from the image (mm from its centre) to the host (mm from the centre of the heart)."""

    turn: Points  # 3 x 3
    offset: Points  # of the image centre, mm
    waves: Points  # (n, 3), radians per mm
    phases: Points
    shifts: Points  # (n, 3), mm

    def to_host(self, points: Points) -> Points:
        """Points (n, 3) of the image in the host."""
        at = (points - self.offset) @ self.turn.T
        return np.asarray(at + np.sin(at @ self.waves.T + self.phases) @ self.shifts)

    def to_image(self, points: Points) -> Points:
        """The inverse, by fixed-point iteration."""
        at = points.copy()
        for _ in range(10):
            at = points - np.sin(at @ self.waves.T + self.phases) @ self.shifts
        return np.asarray(at @ np.linalg.inv(self.turn).T + self.offset)


def make_variant(host: Host, seed: int, *, varied: bool = False) -> AnnotatedScan:
    """A low-dose scan of a deformed host with implanted calcium; equal seeds give equal bytes.

    Parameters
    ----------
    varied : the look of training scans, see `draw_look`; `TEST_LOOK` otherwise.
    """
    rng = np.random.default_rng([seed, sum(map(ord, host.name))])
    look = draw_look(rng) if varied else TEST_LOOK
    return acquire(deformed_scene(host, f"{host.name}-{seed}", look, rng), rng, look)


def variant_of(host: str, seed: int, data: Path | None, *, varied: bool = False) -> AnnotatedScan:
    """The variant of a real chest by name; see `make_variant`.

    Parameters
    ----------
    data : folder of the real chests; docs/evaluation.md lists its contents.
    varied : as in `make_variant`.

    Raises
    ------
    UsageError
        If the name is unknown, or the folder does not contain the chest.
    """
    return make_variant(named_host(host, data), seed, varied=varied)


def named_host(name: str, data: Path | None) -> Host:
    """A real chest by name; the last ones are kept for the process.

    Raises
    ------
    UsageError
        As `variant_of`.
    """
    if name not in host_names():
        known = ", ".join(host_names())
        raise UsageError(f"Unknown real chest {name!r}.", f"Choose from {known}.")
    if data is None:
        raise UsageError(
            "The folder of the real chests is not given.",
            "Name it with --data; docs/evaluation.md lists its contents.",
        )
    return _load_host(name, data)


@lru_cache(maxsize=8)
def _load_host(name: str, data: Path) -> Host:
    try:
        return load_host(name, data)
    except FileNotFoundError as error:
        raise UsageError(
            f"The real chests are not in {data} ({error}).",
            "docs/evaluation.md lists the contents of the folder.",
        ) from None


def deformed_scene(host: Host, name: str, look: Look, rng: np.random.Generator) -> Scene:
    """A chest turned, stretched and bent, on the grid of a scan."""
    spacing = np.array([look.increment_mm, *[float(rng.uniform(0.76, 1.05))] * 2])
    centre = np.array([part.mean() for part in np.nonzero(host.heart)]) * host.spacing_mm
    deformation = _draw_deformation(host, centre, rng)
    levels = np.arange(*_RANGE_MM, look.increment_mm)
    levels = levels[_covered(host, centre, deformation, levels, look.thickness_mm)]
    tissue, heart, own = _resample(host, centre, deformation, levels, spacing, look.thickness_mm)
    origin = np.array([levels[0], *(-(_SIZE - 1) / 2 * spacing[1:])])
    lines = {
        key: deformation.to_image(even_line(line * host.spacing_mm) - centre) - origin
        for key, line in host.lines.items()
        if len(line) >= 2
    }
    valve = deformation.to_image((host.valve * host.spacing_mm - centre)[None])[0] - origin
    return Scene(tissue, heart, lines, valve, host.radii_mm, spacing, name, own_sites=own)


def _covered(
    host: Host, centre: Points, deformation: _Deformation, levels: Points, thickness: float
) -> NDArray[np.bool_]:
    """Levels whose slices lie in the host around the heart, so that no tissue is made up."""
    middle = deformation.to_image(np.zeros((1, 3)))[0]
    corners = np.array([[a, b] for a in (-1, 0, 1) for b in (-1, 0, 1)]) * _NEEDED_MM + middle[1:]
    last = (len(host.hu) - 1) * host.spacing_mm[0]
    inside = np.ones(len(levels), np.bool_)
    for shift in (-thickness / 4, thickness / 4):
        for corner in corners:
            points = np.column_stack([levels + shift, np.tile(corner, (len(levels), 1))])
            slices = (deformation.to_host(points) + centre)[:, 0]
            inside &= (slices >= -host.spacing_mm[0] / 2) & (
                slices <= last + host.spacing_mm[0] / 2
            )
    return inside


def _draw_deformation(host: Host, centre: Points, rng: np.random.Generator) -> _Deformation:
    a, b = rng.normal(0, 0.07, 2)
    roll = rng.normal(0, 0.09)
    tilt = np.array(
        [[1, a, b], [-a, np.cos(roll), np.sin(roll)], [-b, -np.sin(roll), np.cos(roll)]]
    )
    scale = rng.uniform(0.92, 1.1, 3) * rng.uniform(0.92, 1.08)
    direction = rng.normal(size=(6, 3))
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    length = rng.uniform(60, 180, 6)
    # The heart has the same offset from the image centre as in the host.
    middle = (np.array(host.hu.shape[1:]) - 1) / 2 * host.spacing_mm[1:]
    return _Deformation(
        tilt / scale,
        np.array([0.0, *(centre[1:] - middle)]) + rng.normal(0, (4.0, 8.0, 8.0)),
        direction * (2 * np.pi / length)[:, None],
        rng.uniform(0, 2 * np.pi, 6),
        rng.normal(0, 1.6, (6, 3)) * (length / 120)[:, None],
    )


def _resample(
    host: Host,
    centre: Points,
    deformation: _Deformation,
    levels: Points,
    spacing: Points,
    thickness: float,
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.uint8] | None]:
    """Tissue, heart mask and real calcium on the grid of the image.

    A slice is the mean of two planes.
    """
    across = (np.arange(_SIZE) - (_SIZE - 1) / 2) * spacing[1]
    # The map is smooth: it is computed for every eighth pixel and interpolated.
    coarse = across[::8]
    rows, columns = np.meshgrid(coarse, coarse, indexing="ij")
    fine = np.minimum(np.arange(_SIZE) / 8, len(coarse) - 1)
    # Sparse, as a matrix product of the linear algebra library starts its own threads.
    between = csr_array(np.maximum(1 - np.abs(fine[:, None] - np.arange(len(coarse))), 0))
    tissue = np.empty((len(levels), _SIZE, _SIZE), np.float32)
    heart = np.empty(tissue.shape, np.bool_)
    weight = gaussian_filter(host.heart.astype(np.float32), 0.6)
    own = None if host.own_calcium is None else np.zeros(tissue.shape, np.uint8)

    def places(level: float, to_pixels: csr_array) -> NDArray[np.float64]:
        flat = np.stack([np.full(rows.size, level), rows.ravel(), columns.ravel()], 1)
        at = (deformation.to_host(flat) + centre) / host.spacing_mm
        parts = at.T.reshape(3, *rows.shape)
        return np.stack([(to_pixels @ (to_pixels @ part).T).T for part in parts])

    for k, level in enumerate(levels):
        indices = [places(level + shift, between) for shift in (-thickness / 4, thickness / 4)]
        planes = [
            map_coordinates(host.hu, at, np.float32, order=1, mode="nearest") for at in indices
        ]
        tissue[k] = np.mean(planes, axis=0)
        if own is not None and host.own_calcium is not None:
            sites = [map_coordinates(host.own_calcium, at, order=0) for at in indices]
            own[k] = np.max(sites, axis=0)
        # The mask is smooth too: every second pixel is computed.
        half = map_coordinates(weight, places(level, between[::2]), order=1, mode="constant")
        heart[k] = np.repeat(np.repeat(half >= 0.5, 2, axis=0), 2, axis=1)
    return tissue, heart, own
