"""The cascade: heart silhouette first, then the class of every voxel that can be calcium."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cac_core.model.classes import decide
from cac_core.model.convlstm import Window, grow
from cac_core.model.preprocess import (
    HeartFrame,
    Spacing,
    candidates,
    heart_frame,
    heart_input,
    heart_mask,
    normalise,
    place_in_heart,
)
from cac_core.model.weights import WeightsManifest, load_network, verify_weights

#: Slices that go through a network at once; more need more memory and gain nothing on a CPU.
_BATCH = 8


class Segmenter(Protocol):
    """A network of the cascade: ours, or one it is compared with.

    `config` states what it sees; see `ConvLSTMSegmenter`.
    """

    @property
    def config(self) -> Inputs:
        """What its input holds, and how large a window must be to give what the slice gives."""
        ...

    def __call__(self, stack: Tensor, margin: int = 0, place: Tensor | None = None) -> Tensor:
        """Class scores of the inner slices of a stack."""
        ...

    def window(self, stack: Tensor, core: Window, place: Tensor | None = None) -> Tensor:
        """Class scores of a part of the inner slices of a stack."""
        ...


class Inputs(Protocol):
    """What a network sees, how far, and at which multiples its windows may begin."""

    @property
    def place(self) -> bool:
        """Whether it is told where in the heart a pixel lies."""
        ...

    @property
    def bright_tail(self) -> bool:
        """Whether its input rises above the HU window."""
        ...

    @property
    def receptive_field_px(self) -> int:
        """Pixels to either side that any output pixel depends on."""
        ...

    @property
    def stride(self) -> int:
        """Windows begin at multiples of it."""
        ...


@dataclass(frozen=True)
class Segmentation:
    """What the cascade found; arrays (slice, row, column) on the grid of the volume.

    `calcium_class` is 0 background, 1 coronary, 2 non-coronary, and 0 wherever calcium cannot be
    (below the threshold, outside the heart, in a component below the minimum area).
    """

    heart_mask: NDArray[np.bool_]
    calcium_class: NDArray[np.uint8]
    n_candidate_pixels: int
    seconds_heart: float
    seconds_calcium: float


class MeanProbability(nn.Module):
    """Several networks of one kind as one: the logarithm of their mean class probabilities."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, stack: Tensor) -> Tensor:
        """Scores of the classes, whose softmax is the mean; shapes as those of a member."""
        parts = [member(stack).log_softmax(dim=1) for member in self.members]
        return torch.logsumexp(torch.stack(parts), dim=0)


class Cascade:
    """Both networks, loaded once and used for many volumes."""

    def __init__(
        self,
        manifest: WeightsManifest,
        heart: nn.Module,
        calcium: Segmenter,
        device: str = "cpu",
    ) -> None:
        self.manifest = manifest
        self.heart = heart
        self.calcium = calcium
        self.device = device

    @classmethod
    def load(cls, folder: Path | None = None, *, threads: int = 1, device: str = "cpu") -> Cascade:
        """Load weights (default: the shipped ones) and set torch's threads for this process.

        Raises
        ------
        WeightsError
            If they are missing, altered, or do not fit their manifest.
        """
        torch.set_num_threads(threads)
        manifest = verify_weights(folder)
        hearts = [load_network(manifest, name).to(device) for name in manifest.hearts]
        calcium = load_network(manifest, "calcium").to(device)
        return cls(manifest, MeanProbability(hearts), calcium, device)

    @property
    def model_id(self) -> str:
        """Short name of the weights."""
        return self.manifest.model_id

    @property
    def digest(self) -> str:
        """SHA-256 over both weight files and both configurations."""
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
        mask = self.segment_heart(hu, spacing_mm)
        heart_done = perf_counter()
        possible = candidates(
            hu,
            mask,
            spacing_mm,
            threshold_hu=threshold_hu,
            min_area_mm2=min_area_mm2,
            connectivity=connectivity,
        )
        classes = self.classify(hu, possible, mask)
        return Segmentation(
            mask,
            classes,
            int(possible.sum()),
            heart_done - start,
            perf_counter() - heart_done,
        )

    @torch.inference_mode()
    def segment_heart(self, hu: NDArray[np.int16], spacing_mm: Spacing) -> NDArray[np.bool_]:
        """The heart silhouette, one connected body; empty where none is found."""
        stack = heart_input(hu, spacing_mm).to(self.device)
        parts = [
            self.heart(stack[begin : begin + _BATCH + 2]).softmax(dim=1)[:, 1]
            for begin in range(0, len(stack) - 2, _BATCH)
        ]
        return heart_mask(torch.cat(parts).cpu(), hu.shape, spacing_mm)

    def classify(
        self, hu: NDArray[np.int16], possible: NDArray[np.bool_], mask: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Class of every candidate voxel; the network runs only on windows that hold some.

        The scores of the voxels go through `decide`: one calcification, one class.

        Equal to `classify_whole`, to the voxel: a window has the receptive field as margin and
        begins at a multiple of the network's stride.

        Parameters
        ----------
        possible : the candidates, see `candidates`.
        mask : the heart silhouette; it says where in the heart a candidate lies.
        """
        if not possible.any():
            return np.zeros(hu.shape, np.uint8)
        return decide(possible, self.candidate_scores(hu, possible, mask))

    @torch.inference_mode()
    def candidate_scores(
        self, hu: NDArray[np.int16], possible: NDArray[np.bool_], mask: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Scores before softmax of the candidates, (candidates, 3), in the order of the volume.

        Parameters
        ----------
        possible, mask : as of `classify`; there is at least one candidate.
        """
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
        """The same by running the network over every whole slice: the reference, and slow."""
        if not possible.any():
            return np.zeros(hu.shape, np.uint8)
        frame, whole = heart_frame(mask), (0, hu.shape[1], 0, hu.shape[2])
        scores = []
        for k in range(hu.shape[0]):
            place = self._place(frame, k, k + 1, whole)
            plane = self.calcium(self._stack(hu, k, k + 1, whole), 0, place)[0]
            scores.append(plane.permute(1, 2, 0).cpu().numpy()[possible[k]])
        return decide(possible, np.concatenate(scores))

    def _scores(
        self,
        hu: NDArray[np.int16],
        possible: NDArray[np.bool_],
        frame: HeartFrame,
        begin: int,
        end: int,
    ) -> NDArray[np.float32]:
        """Scores of the candidates in slices begin to end - 1, (candidates, 3)."""
        config, shape = self.calcium.config, hu.shape[1:]
        core = _bounding_window(np.asarray(possible[begin:end].any(axis=0)))
        wide = grow(core, config.receptive_field_px, config.stride, shape)
        inside = (core[0] - wide[0], core[1] - wide[0], core[2] - wide[2], core[3] - wide[2])
        place = self._place(frame, begin, end, wide)
        scores = self.calcium.window(self._stack(hu, begin, end, wide), inside, place)
        wanted = possible[begin:end, core[0] : core[1], core[2] : core[3]]
        found: NDArray[np.float32] = scores.permute(0, 2, 3, 1).cpu().numpy()[wanted]
        return found

    def _stack(self, hu: NDArray[np.int16], begin: int, end: int, window: Window) -> Tensor:
        """Slices begin - 1 to end, the edge slices repeated, cut to the window, normalised."""
        indices = np.clip(np.arange(begin - 1, end + 1), 0, hu.shape[0] - 1)
        r0, r1, c0, c1 = window
        planes = np.ascontiguousarray(hu[indices, r0:r1, c0:c1])
        tensor = torch.from_numpy(planes).to(self.device)
        return normalise(tensor, bright_tail=self.calcium.config.bright_tail)

    def _place(self, frame: HeartFrame, begin: int, end: int, window: Window) -> Tensor | None:
        """Where slices begin to end - 1 of the window lie in the heart, if that is asked for."""
        if not self.calcium.config.place:
            return None
        slices, rows, columns = (
            torch.arange(a, b, dtype=torch.float64, device=self.device)
            for a, b in ((begin, end), window[:2], window[2:])
        )
        return place_in_heart(frame, slices[:, None, None], rows[:, None], columns)


def _runs(wanted: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Stretches (begin, end) of neighbouring True values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wanted.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _bounding_window(plane: NDArray[np.bool_]) -> Window:
    rows = np.flatnonzero(plane.any(axis=1))
    columns = np.flatnonzero(plane.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
