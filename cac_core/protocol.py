"""The scoring protocol: every choice that changes an Agatston score, with a digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal


@dataclass(frozen=True, slots=True)
class ScoringProtocol:
    """Rules of the Agatston score (Agatston et al., J Am Coll Cardiol 1990;15:827).

    Lesions are connected components within a slice; the density weight follows from the peak HU of
    the lesion; the sum is scaled by slice increment / `reference_increment_mm`, as usual for slices
    that are not 3 mm apart.

    Parameters
    ----------
    threshold_hu : calcium threshold at 120 kVp, HU.
    connectivity : 4 or 8 neighbours of a pixel.
    min_area_mm2 : smallest area of a lesion.
    weight_edges_hu : peak HU from which the density weight is 2, 3 and 4.
    reference_increment_mm : slice increment for which the score is defined.
    kvp_rule, kvp_thresholds_hu : thresholds at other tube voltages, see
        `cac_core.scoring.agatston.threshold_for_kvp`.
    mass_calibration_mg_per_ml_hu : calibration factor of the calcium mass; None for no mass.

    Raises
    ------
    ValueError
        If a number is not finite, not positive (the minimum area may be 0), or the edges do not
        increase.
    """

    threshold_hu: float = 130.0
    connectivity: Literal[4, 8] = 8
    min_area_mm2: float = 1.0
    weight_edges_hu: tuple[float, float, float] = (200.0, 300.0, 400.0)
    reference_increment_mm: float = 3.0
    kvp_rule: Literal["flag", "table"] = "flag"
    kvp_thresholds_hu: tuple[tuple[float, float], ...] = ()
    mass_calibration_mg_per_ml_hu: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that give a score without a meaning."""
        positive = {
            "threshold_hu": self.threshold_hu,
            "reference_increment_mm": self.reference_increment_mm,
            "mass_calibration_mg_per_ml_hu": self.mass_calibration_mg_per_ml_hu,
        }
        for name, value in positive.items():
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0, not {value:g}")
        if not 0 <= self.min_area_mm2 < math.inf:
            raise ValueError(f"min_area_mm2 must be a number from 0, not {self.min_area_mm2:g}")
        if not self.threshold_hu <= self.weight_edges_hu[0]:
            raise ValueError("weight_edges_hu must not begin below threshold_hu")
        if not all(low < high < math.inf for low, high in pairwise(self.weight_edges_hu)):
            raise ValueError("weight_edges_hu must be three increasing numbers")
        for kvp, threshold in self.kvp_thresholds_hu:
            if not (0 < kvp < math.inf and 0 < threshold < math.inf):
                raise ValueError("kvp_thresholds_hu must be pairs of numbers above 0")

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all fields as canonical JSON."""
        text = json.dumps(_canonical(dataclasses.asdict(self)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: object) -> object:
    """Convert every number to float: 130 and 130.0 must have the same digest."""
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
