"""A training sample that a small network learns in a few steps."""

from __future__ import annotations

import numpy as np

from cac_core.training.samples import Sample, make_sample

SPACING = (5.0, 4.0, 4.0)


def annotated(seed: int = 0) -> Sample:
    """A ball for a heart in a fatty box, with bright blocks: left coronary, right non-coronary."""
    rng = np.random.default_rng(seed)
    shape = (12, 112, 112)
    z, y, x = np.ogrid[:12, :112, :112]
    heart = ((z - 6) / 5) ** 2 + ((y - 56) / 22) ** 2 + ((x - 56) / 22) ** 2 <= 1
    hu = np.where(heart, 45, -100) + rng.normal(0, 12, shape)
    calcium = np.zeros(shape, np.uint8)
    for k in range(4, 9):
        calcium[k, 50:53, 44:47] = 1
        calcium[k, 60:66, 66:72] = 2
    hu[calcium > 0] += 400
    return make_sample(hu.astype(np.int16), heart, calcium, SPACING)
