"""The scoring protocol: every choice that changes an Agatston score, with a digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal


def _rule(default: Any, description: str, example: str | None = None) -> Any:
    """A field with its description, and an example (TOML) if it has no default."""
    return field(default=default, metadata={"description": description, "example": example})


@dataclass(frozen=True, slots=True)
class ScoringProtocol:
    """Rules of the Agatston score (Agatston et al., J Am Coll Cardiol 1990;15:827).

    Lesions are connected components within a slice; the density weight follows from the peak HU of
    the lesion; the sum is scaled by slice increment / `reference_increment_mm`, as usual for slices
    that are not 3 mm apart.

    The metadata of each field describe it, also for the settings file.

    Raises
    ------
    ValueError
        If a number is not finite, not positive (the minimum area may be 0), or the edges do not
        increase.
    """

    threshold_hu: float = _rule(130.0, "calcium threshold at 120 kVp, HU")
    connectivity: Literal[4, 8] = _rule(8, "neighbours of a pixel: 4 or 8")
    min_area_mm2: float = _rule(1.0, "smallest area of a lesion, mm2")
    weight_edges_hu: tuple[float, float, float] = _rule(
        (200.0, 300.0, 400.0), "peak HU from which the density weight is 2, 3 and 4"
    )
    reference_increment_mm: float = _rule(3.0, "slice increment that defines the score, mm")
    kvp_rule: Literal["flag", "table"] = _rule(
        "flag", "at other tube voltages than 120 kVp: flag the score, or take the table below"
    )
    kvp_thresholds_hu: tuple[tuple[float, float], ...] = _rule(
        (), "pairs of tube voltage (kV) and threshold (HU)"
    )
    mass_calibration_mg_per_ml_hu: float | None = _rule(
        None, "calibration factor of the calcium mass; without a value, no mass", "0.8"
    )

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
