"""What the exact shortcuts of the cascade save, and what other networks cost.

    python -m bench.bench_cascade [--scans 4] [--others 1]

On synthetic scans that hold candidates, one thread. First the same networks over whole slices,
which give the same classes to the voxel. Then, on the first scans (`--others`), networks over whole
slices with random weights, since speed does not depend on them: the sizes that the group published,
and MONAI's U-Net (extra `train`), one heart and one calcium network each.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from bench.measure import from_pairs, record, seconds
from cac_core.model.cascade import Cascade, Segmenter
from cac_core.model.preprocess import candidates, heart_input
from cac_core.phantom.analytic.scan import SyntheticScan, synthesise_scan
from cac_core.training.comparison_networks import build_network

_FIRST_SEED = 7000
_OTHERS = {"published sizes": "published", "MONAI U-Net": "unet"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--others", type=int, default=1)
    options = parser.parse_args()
    cascade = Cascade.load(threads=1)
    made = list(itertools.islice(scans_with_candidates(cascade), options.scans))
    pairs = []
    for scan in made:
        ours = cascade.segment(scan.hu, scan.spacing_mm)
        whole = cascade.classify_whole(scan.hu, ours.possible, ours.heart_mask)
        assert np.array_equal(ours.calcium_class, whole), "windows change the result"
        pairs.append(times(cascade, cascade, scan))
    ratios = [from_pairs("same networks", "shipped", "over whole slices", pairs)]
    for what, name in _OTHERS.items():
        heart, calcium = (
            cast("Segmenter", build_network(name, kind, 1).eval()) for kind in ("heart", "calcium")
        )
        other = Cascade(cascade.manifest, [heart], calcium)
        pairs = [times(cascade, other, scan) for scan in made[: options.others]]
        ratios.append(from_pairs(what, "shipped", what, pairs))
    record("cascade", ratios)


def scans_with_candidates(cascade: Cascade) -> Iterator[SyntheticScan]:
    """Synthetic scans on which the calcium network has something to do."""
    for seed in itertools.count(_FIRST_SEED):
        scan = synthesise_scan(seed)
        if possible_in(scan, cascade.segment_heart(scan.hu, scan.spacing_mm)).any():
            yield scan


def possible_in(scan: SyntheticScan, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Candidates by the default protocol."""
    return candidates(
        scan.hu, mask, scan.spacing_mm, threshold_hu=130, min_area_mm2=1.0, connectivity=8
    )


def times(cascade: Cascade, other: Cascade, scan: SyntheticScan) -> tuple[float, float]:
    """Processor time of the cascade, and of another one over whole slices."""
    ours = seconds(functools.partial(cascade.segment, scan.hu, scan.spacing_mm))
    mask = cascade.segment_heart(scan.hu, scan.spacing_mm)
    return ours, seconds(functools.partial(dense, other, scan, mask))


@torch.inference_mode()
def dense(cascade: Cascade, scan: SyntheticScan, mask: NDArray[np.bool_]) -> None:
    """Both stages over whole slices, one slice at a time; the mask is given."""
    stack = heart_input(scan.hu, scan.spacing_mm)
    for net in cascade.hearts:
        for k in range(len(stack) - 2):
            net(stack[k : k + 3]).softmax(dim=1)
    cascade.classify_whole(scan.hu, possible_in(scan, mask), mask)


if __name__ == "__main__":
    main()
