"""From scores of candidate voxels to classes: one calcification, one class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from cac_core.components import label_in_plane

_CORONARY, _NONCORONARY = 1, 2
_TOUCHING = np.ones((3, 3, 3), np.bool_)


def decide(possible: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Class of every voxel, from the scores of the candidates.

    Candidates that touch within a slice are calcium together, where background has not the largest
    score in one of them at least: the rim of a plaque is above the threshold because of the plaque.
    Calcium that touches in three dimensions is one calcification and gets one class: coronary where
    the coronary scores of its voxels exceed the non-coronary ones in the sum. Plaques that touch a
    calcified valve or aortic wall are rare; a network that sees a plaque slice by slice takes parts
    of it for something else far more often.

    Parameters
    ----------
    possible : the candidates, (slice, row, column).
    scores : (candidates, 3), before softmax, in the order of `possible[possible]`.

    Returns
    -------
    (slice, row, column): 0 background, 1 coronary, 2 non-coronary.
    """
    classes = np.zeros(possible.shape, np.uint8)
    extent = find_objects(possible.view(np.uint8), max_label=1)[0]
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
