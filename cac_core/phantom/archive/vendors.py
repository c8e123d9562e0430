"""Header values of SPECT/CT systems of three vendors, for the synthetic archive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Vendor:
    """Header values of the CTAC series of a scanner model, and the layout of its exports."""

    manufacturer: str
    model: str
    series_description: str
    kernel: str
    image_type: tuple[str, ...]
    intercept: int
    signed: bool
    padding: int | None  # stored value outside the circular field of view
    implicit_vr: bool
    rle: bool
    descending: bool
    layout: str  # pattern of the path inside the study's folder
    nm_descriptions: tuple[str, str]


VENDORS: tuple[Vendor, ...] = (
    Vendor(
        "GE MEDICAL SYSTEMS",
        "Discovery NM/CT 670",
        "CTAC 5.0 STD",
        "STANDARD",
        ("ORIGINAL", "PRIMARY", "AXIAL"),
        -1024,
        True,
        -2000,
        False,
        False,
        True,
        "CT{series:03d}/i{number:06d}.CTDC.{number}",
        ("STRESS_IRACSC", "RESTIRACSC"),
    ),
    Vendor(
        "GE MEDICAL SYSTEMS",
        "Infinia",
        "AC CT",
        "STANDARD",
        ("ORIGINAL", "PRIMARY", "AXIAL"),
        -1024,
        True,
        None,
        True,
        False,
        False,
        "{number:08d}.dcm",
        ("STRESS AC", "REST AC"),
    ),
    Vendor(
        "SIEMENS",
        "SymbiaT6",
        "AC_CT_SPECT  5.0  B08s",
        "B08s",
        ("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"),
        -1024,
        False,
        None,
        False,
        False,
        True,
        "{series:02d}/{number:05d}.IMA",
        ("MyoStress [AC]", "MyoRest [AC]"),
    ),
    Vendor(
        "SIEMENS",
        "Symbia Intevo 16",
        "CT Attenuation  3.0  B30s",
        "B30s",
        ("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"),
        -1024,
        False,
        None,
        False,
        True,
        False,
        "SER{series:04d}/IM{number:04d}",
        ("Stress AC Recon", "Rest AC Recon"),
    ),
    Vendor(
        "Philips",
        "Precedence 16P",
        "LOW DOSE CT ATTEN",
        "B",
        ("ORIGINAL", "PRIMARY", "AXIAL"),
        -1000,
        True,
        None,
        False,
        False,
        False,
        "part{half}/img-{series}-{number}",
        ("STRESS-AC", "REST-AC"),
    ),
)


def pick_vendor(rng: np.random.Generator) -> Vendor:
    """Draw a vendor with equal probability."""
    return VENDORS[int(rng.integers(len(VENDORS)))]
