"""The cascade: heart silhouette first, then the class of every voxel that can be calcium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cac_core.model.classes import classify_lesions
from cac_core.model.convlstm import Window, grow
from cac_core.model.preprocess import (
    HeartFrame,
    Spacing,
    candidates,
    heart_frame,
    heart_input,
    heart_mask,
    heart_position,
    normalise,
)
from cac_core.model.weights import WeightsManifest, load_network, verify_weights

#: Slices per forward pass; larger batches need more memory and are not faster on a CPU.
_BATCH = 8


class Segmenter(Protocol):
    """Interface of a calcium network; see `ConvLSTMSegmenter`."""

    @property
    def config(self) -> Inputs:
        """Input channels and reach of the network."""
        ...

    def __call__(self, stack: Tensor, margin: int = 0, position: Tensor | None = None) -> Tensor:
        """Class scores of the inner slices of a stack."""
        ...

    def window(self, stack: Tensor, core: Window, position: Tensor | None = None) -> Tensor:
        """Class scores of a window of the inner slices of a stack."""
        ...


class Inputs(Protocol):
    """Input channels and reach of a network; see `NetworkConfig`."""

    @property
    def position_channels(self) -> bool:
        """Whether the input has channels with the position in the heart."""
        ...

    @property
    def bright_tail(self) -> bool:
        """Whether the input keeps rising above the HU window."""
        ...

    @property
    def receptive_field_px(self) -> int:
        """Reach in pixels: no output pixel depends on more distant input."""
        ...

    @property
    def stride(self) -> int:
        """Windows start at multiples of it."""
        ...


@dataclass(frozen=True)
class Segmentation:
    """Result of the cascade; arrays (slice, row, column) on the grid of the volume.

    `calcium_class` is 0 background, 1 coronary, 2 non-coronary. It is 0 below the threshold,
    outside the heart and in components below the minimum area. `possible` are the candidates,
    `scores` (candidates, 3) their class scores before softmax, in the order of the volume.
    `hearts_overlap` is the smallest Dice coefficient of two heart networks, on their grid.
    """

    heart_mask: NDArray[np.bool_]
    calcium_class: NDArray[np.uint8]
    possible: NDArray[np.bool_]
    scores: NDArray[np.float32]
    hearts_overlap: float
    seconds_heart: float
    seconds_calcium: float


@dataclass(frozen=True)
class HeartEstimate:
    """Heart mask, and the smallest Dice coefficient of two heart networks; see `Segmentation`."""

    mask: NDArray[np.bool_]
    overlap: float


class Cascade:
    """Heart and calcium networks, loaded once and applied to many volumes."""

    def __init__(
        self,
        manifest: WeightsManifest,
        hearts: Sequence[nn.Module],
        calcium: Segmenter,
        device: str = "cpu",
    ) -> None:
        self.manifest = manifest
        self.hearts = tuple(hearts)
        self.calcium = calcium
        self.device = device

    @classmethod
    def load(cls, folder: Path | None = None, *, threads: int = 1, device: str = "cpu") -> Cascade:
        """Load weights (default: the shipped ones) and set the thread count of torch.

        Raises
        ------
        WeightsError
            If the weights are missing, altered, or do not fit their manifest.
        """
        torch.set_num_threads(threads)
        manifest = verify_weights(folder)
        hearts = [load_network(manifest, name).to(device) for name in manifest.hearts]
        calcium = load_network(manifest, "calcium").to(device)
        return cls(manifest, hearts, calcium, device)

    @property
    def model_id(self) -> str:
        """Name, version and short digest of the weights."""
        return self.manifest.model_id

    @property
    def confidence(self) -> Mapping[str, float] | None:
        """Parameters of the confidence of a score, None in weights without them."""
        return self.manifest.confidence

    @property
    def digest(self) -> str:
        """SHA-256 over checksums and configurations of all networks."""
        return self.manifest.digest

    def segment(
        self,
        hu: NDArray[np.int16],
        spacing_mm: Spacing,
        *,
        threshold_hu: float = 130.0,
        min_area_mm2: float = 1.0,
        connectivity: int = 8,
    ) -> Segmentation:
        """Segment one volume in canonical orientation.

        Parameters
        ----------
        hu : (slice, row, column).
        spacing_mm : slice increment, row spacing, column spacing.
        """
        start = perf_counter()
        heart = self.estimate_heart(hu, spacing_mm)
        mask = heart.mask
        heart_done = perf_counter()
        possible = candidates(
            hu,
            mask,
            spacing_mm,
            threshold_hu=threshold_hu,
            min_area_mm2=min_area_mm2,
            connectivity=connectivity,
        )
        scores = self.candidate_scores(hu, possible, mask)
        return Segmentation(
            mask,
            classify_lesions(possible, scores),
            possible,
            scores,
            heart.overlap,
            heart_done - start,
            perf_counter() - heart_done,
        )

    def segment_heart(self, hu: NDArray[np.int16], spacing_mm: Spacing) -> NDArray[np.bool_]:
        """Heart mask, one connected component; empty if no heart is found."""
        return self.estimate_heart(hu, spacing_mm).mask

    def estimate_heart(self, hu: NDArray[np.int16], spacing_mm: Spacing) -> HeartEstimate:
        """Heart mask as `segment_heart`, and how far the networks agree."""
        probability = self.heart_probability(heart_input(hu, spacing_mm))
        mask = heart_mask(probability.mean(dim=0), hu.shape, spacing_mm)
        return HeartEstimate(mask, smallest_overlap(probability))

    @torch.inference_mode()
    def heart_probability(self, stack: Tensor) -> Tensor:
        """Probability of the heart by each network, (networks, slices, 112, 112).

        Parameters
        ----------
        stack : (slices + 2, 112, 112), from `heart_input`.
        """
        stack = stack.to(self.device)
        parts = [
            [net(stack[k : k + _BATCH + 2]).softmax(dim=1)[:, 1] for net in self.hearts]
            for k in range(0, len(stack) - 2, _BATCH)
        ]
        return torch.cat([torch.stack(part) for part in parts], dim=1).cpu()

    def classify(
        self, hu: NDArray[np.int16], possible: NDArray[np.bool_], mask: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Class of every voxel; the network runs on windows around candidates only.

        Gives exactly the result of `classify_whole`: each window has the receptive field as margin
        and starts at a multiple of the network's stride.

        Parameters
        ----------
        possible : candidate voxels, see `candidates`.
        mask : heart mask, for the position channels.
        """
        return classify_lesions(possible, self.candidate_scores(hu, possible, mask))

    @torch.inference_mode()
    def candidate_scores(
        self, hu: NDArray[np.int16], possible: NDArray[np.bool_], mask: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Scores before softmax of the candidates, (candidates, 3), in the order of the volume.

        Parameters
        ----------
        possible, mask : as in `classify`.
        """
        if not possible.any():
            return np.zeros((0, 3), np.float32)
        frame = heart_frame(mask)
        # Candidates in slices k to m - 1 are rows until[k] to until[m] - 1.
        until = np.concatenate([[0], np.cumsum(possible.sum(axis=(1, 2)))])
        scores = np.zeros((until[-1], 3), np.float32)
        for run in _runs(np.asarray(possible.any(axis=(1, 2)))):
            for begin in range(run[0], run[1], _BATCH):
                end = min(begin + _BATCH, run[1])
                scores[until[begin] : until[end]] = self._scores(hu, possible, frame, begin, end)
        return scores

    @torch.inference_mode()
    def classify_whole(
        self, hu: NDArray[np.int16], possible: NDArray[np.bool_], mask: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Reference for `classify`: runs the network on every whole slice, slowly."""
        if not possible.any():
            return np.zeros(hu.shape, np.uint8)
        frame, whole = heart_frame(mask), (0, hu.shape[1], 0, hu.shape[2])
        scores = []
        for k in range(hu.shape[0]):
            position = self._position(frame, k, k + 1, whole)
            plane = self.calcium(self._stack(hu, k, k + 1, whole), 0, position)[0]
            scores.append(plane.permute(1, 2, 0).cpu().numpy()[possible[k]])
        return classify_lesions(possible, np.concatenate(scores))

    def _scores(
        self,
        hu: NDArray[np.int16],
        possible: NDArray[np.bool_],
        frame: HeartFrame,
        begin: int,
        end: int,
    ) -> NDArray[np.float32]:
        """Scores of the candidates in slices [begin, end), (candidates, 3)."""
        config, shape = self.calcium.config, hu.shape[1:]
        core = _bounding_window(np.asarray(possible[begin:end].any(axis=0)))
        wide = grow(core, config.receptive_field_px, config.stride, shape)
        inside = (core[0] - wide[0], core[1] - wide[0], core[2] - wide[2], core[3] - wide[2])
        position = self._position(frame, begin, end, wide)
        stack = self._stack(hu, begin, end, wide)  # (end - begin + 2, rows, columns of wide)
        scores = self.calcium.window(stack, inside, position)  # (end - begin, 3, rows, columns)
        wanted = possible[begin:end, core[0] : core[1], core[2] : core[3]]
        found: NDArray[np.float32] = scores.permute(0, 2, 3, 1).cpu().numpy()[wanted]
        return found

    def _stack(self, hu: NDArray[np.int16], begin: int, end: int, window: Window) -> Tensor:
        """Normalised slices begin - 1 to end in the window; edge slices are repeated."""
        indices = np.clip(np.arange(begin - 1, end + 1), 0, hu.shape[0] - 1)
        r0, r1, c0, c1 = window
        planes = np.ascontiguousarray(hu[indices, r0:r1, c0:c1])
        tensor = torch.from_numpy(planes).to(self.device)
        return normalise(tensor, bright_tail=self.calcium.config.bright_tail)

    def _position(self, frame: HeartFrame, begin: int, end: int, window: Window) -> Tensor | None:
        """Position channels of slices [begin, end) in the window, None for a network without."""
        if not self.calcium.config.position_channels:
            return None
        slices, rows, columns = (
            torch.arange(a, b, dtype=torch.float64, device=self.device)
            for a, b in ((begin, end), window[:2], window[2:])
        )
        return heart_position(frame, slices[:, None, None], rows[:, None], columns)


def smallest_overlap(probability: Tensor) -> float:
    """Smallest Dice coefficient of two networks at probability 0.5; 1 for a single one.

    Parameters
    ----------
    probability : (networks, ...).
    """
    masks = [part >= 0.5 for part in probability]
    sizes = [int(mask.sum()) for mask in masks]
    dice = [
        2.0 * int((masks[i] & masks[j]).sum()) / max(1, sizes[i] + sizes[j])
        for i, j in combinations(range(len(masks)), 2)
    ]
    return min(dice, default=1.0)


def _runs(wanted: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open intervals of consecutive True values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wanted.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _bounding_window(plane: NDArray[np.bool_]) -> Window:
    rows = np.flatnonzero(plane.any(axis=1))
    columns = np.flatnonzero(plane.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
