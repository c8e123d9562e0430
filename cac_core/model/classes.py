"""Classification of lesions: from scores of candidate voxels to one class per calcification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from cac_core.components import bounding_box, label_in_plane

_CORONARY, _NONCORONARY = 1, 2
_TOUCHING = np.ones((3, 3, 3), np.bool_)


def classify_lesions(possible: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Class of every voxel from the scores of the candidates.

    A component of candidates within a slice is calcium if background does not have the largest
    score in at least one of its voxels: the rim of a plaque exceeds the threshold because of the
    plaque. Calcium connected in three dimensions is one calcification and gets one class: coronary
    if the sum of coronary minus non-coronary scores over its voxels is not negative. Plaques that
    touch a calcified valve or aortic wall are rare; far more often, a network that classifies slice
    by slice assigns parts of a plaque to another class.

    Parameters
    ----------
    possible : candidate voxels, (slice, row, column).
    scores : (candidates, 3), before softmax, in the order of `possible[possible]`.

    Returns
    -------
    (slice, row, column): 0 background, 1 coronary, 2 non-coronary.
    """
    classes = np.zeros(possible.shape, np.uint8)
    extent = bounding_box(possible)
    if extent is None:
        return classes
    where = possible[extent]
    together, n_pixels = label_in_plane(where)
    calcium_here = np.zeros(len(n_pixels), np.bool_)
    calcium_here[together[where][scores.argmax(axis=1) > 0]] = True
    calcium = calcium_here[together]
    lead = np.zeros(where.shape, np.float32)
    lead[where] = scores[:, _CORONARY] - scores[:, _NONCORONARY]
    parts, count = label(calcium, structure=_TOUCHING)
    total = np.bincount(parts.ravel(), weights=lead.ravel(), minlength=count + 1)
    called = np.where(total >= 0, _CORONARY, _NONCORONARY).astype(np.uint8)
    called[0] = 0
    classes[extent] = called[parts]
    return classes
