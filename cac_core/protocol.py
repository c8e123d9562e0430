"""The scoring protocol: every choice that changes an Agatston score, frozen and digested."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ScoringProtocol:
    """Rules of one Agatston score (Agatston et al., J Am Coll Cardiol 1990;15:827).

    Lesions are two-dimensional, one per connected component and slice; the density weight
    comes from the lesion's peak HU in that slice; the sum is scaled by the slice increment
    over `reference_increment_mm`, as is usual for slices that are not 3 mm apart.
    """

    threshold_hu: float = 130.0
    connectivity: Literal[4, 8] = 8
    min_area_mm2: float = 1.0
    weight_edges_hu: tuple[float, float, float] = (200.0, 300.0, 400.0)
    reference_increment_mm: float = 3.0
    kvp_rule: Literal["flag", "table"] = "flag"
    kvp_thresholds_hu: tuple[tuple[float, float], ...] = ()
    mass_calibration_mg_per_ml_hu: float | None = None

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON of all fields."""
        text = json.dumps(_canonical(dataclasses.asdict(self)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: object) -> object:
    """Every number as a float: 130 and 130.0 are the same rule and must have the same digest."""
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
