"""One calcification, one class."""

from __future__ import annotations

import numpy as np

from cac_core.model.classes import classify_lesions


def decided(cells: dict[tuple[int, int, int], tuple[float, float, float]]) -> np.ndarray:
    """Classes of a small volume whose candidates have these scores."""
    possible = np.zeros((3, 6, 6), bool)
    for at in cells:
        possible[at] = True
    order = [tuple(int(i) for i in at) for at in np.argwhere(possible)]
    return classify_lesions(
        possible, np.array([cells[at] for at in order], np.float32).reshape(-1, 3)
    )


def test_a_lone_voxel_gets_its_largest_score() -> None:
    found = decided({(0, 0, 0): (2, 1, 0), (0, 2, 2): (0, 2, 1), (2, 5, 5): (0, 1, 2)})
    assert (found[0, 0, 0], found[0, 2, 2], found[2, 5, 5]) == (0, 1, 2)
    assert np.count_nonzero(found) == 2


def test_the_sum_over_a_calcification_counts() -> None:
    # Two voxels lean a little to the valve; one beside them, a slice on, much to the artery.
    found = decided({(0, 1, 1): (0, 1, 2), (0, 1, 2): (0, 1, 2), (1, 2, 3): (0, 5, 1)})
    assert found[found > 0].tolist() == [1, 1, 1]


def test_the_rim_of_a_plaque_is_plaque() -> None:
    rim = {(0, 1, 1): (9, 1, 2), (0, 1, 2): (0, 9, 1), (0, 2, 3): (9, 1, 2)}
    found = decided(rim | {(0, 1, 5): (9, 1, 2), (1, 1, 1): (9, 1, 2)})
    # What does not touch it within the slice stands for itself.
    assert (np.argwhere(found) == np.array([[0, 1, 1], [0, 1, 2], [0, 2, 3]])).all()
    assert found.max() == 1


def test_what_is_apart_is_two_calcifications() -> None:
    found = decided({(0, 1, 1): (0, 1, 2), (0, 1, 3): (0, 5, 1), (2, 1, 1): (0, 1, 2)})
    assert (found[0, 1, 1], found[0, 1, 3], found[2, 1, 1]) == (2, 1, 2)


def test_background_everywhere_and_no_candidates() -> None:
    assert not decided({(0, 1, 1): (3, 1, 2)}).any()
    assert not decided({}).any()
