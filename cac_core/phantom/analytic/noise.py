"""Image noise of low-dose scans: texture of many kernels, higher in the centre, and streaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter, zoom

Floats = NDArray[np.float32]

#: Noise in the heart of an average person at 20 mA, 120 kV and 5 mm with a soft kernel, in HU.
REFERENCE_NOISE_HU = 20.0


@dataclass(frozen=True, slots=True)
class NoiseSpectrum:
    """Shape of the noise power spectrum: f^rise x exp(-(f / cutoff)^fall), f in cycles per pixel.

    A rise of 0 is blurred white noise; filtered back-projection gives about 0.5 to 1 (Riederer et
    al., Phys Med Biol 1978;23:446: the spectrum starts as a ramp).
    """

    rise: float = 0.5
    cutoff: float = 0.25
    fall: float = 2.0
    streaks: float = 0.0  # share of the variance in lateral streaks


def draw_noise_spectrum(rng: np.random.Generator) -> NoiseSpectrum:
    """Noise texture from smooth to standard kernels, with lateral streaks in half of the scans."""
    return NoiseSpectrum(
        rise=float(rng.uniform(0.0, 1.0)),
        cutoff=float(rng.uniform(0.14, 0.34)),
        fall=float(rng.uniform(1.5, 4.0)),
        streaks=float(rng.uniform(0.05, 0.4)) if rng.random() < 0.5 else 0.0,
    )


def heart_noise_hu(
    tube_current_ma: float, slice_mm: float, kvp: float, body_area_ratio: float
) -> float:
    """Expected noise in the heart: inverse to the square root of dose and slice thickness."""
    dose = tube_current_ma / 20.0 * (kvp / 120.0) ** 2.5
    return float(REFERENCE_NOISE_HU * np.sqrt(5.0 / slice_mm / dose) * body_area_ratio)


def correlated_noise(
    shape: tuple[int, int, int], sd_hu: float, spectrum: NoiseSpectrum, rng: np.random.Generator
) -> Floats:
    """Noise of the given standard deviation in the centre, of shape (slices, rows, columns)."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    gain = _gain(shape[1:], spectrum)
    for k in range(shape[0]):
        noise[k] = irfft2(rfft2(noise[k]) * gain, s=shape[1:])
    if spectrum.streaks:
        noise *= np.float32(np.sqrt(1 - spectrum.streaks))
        noise += np.float32(np.sqrt(spectrum.streaks)) * _lateral(shape, rng)
    rows = np.linspace(-1, 1, shape[1], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, shape[2], dtype=np.float32)
    # Noise is highest in the centre, where attenuation is highest.
    noise *= np.float32(sd_hu) * (0.55 + 0.5 * np.exp(-2.2 * (rows * rows + columns * columns)))
    return noise


def metal_streaks(metal: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Bright and dark rays from metal in a slice; both arrays (rows, columns), in HU.

    Parameters
    ----------
    metal : contribution of the metal alone.
    strength : HU of a ray next to a pixel of 3000 HU.
    """
    rows, columns = np.nonzero(metal > 600)
    out = np.zeros_like(metal)
    if not rows.size:
        return out
    centre = np.array([rows.mean(), columns.mean()])
    dy = np.arange(metal.shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    dx = np.arange(metal.shape[1], dtype=np.float32) - np.float32(centre[1])
    angle, distance = np.arctan2(dy, dx), np.sqrt(dx * dx + dy * dy)
    rays = np.zeros_like(metal)
    for order in rng.integers(3, 14, 4):
        rays += np.cos(int(order) * angle + np.float32(rng.uniform(0, 2 * np.pi)))
    peak = min(float(metal.max()), 6000.0) / 3000.0
    out = rays * np.float32(0.5 * strength * peak) / (1 + distance / 6)
    out[distance > 110] = 0
    return np.asarray(out, np.float32)


def _gain(shape: tuple[int, ...], spectrum: NoiseSpectrum) -> Floats:
    """Transfer function of unit variance for `rfft2`."""
    fy = np.fft.fftfreq(shape[0])[:, None]
    fx = np.fft.rfftfreq(shape[1])
    f = np.hypot(fy, fx)
    gain = np.maximum(f, 0.01) ** spectrum.rise * np.exp(-((f / spectrum.cutoff) ** spectrum.fall))
    # Columns of rfft2 other than the first (and last) represent two frequencies each.
    twice = np.full(fx.shape, 2.0)
    twice[0] = 1.0
    if shape[1] % 2 == 0:
        twice[-1] = 1.0
    power = float((gain**2 * twice).sum() / (shape[0] * shape[1]))
    return np.asarray(gain / np.sqrt(power), np.float32)


def _lateral(shape: tuple[int, int, int], rng: np.random.Generator) -> Floats:
    """Streaks along the rows with unit standard deviation, of varying amplitude between rows."""
    width = -(-shape[2] // 16)
    coarse = rng.standard_normal((shape[0], shape[1], width), dtype=np.float32)
    coarse = gaussian_filter(coarse, (0, 0.9, 1.6))
    # Photon starvation: rows with much bone have more streaks.
    loud = np.exp(gaussian_filter(rng.standard_normal((shape[0], shape[1], 1)), (1, 18, 0)) * 12)
    coarse *= np.clip(loud, 0.3, 3).astype(np.float32)
    fine: Floats = zoom(coarse, (1, 1, 16), order=1)[:, :, : shape[2]]
    fine /= fine.std()
    return fine
