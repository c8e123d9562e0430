"""The true Agatston score of a synthetic scan.

Deliberately independent of `cac_core.scoring` and implemented differently (a loop over the labelled
objects of each slice): it is the test oracle of the scorer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from schemas.codes import CAC_CATEGORIES


def true_agatston(
    hu: NDArray[np.int16],
    calcium: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> float:
    """Agatston score of the voxels in `calcium` by the default protocol.

    At or above 130 HU, 8-connected per slice, at least 1 mm2, weight by the lesion's peak HU,
    scaled by the slice increment over 3 mm. Arrays (slice, row, column).
    """
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    total = 0.0
    for plane, wanted in zip(hu, calcium, strict=True):
        lesions, _ = label(wanted & (plane >= 130), structure=np.ones((3, 3)))
        for number, box in enumerate(find_objects(lesions), start=1):
            inside = lesions[box] == number
            area = inside.sum() * pixel_mm2
            if area >= 1.0:
                total += area * min(int(plane[box][inside].max()) // 100, 4)
    return float(total * spacing_mm[0] / 3.0)


def true_category(agatston: float) -> str:
    """Category of a score: below 1, up to 100, up to 400, above."""
    return CAC_CATEGORIES[int(agatston >= 1) + int(agatston > 100) + int(agatston > 400)]
