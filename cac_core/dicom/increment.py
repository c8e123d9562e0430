"""The slice increment of slices or frames, from their positions along the slice normal.

Used by the index, for single-frame series and multi-frame files alike. The volume that is scored
takes the increment of a fitted grid (`cac_core.dicom.geometry.fit_slice_grid`) with the same limit.
Imported by header readers, which load no numpy.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

#: Slices closer than this share one position.
SAME_POSITION_MM = 0.05


def increment_and_extent(
    along_mm: Iterable[float], *, same_position_mm: float = SAME_POSITION_MM
) -> tuple[float | None, float]:
    """Slice increment, and distance of the outermost slices.

    Parameters
    ----------
    along_mm : positions of at least one slice along the normal, in any order.
    same_position_mm : slices closer than this share a position.

    Returns
    -------
    Median distance of neighbouring positions, None where there is only one position; extent.
    """
    ordered = sorted(along_mm)
    steps = (after - before for before, after in pairwise(ordered))
    gaps = sorted(step for step in steps if step > same_position_mm)
    extent = ordered[-1] - ordered[0]
    if not gaps:
        return None, extent
    return (gaps[(len(gaps) - 1) // 2] + gaps[len(gaps) // 2]) / 2, extent
