"""The cascade: windows give exactly the result of whole slices; ensembles; loading."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cac_core.errors import WeightsError
from cac_core.model.cascade import Cascade, candidate_windows, smallest_overlap
from cac_core.model.convlstm import Window
from cac_core.model.preprocess import candidates
from tests.builders.networks import write_random_weights


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    folder = tmp_path_factory.mktemp("weights")
    write_random_weights(folder)
    return Cascade.load(folder)


def noisy_volume(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hu = rng.normal(40, 30, shape)
    for _ in range(12):
        k, r, c = (int(rng.integers(n)) for n in shape)
        hu[k, r : r + 4, c : c + 3] += rng.uniform(60, 900)
    return hu.clip(-1024, 3000).astype(np.int16)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    slices=st.integers(1, 12),
    rows=st.integers(30, 130),
    columns=st.integers(30, 130),
)
def test_windows_equal_the_whole_volume(
    cascade: Cascade, seed: int, slices: int, rows: int, columns: int
) -> None:
    hu = noisy_volume(seed, (slices, rows, columns))
    rng = np.random.default_rng(seed)
    r, c = int(rng.integers(rows)), int(rng.integers(columns))
    heart = np.zeros(hu.shape, bool)
    heart[:, max(0, r - 25) : r + 25, max(0, c - 25) : c + 25] = True
    possible = candidates(
        hu, heart, (3.0, 0.9, 0.9), threshold_hu=130, min_area_mm2=1.0, connectivity=8
    )
    whole = cascade.classify_whole(hu, possible, heart)
    np.testing.assert_array_equal(cascade.classify(hu, possible, heart), whole)


def test_the_classes_differ_somewhere(cascade: Cascade) -> None:
    """The test above would be trivial for a network that always predicts background."""
    hu = noisy_volume(1, (6, 100, 100))
    possible = hu >= 130
    assert len(np.unique(cascade.classify(hu, possible, possible)[possible])) > 1


def test_nothing_outside_the_candidates(cascade: Cascade) -> None:
    hu = noisy_volume(2, (5, 64, 64))
    possible = np.zeros(hu.shape, bool)
    possible[2, 30:33, 30:33] = True
    found = cascade.classify(hu, possible, possible)
    assert not found[~possible].any()


def test_no_candidates(cascade: Cascade) -> None:
    hu = np.full((4, 64, 64), 40, np.int16)
    nowhere = np.zeros(hu.shape, bool)
    assert not cascade.classify(hu, nowhere, nowhere).any()
    assert not cascade.classify_whole(hu, nowhere, nowhere).any()


def test_segment_reports_what_it_did(cascade: Cascade) -> None:
    hu = noisy_volume(3, (8, 96, 96))
    found = cascade.segment(hu, (5.0, 4.0, 4.0))
    assert found.heart_mask.shape == found.calcium_class.shape == hu.shape
    assert not found.calcium_class[~found.heart_mask].any()
    assert not found.calcium_class[hu < 130].any()
    assert found.scores.shape == (found.possible.sum(), 3)
    assert not found.possible[~found.heart_mask].any()
    assert found.hearts_overlap == 1.0  # there is one heart network
    assert found.seconds_heart > 0


def test_twice_the_same(cascade: Cascade) -> None:
    hu = noisy_volume(4, (6, 80, 80))
    first, second = (cascade.segment(hu, (5.0, 5.0, 5.0)) for _ in range(2))
    np.testing.assert_array_equal(first.heart_mask, second.heart_mask)
    np.testing.assert_array_equal(first.calcium_class, second.calcium_class)


@pytest.mark.slow
def test_windows_equal_the_whole_volume_with_the_shipped_weights() -> None:
    from cac_core.phantom.analytic.scan import synthesise_scan

    shipped, scan = Cascade.load(), synthesise_scan(5002)
    found = shipped.segment(scan.hu, scan.spacing_mm)
    possible = candidates(
        scan.hu,
        found.heart_mask,
        scan.spacing_mm,
        threshold_hu=130,
        min_area_mm2=1.0,
        connectivity=8,
    )
    assert possible.any()
    whole = shipped.classify_whole(scan.hu, possible, found.heart_mask)
    np.testing.assert_array_equal(found.calcium_class, whole)


def test_weights_differ_in_their_digest(tmp_path: Path) -> None:
    one, two = (write_random_weights(tmp_path / str(seed), seed) for seed in (1, 2))
    assert one.digest != two.digest
    assert one.model_id.startswith("random-0-")


class Fixed(torch.nn.Module):
    """Probability of the heart in a block of slices and pixels, nothing elsewhere.

    The slice is read off the input, whose slices are numbered by their value.
    """

    def __init__(
        self,
        probability: float,
        constant: float = 0.0,
        slices: tuple[int, int] = (0, 99),
        pixels: tuple[int, int] = (40, 70),
    ) -> None:
        super().__init__()
        self.scores = constant + torch.log(torch.tensor([1 - probability, probability]))
        self.slices, self.pixels = slices, slice(*pixels)
        self.asked = 0

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """Scores of all pixels."""
        self.asked += stack.shape[-1] * stack.shape[-2] * (len(stack) - 2)
        scores = torch.tensor([9.0, 0.0])[:, None, None].repeat(len(stack) - 2, 1, 112, 112)
        for plane, number in zip(scores, stack[1:-1, 0, 0], strict=True):
            if self.slices[0] <= number < self.slices[1]:
                plane[:, self.pixels, self.pixels] = self.scores[:, None, None]
        return scores

    def window(self, stack: torch.Tensor, core: Window) -> torch.Tensor:
        """Scores of a window."""
        before, scores = self.asked, self(stack)[..., core[0] : core[1], core[2] : core[3]]
        self.asked = before + scores[:, 0].numel()
        return scores


def test_the_heart_is_where_the_mean_of_several_networks_is_above_a_half(cascade: Cascade) -> None:
    hu = np.full((6, 112, 112), 50, np.int16)  # 0 after normalisation
    for second, found in ((0.2, True), (0.05, False)):
        # One score is larger by a constant, which is nothing.
        hearts = [Fixed(0.9), Fixed(second, 5.0)]
        both = Cascade(cascade.manifest, hearts, cascade.calcium)
        estimate = both.estimate_heart(hu, (5.0, 4.0, 4.0))
        assert estimate.mask[:, 45:65, 45:65].all() == found  # the means are 0.55 and 0.475
        assert estimate.overlap == 0.0  # only the first is above a half by itself


def numbered(n: int) -> torch.Tensor:
    """A stack for `heart_probability` whose slices are numbered by their value."""
    return torch.arange(-1.0, n + 1).clamp(0, n - 1)[:, None, None].expand(-1, 112, 112)


@pytest.mark.parametrize(
    ("slices", "pixels", "computed"),
    [
        ((20, 40), (40, 70), 0.15),  # in the middle
        ((0, 60), (0, 112), 1.0),  # everywhere
        ((0, 14), (90, 112), 0.1),  # in a corner
    ],
)
def test_the_region_of_the_heart_holds_all_of_it(
    cascade: Cascade, slices: tuple[int, int], pixels: tuple[int, int], computed: float
) -> None:
    hearts = [Fixed(0.9, slices=slices, pixels=pixels), Fixed(0.8, slices=slices, pixels=pixels)]
    found = Cascade(cascade.manifest, hearts, cascade.calcium).heart_probability(numbered(60))
    inside = (slice(*slices), slice(*pixels), slice(*pixels))
    for probability, expected in zip(found, (0.9, 0.8), strict=True):
        assert torch.allclose(probability[inside], torch.tensor(expected))
        assert (probability >= 0.1).sum() == (probability[inside] >= 0.1).sum()
    # The second network is not asked where the heart is: it shows what is computed of a stack.
    assert hearts[1].asked <= computed * 60 * 112 * 112 * 1.5


@pytest.mark.parametrize(
    ("larger", "asked"),
    [({"slices": (20, 55)}, 0.3), ({"slices": (3, 40)}, 0.3), ({"pixels": (10, 70)}, 1.4)],
)
def test_a_heart_that_leaves_its_region_is_found_whole(
    cascade: Cascade, larger: dict[str, tuple[int, int]], asked: float
) -> None:
    """In slices the region is extended; within slices everything is computed."""
    small: dict[str, tuple[int, int]] = {"slices": (20, 40), "pixels": (40, 70)}
    second = Fixed(0.9, **(small | larger))
    both = Cascade(cascade.manifest, [Fixed(0.9, **small), second], cascade.calcium)
    found = both.heart_probability(numbered(60))
    assert second.asked <= asked * 60 * 112 * 112
    expected = torch.softmax(second(numbered(60)), dim=1)[:, 1]
    torch.testing.assert_close(found[1], expected, rtol=0, atol=1e-3)


def test_a_stack_without_a_heart_is_computed_whole(cascade: Cascade) -> None:
    hearts = [Fixed(0.9, slices=(0, 0)), Fixed(0.4)]
    found = Cascade(cascade.manifest, hearts, cascade.calcium).heart_probability(numbered(30))
    assert torch.allclose(found[1, :, 40:70, 40:70], torch.tensor(0.4))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), spots=st.integers(1, 60))
def test_windows_hold_every_candidate(seed: int, spots: int) -> None:
    rng = np.random.default_rng(seed)
    plane = np.zeros((200, 180), bool)
    for r, c in zip(rng.integers(0, 197, spots), rng.integers(0, 178, spots), strict=True):
        plane[r : r + 3, c : c + 2] = True
    covered = np.zeros_like(plane)
    for r0, r1, c0, c1 in candidate_windows(plane, 20):
        covered[r0:r1, c0:c1] = True
    assert covered[plane].all()


def test_windows_are_joined_where_that_costs_less() -> None:
    plane = np.zeros((200, 200), bool)
    plane[10:14, 10:13] = plane[16:18, 11:20] = plane[150:155, 160:170] = True
    assert sorted(candidate_windows(plane, 20)) == [(10, 18, 10, 20), (150, 155, 160, 170)]
    assert candidate_windows(plane, 2000) == [(10, 155, 10, 170)]
    noise = np.zeros((200, 200), bool)
    noise[::20, ::20] = True
    assert candidate_windows(noise, 1) == [(0, 181, 0, 181)]


def test_the_smallest_overlap_by_hand() -> None:
    probability = torch.zeros(3, 10)
    probability[0, :4], probability[1, 2:6], probability[2, :3] = 0.9, 0.8, 0.5
    # First and second share 2 of 4 + 4, first and third 3 of 4 + 3, second and third 1 of 4 + 3.
    assert smallest_overlap(probability) == pytest.approx(2 / 7)
    assert smallest_overlap(probability[:1]) == 1.0


def test_every_heart_network_of_a_manifest_counts(tmp_path: Path) -> None:
    shipped = Cascade.load()
    assert shipped.manifest.hearts == ("heart", "heart-2")
    folder = tmp_path / "weights"
    shutil.copytree(shipped.manifest.folder, folder)
    altered = bytearray((folder / "heart-2.safetensors").read_bytes())
    altered[-1] ^= 1
    (folder / "heart-2.safetensors").write_bytes(altered)
    with pytest.raises(WeightsError, match=r"heart-2.safetensors were altered"):
        Cascade.load(folder)
