"""Components of candidate voxels: what each adds to the score, and how clearly it was classified.

A calcification is classified as a whole, so errors of the score are errors of whole components: one
called coronary that is not, and one called non-coronary or background that is coronary.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cac_core.components import reaches_area
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.lesions import density_weight

#: Half of the neighbours of a voxel in three dimensions; the other half are its predecessors.
_NEIGHBOURS = tuple((k, r, c) for k, r, c in product((-1, 0, 1), repeat=3) if (k, r, c) > (0, 0, 0))
_IN_PLANE = {
    4: ((0, 0, 1), (0, 1, 0)),
    8: ((0, 0, 1), (0, 1, -1), (0, 1, 0), (0, 1, 1)),
}


@dataclass(frozen=True, slots=True, eq=False)
class CandidateComponents:
    """Components of candidates of one class that touch in three dimensions; arrays (n,).

    Parameters
    ----------
    called : class of the component: 0 background, 1 coronary, 2 non-coronary.
    calcium_margin : largest lead of calcium over background among the voxels, in logits. Zero
        divides calcium from background: one voxel that is calcium makes its component calcium.
    coronary_margin : sum of the leads of coronary over non-coronary, in logits, divided by the
        square root of the number of voxels: a mean says more, the more voxels it is of, but
        neighbouring voxels repeat each other.
    agatston : what the component adds to the Agatston score if it is coronary.
    n_voxels : number of voxels.
    of_voxel : (candidates,), component of each candidate.
    """

    called: NDArray[np.uint8]
    calcium_margin: NDArray[np.float64]
    coronary_margin: NDArray[np.float64]
    agatston: NDArray[np.float64]
    n_voxels: NDArray[np.intp]
    of_voxel: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.called)


def find_components(
    hu: NDArray[np.int16],
    possible: NDArray[np.bool_],
    scores: NDArray[np.float32],
    calcium_class: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    protocol: ScoringProtocol,
    threshold_hu: float | None = None,
) -> CandidateComponents:
    """Components of candidates of one class, with what each adds to the score.

    The contributions of those called coronary sum to the Agatston score of the study.

    Parameters
    ----------
    hu, possible, calcium_class : (slice, row, column), HU, candidates and their classes.
    scores : (candidates, 3), before softmax, in the order of `possible[possible]`.
    spacing_mm : slice increment, row spacing, column spacing.
    protocol, threshold_hu : as in `cac_core.scoring.lesions.label_lesions`.
    """
    found = np.flatnonzero(possible)
    kinds = calcium_class.reshape(-1)[found]
    index = np.unravel_index(found, hu.shape)
    of_voxel = _connected(index, kinds, _NEIGHBOURS)
    count = int(of_voxel.max(initial=-1)) + 1
    n_voxels = np.bincount(of_voxel, minlength=count)
    called = np.zeros(count, np.uint8)
    called[of_voxel] = kinds
    scores = scores.astype(np.float64)
    background, coronary, noncoronary = scores[:, 0], scores[:, 1], scores[:, 2]
    calcium = np.full(count, -np.inf)
    np.maximum.at(calcium, of_voxel, np.logaddexp(coronary, noncoronary) - background)
    lead = np.bincount(of_voxel, coronary - noncoronary, count) / np.sqrt(np.maximum(n_voxels, 1))
    parts = _connected(index, kinds, _IN_PLANE[protocol.connectivity])
    added = _agatston_of_parts(hu.reshape(-1)[found], parts, spacing_mm, protocol, threshold_hu)
    owner = np.zeros(len(added), np.intp)
    owner[parts] = of_voxel
    agatston = np.asarray(np.bincount(owner, added, count), np.float64)
    return CandidateComponents(called, calcium, lead, agatston, n_voxels, of_voxel)


def _connected(
    index: tuple[NDArray[np.intp], ...],
    kinds: NDArray[np.uint8],
    steps: tuple[tuple[int, int, int], ...],
) -> NDArray[np.intp]:
    """Component of each voxel, from 0, in the order of their first voxels.

    Works on the list of voxels: a few thousand of several million are candidates.

    Parameters
    ----------
    index : slice, row and column of each voxel, in the order of the volume.
    kinds : (voxels,); voxels of different kinds are not joined.
    steps : neighbours of a voxel that follow it in the order of the volume.
    """
    n = len(kinds)
    if not n:
        return np.zeros(0, np.intp)
    # One empty row and column between the lines of the volume, so that no step wraps around.
    columns, rows = int(index[2].max()) + 2, int(index[1].max()) + 2
    flat = (index[0] * rows + index[1]) * columns + index[2]
    pairs = []
    for k, r, c in steps:
        wanted = flat + (k * rows + r) * columns + c
        at = np.minimum(np.searchsorted(flat, wanted), n - 1)
        joined = (flat[at] == wanted) & (kinds[at] == kinds)
        pairs.append((np.flatnonzero(joined), at[joined]))
    first = np.concatenate([pair[0] for pair in pairs])
    second = np.concatenate([pair[1] for pair in pairs])
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels, np.intp)


def _agatston_of_parts(
    hu: NDArray[np.int16],
    parts: NDArray[np.intp],
    spacing_mm: tuple[float, float, float],
    protocol: ScoringProtocol,
    threshold_hu: float | None,
) -> NDArray[np.float64]:
    """Agatston score of each component within a slice, 0 below the minimum area."""
    increment, row_mm, column_mm = spacing_mm
    n_pixels = np.bincount(parts)
    peak = np.full(len(n_pixels), np.iinfo(np.int16).min, np.int16)
    np.maximum.at(peak, parts, hu)
    weight = density_weight(peak, protocol, threshold_hu)
    large = reaches_area(n_pixels, row_mm * column_mm, protocol.min_area_mm2)
    area = n_pixels * (row_mm * column_mm) * large
    return np.asarray(area * weight * (increment / protocol.reference_increment_mm), np.float64)
