"""A still chest without implanted calcium, and where calcium and devices may lie in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """A still chest on the grid of the scan to be made.

    Canonical orientation: slices to the head, rows to the back, columns to the left.

    Attributes
    ----------
    tissue : (slice, row, column), HU, without implanted calcium and without noise.
    heart : mask of the pericardial sac, same shape.
    lines : centre lines (n, 3) in mm from the centre of voxel (0, 0, 0), in the order slice, row,
        column, one point per mm: `LM`, `LAD`, `LCX`, `RCA`, `mitral_annulus`,
        `tricuspid_annulus`, `ascending_aorta`, `descending_aorta`. A line may be missing, have
        fewer than two points, or leave the grid; it then carries no calcium there.
    valve : centre of the aortic valve, mm; None if unknown.
    radii_mm : radii of the parts of the aorta, `ascending` and `descending`.
    spacing_mm : slice increment, row and column spacing.
    name : of the scan.
    artery_radius_mm : inner radius of the arteries; drawn if None.
    own_sites : `Site` (uint8) of the real calcium in the tissue, 0 elsewhere; it stays in the
        truth of the scan.
    """

    tissue: NDArray[np.float32]
    heart: NDArray[np.bool_]
    lines: Mapping[str, Points]
    valve: Points | None
    radii_mm: Mapping[str, float]
    spacing_mm: Points
    name: str
    artery_radius_mm: float | None = None
    own_sites: NDArray[np.uint8] | None = None

    def line(self, name: str) -> Points | None:
        """A centre line of at least two points, or None."""
        found = self.lines.get(name)
        return found if found is not None and len(found) >= 2 else None
