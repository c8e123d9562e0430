"""What the exact shortcuts of the cascade save, against the same networks without them.

    python -m bench.bench_cascade [--scans 4] [--published]

On synthetic scans that hold candidates, one thread: heart network on its coarse grid; calcium
network on candidate windows; and the calcium network over every whole slice, which gives the same
classes, to the voxel. With --published also a calcium network of the published sizes (random
weights) on the same windows.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from time import perf_counter

import numpy as np

from cac_core.model.cascade import Cascade
from cac_core.model.convlstm import PUBLISHED, ConvLSTMSegmenter
from cac_core.model.preprocess import candidates
from cac_core.phantom.analytic.scan import synthesise_scan

_FIRST_SEED = 7000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--published", action="store_true")
    options = parser.parse_args()
    cascade = Cascade.load(threads=1)
    large = Cascade(cascade.manifest, cascade.hearts, ConvLSTMSegmenter(PUBLISHED).eval())
    heart, windows, whole, published = [], [], [], []
    for seed in itertools.count(_FIRST_SEED):
        if len(windows) == options.scans:
            break
        scan = synthesise_scan(seed)
        start = perf_counter()
        mask = cascade.segment_heart(scan.hu, scan.spacing_mm)
        heart.append(perf_counter() - start)
        possible = candidates(
            scan.hu,
            mask,
            scan.spacing_mm,
            threshold_hu=130,
            min_area_mm2=1.0,
            connectivity=8,
        )
        if not possible.any():
            continue  # nothing for the calcium network to do
        start = perf_counter()
        classes = cascade.classify(scan.hu, possible, mask)
        windows.append(perf_counter() - start)
        start = perf_counter()
        reference = cascade.classify_whole(scan.hu, possible, mask)
        whole.append(perf_counter() - start)
        assert np.array_equal(classes, reference), f"seed {seed}: windows change the result"
        if options.published:
            start = perf_counter()
            large.classify(scan.hu, possible, mask)
            published.append(perf_counter() - start)
        print(f"seed {seed}: {scan.hu.shape[0]} slices, {int(possible.sum())} candidate pixels")
    print(f"heart network            {statistics.median(heart):8.3f} s per scan, median")
    print(f"calcium, windows         {statistics.median(windows):8.3f}")
    print(f"calcium, whole slices    {statistics.median(whole):8.3f}")
    ratio = statistics.median(w / f for w, f in zip(whole, windows, strict=True))
    print(f"ratio whole / windows    {ratio:8.1f}, same classes to the voxel")
    if options.published:
        print(f"calcium, published sizes {statistics.median(published):8.3f} on windows")


if __name__ == "__main__":
    main()
