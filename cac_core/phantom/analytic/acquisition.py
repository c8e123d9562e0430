"""Acquisition and reconstruction settings of analytic scans, as at the sites of the paper."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cac_core.phantom.analytic.noise import NoiseSpectrum, draw_noise_spectrum


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """Acquisition and reconstruction of one scan.

    `sharpening` is the overshoot of an edge-enhancing kernel (0 none); `field_radius_mm` the radius
    of the reconstructed circle, with air outside; `beating_mm` the distance between the two
    positions in which a moving artery is seen, `motion_sigma_mm` the blur at each.
    """

    slice_increment_mm: float
    pixel_spacing_mm: float
    tube_current_ma: float
    kvp: float = 120.0
    n_rows: int = 512
    in_plane_sigma_mm: float = 0.85
    noise_spectrum: NoiseSpectrum = field(default_factory=NoiseSpectrum)
    motion_sigma_mm: float = 1.0
    beating_mm: float = 0.0
    sharpening: float = 0.0
    shading_hu: float = 0.0
    field_radius_mm: float = 1000.0
    blood_excess_hu: float = 0.0  # contrast medium, for planted defects


def draw_settings(rng: np.random.Generator) -> ScanSettings:
    """Acquisition of the paper's training sites: 2.5, 3 and 5 mm; 20 to about 400 mA."""
    increment = float(rng.choice([2.5, 3.0, 5.0], p=[0.25, 0.2, 0.55]))
    low_dose = increment == 5.0 or rng.random() < 0.6
    return _draw_scanner(
        rng,
        increment,
        float(
            rng.choice([20, 30, 60] if increment == 5.0 else [45, 60])
            if low_dose
            else rng.uniform(150, 420)
        ),
    )


def draw_external_settings(rng: np.random.Generator) -> ScanSettings:
    """Acquisition of the paper's external site: 5 mm, 20 mA, 120 kV."""
    settings = _draw_scanner(rng, 5.0, 20.0)
    return settings if settings.kvp == 120.0 else _draw_scanner(rng, 5.0, 20.0)


def _draw_scanner(rng: np.random.Generator, increment: float, current: float) -> ScanSettings:
    spacing = float(rng.choice([0.78125, 0.8789, 0.9766, 1.0742]))
    return ScanSettings(
        slice_increment_mm=increment,
        pixel_spacing_mm=spacing,
        tube_current_ma=current,
        kvp=120.0 if rng.random() < 0.95 else 130.0,
        in_plane_sigma_mm=float(rng.uniform(0.6, 1.1)),
        noise_spectrum=draw_noise_spectrum(rng),
        motion_sigma_mm=float(rng.uniform(0.3, 1.5)),
        beating_mm=float(rng.uniform(0.5, 4.0)) if rng.random() < 0.5 else 0.0,
        sharpening=float(rng.uniform(0.1, 0.7)) if rng.random() < 0.35 else 0.0,
        shading_hu=float(rng.uniform(0, 9)),
        field_radius_mm=float(rng.uniform(0.42, 0.5)) * 512 * spacing
        if rng.random() < 0.3
        else 1000.0,
    )
