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
from scipy.ndimage import find_objects, label
from torch import Tensor

from cac_core.model.classes import classify_lesions
from cac_core.model.convlstm import ConvLSTMSegmenter, Window, grow
from cac_core.model.inference import for_inference
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
#: The heart is looked for in every sixth slice (30 mm), by this probability, and expected within
#: this margin in pixels (40 mm) of where it is found.
_LOOK_STEP, _HEART_LIKELY, _HEART_MARGIN = 6, 0.3, 10
#: More separate candidates in a slice than this get one window together.
_MOST_WINDOWS = 40

#: Slices, rows and columns: start, stop, start, stop, start, stop.
Box = tuple[int, int, int, int, int, int]


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
        hearts: Sequence[Segmenter],
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

        def network(name: str) -> ConvLSTMSegmenter:
            return for_inference(load_network(manifest, name)).to(device)

        return cls(manifest, list(map(network, manifest.hearts)), network("calcium"), device)

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

        It is 0 outside of a region around the heart; see `_heart_region`. Where the heart reaches a
        border of that region, the region is extended.

        Parameters
        ----------
        stack : (slices + 2, 112, 112), from `heart_input`.
        """
        stack = stack.to(self.device)
        n, rows, columns = len(stack) - 2, *stack.shape[1:]
        whole = (0, n, 0, rows, 0, columns)
        region = self._heart_region(stack) or whole
        found = torch.zeros(len(self.hearts), n, rows, columns)
        missing = [region]
        while missing:
            for part in missing:
                self._find_hearts(stack, part, found)
            region = _hull([region, *missing])
            likely = (found.mean(dim=0) >= _HEART_LIKELY).nonzero()
            missing = _beyond(_box(likely), region, whole) if len(likely) else []
        return found

    def _find_hearts(self, stack: Tensor, region: Box, found: Tensor) -> None:
        """Set the probability of the heart by each network in a region."""
        begin, end, *core = region
        window = (core[0], core[1], core[2], core[3])
        for k in range(begin, end, _BATCH):
            part = stack[k : min(k + _BATCH, end) + 2]
            for number, net in enumerate(self.hearts):
                scores = net.window(part, window).softmax(dim=1)[:, 1]
                found[number, k : k + len(part) - 2, core[0] : core[1], core[2] : core[3]] = scores

    def _heart_region(self, stack: Tensor) -> Box | None:
        """Region of the stack that can hold the heart; None where no slice shows it.

        The first network looks at every sixth slice. The region reaches from one such slice without
        a heart to the next, and `_HEART_MARGIN` pixels around what was found.
        """
        n, size = len(stack) - 2, stack.shape[1:]
        looked = range(min(_LOOK_STEP // 2, n - 1), n, _LOOK_STEP)
        seen = [self.hearts[0](stack[k : k + 3]).softmax(dim=1)[0, 1] for k in looked]
        likely = (torch.stack(seen) >= _HEART_LIKELY).nonzero()
        if not len(likely):
            return None
        low, high, *found = _box(likely)
        window = (found[0], found[1], found[2], found[3])
        begin = 0 if low == 0 else looked[low - 1] + 1
        end = n if high == len(looked) else looked[high]
        return (
            begin,
            end,
            *grow(window, _HEART_MARGIN, 1, size),
        )

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
        # Candidates of slice k are rows until[k] to until[k + 1] - 1.
        until = np.concatenate([[0], np.cumsum(possible.sum(axis=(1, 2)))])
        scores = np.zeros((until[-1], 3), np.float32)
        for k in np.flatnonzero(np.diff(until)):
            plane, found = possible[k], scores[until[k] : until[k + 1]]
            for window in candidate_windows(plane, self.calcium.config.receptive_field_px):
                wanted = plane[window[0] : window[1], window[2] : window[3]]
                found[_places(plane, window)] = self._scores(hu, frame, int(k), window)[wanted]
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
        self, hu: NDArray[np.int16], frame: HeartFrame, k: int, core: Window
    ) -> NDArray[np.float32]:
        """Scores of the pixels of a window of slice k, (rows, columns, 3)."""
        config = self.calcium.config
        wide = grow(core, config.receptive_field_px, config.stride, hu.shape[1:])
        inside = (core[0] - wide[0], core[1] - wide[0], core[2] - wide[2], core[3] - wide[2])
        position = self._position(frame, k, k + 1, wide)
        stack = self._stack(hu, k, k + 1, wide)  # (3, rows, columns of wide)
        scores = self.calcium.window(stack, inside, position)[0]  # (3, rows, columns)
        found: NDArray[np.float32] = scores.permute(1, 2, 0).cpu().numpy()
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


def _box(places: Tensor) -> Box:
    """The smallest box around places, (places, 3)."""
    low, high = places.amin(dim=0).tolist(), places.amax(dim=0).tolist()
    return low[0], high[0] + 1, low[1], high[1] + 1, low[2], high[2] + 1


def _hull(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of them."""
    a, b, c, d, e, f = zip(*boxes, strict=True)
    return min(a), max(b), min(c), max(d), min(e), max(f)


def _beyond(box: Box, region: Box, whole: Box) -> list[Box]:
    """Where to look on if a box reaches a border of the region: the next slices, or everything."""
    pairs = zip(box[2:], region[2:], whole[2:], strict=True)
    if any(edge == border != limit for edge, border, limit in pairs):
        return [whole]
    begin, end = region[0], region[1]
    parts: list[Box] = []
    if box[0] == begin != whole[0]:
        parts.append((max(whole[0], begin - _LOOK_STEP), begin, *region[2:]))
    if box[1] == end != whole[1]:
        parts.append((end, min(whole[1], end + _LOOK_STEP), *region[2:]))
    return parts


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


def candidate_windows(plane: NDArray[np.bool_], reach: int) -> list[Window]:
    """Windows that hold all candidates of a slice, and cost little.

    A window costs about its area with half the reach of the network as margin: the first layers
    need the whole reach, the last ones nearly none. Two windows become one where that costs less.

    Parameters
    ----------
    plane : candidates, (rows, columns).
    reach : reach of the network in pixels.
    """
    windows: list[Window] = [
        (rows.start, rows.stop, columns.start, columns.stop)
        for rows, columns in find_objects(label(plane, np.ones((3, 3)))[0])
    ]
    if len(windows) > _MOST_WINDOWS:  # noise everywhere
        return [_around(windows)]
    merged = True
    while merged:
        merged = False
        for a, b in combinations(windows, 2):
            if _cost(_around([a, b]), reach) <= _cost(a, reach) + _cost(b, reach):
                windows = [*(one for one in windows if one not in (a, b)), _around([a, b])]
                merged = True
                break
    return windows


def _cost(window: Window, reach: int) -> int:
    return (window[1] - window[0] + reach) * (window[3] - window[2] + reach)


def _around(windows: Sequence[Window]) -> Window:
    """The smallest window that holds all of them."""
    r0, r1, c0, c1 = zip(*windows, strict=True)
    return min(r0), max(r1), min(c0), max(c1)


def _places(plane: NDArray[np.bool_], window: Window) -> NDArray[np.int64]:
    """Numbers of the candidates in the window, among those of the slice in raster order."""
    rows, columns = np.nonzero(plane)
    inside = (rows >= window[0]) & (rows < window[1])
    inside &= (columns >= window[2]) & (columns < window[3])
    return np.flatnonzero(inside)
