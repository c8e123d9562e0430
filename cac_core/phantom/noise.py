"""Image noise of a low-dose scan: correlated in the plane, more in the middle of the body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

#: Noise in the heart of a mid-sized person at 20 mA, 120 kV and 5 mm with a soft kernel, in HU.
REFERENCE_NOISE_HU = 24.0


def heart_noise_hu(
    tube_current_ma: float, slice_mm: float, kvp: float, body_area_ratio: float
) -> float:
    """Expected noise in the heart: falls with the square root of dose and slice thickness."""
    dose = tube_current_ma / 20.0 * (kvp / 120.0) ** 2.5
    return float(REFERENCE_NOISE_HU * np.sqrt(5.0 / slice_mm / dose) * body_area_ratio)


def correlated_noise(
    shape: tuple[int, int, int], sd_hu: float, blur_px: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Noise of the given standard deviation in the centre, with the grain of a soft kernel."""
    white = rng.standard_normal(shape, dtype=np.float32)
    grain = gaussian_filter(white, (0.0, blur_px, blur_px), truncate=3.0)
    grain *= np.float32(sd_hu) / grain[:: max(1, shape[0] // 8)].std()
    rows = np.linspace(-1, 1, shape[1], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, shape[2], dtype=np.float32)
    # The centre of the body is seen through most tissue.
    profile = 0.55 + 0.5 * np.exp(-2.2 * (rows * rows + columns * columns))
    grain *= profile
    return grain
