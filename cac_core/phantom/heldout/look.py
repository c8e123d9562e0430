"""How a scan looks: slices, dose, kernel, motion, artefacts, and how much calcium people have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cac_core.phantom.heldout.ungated import Beating, draw_beating

#: Contrast of calcium relative to 120 kVp, by tube voltage; approximate.
CALCIUM_BY_KVP = {100: 1.18, 110: 1.08, 120: 1.0, 130: 0.95, 140: 0.9}


@dataclass(frozen=True)
class Look:
    """Acquisition and population of a scan.

    Attributes
    ----------
    increment_mm, thickness_mm : of the slices; thicker slices than increments overlap.
    noise_hu : range of the noise in the heart.
    artery_shares : share of plaques in LM, LAD, LCX and RCA.
    lined_share : share of people whose arteries are lined with calcium.
    noncoronary_times : how much more often than in patients structures other than arteries are
        calcified.
    kvp : tube voltage, a key of `CALCIUM_BY_KVP`.
    sharpness : in-plane kernel; 0 unchanged, negative smoother, positive edge-enhancing.
    beating : motion during a rotation; None for a mean over displacements of calcium only.
    device_share : chance of each kind of lead, catheter, wire or rod.
    arms : whether arms lie beside the chest.
    hardening : strength of bands between dense things; 0 for none.
    """

    increment_mm: float = 5.0
    thickness_mm: float = 5.0
    noise_hu: tuple[float, float] = (18.0, 28.0)
    artery_shares: tuple[float, float, float, float] = (0.08, 0.45, 0.18, 0.29)
    lined_share: float = 0.05
    noncoronary_times: float = 1.0
    kvp: int = 120
    sharpness: float = 0.0
    beating: Beating | None = None
    device_share: float = 0.0
    arms: bool = False
    hardening: float = 0.0


#: Look of the frozen test sets.
TEST_LOOK = Look()


def draw_look(rng: np.random.Generator) -> Look:
    """The look of a training scan: any scanner, any motion, all arteries equally often."""
    thin = rng.random() < 0.12
    increment = float(rng.uniform(1.9, 2.5) if thin else rng.choice([2.5, 3.0, 3.27, 3.75, 4, 5]))
    if rng.random() < 0.08:
        increment = float(rng.uniform(5, 8))
    overlap = float(rng.uniform(1, 2)) if rng.random() < 0.4 else 1.0
    thickness = min(increment * overlap, max(increment, 6.0))
    return Look(
        increment_mm=increment,
        thickness_mm=thickness,
        noise_hu=(10.0, 24.0) if thickness > 4 else (14.0, 34.0),
        artery_shares=(0.25, 0.25, 0.25, 0.25),
        lined_share=0.2,
        noncoronary_times=2.0,
        kvp=int(rng.choice(list(CALCIUM_BY_KVP), p=[0.05, 0.15, 0.5, 0.15, 0.15])),
        sharpness=float(rng.uniform(-1, 0.4) if rng.random() < 0.7 else rng.uniform(0.4, 1)),
        beating=draw_beating(rng) if rng.random() < 0.8 else None,
        device_share=0.06,
        arms=bool(rng.random() < 0.3),
        hardening=float(rng.uniform(0.3, 1.5)) if rng.random() < 0.5 else 0.0,
    )
