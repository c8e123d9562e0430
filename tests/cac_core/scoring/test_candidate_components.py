"""Components of candidates against scipy's labels and the score of the lesions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import score_calcium
from cac_core.scoring.candidate_components import CandidateComponents, find_components
from cac_core.scoring.lesions import label_lesions

PROTOCOL = ScoringProtocol()
SPACING = (3.0, 1.0, 1.0)


def found_in(
    hu: np.ndarray, classes: np.ndarray, scores: np.ndarray | None = None, **changes: object
) -> CandidateComponents:
    possible = hu >= 130
    if scores is None:
        scores = np.zeros((int(possible.sum()), 3), np.float32)
    protocol = ScoringProtocol(**changes)  # type: ignore[arg-type]
    return find_components(hu, possible, scores, classes, SPACING, protocol)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 0.4), connectivity=st.sampled_from([4, 8]))
def test_random_volumes(seed: int, share: float, connectivity: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (4, 9, 8)
    hu = np.where(rng.random(shape) < share, rng.integers(130, 700, shape), 40).astype(np.int16)
    classes = np.where(hu >= 130, rng.integers(0, 3, shape), 0).astype(np.uint8)
    found = found_in(hu, classes, connectivity=connectivity, min_area_mm2=2.0)
    expected = sum(
        label((hu >= 130) & (classes == kind), np.ones((3, 3, 3)))[1] for kind in range(3)
    )
    assert len(found) == expected
    assert found.n_voxels.sum() == (hu >= 130).sum()
    protocol = ScoringProtocol(connectivity=connectivity, min_area_mm2=2.0)  # type: ignore[arg-type]
    heart = np.ones(shape, bool)
    score = score_calcium(label_lesions(hu, classes, heart, SPACING, protocol), protocol)
    assert found.agatston[found.called == 1].sum() == pytest.approx(score.agatston)
    assert found.agatston[found.called == 2].sum() == pytest.approx(score.agatston_noncoronary)


def test_margins_by_hand() -> None:
    hu = np.full((2, 4, 4), 40, np.int16)
    hu[0, 1, 1:3], hu[1, 2, 2] = 250, 450  # touch at a corner, from slice to slice
    classes = np.where(hu > 130, 1, 0).astype(np.uint8)
    scores = np.array([[0, 2, -40], [1, 0, 0], [3, 1, 2]], np.float32)
    found = found_in(hu, classes, scores)
    assert found.called.tolist() == [1]
    assert found.of_voxel.tolist() == [0, 0, 0]
    # The first voxel leads background most, by 2; leads over non-coronary are 42, 0 and -1.
    assert found.calcium_margin == pytest.approx([2.0])
    assert found.coronary_margin == pytest.approx([41 / 3**0.5])
    # 2 mm2 of weight 2, and 1 mm2 of weight 4; slices 3 mm apart.
    assert found.agatston == pytest.approx([8.0])


def test_classes_are_not_joined() -> None:
    hu = np.full((1, 3, 6), 40, np.int16)
    hu[0, 1, 1:5] = 300
    classes = np.zeros(hu.shape, np.uint8)
    classes[0, 1, 1:3], classes[0, 1, 3] = 1, 2
    found = found_in(hu, classes)
    assert sorted(zip(found.called, found.n_voxels, strict=True)) == [(0, 1), (1, 2), (2, 1)]


def test_nothing_bright() -> None:
    found = found_in(np.zeros((2, 3, 3), np.int16), np.zeros((2, 3, 3), np.uint8))
    assert len(found) == 0
