"""The Agatston score, calcium volume and mass, and the rule for the tube voltage.

Agatston: sum over lesions and slices of area in mm2 x density weight (1 to 4, from the peak HU)
x slice increment / 3 mm (Agatston et al., J Am Coll Cardiol 1990;15:827).

Volume: number of voxels x voxel volume over the same lesion pixels, in mm3, without interpolation
between slices.

Mass: m = c x sum over lesions of (volume x mean HU), with the calibration factor c in mg/ml per HU
of scanner and protocol (McCollough et al., Radiology 2007;243:527). Without c no mass is given: the
factor is measured on a phantom and does not apply to other scanners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cac_core.categories import cac_category
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.lesions import CORONARY, NONCORONARY, Lesions
from schemas.codes import QualityFlag

#: Tube voltage for which the 130 HU threshold and the density weights are defined.
REFERENCE_KVP = 120.0

#: (kVp, HU) pairs for `ScoringProtocol.kvp_thresholds_hu`: thresholds equivalent to 130 HU at
#: lower voltages, from Gräni et al., Eur Heart J Cardiovasc Imaging 2018;19:1362, doi
#: 10.1093/ehjci/jey019 (gated calcium scans, one vendor, against 120 kVp in the same patients).
#: Their weight limits, 271/408/544 at 80 kVp and 318/477/636 at 70 kVp, are 200/300/400 scaled by
#: threshold/130 to within 2 HU, as in `density_weight`. No published table is known for 110, 130
#: and 140 kVp, which many CTAC scans use: those keep 130 HU and get a flag, unless a site sets its
#: own thresholds.
GRANI_2018_THRESHOLDS_HU: tuple[tuple[float, float], ...] = ((70.0, 207.0), (80.0, 177.0))

#: Headers round the voltage; no scanner has steps as small as this.
_KVP_TOLERANCE = 0.5


@dataclass(frozen=True, slots=True)
class CalciumScore:
    """Calcium of one study. All but `agatston_noncoronary` count coronary lesions only.

    Parameters
    ----------
    agatston : Agatston score.
    agatston_noncoronary : the same sum over non-coronary lesions inside the heart.
    calcium_volume_mm3 : volume of the lesion voxels.
    calcium_mass_mg : calcium mass; None where the protocol has no calibration.
    n_lesions : coronary lesions, counted slice by slice.
    cac_category : `0`, `1-100`, `101-400` or `>400`.
    """

    agatston: float
    agatston_noncoronary: float
    calcium_volume_mm3: float
    calcium_mass_mg: float | None
    n_lesions: int
    cac_category: str


def score_calcium(lesions: Lesions, protocol: ScoringProtocol) -> CalciumScore:
    """Sum the lesions of a study to its scores.

    Parameters
    ----------
    lesions : from `label_lesions` with the same protocol.
    protocol : rules of the score.
    """
    coronary = lesions.calcium_class == CORONARY
    agatston = _sum(lesions.agatston[coronary])
    category = cac_category(agatston)
    assert category is not None
    calibrated = protocol.mass_calibration_mg_per_ml_hu is not None
    return CalciumScore(
        agatston=agatston,
        agatston_noncoronary=_sum(lesions.agatston[lesions.calcium_class == NONCORONARY]),
        calcium_volume_mm3=_sum(lesions.volume_mm3[coronary]),
        calcium_mass_mg=_sum(lesions.mass_mg[coronary]) if calibrated else None,
        n_lesions=int(np.count_nonzero(coronary)),
        cac_category=category,
    )


def threshold_for_kvp(
    kvp: float | None, protocol: ScoringProtocol
) -> tuple[float, tuple[QualityFlag, ...]]:
    """Return the calcium threshold in HU for a tube voltage, and the flags that it raises.

    At 120 kVp, and where the voltage is unknown (flag `missing_kvp`), this is the threshold of the
    protocol. At another voltage, rule `table` takes the entry of the table within 0.5 kV (flag
    `kvp_threshold_adjusted`); without an entry, or with rule `flag`, the threshold of the protocol
    is kept (flag `kvp_not_120`). Nothing is interpolated.

    Parameters
    ----------
    kvp : tube voltage in kV; None, NaN and values below or equal to 0 are unknown.
    protocol : rules of the score.
    """
    if kvp is None or not math.isfinite(kvp) or kvp <= 0:
        return protocol.threshold_hu, (QualityFlag.MISSING_KVP,)
    if abs(kvp - REFERENCE_KVP) <= _KVP_TOLERANCE:
        return protocol.threshold_hu, ()
    if protocol.kvp_rule == "table":
        for table_kvp, threshold in protocol.kvp_thresholds_hu:
            if abs(kvp - table_kvp) <= _KVP_TOLERANCE:
                return threshold, (QualityFlag.KVP_THRESHOLD_ADJUSTED,)
    return protocol.threshold_hu, (QualityFlag.KVP_NOT_120,)


def _sum(values: NDArray[np.float64]) -> float:
    # Exact sum, rounded: neither the order of the lesions nor the last binary digit of a product
    # may move a whole-number score across the edge of a category.
    return round(math.fsum(values.tolist()), 9)
